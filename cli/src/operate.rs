//! `selvage probe`, `selvage drain`, `selvage status` and `selvage trace`: what the hooks and probes of an
//! orchestrator run in an image without a shell, and what an operator types.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::exit::{self, Failure};

/// Ask a node on this machine whether it is well: exit code 0 or 1, and why not.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Probe {
    /// What is asked.
    #[arg(value_enum, default_value = "ready")]
    what: What,
    /// Where the node answers for its health.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// How long the answer may take.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    timeout: Duration,
}

/// What an orchestrator asks.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Whether it can be left running.
    Live,
    /// Whether it can be sent clients.
    Ready,
    /// Whether it has started.
    Startup,
}

/// Whom to ask, and with which token.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Where {
    /// Where the node listens for operators (`admin.listen`).
    #[arg(
        long,
        value_name = "ADDR",
        env = "SELVAGE_ADMIN__LISTEN",
        default_value = "127.0.0.1:9352"
    )]
    admin: SocketAddr,
    /// A file with the token that the node asks for.
    #[arg(long, value_name = "FILE", env = "SELVAGE_ADMIN__TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// Tell a node to take no new clients, to ask those who can to go elsewhere, and to end when
/// they have left.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    at: Where,
    /// Wait for so long until all have left. The node goes on draining afterwards.
    #[arg(long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,
}

/// Show the cluster as one node sees it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    at: Where,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Have the next key frames of a stream traced on their way from its publisher to its viewers, and
/// print the number of each trace.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Trace {
    /// The stream, as in live/a. It must be published at the edge that is asked.
    stream: String,
    #[command(flatten)]
    at: Where,
    /// How many key frames, 1 to 100. Those that come within 15 seconds are printed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    frames: u32,
}

/// How long an edge may take to trace frames: it waits for key frames itself.
const TRACE_PATIENCE: Duration = Duration::from_secs(20);

/// How long a node may take to answer an operator.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked whether somebody is left.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The largest answer that is read.
const ANSWER_MAX: usize = 16 << 20;

fn time(text: &str) -> Result<Duration, String> {
    node::config::parse_duration(text).ok_or_else(|| "expected a time such as 2s or 1m".to_owned())
}

/// Runs `selvage probe`.
pub(crate) fn probe(flags: &Probe) -> ExitCode {
    let path = match flags.what {
        What::Live => "/livez",
        What::Ready => "/readyz",
        What::Startup => "/startupz",
    };
    let asked = ask(flags.http, Method::GET, path, None);
    exit::run(async {
        let answer = tokio::time::timeout(flags.timeout, asked)
            .await
            .map_err(|_| Failure::NoConnection(format!("{} does not answer", flags.http)))??;
        well(answer).map(drop)
    })
}

/// Runs `selvage drain`.
pub(crate) fn drain(flags: &Drain) -> ExitCode {
    exit::run(async {
        well(flags.at.ask(Method::POST, "/drain").await?)?;
        let Some(wait) = flags.wait else {
            return Ok(());
        };
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            // A node that has nobody left ends, and answers no more.
            let Ok(answer) = flags.at.ask(Method::GET, "/drain").await else {
                return Ok(());
            };
            let told = well(answer)?;
            let left = serde_json::from_str::<Value>(&told)
                .ok()
                .and_then(|told| told["left"].as_u64());
            match left {
                Some(0) => return Ok(()),
                Some(left) if tokio::time::Instant::now() >= deadline => {
                    return Err(Failure::Refused(format!("{left} are left")));
                }
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
                None => return Err(Failure::Refused(format!("what is {told:?}?"))),
            }
        }
    })
}

/// Runs `selvage status`.
pub(crate) fn status(flags: &Status) -> ExitCode {
    exit::run(async {
        let told = well(flags.at.ask(Method::GET, "/status").await?)?;
        if flags.json {
            say(&told);
            return Ok(());
        }
        let told: Value = serde_json::from_str(&told)
            .map_err(|error| Failure::Refused(format!("the answer is no JSON: {error}")))?;
        say(&table(&told));
        Ok(())
    })
}

/// Runs `selvage trace`.
pub(crate) fn trace(flags: &Trace) -> ExitCode {
    exit::run(async {
        let path = format!("/trace/{}?frames={}", escaped(&flags.stream), flags.frames);
        let asked = flags.at.ask_within(TRACE_PATIENCE, Method::POST, &path);
        let told = well(asked.await?)?;
        let told: Value = serde_json::from_str(&told)
            .map_err(|error| Failure::Refused(format!("the answer is no JSON: {error}")))?;
        let traces = told["traces"].as_array().map_or(&[][..], Vec::as_slice);
        for trace in traces.iter().filter_map(Value::as_str) {
            say(&format!("{trace}\n"));
        }
        if traces.len() < flags.frames as usize {
            let (came, wanted) = (traces.len(), flags.frames);
            return Err(Failure::Refused(format!(
                "{came} of {wanted} key frames came"
            )));
        }
        Ok(())
    })
}

