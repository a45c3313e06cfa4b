//! THE table of info objects: every status code we send, with its level and text.
//!
//! The texts are those of Flash Media Server, because some clients parse them. `{}` in
//! a text stands for the stream's name.

use amf::Value;

use crate::limits::ECHO_MAX;

/// How serious a status is: `info.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something went as it should.
    Status,
    /// Something goes badly.
    Warning,
    /// Something was refused or failed.
    Error,
}

impl Level {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Declares the codes with their rows.
macro_rules! table {
    ($($(#[$doc:meta])* $name:ident $level:ident $code:literal $text:literal;)*) => {
        /// A status code: `info.code`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As it is written: `NetStream.Play.Start`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Its level.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $(Self::$name => Level::$level,)* }
            }

            /// Its text; `{}` stands for a name.
            const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

table! {
    /// `connect` is accepted.
    ConnectSuccess Status "NetConnection.Connect.Success" "Connection succeeded.";
    /// `connect` is refused, or sent elsewhere.
    ConnectRejected Error "NetConnection.Connect.Rejected" "[ Server.Reject ] : ({}).";
    /// `connect` names no application of ours.
    ConnectInvalidApp Error "NetConnection.Connect.InvalidApp"
        "[ Server.Reject ] : (_defaultRoot_, _defaultVHost_) : Application ({}) is not defined.";
    /// `connect` could not be served.
    ConnectFailed Error "NetConnection.Connect.Failed" "Connection failed.";
    /// The server closes the connection.
    ConnectClosed Status "NetConnection.Connect.Closed" "Connection closed.";
    /// The application is being unloaded.
    ConnectAppShutdown Error "NetConnection.Connect.AppShutdown"
        "The application has been shut down.";
    /// Enhanced RTMP v2: please connect anew.
    ConnectReconnectRequest Status "NetConnection.Connect.ReconnectRequest"
        "The server asks the client to reconnect.";
    /// A remote call failed.
    CallFailed Error "NetConnection.Call.Failed" "Method not found ({}).";
    /// A publish is accepted.
    PublishStart Status "NetStream.Publish.Start" "{} is now published.";
    /// A publish is refused.
    PublishBadName Error "NetStream.Publish.BadName" "{} is not available for publishing.";
    /// A publish ended.
    UnpublishSuccess Status "NetStream.Unpublish.Success" "{} is now unpublished.";
    /// The recording of a publish started.
    RecordStart Status "NetStream.Record.Start" "Recording of {} started.";
    /// The recording of a publish ended.
    RecordStop Status "NetStream.Record.Stop" "Recording of {} stopped.";
    /// The recording is refused.
    RecordNoAccess Error "NetStream.Record.NoAccess" "No access to record {}.";
    /// The playlist was emptied.
    PlayReset Status "NetStream.Play.Reset" "Playing and resetting {}.";
    /// A play is accepted.
    PlayStart Status "NetStream.Play.Start" "Started playing {}.";
    /// A play ended.
    PlayStop Status "NetStream.Play.Stop" "Stopped playing {}.";
    /// There is no such stream.
    PlayStreamNotFound Error "NetStream.Play.StreamNotFound"
        "Failed to play {}; stream not found.";
    /// A play is refused.
    PlayFailed Error "NetStream.Play.Failed" "Failed to play {}.";
    /// The player is too slow, and frames were left out for it.
    PlayInsufficientBandwidth Warning "NetStream.Play.InsufficientBW"
        "Insufficient bandwidth for {}.";
    /// A publisher arrived.
    PlayPublishNotify Status "NetStream.Play.PublishNotify" "{} is now published.";
    /// The publisher left.
    PlayUnpublishNotify Status "NetStream.Play.UnpublishNotify" "{} is now unpublished.";
    /// `play2` is accepted.
    PlayTransition Status "NetStream.Play.Transition" "Transition to {}.";
    /// The transition of `play2` is done (`onPlayStatus`).
    PlayTransitionComplete Status "NetStream.Play.TransitionComplete" "Transition to {} done.";
    /// What was asked for is played (`onPlayStatus`).
    PlayComplete Status "NetStream.Play.Complete" "Playing of {} is complete.";
    /// A player paused.
    PauseNotify Status "NetStream.Pause.Notify" "Pausing {}.";
    /// A player goes on.
    UnpauseNotify Status "NetStream.Unpause.Notify" "Unpausing {}.";
    /// A player continues at another point.
    SeekNotify Status "NetStream.Seek.Notify" "Seeking {}.";
    /// There is no seeking here.
    SeekFailed Error "NetStream.Seek.Failed" "Failed to seek {}; the stream is live.";
    /// Not a time.
    SeekInvalidTime Error "NetStream.Seek.InvalidTime" "Invalid time to seek to in {}.";
    /// An argument is of no use.
    InvalidArgument Error "NetStream.InvalidArg" "Invalid argument to {}.";
    /// The stream failed, or the message stream does not exist.
    Failed Error "NetStream.Failed" "{} failed.";
}

impl Code {
    /// The code of a text, if it is one that we send.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }

    /// Its description for a name.
    #[must_use]
    pub fn description(self, name: &str) -> String {
        self.text().replace("{}", cut(name))
    }
}

/// A status about to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    code: Code,
    description: String,
    details: Option<String>,
    more: Vec<(&'static str, Value)>,
}

impl Status {
    /// A status about the connection.
    #[must_use]
    pub fn connection(code: Code) -> Self {
        Self {
            code,
            description: code.description(""),
            details: None,
            more: Vec::new(),
        }
    }

    /// A status about a stream of this name.
    #[must_use]
    pub fn stream(code: Code, name: &str) -> Self {
        Self {
            code,
            description: code.description(name),
            details: Some(cut(name).to_owned()),
            more: Vec::new(),
        }
    }

    /// With another text than the table's.
    #[must_use]
    pub fn describe(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// With one more property.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.more.push((key, value.into()));
        self
    }

    /// The same without the properties that were added.
    pub(crate) fn plain(&self) -> Self {
        Self {
            more: Vec::new(),
            ..self.clone()
        }
    }

    /// The info object. A status about a stream names it (`details`) and the client
    /// (`clientid`), as Flash Media Server does.
    #[must_use]
    pub fn info(self, client_id: &str) -> Value {
        let mut pairs = vec![
            ("level", Value::from(self.code.level().as_str())),
            ("code", Value::from(self.code.as_str())),
            ("description", Value::from(self.description)),
        ];
        if let Some(details) = self.details {
            pairs.push(("details", Value::from(details)));
            pairs.push(("clientid", Value::from(client_id)));
        }
        pairs.extend(self.more);
        Value::object(pairs)
    }
}

/// At most [`ECHO_MAX`] bytes of a peer's text, cut between characters.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(ECHO_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_text_and_none_is_there_twice() {
        for code in Code::ALL {
            assert_eq!(Code::from_text(code.as_str()), Some(*code));
        }
        assert_eq!(Code::from_text("NetStream.Nonsense"), None);
    }

    #[test]
    fn a_stream_status_names_the_stream_and_the_client() {
        let info = Status::stream(Code::PublishStart, "a").info("oAAGAAAA");
        let keys: Vec<&str> = info.pairs().unwrap().iter().map(|(k, _)| &**k).collect();
        assert_eq!(
            keys,
            ["level", "code", "description", "details", "clientid"]
        );
        assert_eq!(info.get("description"), Some(&"a is now published.".into()));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let name = "ж".repeat(1000);
        let text = Code::PlayStart.description(&name);
        assert!(text.len() < ECHO_MAX + 30, "{} bytes", text.len());
        // A name with braces is a name.
        assert_eq!(Code::PlayStart.description("{}"), "Started playing {}.");
    }
}
