//! Addresses of streams.

use std::fmt;
use std::str::FromStr;

/// Where a stream is: `rtmp://host[:port]/app[/instance]/stream[?query]`, or the same with
/// `rtmps`, `rtmfp` or `rtmfps`.
///
/// Nothing in an address says where the application ends and the stream's name begins.
/// The rule is FFmpeg's, because addresses travel between the two:
///
/// | address | application | stream |
/// |---|---|---|
/// | `rtmp://h/app/a` | `app` | `a` |
/// | `rtmp://h/app/inst/a` | `app/inst` | `a` |
/// | `rtmp://h/app/inst/a/b?k=v` | `app/inst` | `a/b?k=v` |
/// | `rtmp://h/app/mp4:a/b` | `app` | `mp4:a/b` (a type prefix begins the name) |
/// | `rtmp://h/app` | `app` | none |
/// | `rtmp://h/any/number/of#a/b` | `any/number/of` | `a/b` (the fragment is the name) |
///
/// The last form is enhanced RTMP's and leaves nothing to guess. [`Target::with_app`] and
/// [`Target::with_stream`] say it explicitly in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How the bytes travel.
    pub scheme: Scheme,
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Application and instance, and the query between them and a fragment.
    pub app: String,
    /// The stream's name with its type prefix and query; empty when there is none.
    pub stream: String,
}

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// TCP.
    Rtmp,
    /// TLS over TCP.
    Rtmps,
    /// Encrypted datagrams; [`Self::Rtmp`] where they do not get through.
    Rtmfp,
    /// Encrypted datagrams; [`Self::Rtmps`] where they do not get through.
    Rtmfps,
}

impl Scheme {
    /// The port of an address that names none.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Rtmp | Self::Rtmfp | Self::Rtmfps => 1935,
            Self::Rtmps => 443,
        }
    }

    /// The scheme as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Rtmps => "rtmps",
            Self::Rtmfp => "rtmfp",
            Self::Rtmfps => "rtmfps",
        }
    }

    /// What takes its place where datagrams do not get through. Nothing for one that is of
    /// a byte stream already.
    #[must_use]
    pub const fn without_datagrams(self) -> Option<Self> {
        match self {
            Self::Rtmp | Self::Rtmps => None,
            Self::Rtmfp => Some(Self::Rtmp),
            Self::Rtmfps => Some(Self::Rtmps),
        }
    }

    /// How well it keeps what is said from others; more is better. Datagrams are encrypted,
    /// but only a certificate says with whom.
    pub(crate) const fn seal(self) -> u8 {
        match self {
            Self::Rtmp => 0,
            Self::Rtmfp => 1,
            Self::Rtmfps => 2,
            Self::Rtmps => 3,
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Rtmp, Self::Rtmps, Self::Rtmfp, Self::Rtmfps]
            .into_iter()
            .find(|scheme| name.eq_ignore_ascii_case(scheme.as_str()))
    }
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// None of `rtmp://`, `rtmps://`, `rtmfp://` and `rtmfps://`.
    #[error("'{0}' is not an address of the form rtmp://host/app/stream")]
    Scheme(String),
    /// No host.
    #[error("the address names no host")]
    NoHost,
    /// A port that is no number from 1 to 65535.
    #[error("'{0}' is not a port")]
    Port(String),
    /// A bracket without its partner.
    #[error("'{0}' is not an IPv6 address in brackets")]
    Brackets(String),
    /// Name and password before the host.
    #[error("an address with a user name is not supported; put credentials into the query")]
    UserInfo,
    /// No application.
    #[error("the address names no application; it has the form rtmp://host/app/stream")]
    NoApp,
    /// No stream where one is needed.
    #[error("the address names no stream; it has the form rtmp://host/app/stream")]
    NoStream,
}

impl Target {
    /// The application as given, instead of as guessed.
    #[must_use]
    pub fn with_app(mut self, app: impl Into<String>) -> Self {
        self.app = app.into();
        self
    }

