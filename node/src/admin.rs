//! What an operator tells a node: a listener of its own, for those who may.
//!
//! | request | answer |
//! |---|---|
//! | `POST /drain` | 202; the node stops taking new work, as on SIGTERM |
//! | `GET /drain` | `{"draining":true,"left":12}`: whether it drains, and how much is left |
//! | `GET /status` | what the role says of itself, as JSON |
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
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
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
        let token = Arc::new(token);
        Router::new()
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
        }
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
