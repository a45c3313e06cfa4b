use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    node: String,
    #[serde(with = "super::duration")]
    grace: Duration,
    #[serde(with = "super::duration_option")]
    idle: Option<Duration>,
    origins: Vec<String>,
    rtmp: Rtmp,
    admin: Option<Rtmp>,
    password: Secret,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rtmp {
    listen: SocketAddr,
    #[serde(with = "super::bytes")]
    window: u32,
    players: u16,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Plain,
    Tls,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: "edge-0".into(),
            grace: Duration::from_secs(30),
            idle: None,
            origins: vec![],
            rtmp: Rtmp::default(),
            admin: None,
            password: Secret::default(),
        }
    }
}

impl Default for Rtmp {
    fn default() -> Self {
        let listen = ([0, 0, 0, 0], 1935).into();
        Self {
            listen,
            window: 4 << 20,
            players: 1000,
            mode: Mode::Plain,
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Invalid> {
        self.rtmp
            .validate()
            .map_err(|invalid| invalid.within("rtmp"))
    }
}

impl Validate for Rtmp {
    fn validate(&self) -> Result<(), Invalid> {
        if self.players == 0 {
            return Err(Invalid::new("players", self.players, "at least 1"));
        }
        Ok(())
    }
}

fn file(text: &str) -> Sources {
    Sources::new().text("selvage.toml", text)
}

fn refusal(sources: Sources) -> String {
    sources
        .load::<Config>()
        .expect_err("it is refused")
        .to_string()
}

#[test]
fn nothing_said_is_the_default() {
    assert_eq!(
        Sources::new().load::<Config>().unwrap().value,
        Config::default()
    );
    assert_eq!(file("").load::<Config>().unwrap().value, Config::default());
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let text = "node = 'f'\ngrace = '1s'\n[rtmp]\nplayers = 1\nwindow = 65536\n";
    let loaded = file(text)
        .variables([
            ("SELVAGE_GRACE", "2s"),
            ("SELVAGE_RTMP__PLAYERS", "2"),
            ("PATH", "/bin"),
        ])
        .flag("rtmp.players", "--players", 3)
        .flag("rtmp.window", "--window", None::<u32>)
        .load::<Config>()
        .unwrap();
    assert_eq!(loaded.value.node, "f");
    assert_eq!(loaded.value.grace, Duration::from_secs(2));
    assert_eq!(loaded.value.rtmp.players, 3);
    assert_eq!(loaded.value.rtmp.window, 65536);
    assert_eq!(loaded.origin("node").to_string(), "selvage.toml:1");
    assert_eq!(
        loaded.origin("grace").to_string(),
        "environment variable SELVAGE_GRACE"
    );
    assert_eq!(loaded.origin("rtmp.players").to_string(), "flag --players");
    assert_eq!(loaded.origin("rtmp.window").to_string(), "selvage.toml:5");
    assert_eq!(loaded.origin("rtmp.listen"), Origin::Default);
}

#[test]
fn a_tree_of_overrides_sets_what_is_not_none() {
    #[derive(Serialize)]
    struct Flags {
        node: Option<&'static str>,
        grace: Option<&'static str>,
        rtmp: Inner,
    }
    #[derive(Serialize)]
    struct Inner {
        players: Option<u16>,
    }
    let flags = Flags {
        node: None,
        grace: Some("3s"),
        rtmp: Inner { players: Some(7) },
    };
    let loaded = file("node = 'f'")
        .overrides(flags)
        .load::<Config>()
        .unwrap();
    assert_eq!(loaded.value.node, "f");
    assert_eq!(loaded.value.grace, Duration::from_secs(3));
    assert_eq!(loaded.value.rtmp.players, 7);
    assert_eq!(
        loaded.origin("rtmp.players").to_string(),
        "flag --rtmp.players"
    );
}

#[test]
fn a_variable_is_read_as_the_key_needs_it() {
    let variables = [
        ("SELVAGE_NODE", "17"),
        ("SELVAGE_ORIGINS", "a:1, b:2"),
        ("SELVAGE_IDLE", "0"),
        ("SELVAGE_RTMP__WINDOW", "1MiB"),
        ("SELVAGE_RTMP__LISTEN", "[::1]:0"),
        ("SELVAGE_RTMP__MODE", "tls"),
        ("SELVAGE_PASSWORD", "1234"),
    ];
    let config = Sources::new()
        .variables(variables)
        .load::<Config>()
        .unwrap()
        .value;
    assert_eq!(config.node, "17");
    assert_eq!(config.origins, ["a:1", "b:2"]);
    assert_eq!(config.idle, Some(Duration::ZERO));
    assert_eq!(config.rtmp.window, 1 << 20);
    assert_eq!(config.rtmp.listen, "[::1]:0".parse().unwrap());
    assert_eq!(config.rtmp.mode, Mode::Tls);
    assert_eq!(config.password.expose(), "1234");
    let list = Sources::new().variables([("SELVAGE_ORIGINS", "[\"a:1\"]")]);
    assert_eq!(list.load::<Config>().unwrap().value.origins, ["a:1"]);
}

#[test]
fn a_bad_value_is_named_with_its_place_and_what_would_be_right() {
    let cases = [
        (
            file("\n[rtmp]\nlisten = 'localhost'"),
            "selvage.toml:3: `rtmp.listen` is \"localhost\", expected an IP address and a port, \
             such as 127.0.0.1:1935 or [::]:0",
        ),
        (
            file("grace = 5"),
            "selvage.toml:1: `grace` is 5, expected a duration with a unit, such as 250ms, 5s, 2m \
             or 1h",
        ),
        (
            file("idle = 'never'"),
            "selvage.toml:1: `idle` is \"never\", expected a duration with a unit, such as 250ms, \
             5s, 2m or 1h, or off",
        ),
        (
            Sources::new().variables([("SELVAGE_RTMP__WINDOW", "4 MB/s")]),
            "environment variable SELVAGE_RTMP__WINDOW: `rtmp.window` is \"4 MB/s\", expected a \
             size such as 65536, 256KiB, 4MiB or 1GB",
        ),
        (
            Sources::new().flag("rtmp.players", "--players", 70_000),
            "flag --players: `rtmp.players` is 70000, expected u16",
        ),
        (
            Sources::new().variables([("SELVAGE_RTMP__PLAYERS", "many")]),
            "environment variable SELVAGE_RTMP__PLAYERS: `rtmp.players` is \"many\", expected u16",
        ),
        (
            file("rtmp.mode = 'quic'"),
            "selvage.toml:1: `rtmp.mode` is \"quic\", expected one of plain, tls",
        ),
        (
            file("origins = ['a', 1]"),
            "selvage.toml:1: `origins.1` is 1, expected a string",
        ),
        (
            file("[rtmp]\nplayers = 0"),
            "selvage.toml:2: `rtmp.players` is 0, expected at least 1",
        ),
        (
            file("password = 12345"),
            "selvage.toml:1: `password` is ***, expected a string",
        ),
    ];
    for (sources, expected) in cases {
        assert_eq!(refusal(sources), expected);
    }
}

#[test]
fn a_key_that_nobody_reads_is_refused_wherever_it_is_written() {
    let known = "known here: listen, window, players, mode";
    let cases = [
        (
            file("\n\n[rtmp]\n# lisetn = 1\nlisetn = '1'"),
            format!(
                "selvage.toml:5: unknown key `rtmp.lisetn`; did you mean `rtmp.listen`? {known}"
            ),
        ),
        (
            Sources::new().variables([("SELVAGE_RTMP__PORT", "1")]),
            format!("environment variable SELVAGE_RTMP__PORT: unknown key `rtmp.port`; {known}"),
        ),
        (
            Sources::new().flag("admin.palyers", "--x", 1),
            format!("flag --x: unknown key `admin.palyers`; did you mean `admin.players`? {known}"),
        ),
    ];
    for (sources, expected) in cases {
        assert_eq!(refusal(sources), expected);
    }
    let ignored = Sources::new()
        .variables([("SELVAGE_CONFIG", "selvage.toml")])
        .ignore_variable("SELVAGE_CONFIG");
    assert!(ignored.load::<Config>().is_ok());
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_named() {
    let missing = Sources::new()
        .file("/nonexistent/selvage.toml")
        .load::<Config>();
    let missing = missing.expect_err("there is no such file");
    assert_eq!(
        missing.to_string(),
        "cannot read the configuration file /nonexistent/selvage.toml"
    );
    assert!(std::error::Error::source(&missing).is_some());
    let broken = refusal(file("node = 'a'\ngrace = = 5"));
    assert!(
        broken.starts_with("selvage.toml: not valid TOML: "),
        "{broken}"
    );
    assert!(broken.contains("line 2"), "{broken}");
}

#[test]
fn a_file_on_disk_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.toml");
    std::fs::write(&path, "node = 'edge-7'").unwrap();
    let loaded = Sources::new().file(&path).load::<Config>().unwrap();
    assert_eq!(loaded.value.node, "edge-7");
    assert_eq!(
        loaded.origin("node").to_string(),
        format!("{}:1", path.display())
    );
}

#[test]
fn the_effective_configuration_prints_with_places_and_without_secrets() {
    let loaded = file("password = 'hunter2'\norigins = ['a:1']\n[rtmp]\nwindow = '2MiB'")
        .variables([("SELVAGE_NODE", "edge-1")])
        .load::<Config>()
        .unwrap();
    assert_eq!(
        loaded.to_string(),
        "grace = \"30s\"  # default\n\
         idle = \"off\"  # default\n\
         node = \"edge-1\"  # environment variable SELVAGE_NODE\n\
         origins = [\"a:1\"]  # selvage.toml:2\n\
         password = ***  # selvage.toml:1\n\
         rtmp.listen = \"0.0.0.0:1935\"  # default\n\
         rtmp.mode = \"plain\"  # default\n\
         rtmp.players = 1000  # default\n\
         rtmp.window = \"2MiB\"  # selvage.toml:4"
    );
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn a_required_key_that_is_missing_is_named() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        tls: Option<crate::tls::Files>,
    }
    impl Validate for Outer {}
    let refused = file("[tls]\ncert = 'a.pem'")
        .load::<Outer>()
        .expect_err("no key");
    assert!(
        matches!(&refused, Error::Missing { key, .. } if key == "tls.key"),
        "{refused}"
    );
}

#[test]
fn a_table_that_would_accept_any_key_is_found() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        strict: Strict,
        lax: Lax,
    }
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Strict {
        a: u8,
    }
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Lax {
        a: u8,
    }
    impl Validate for Outer {}
    assert_eq!(lenient_tables::<Outer>(), ["lax"]);
    assert_eq!(lenient_tables::<Config>(), Vec::<String>::new());
}

