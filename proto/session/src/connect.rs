//! `connect`: what the client says of itself, and what it gets to hear.

use amf::Value;
use model::{AppInstance, AppName, InstanceName, NameError, SessionId, VhostName};

use crate::command::{Command, whole};
use crate::event::{Capabilities, Connect, ObjectEncoding};
use crate::limits::{CODEC_NAME_MAX, CODECS_MAX};
use crate::status::{Code, Status};

/// What we can do of enhanced RTMP: we forward messages as they are, so multitrack,
/// ModEx and the nanosecond offset pass through, and we ask clients to reconnect.
const CAPS_EX: u32 = 0b1111;

/// Enhanced RTMP v2, FourCcInfoMask: any codec can be forwarded.
const CAN_FORWARD: f64 = 4.0;

/// `capabilities` as Flash Media Server has it; clients do not look into it.
const CAPABILITIES: f64 = 31.0;

/// Reads the command.
///
/// # Errors
/// The application or its instance is no name.
pub(crate) fn parse(command: Command) -> Result<Connect, NameError> {
    let object = &command.object;
    let tc_url = text(object, "tcUrl");
    let url = Url::parse(&tc_url);
    // `app` is what counts; a client that leaves it out still says it in `tcUrl`.
    let app = text(object, "app");
    let (path, query) = split_query(if app.is_empty() { url.path } else { &app });
    let query = if query.is_empty() { url.query } else { query };
    Ok(Connect {
        at: application(path)?,
        host: url.host.to_owned(),
        query: query.to_owned(),
        page_url: text(object, "pageUrl"),
        swf_url: text(object, "swfUrl"),
        flash_ver: text(object, "flashVer"),
        encoding: encoding(object),
        capabilities: capabilities(object),
        session: command
            .args
            .first()
            .and_then(|arg| arg.get("selvageSession"))
            .and_then(Value::as_str)
            .and_then(session_id),
        tc_url: tc_url.clone(),
        object: command.object,
        args: command.args,
    })
}

/// The properties and the information of `_result`.
pub(crate) fn accepted(
    version: &str,
    encoding: ObjectEncoding,
    capabilities: &Capabilities,
    traceparent: bool,
) -> (Value, Status) {
    let mut properties = vec![
        ("fmsVer", Value::from(format!("FMS/{version}"))),
        ("capabilities", CAPABILITIES.into()),
        ("mode", 1.0.into()),
    ];
    // Enhanced RTMP v2, "Enhancing NetConnection connect Command": the server states its
    // support to a client that stated its own.
    if !capabilities.codecs.is_empty() {
        let any = || Value::object([("*", Value::Number(CAN_FORWARD))]);
        properties.push(("fourCcList", Value::array(["*".into()])));
        properties.push(("videoFourCcInfoMap", any()));
        properties.push(("audioFourCcInfoMap", any()));
    }
    if capabilities.caps_ex != 0 {
        let common = capabilities.caps_ex & CAPS_EX;
        properties.push(("capsEx", Value::Number(f64::from(common))));
    }
    if traceparent {
        properties.push(("traceparent", true.into()));
    }
    let number = match encoding {
        ObjectEncoding::Amf0 => 0.0,
        ObjectEncoding::Amf3 => 3.0,
    };
    let status = Status::connection(Code::ConnectSuccess)
        .with("objectEncoding", number)
        .with(
            "data",
            Value::ecma_array([("version", Value::from(version))]),
        );
    (Value::object(properties), status)
}

/// `app[/instance[/more]]`: the first segment is the application, the rest its
/// instance.
fn application(path: &str) -> Result<AppInstance, NameError> {
    let path = path.trim_matches('/');
    let (app, instance) = path.split_once('/').unwrap_or((path, ""));
    let instance = if instance.is_empty() {
        InstanceName::default_instance()
    } else {
        InstanceName::new(instance)?
    };
    Ok(AppInstance {
        vhost: VhostName::default_vhost(),
        app: AppName::new(app)?,
        instance,
    })
}