    /// The stream as given, instead of as guessed.
    #[must_use]
    pub fn with_stream(mut self, stream: impl Into<String>) -> Self {
        self.stream = stream.into();
        self
    }

    /// Reads the address of a connection, `rtmp://host[:port]/app[/instance]`: all of its path
    /// is the application.
    ///
    /// # Errors
    /// As for any address.
    pub fn connection(url: &str) -> Result<Self, UrlError> {
        let mut target: Self = url.parse()?;
        let stream = std::mem::take(&mut target.stream);
        if !stream.is_empty() {
            target.app = format!("{}/{stream}", target.app);
        }
        Ok(target)
    }

    /// `tcUrl`: the address up to the application.
    #[must_use]
    pub fn tc_url(&self) -> String {
        format!(
            "{}://{}/{}",
            self.scheme.as_str(),
            self.authority(),
            self.app
        )
    }

    /// The same place by a byte stream, for when datagrams do not get through: at the same
    /// port, or at the usual one if the address names none. Nothing for an address that is
    /// of a byte stream already.
    #[must_use]
    pub fn without_datagrams(&self) -> Option<Self> {
        let scheme = self.scheme.without_datagrams()?;
        let usual = self.port == self.scheme.default_port();
        Some(Self {
            scheme,
            port: if usual {
                scheme.default_port()
            } else {
                self.port
            },
            ..self.clone()
        })
    }

    /// The stream's name.
    ///
    /// # Errors
    /// [`UrlError::NoStream`] when there is none.
    pub fn stream(&self) -> Result<&str, UrlError> {
        if self.stream.is_empty() {
            Err(UrlError::NoStream)
        } else {
            Ok(&self.stream)
        }
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl FromStr for Target {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url
            .split_once("://")
            .and_then(|(name, rest)| Some((Scheme::of(name)?, rest)))
            .ok_or_else(|| UrlError::Scheme(url.to_owned()))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = host_and_port(authority, scheme)?;
        let (app, stream) = app_and_stream(path);
        if app.is_empty() {
            return Err(UrlError::NoApp);
        }
        Ok(Self {
            scheme,
            host,
            port,
            app: app.to_owned(),
            stream: stream.to_owned(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tc_url())?;
        if self.stream.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.stream)
        }
    }
}

fn host_and_port(authority: &str, scheme: Scheme) -> Result<(String, u16), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let bad = || UrlError::Brackets(authority.to_owned());
        let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(bad()),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    let port = match port {
        None => scheme.default_port(),
        Some(text) => text
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| UrlError::Port(text.to_owned()))?,
    };
    Ok((host.to_owned(), port))
}