#[test]
fn durations_are_written_as_they_are_read() {
    for (text, micros) in [
        ("0s", 0),
        ("7us", 7),
        ("250ms", 250_000),
        ("5s", 5_000_000),
        ("90s", 90_000_000),
        ("2m", 120_000_000),
        ("1h", 3_600_000_000),
    ] {
        let duration = Duration::from_micros(micros);
        assert_eq!(parse_duration(text), Some(duration), "{text}");
        assert_eq!(format_duration(duration), text);
    }
    assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
    assert_eq!(parse_duration("0.1s"), Some(Duration::from_millis(100)));
    assert_eq!(parse_duration("1d"), Some(Duration::from_secs(86400)));
    for bad in [
        "",
        "5",
        "s",
        "-5s",
        "5 parsecs",
        "1e99h",
        "1.2.3s",
        "99999999999999999999d",
    ] {
        assert_eq!(parse_duration(bad), None, "{bad}");
    }
}

#[test]
fn sizes_are_written_as_they_are_read() {
    for (text, bytes) in [
        ("0", 0),
        ("1000", 1000),
        ("64KiB", 65536),
        ("4MiB", 4 << 20),
        ("3GiB", 3 << 30),
    ] {
        assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        assert_eq!(format_bytes(bytes), text);
    }
    assert_eq!(parse_bytes("5MB"), Some(5_000_000));
    for bad in ["", "MiB", "-1", "1.5MiB", "4 MiBs", "99999999999GiB"] {
        assert_eq!(parse_bytes(bad), None, "{bad}");
    }
}