/// A name as a part of a path.
fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte);
    text.bytes()
        .map(|byte| match plain(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

impl Where {
    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, String), Failure> {
        self.ask_within(PATIENCE, method, path).await
    }

    async fn ask_within(
        &self,
        patience: Duration,
        method: Method,
        path: &str,
    ) -> Result<(StatusCode, String), Failure> {
        let token = match &self.token_file {
            None => None,
            Some(path) => Some(node::admin::token(path).map_err(|error| {
                let why = node::process::chain(&error);
                Failure::Usage(why)
            })?),
        };
        let asked = ask(self.admin, method, path, token.as_ref());
        tokio::time::timeout(patience, asked)
            .await
            .map_err(|_| Failure::NoConnection(format!("{} does not answer", self.admin)))?
    }
}

/// One request on a connection of its own.
fn ask(
    addr: SocketAddr,
    method: Method,
    path: &str,
    token: Option<&node::config::Secret>,
) -> impl Future<Output = Result<(StatusCode, String), Failure>> {
    let bearer = token.map(|token| format!("Bearer {}", token.expose()));
    let path = path.to_owned();
    async move {
        let lost = |error: &dyn std::error::Error| {
            let why = node::process::chain(error);
            Failure::NoConnection(format!("{addr}: {why}"))
        };
        // A node that listens everywhere is reached on the loopback.
        let near = match addr {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
                (std::net::Ipv6Addr::LOCALHOST, v6.port()).into()
            }
            SocketAddr::V4(_) | SocketAddr::V6(_) => addr,
        };
        let io = TcpStream::connect(near).await.map_err(|e| lost(&e))?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(io));
        let (mut sender, connection) = shaken.await.map_err(|e| lost(&e))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, addr.to_string());
        if let Some(bearer) = bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|e| Failure::Usage(e.to_string()))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| lost(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX);
            let body = body.collect().await.map_err(|e| lost(&*e))?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        // The connection is driven while its one request is under way, and dropped with it.
        tokio::pin!(exchange);
        tokio::select! {
            done = &mut exchange => done,
            ended = connection => {
                ended.map_err(|e| lost(&e))?;
                exchange.await
            }
        }
    }
}

/// What was said, if it is not a refusal.
fn well((status, text): (StatusCode, String)) -> Result<String, Failure> {
    if status.is_success() {
        Ok(text)
    } else {
        Err(Failure::Unwell(text.trim_end().to_owned()))
    }
}

/// The lists of an answer as tables, and what else it says before them.
fn table(told: &Value) -> String {
    let mut text = String::new();
    let Value::Object(fields) = told else {
        return format!("{told}\n");
    };
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_array()) {
        text.push_str(&format!("{name}={}\n", plain(value)));
    }
    for (name, rows) in fields {
        let Value::Array(rows) = rows else { continue };
        text.push_str(&format!("\n{name} ({})\n", rows.len()));
        let Some(Value::Object(first)) = rows.first() else {
            continue;
        };
        let columns: Vec<&String> = first.keys().collect();
        let mut lines = vec![columns.iter().map(|c| c.to_uppercase()).collect::<Vec<_>>()];
        lines.extend(rows.iter().map(|row| {
            let cell = |column: &&String| plain(&row[column.as_str()]);
            columns.iter().map(cell).collect()
        }));
        let widths: Vec<usize> = (0..columns.len())
            .map(|at| lines.iter().map(|line| line[at].chars().count()).max())
            .map(Option::unwrap_or_default)
            .collect();
        for line in lines {
            let cells = line.iter().zip(&widths);
            let padded: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            text.push_str("  ");
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        }
    }
    text
}

/// A value as people read it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[allow(clippy::print_stdout, reason = "the answer is what the command is for")]
fn say(text: &str) {
    print!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_into_a_path() {
        assert_eq!(escaped("live/a-1"), "live/a-1");
        assert_eq!(escaped("live/к b?"), "live/%D0%BA%20b%3F");
    }

    #[test]
    fn a_status_is_a_table_for_each_of_its_lists() {
        let told = serde_json::json!({
            "node": "origin-0",
            "origins": [{"name": "origin-0", "lag": 0}, {"name": "origin-11", "lag": null}],
            "edges": [],
        });
        let text = table(&told);
        assert!(text.starts_with("node=origin-0\n"));
        assert!(text.contains("\norigins (2)\n"));
        assert!(
            text.contains("  LAG  NAME\n  0    origin-0\n  -    origin-11\n"),
            "{text}"
        );
        assert!(text.contains("\nedges (0)\n"));
    }
}