/// Splits what stands behind the host. Slashes in a query separate nothing.
fn app_and_stream(path: &str) -> (&str, &str) {
    if let Some((app, stream)) = path.split_once('#') {
        return (app.trim_end_matches('/'), stream);
    }
    let names = path.split_once('?').map_or(path, |(names, _)| names);
    let Some(first) = names.find('/') else {
        return (path, "");
    };
    let rest = names.get(first + 1..).unwrap_or_default();
    let second = match rest.find('/') {
        // A type prefix begins the stream's name.
        Some(slash) if !rest[..slash].contains(':') => Some(first + 1 + slash),
        Some(_) | None => None,
    };
    let (app, stream) = path.split_at(second.unwrap_or(first));
    (app, stream.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (String, u16, String, String) {
        let target: Target = url.parse().unwrap();
        (target.host, target.port, target.app, target.stream)
    }

    fn is(host: &str, port: u16, app: &str, stream: &str) -> (String, u16, String, String) {
        (host.into(), port, app.into(), stream.into())
    }

    #[test]
    fn the_application_ends_where_ffmpeg_ends_it() {
        assert_eq!(parts("rtmp://h/live/a"), is("h", 1935, "live", "a"));
        assert_eq!(
            parts("rtmp://h/live/room/a"),
            is("h", 1935, "live/room", "a")
        );
        assert_eq!(
            parts("rtmp://h/live/room/a/b"),
            is("h", 1935, "live/room", "a/b")
        );
        assert_eq!(
            parts("rtmp://h/vod/mp4:a/b.mp4"),
            is("h", 1935, "vod", "mp4:a/b.mp4")
        );
        assert_eq!(
            parts("rtmp://h/vod/_definst_/mp4:a/b"),
            is("h", 1935, "vod/_definst_", "mp4:a/b")
        );
        assert_eq!(parts("rtmp://h/live"), is("h", 1935, "live", ""));
        assert_eq!(parts("rtmp://h/live/"), is("h", 1935, "live", ""));
    }

    #[test]
    fn a_query_goes_with_the_stream_and_its_slashes_separate_nothing() {
        assert_eq!(
            parts("rtmp://h/live/a?u=x/y"),
            is("h", 1935, "live", "a?u=x/y")
        );
        assert_eq!(
            parts("rtmp://h/live?k=v/a"),
            is("h", 1935, "live?k=v/a", "")
        );
    }

    #[test]
    fn a_fragment_is_the_stream_and_leaves_nothing_to_guess() {
        assert_eq!(
            parts("rtmp://h/a/b/c/d?k=v#e/f"),
            is("h", 1935, "a/b/c/d?k=v", "e/f")
        );
    }

    #[test]
    fn an_address_without_a_stream_is_all_application() {
        let app = |url| Target::connection(url).unwrap().app;
        assert_eq!(app("rtmp://h/chat"), "chat");
        assert_eq!(app("rtmp://h/chat/room1"), "chat/room1");
        assert_eq!(app("rtmp://h/chat/room1/a?k=v"), "chat/room1/a?k=v");
    }

    #[test]
    fn hosts_have_ports_and_brackets() {
        assert_eq!(parts("rtmps://h/live/a"), is("h", 443, "live", "a"));
        assert_eq!(parts("RTMP://h:19350/live/a"), is("h", 19350, "live", "a"));
        assert_eq!(parts("rtmp://[::1]/live/a"), is("::1", 1935, "live", "a"));
        assert_eq!(parts("rtmp://[::1]:7/live/a"), is("::1", 7, "live", "a"));
        let error = |url: &str| url.parse::<Target>().unwrap_err();
        assert_eq!(error("rtmp://h:0/live/a"), UrlError::Port("0".into()));
        assert_eq!(error("rtmp://h:x/live/a"), UrlError::Port("x".into()));
        assert_eq!(
            error("rtmp://[::1/live/a"),
            UrlError::Brackets("[::1".into())
        );
        assert_eq!(error("rtmp:///live/a"), UrlError::NoHost);
        assert_eq!(error("rtmp://h"), UrlError::NoApp);
        assert_eq!(error("rtmp://u:p@h/live/a"), UrlError::UserInfo);
        assert_eq!(
            error("http://h/live/a"),
            UrlError::Scheme("http://h/live/a".into())
        );
    }

    #[test]
    fn without_datagrams_it_is_the_same_place_by_a_byte_stream() {
        let other = |url: &str| {
            let target: Target = url.parse().unwrap();
            target.without_datagrams().map(|target| target.to_string())
        };
        let is = |url: &str| Some(url.to_owned());
        assert_eq!(other("rtmfp://h/live/a"), is("rtmp://h/live/a"));
        assert_eq!(other("rtmfp://h:1936/live/a"), is("rtmp://h:1936/live/a"));
        assert_eq!(other("rtmfps://h/live/a"), is("rtmps://h/live/a"));
        assert_eq!(other("RTMFPS://h:7/live/a"), is("rtmps://h:7/live/a"));
        assert_eq!(other("rtmp://h/live/a"), None);
    }

    #[test]
    fn tc_url_names_the_port_only_when_it_is_not_the_usual_one() {
        let tc_url = |url: &str| url.parse::<Target>().unwrap().tc_url();
        assert_eq!(tc_url("rtmp://h:1935/live/room/a"), "rtmp://h/live/room");
        assert_eq!(
            tc_url("rtmps://[::1]:1936/live/a"),
            "rtmps://[::1]:1936/live"
        );
    }
}
