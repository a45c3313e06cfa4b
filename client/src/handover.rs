//! Following a server that asks its clients to go elsewhere (enhanced RTMP v2, "Reconnect
//! Request"), without a gap: the new connection is made before the old one is left.

mod pace;
pub(crate) mod play;
pub(crate) mod publish;
pub(crate) mod splice;

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use rtmp::StreamId;
use session::client::{Event, Status};

pub(crate) use self::pace::Pace;
use crate::{Connection, Error, Options, Target};

/// A connection that is being made.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Opened> + Send>>;

/// A connection that was made, with the stream that is published or played on it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) stream: StreamId,
    /// For the next attempt, if this one turns out to be of no use.
    pub(crate) pace: Pace,
}

/// Where a connection that follows comes from.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) target: Target,
    pub(crate) options: Options,
    /// How soon it may be tried to go elsewhere.
    pub(crate) pace: Pace,
}

impl Home {
    /// Nothing for a connection that does not follow.
    pub(crate) fn of(target: &Target, options: &Options) -> Option<Box<Self>> {
        options.follow.then(|| {
            let (target, options) = (target.clone(), options.clone());
            let pace = Pace::default();
            Box::new(Self {
                target,
                options,
                pace,
            })
        })
    }

    /// Goes where the server asked us to go, else where we came from, else to the others, again
    /// and again until `begin` gets what it wants there.
    fn open<F, B>(&self, tc_url: Option<&str>, mut pace: Pace, begin: B) -> Opening
    where
        F: Future<Output = Result<(Connection, StreamId), Error>> + Send + 'static,
        B: Fn(Target, Options) -> F + Send + Sync + 'static,
    {
        let asked = tc_url.and_then(|url| self.resolve(url));
        let others = self.options.others.iter().cloned();
        let others = others.map(|other| other.with_stream(&*self.target.stream));
        let targets: Vec<Target> = asked
            .into_iter()
            .chain([self.target.clone()])
            .chain(others)
            .collect();
        let mut options = self.options.clone();
        // Each is tried in its turn.
        options.others.clear();
        Box::pin(async move {
            loop {
                let pause = pace.attempt();
                if !pause.is_zero() {
                    tokio::time::sleep(pace::jittered(pause)).await;
                }
                for target in &targets {
                    let begun = begin(target.clone(), options.clone()).await;
                    if let Ok((connection, stream)) = begun {
                        pace.accepted(Instant::now());
                        return Opened {
                            connection,
                            stream,
                            pace,
                        };
                    }
                }
            }
        })
    }

    /// `tcUrl` may be a whole address, or an application of the same server. Nothing for one
    /// that is less sealed than the address we were given: the stream's name goes there with
    /// its query, and whatever secrets that holds.
    fn resolve(&self, tc_url: &str) -> Option<Target> {
        let target = match tc_url.strip_prefix('/') {
            Some(app) if !app.is_empty() => self.target.clone().with_app(app),
            Some(_) => return None,
            None => Target::connection(tc_url).ok()?,
        };
        if target.scheme.seal() < self.target.scheme.seal() {
            return None;
        }
        Some(target.with_stream(&*self.target.stream))
    }
}

/// The server asks us to go elsewhere: where to, if it says so.
pub(crate) fn request(event: &Event) -> Option<Option<String>> {
    let Event::Status { stream, status } = event else {
        return None;
    };
    (*stream == StreamId::CONNECTION && is_request(status)).then(|| {
        let tc_url = status.info.get("tcUrl").and_then(amf::Value::as_str);
        tc_url.filter(|url| !url.is_empty()).map(ToOwned::to_owned)
    })
}

/// Whether a status of the connection asks us to go elsewhere.
pub(crate) fn is_request(status: &Status) -> bool {
    status.code == "NetConnection.Connect.ReconnectRequest"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home {
            target: "rtmp://a.example/live/room?x=1".parse().unwrap(),
            options: Options::player(),
            pace: Pace::default(),
        }
    }

    #[test]
    fn the_server_may_not_name_a_place_that_is_less_sealed() {
        const SCHEMES: [&str; 4] = ["rtmp", "rtmfp", "rtmfps", "rtmps"];
        for (at, given) in SCHEMES.iter().enumerate() {
            let home = Home {
                target: format!("{given}://a.example/live/room?token=x")
                    .parse()
                    .unwrap(),
                ..home()
            };
            for (to, named) in SCHEMES.iter().enumerate() {
                let named = format!("{named}://b.example/live");
                let resolved = home.resolve(&named);
                assert_eq!(resolved.is_some(), to >= at, "{given}:// to {named}");
            }
            let same = home.resolve("/other").unwrap();
            assert_eq!(same.scheme, home.target.scheme);
        }
    }

    #[test]
    fn the_server_may_name_another_server_or_another_application() {
        let home = home();
        let to = home.resolve("rtmp://b.example:1936/live").unwrap();
        assert_eq!((&*to.host, to.port, &*to.app), ("b.example", 1936, "live"));
        assert_eq!(to.stream, home.target.stream);
        let to = home.resolve("/other").unwrap();
        assert_eq!((&*to.host, &*to.app), ("a.example", "other"));
        assert_eq!(home.resolve("/"), None);
        assert_eq!(home.resolve("nonsense"), None);
    }
}
