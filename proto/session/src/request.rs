//! The arguments of `publish`, `play` and `play2`, understood.

use amf::Value;

use crate::command::Command;
use crate::event::{PlayStart, PlayWindow, PublishMode};

/// The type of a publish. Encoders write all sorts of things here and mean live.
pub(crate) fn publish_mode(arg: Option<&Value>) -> PublishMode {
    match arg.and_then(Value::as_str) {
        Some("record") => PublishMode::Record,
        Some("append") => PublishMode::Append,
        Some("appendWithGap") => PublishMode::AppendWithGap,
        Some(_) | None => PublishMode::Live,
    }
}

/// What a player asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PlayRequest<'a> {
    /// The name as it was written.
    pub(crate) text: &'a str,
    pub(crate) window: PlayWindow,
    pub(crate) switch: Switch,
}

/// What becomes of what was played before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// It is dropped.
    Reset,
    /// It is to be followed by the new.
    Append,
    /// `play2`: it becomes the new, with these words.
    Transition { reason: &'static str, resets: bool },
    /// `play2`: it ends.
    Stop,
}

impl Switch {
    pub(crate) const fn resets(self) -> bool {
        match self {
            Self::Reset => true,
            Self::Transition { resets, .. } => resets,
            Self::Append | Self::Stop => false,
        }
    }
}

impl<'a> PlayRequest<'a> {
    /// `play(name, start, len, reset)`. `None` when the name is no string.
    pub(crate) fn of_play(command: &'a Command) -> Option<Self> {
        let switch = if resets(command.arg(3)) {
            Switch::Reset
        } else {
            Switch::Append
        };
        Some(Self {
            text: command.text(0)?,
            window: window(command.number(1), command.number(2)),
            switch,
        })
    }

    /// `play2({oldStreamName, streamName, start, len, offset, transition})`. `None` when
    /// there is no name or the transition is unknown.
    pub(crate) fn of_play2(command: &'a Command) -> Option<Self> {
        let options = command.arg(0)?;
        let transition = |reason, resets| Switch::Transition { reason, resets };
        let switch = match options.get("transition").map(|t| t.as_str().unwrap_or("?")) {
            None | Some("reset") => transition("reset", true),
            Some("append") => transition("append", false),
            Some("appendAndWait") => transition("appendAndWait", false),
            Some("resume") => transition("resume", false),
            Some("swap") => transition("swap", false),
            Some("switch") => transition("switch", false),
            Some("stop") => Switch::Stop,
            Some(_) => return None,
        };
        let text = options.get("streamName").and_then(Value::as_str);
        let text = if switch == Switch::Stop {
            text.unwrap_or_default()
        } else {
            text?
        };
        let number = |key| options.get(key).and_then(Value::as_f64);
        Some(Self {
            text,
            window: window(number("start"), number("len")),
            switch,
        })
    }
}

/// `start` and `len`.
///
/// RTMP 1.0 §7.2.2.1 counts in seconds, and ActionScript does; but what Flash Player
/// puts on the wire is milliseconds, and so do librtmp (-1000) and FFmpeg (-2000). The
/// special values are taken in both units, times in milliseconds.
fn window(start: Option<f64>, len: Option<f64>) -> PlayWindow {
    let start = match start {
        Some(start) if start >= 0.0 && start.is_finite() => PlayStart::Recorded(start / 1000.0),
        Some(-1.0 | -1000.0) => PlayStart::Live,
        Some(_) | None => PlayStart::LiveOrRecorded,
    };
    // Any negative length is "to the end", as is nonsense.
    let seconds = len
        .filter(|len| *len >= 0.0 && len.is_finite())
        .map(|len| len / 1000.0);
    PlayWindow { start, seconds }
}

/// `reset`: a boolean; or a number, where 2 and 3 are 0 and 1 for readers of logs. It is
/// true when it is left out.
fn resets(arg: Option<&Value>) -> bool {
    match arg {
        Some(Value::Boolean(reset)) => *reset,
        Some(value) => value.as_f64().is_none_or(|n| n != 0.0 && n != 2.0),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(args: Vec<Value>) -> Command {
        Command {
            name: "play".into(),
            transaction: None,
            object: Value::Null,
            args,
        }
    }

    #[test]
    fn start_and_length_are_understood_in_the_units_of_real_players() {
        let of = |start: f64, len: f64| window(Some(start), Some(len));
        for live in [-1.0, -1000.0] {
            assert_eq!(
                of(live, -1.0),
                PlayWindow {
                    start: PlayStart::Live,
                    seconds: None
                }
            );
        }
        for any in [
            -2.0,
            -2000.0,
            -5.0,
            f64::NAN,
            f64::NEG_INFINITY,
            f64::INFINITY,
        ] {
            assert_eq!(
                of(any, -any.abs()).start,
                PlayStart::LiveOrRecorded,
                "{any}"
            );
        }
        assert_eq!(of(1500.0, 2500.0).start, PlayStart::Recorded(1.5));
        assert_eq!(of(1500.0, 2500.0).seconds, Some(2.5));
        assert_eq!(of(0.0, 0.0).seconds, Some(0.0));
        assert_eq!(of(0.0, -1000.0).seconds, None);
        assert_eq!(of(0.0, f64::NAN).seconds, None);
        assert_eq!(
            window(None, None),
            PlayWindow {
                start: PlayStart::LiveOrRecorded,
                seconds: None
            }
        );
    }

    #[test]
    fn reset_may_be_a_boolean_or_a_number_or_missing() {
        let reset = |arg: Value| {
            let command = play(vec!["a".into(), Value::Null, Value::Null, arg]);
            PlayRequest::of_play(&command).unwrap().switch.resets()
        };
        assert!(reset(true.into()) && reset(1.0.into()) && reset(3.0.into()));
        assert!(reset(Value::Null) && reset("no".into()) && reset(f64::NAN.into()));
        assert!(!reset(false.into()) && !reset(0.0.into()) && !reset(2.0.into()));
        assert!(
            PlayRequest::of_play(&play(vec!["a".into()]))
                .unwrap()
                .switch
                .resets()
        );
    }

    #[test]
    fn play2_needs_a_name_and_a_known_transition() {
        let of = |pairs: Vec<(&str, Value)>| {
            let command = play(vec![Value::object(pairs)]);
            PlayRequest::of_play2(&command).map(|p| (p.text.to_owned(), p.switch))
        };
        let reset = Switch::Transition {
            reason: "reset",
            resets: true,
        };
        let swap = Switch::Transition {
            reason: "swap",
            resets: false,
        };
        assert_eq!(
            of(vec![("streamName", "b".into())]),
            Some(("b".into(), reset))
        );
        assert_eq!(
            of(vec![
                ("streamName", "b".into()),
                ("transition", "swap".into())
            ]),
            Some(("b".into(), swap))
        );
        assert_eq!(
            of(vec![("transition", "stop".into())]),
            Some((String::new(), Switch::Stop))
        );
        assert_eq!(of(vec![("transition", "swap".into())]), None);
        assert_eq!(
            of(vec![("streamName", "b".into()), ("transition", "x".into())]),
            None
        );
        assert_eq!(
            of(vec![("streamName", "b".into()), ("transition", 1.0.into())]),
            None
        );
        assert_eq!(PlayRequest::of_play2(&play(vec![])), None);
    }
}
