//! What an operator tells a node: a listener of its own, for those who may.
//!
//! | request | answer |
//! |---|---|
//! | `POST /drain` | 202; the node stops taking new work, as on SIGTERM |
//! | `GET /drain` | `{"draining":true,"left":12}`: whether it drains, and how much is left |
//! | `GET /status` | what the role says of itself, as JSON |
//! | `POST /trace/live/a?frames=3` | follows the next key frames of a stream that is published at this edge; `{"stream":"live/a","traces":["…"]}` when they have come |
//!
//! Without a token it serves the loopback only, and refuses what a browser sends on behalf of a
//! page; [`Settings::validate`] sees to the former. With one, every request must bear it:
//! `Authorization: Bearer …`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use crate::config::{Invalid, Secret, Validate};
use crate::health::Server;
use crate::limits::TOKEN_FILE;
use crate::shutdown::Drain;

/// The table `admin` of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where operators come in, over HTTP; absent is nowhere. Port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// A file that holds the token which every request must bear. It must be there when
    /// `listen` is not on the loopback.
    pub token_file: Option<PathBuf>,
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), Invalid> {
        let open = self.listen.filter(|addr| !addr.ip().is_loopback());
        match open {
            Some(addr) if self.token_file.is_none() => {
                let expected = "an address on the loopback, or admin.token_file beside it";
                Err(Invalid::new("listen", addr, expected))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Why operators cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file of the token cannot be read.
    #[error("admin.token_file {}", .path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The system refuses the address.
    #[error("cannot listen for operators on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// What a role says of itself, as JSON.
pub type Status = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// Follows the next so many key frames of a stream through the cluster, and gives the numbers of
/// their traces, as JSON.
pub type Follow = Arc<
    dyn Fn(String, u32) -> Pin<Box<dyn Future<Output = Result<String, NotFollowed>> + Send>>
        + Send
        + Sync,
>;

/// Why no frame of a stream is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFollowed {
    /// This cannot be asked here, or not so.
    Wrong(String),
    /// Nobody publishes the stream here.
    Unknown(String),
    /// No key frame came.
    Late(String),
}

/// How much work a role has left.
pub type Left = Arc<dyn Fn() -> usize + Send + Sync>;

/// What operators are shown and may do.
#[derive(Clone)]
pub struct Admin {
    /// What `POST /drain` starts.
    pub drain: Drain,
    /// What `GET /drain` says is left.
    pub left: Left,
    /// What `GET /status` says.
    pub status: Status,
    /// What `POST /trace` does, where streams are published.
    pub follow: Option<Follow>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Binds the listener, if there is to be one.
    ///
    /// # Errors
    /// The token's file cannot be read, or the system refuses the address.
    pub async fn bind(self, settings: &Settings) -> Result<Option<Server>, Error> {
        let Some(addr) = settings.listen else {
            return Ok(None);
        };
        let token = settings.token_file.as_deref().map(token).transpose()?;
        let router = self.router(token);
        match Server::bind(addr, router).await {
            Ok(server) => Ok(Some(server)),
            Err(source) => Err(Error::Listen { addr, source }),
        }
    }

    fn router(self, token: Option<Secret>) -> Router {
        let Self {
            drain,
            left,
            status,
            follow,
        } = self;
        let started = drain.clone();
        let start = move || {
            started.start();
            std::future::ready((StatusCode::ACCEPTED, "draining\n"))
        };
        let look = move || {
            let (draining, left) = (drain.is_draining(), left());
            std::future::ready(json(format!(
                "{{\"draining\":{draining},\"left\":{left}}}\n"
            )))
        };
        let tell = move || {
            let told = status();
            async move { json(told.await) }
        };
        let trace = move |request: Request| {
            let follow = follow.clone();
            async move { followed(follow, request.uri()).await }
        };
        let token = Arc::new(token);
        Router::new()
            .route("/trace/{*stream}", post(trace))
            .route("/drain", get(look).post(start))
            .route("/status", get(tell))
            .layer(from_fn(move |request: Request, next: Next| {
                let refused = refusal(token.as_ref().as_ref(), request.headers());
                async move {
                    match refused {
                        None => next.run(request).await,
                        Some(refused) => refused,
                    }
                }
            }))
    }
}

async fn followed(follow: Option<Follow>, uri: &Uri) -> Response {
    let asked = asked(uri).map_err(NotFollowed::Wrong);
    let told = match (follow, asked) {
        (Some(follow), Ok((stream, frames))) => follow(stream, frames).await,
        (None, Ok(_)) => {
            let why = "frames are traced from the edge where they are published";
            Err(NotFollowed::Wrong(why.into()))
        }
        (_, Err(wrong)) => Err(wrong),
    };
    match told {
        Ok(told) => json(told),
        Err(NotFollowed::Wrong(why)) => (StatusCode::BAD_REQUEST, why + "\n").into_response(),
        Err(NotFollowed::Unknown(why)) => (StatusCode::NOT_FOUND, why + "\n").into_response(),
        Err(NotFollowed::Late(why)) => (StatusCode::GATEWAY_TIMEOUT, why + "\n").into_response(),
    }
}

/// The stream of a path, and how many of its frames are asked for.
fn asked(uri: &Uri) -> Result<(String, u32), String> {
    let path = uri.path().strip_prefix("/trace/").unwrap_or_default();
    let mut rest = path.bytes();
    let mut stream = Vec::with_capacity(path.len());
    while let Some(byte) = rest.next() {
        stream.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let value = digit().zip(digit()).map(|(high, low)| high * 16 + low);
                let value = value.and_then(|value| u8::try_from(value).ok());
                value.ok_or("a % has no two digits behind it")?
            }
            other => other,
        });
    }
    let stream = String::from_utf8(stream).map_err(|_| "the stream's name is no UTF-8")?;
    let frames = match uri.query() {
        None => 1,
        Some(query) => query
            .strip_prefix("frames=")
            .and_then(|frames| frames.parse().ok())
            .ok_or("expected ?frames=NUMBER")?,
    };
    Ok((stream, frames))
}

