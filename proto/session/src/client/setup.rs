//! What a client says in `connect`.

use std::time::Duration;

use amf::Value;
use model::SessionId;

use crate::event::ObjectEncoding;

/// How to connect.
///
/// The defaults are what an enhanced-RTMP player says that decodes everything. Adobe's
/// servers hold back codecs that a client did not announce, so nothing is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The application, its instance and its query: `live/room1?token=x`.
    pub app: String,
    /// The whole address up to the instance: `rtmp://host:1935/live/room1?token=x`.
    pub tc_url: String,
    /// `flashVer`. Servers tell publishers and players of old by it.
    pub flash_ver: String,
    /// `swfUrl`; left out when empty.
    pub swf_url: String,
    /// `pageUrl`; left out when empty.
    pub page_url: String,
    /// `type`; encoders say `nonprivate`. Left out when empty.
    pub kind: String,
    /// The AMF version we understand in what the server sends.
    pub encoding: ObjectEncoding,
    /// `fourCcList` of enhanced RTMP; empty leaves all of enhanced RTMP out.
    pub four_cc: Vec<String>,
    /// What we do with those codecs: bit 0 decode, 1 encode, 2 forward.
    pub four_cc_use: u8,
    /// `capsEx` of enhanced RTMP: bit 0 reconnect, 1 multitrack, 2 ModEx, 3 nanosecond offset.
    pub caps_ex: u8,
    /// Further members of the command object; a member of the same name replaces ours.
    pub extra: Vec<(String, Value)>,
    /// The arguments behind the command object, `onConnect(client, a, b, ...)`.
    pub args: Vec<Value>,
    /// How long the server may take to answer `connect`.
    pub patience: Duration,
    /// Whether to ask `_checkbw` when the server says `onBWDone`, as librtmp does.
    pub check_bandwidth: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            app: String::new(),
            tc_url: String::new(),
            flash_ver: "LNX 32,0,0,465".to_owned(),
            swf_url: String::new(),
            page_url: String::new(),
            kind: String::new(),
            encoding: ObjectEncoding::Amf0,
            four_cc: FOUR_CC.iter().map(|&name| name.to_owned()).collect(),
            four_cc_use: DECODE | FORWARD,
            caps_ex: MULTITRACK | MOD_EX,
            extra: Vec::new(),
            args: Vec::new(),
            patience: Duration::from_secs(10),
            check_bandwidth: false,
        }
    }
}

/// `objectEncoding` as it travels.
fn number(encoding: ObjectEncoding) -> f64 {
    match encoding {
        ObjectEncoding::Amf0 => 0.0,
        ObjectEncoding::Amf3 => 3.0,
    }
}

/// The codecs that enhanced RTMP v2 names; `*` stands for the ones it will name.
const FOUR_CC: [&str; 12] = [
    "*", "av01", "vp09", "vp08", "hvc1", "avc1", "ac-3", "ec-3", "Opus", ".mp3", "fLaC", "mp4a",
];
const DECODE: u8 = 1;
const FORWARD: u8 = 4;
/// `capsEx`: understands a ReconnectRequest.
pub const RECONNECT: u8 = 1;
/// `capsEx`: understands multitrack messages.
pub const MULTITRACK: u8 = 2;
/// `capsEx`: understands ModEx.
pub const MOD_EX: u8 = 4;

impl Setup {
    /// For this application at this address, everything else by default.
    #[must_use]
    pub fn new(app: impl Into<String>, tc_url: impl Into<String>) -> Self {
        Self {
            app: app.into(),
            tc_url: tc_url.into(),
            ..Self::default()
        }
    }

    /// What an encoder says: it encodes rather than decodes, and calls itself FMLE, because
    /// servers offer `releaseStream` and `FCPublish` to that name.
    #[must_use]
    pub fn publisher(app: impl Into<String>, tc_url: impl Into<String>) -> Self {
        Self {
            flash_ver: "FMLE/3.0 (compatible; FMSc/1.0)".to_owned(),
            kind: "nonprivate".to_owned(),
            four_cc_use: 2,
            ..Self::new(app, tc_url)
        }
    }

    /// Says to one of our servers who we are: this connection and others share the session.
    /// The identity is the first argument behind the command object.
    #[must_use]
    pub fn identify(mut self, session: SessionId) -> Self {
        let identity = Value::object([("selvageSession", Value::from(session.to_string()))]);
        self.args.insert(0, identity);
        self
    }

    /// The command object, in the order of Flash Player.
    pub(super) fn command_object(&self) -> Value {
        let mut pairs: Vec<(String, Value)> = vec![("app".to_owned(), self.app.as_str().into())];
        let mut put = |key: &str, value: Value| pairs.push((key.to_owned(), value));
        if !self.kind.is_empty() {
            put("type", self.kind.as_str().into());
        }
        put("flashVer", self.flash_ver.as_str().into());
        if !self.swf_url.is_empty() {
            put("swfUrl", self.swf_url.as_str().into());
        }
        put("tcUrl", self.tc_url.as_str().into());
        put("fpad", false.into());
        // 239 and the two codec sets are what Flash Player 32 says: every codec it ever had.
        put("capabilities", 239.0.into());
        put("audioCodecs", 3575.0.into());
        put("videoCodecs", 252.0.into());
        put("videoFunction", 1.0.into());
        if !self.page_url.is_empty() {
            put("pageUrl", self.page_url.as_str().into());
        }
        put("objectEncoding", number(self.encoding).into());
        if !self.four_cc.is_empty() {
            put(
                "fourCcList",
                Value::array(self.four_cc.iter().map(|name| name.as_str().into())),
            );
            let masks = || Value::object([("*", Value::from(f64::from(self.four_cc_use)))]);
            put("videoFourCcInfoMap", masks());
            put("audioFourCcInfoMap", masks());
            put("capsEx", f64::from(self.caps_ex).into());
        }
        for (key, value) in &self.extra {
            match pairs.iter_mut().find(|(known, _)| known == key) {
                Some((_, known)) => *known = value.clone(),
                None => pairs.push((key.clone(), value.clone())),
            }
        }
        Value::object(pairs)
    }
}