/// The parts of `rtmp://user@host:port/path?query` that are of interest.
struct Url<'a> {
    host: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Url<'a> {
    /// Whatever cannot be understood is empty.
    fn parse(text: &'a str) -> Self {
        let (address, query) = split_query(text);
        let Some((_, rest)) = address.split_once("://") else {
            return Self {
                host: "",
                path: "",
                query,
            };
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let authority = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let host = match authority.strip_prefix('[') {
            Some(v6) => v6.split_once(']').map_or("", |(host, _)| host),
            None => authority
                .split_once(':')
                .map_or(authority, |(host, _)| host),
        };
        Self { host, path, query }
    }
}

/// A session's number as it is written: 32 hexadecimal digits.
pub(crate) fn session_id(text: &str) -> Option<SessionId> {
    // `from_str_radix` takes a sign.
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = digits.then(|| u128::from_str_radix(text, 16).ok())??;
    Some(SessionId(number))
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

fn text(object: &Value, key: &str) -> String {
    object
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn encoding(object: &Value) -> ObjectEncoding {
    match object.get("objectEncoding").and_then(Value::as_f64) {
        Some(3.0) => ObjectEncoding::Amf3,
        Some(_) | None => ObjectEncoding::Amf0,
    }
}

fn capabilities(object: &Value) -> Capabilities {
    let mut codecs: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        let fits = !name.is_empty() && name.len() <= CODEC_NAME_MAX;
        if fits && codecs.len() < CODECS_MAX && !codecs.iter().any(|c| c == name) {
            codecs.push(name.to_owned());
        }
    };
    match object.get("fourCcList") {
        Some(Value::StrictArray(list)) => list.iter().filter_map(Value::as_str).for_each(&mut add),
        // An array with named pairs "0", "1", …, as some encoders write it.
        Some(list) => {
            let pairs = list.pairs().unwrap_or_default();
            pairs
                .iter()
                .filter_map(|(_, v)| v.as_str())
                .for_each(&mut add);
        }
        None => {}
    }
    for map in ["videoFourCcInfoMap", "audioFourCcInfoMap"] {
        let pairs = object.get(map).and_then(Value::pairs).unwrap_or_default();
        pairs.iter().for_each(|(name, _)| add(name));
    }
    // Red5 and those who learned from it write `CapsEx`.
    let caps_ex = ["capsEx", "CapsEx"]
        .into_iter()
        .find_map(|key| object.get(key).and_then(Value::as_f64))
        .and_then(whole)
        .unwrap_or(0);
    Capabilities { codecs, caps_ex }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(pairs: Vec<(&str, Value)>) -> Result<Connect, NameError> {
        parse(Command {
            name: "connect".into(),
            transaction: None,
            object: Value::object(pairs),
            args: Vec::new(),
        })
    }

    fn of_app(app: &str) -> Result<(String, String), NameError> {
        connect(vec![("app", app.into())]).map(|c| (c.at.to_string(), c.query))
    }

    #[test]
    fn the_first_segment_is_the_application_and_the_rest_its_instance() {
        assert_eq!(of_app("live").unwrap().0, "live/_definst_");
        assert_eq!(of_app("live/").unwrap().0, "live/_definst_");
        assert_eq!(of_app("/live/_definst_").unwrap().0, "live/_definst_");
        assert_eq!(of_app("chat/room/1").unwrap().0, "chat/room/1");
        assert_eq!(
            of_app("live?k=v&x").unwrap(),
            ("live/_definst_".into(), "k=v&x".into())
        );
        assert_eq!(
            of_app("live/i?k=a/b").unwrap(),
            ("live/i".into(), "k=a/b".into())
        );
        assert_eq!(of_app(""), Err(NameError::Empty));
        assert_eq!(of_app("///"), Err(NameError::Empty));
        assert_eq!(of_app("live/../x"), Err(NameError::BadSegment));
        assert_eq!(of_app("live//x"), Err(NameError::BadSegment));
    }

    #[test]
    fn tc_url_gives_the_host_and_what_the_application_leaves_out() {
        let url = |tc: &str| {
            let c = connect(vec![("tcUrl", tc.into())]).unwrap();
            (c.host, c.at.to_string(), c.query)
        };
        let of = |h: &str, a: &str, q: &str| (h.to_owned(), a.to_owned(), q.to_owned());
        assert_eq!(url("rtmp://h/live"), of("h", "live/_definst_", ""));
        assert_eq!(url("rtmps://h:443/a/b?t=1"), of("h", "a/b", "t=1"));
        assert_eq!(url("rtmp://u:p@h:1935/a"), of("h", "a/_definst_", ""));
        assert_eq!(url("rtmp://[::1]:1935/a"), of("::1", "a/_definst_", ""));
        assert_eq!(url("rtmp://[::1/a"), of("", "a/_definst_", ""));
        let c = connect(vec![("app", "x".into()), ("tcUrl", "nonsense".into())]).unwrap();
        assert_eq!(
            (c.host.as_str(), c.at.to_string().as_str()),
            ("", "x/_definst_")
        );
        let c = connect(vec![
            ("app", "x".into()),
            ("tcUrl", "rtmp://h/x?q=1".into()),
        ])
        .unwrap();
        assert_eq!(c.query, "q=1");
    }

    #[test]
    fn a_client_of_several_edges_says_who_it_is_in_32_digits() {
        let of = |text: &str| {
            let command = Command {
                name: "connect".into(),
                transaction: None,
                object: Value::object([("app", Value::from("live"))]),
                args: vec![Value::object([("selvageSession", Value::from(text))])],
            };
            parse(command).unwrap().session
        };
        let text = "00112233445566778899aabbccddeeFF";
        let id = SessionId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(of(text), Some(id));
        assert_eq!(of(&id.to_string()), Some(id));
        for odd in ["", "+0112233445566778899aabbccddeeff", &text[1..], "é"] {
            assert_eq!(of(odd), None, "{odd}");
        }
        assert_eq!(connect(vec![("app", "x".into())]).unwrap().session, None);
    }

    #[test]
    fn only_the_number_3_means_amf3() {
        let encoding = |v: Value| {
            connect(vec![("app", "x".into()), ("objectEncoding", v)])
                .unwrap()
                .encoding
        };
        assert_eq!(encoding(3.0.into()), ObjectEncoding::Amf3);
        assert_eq!(encoding(Value::Integer(3)), ObjectEncoding::Amf3);
        assert_eq!(encoding(0.0.into()), ObjectEncoding::Amf0);
        assert_eq!(encoding(f64::NAN.into()), ObjectEncoding::Amf0);
        assert_eq!(encoding("3".into()), ObjectEncoding::Amf0);
    }

    #[test]
    fn an_enhanced_client_is_understood_in_both_spellings() {
        let c = connect(vec![
            ("app", "x".into()),
            (
                "fourCcList",
                Value::array(["av01".into(), "hvc1".into(), 5.0.into()]),
            ),
            (
                "videoFourCcInfoMap",
                Value::object([("hvc1", Value::Number(1.0))]),
            ),
            (
                "audioFourCcInfoMap",
                Value::object([("Opus", Value::Number(4.0))]),
            ),
            ("CapsEx", 3.0.into()),
        ])
        .unwrap();
        assert_eq!(c.capabilities.codecs, ["av01", "hvc1", "Opus"]);
        assert!(c.capabilities.reconnect());
        let caps = |v: Value| {
            connect(vec![("app", "x".into()), ("capsEx", v)])
                .unwrap()
                .capabilities
                .caps_ex
        };
        assert_eq!(caps(15.0.into()), 15);
        for odd in [-1.0, 0.5, 1e300, f64::NAN, f64::INFINITY] {
            assert_eq!(caps(odd.into()), 0, "{odd}");
        }
    }

    #[test]
    fn a_flood_of_codecs_is_cut() {
        let list = (0..1000).map(|i| Value::from(format!("{i:04}")));
        let c = connect(vec![
            ("app", "x".into()),
            ("fourCcList", Value::array(list)),
        ])
        .unwrap();
        assert_eq!(c.capabilities.codecs.len(), CODECS_MAX);
    }

    #[test]
    fn only_who_takes_contexts_says_so() {
        let said = |takes: bool| {
            let none = Capabilities::default();
            let (properties, _) = accepted("5,0,17,0", ObjectEncoding::Amf0, &none, takes);
            properties.get("traceparent").cloned()
        };
        assert_eq!(said(true), Some(Value::Boolean(true)));
        assert_eq!(
            said(false),
            None,
            "foreign clients see what they always saw"
        );
    }
}