/// Reads a token. The line's end that editors leave does not belong to it.
///
/// # Errors
/// The file cannot be read, is larger than a token can be, or empty.
pub fn token(path: &Path) -> Result<Secret, Error> {
    let read = || {
        let length = std::fs::metadata(path)?.len();
        if length > TOKEN_FILE {
            let what = format!("a token has at most {TOKEN_FILE} bytes, this file has {length}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let text = std::fs::read_to_string(path)?;
        let token = text.trim_end_matches(['\r', '\n']);
        if token.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
        }
        Ok(Secret::new(token))
    };
    read().map_err(|source| Error::Token {
        path: path.to_owned(),
        source,
    })
}

/// Why a request is not answered.
fn refusal(token: Option<&Secret>, headers: &HeaderMap) -> Option<Response> {
    let Some(token) = token else {
        // A page that somebody has open on this machine reaches the loopback too.
        let page = headers.contains_key(header::ORIGIN);
        let told = "a page may not ask this; set admin.token_file\n";
        return page.then(|| (StatusCode::FORBIDDEN, told).into_response());
    };
    let borne = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let right = borne.is_some_and(|borne| token.is(borne));
    (!right).then(|| {
        let how = [(header::WWW_AUTHENTICATE, "Bearer")];
        let told = "the request does not bear the token\n";
        (StatusCode::UNAUTHORIZED, how, told).into_response()
    })
}

fn json(text: String) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderValue;
    use tower::ServiceExt as _;

    use super::*;

    fn admin(drain: &Drain) -> Admin {
        Admin {
            drain: drain.clone(),
            left: Arc::new(|| 3),
            status: Arc::new(|| Box::pin(std::future::ready("{}\n".to_owned()))),
            follow: Some(Arc::new(|stream, frames| {
                let told = match frames {
                    0 => Err(NotFollowed::Unknown(stream)),
                    frames => Ok(format!("{stream} {frames}")),
                };
                Box::pin(std::future::ready(told))
            })),
        }
    }

    #[test]
    fn a_stream_is_asked_for_by_its_path() {
        let asked = |text: &'static str| asked(&Uri::from_static(text));
        assert_eq!(asked("/trace/live/a"), Ok(("live/a".into(), 1)));
        let (named, count) = asked("/trace/live/%D0%BA%20b?frames=7").unwrap();
        assert_eq!((named.as_str(), count), ("live/к b", 7));
        for broken in [
            "/trace/a%2",
            "/trace/a%FF",
            "/trace/a?frames=",
            "/trace/a?n=1",
        ] {
            assert!(asked(broken).is_err(), "{broken}");
        }
    }

    #[tokio::test]
    async fn frames_are_followed_for_who_may() {
        let router = admin(&Drain::new()).router(Some(Secret::new("open")));
        assert_eq!(ask(&router, "POST", "/trace/live/a", &[]).await, 401);
        let bearing = &[("authorization", "Bearer open")];
        let path = "/trace/live/a?frames=2";
        assert_eq!(ask(&router, "POST", path, bearing).await, 200);
        assert_eq!(ask(&router, "GET", path, bearing).await, 405);
        let none = "/trace/live/a?frames=0";
        assert_eq!(ask(&router, "POST", none, bearing).await, 404);
    }

    async fn ask(router: &Router, method: &str, path: &str, with: &[(&str, &str)]) -> StatusCode {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in with {
            request = request.header(*name, HeaderValue::from_str(value).unwrap());
        }
        let request = request.body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn a_drain_is_started_by_who_may() {
        let drain = Drain::new();
        let router = admin(&drain).router(Some(Secret::new("open")));
        for with in [
            &[][..],
            &[("authorization", "Bearer opem")],
            &[("authorization", "Bearer opens")],
            &[("authorization", "open")],
        ] {
            let answered = ask(&router, "POST", "/drain", with).await;
            assert_eq!(answered, StatusCode::UNAUTHORIZED, "{with:?}");
        }
        assert!(!drain.is_draining());
        let bearing = &[("authorization", "Bearer open")];
        assert_eq!(ask(&router, "GET", "/status", bearing).await, 200);
        assert_eq!(ask(&router, "POST", "/drain", bearing).await, 202);
        assert!(drain.is_draining());
    }

    #[tokio::test]
    async fn a_page_on_the_same_machine_cannot_ask() {
        let drain = Drain::new();
        let router = admin(&drain).router(None);
        let page = &[("origin", "http://example.org")];
        let answered = ask(&router, "POST", "/drain", page).await;
        assert_eq!(answered, StatusCode::FORBIDDEN);
        assert!(!drain.is_draining());
        assert_eq!(ask(&router, "POST", "/drain", &[]).await, 202);
    }

    #[test]
    fn who_listens_to_all_needs_a_token() {
        let open = Settings {
            listen: Some(([0, 0, 0, 0], 9090).into()),
            token_file: None,
        };
        assert_eq!(open.validate().unwrap_err().key, "listen");
        let guarded = Settings {
            token_file: Some("/token".into()),
            ..open
        };
        guarded.validate().unwrap();
        let near = Settings {
            listen: Some(([127, 0, 0, 1], 9090).into()),
            token_file: None,
        };
        near.validate().unwrap();
    }

    #[test]
    fn a_token_is_a_line_of_a_small_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "open\n").unwrap();
        assert_eq!(token(&path).unwrap().expose(), "open");
        std::fs::write(&path, "\n").unwrap();
        assert!(token(&path).is_err());
        std::fs::write(&path, vec![b'x'; 5000]).unwrap();
        assert!(token(&path).is_err());
        assert!(token(&folder.path().join("none")).is_err());
    }
}
