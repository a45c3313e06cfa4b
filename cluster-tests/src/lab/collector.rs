//! A collector of others for our spans: rotel (PyPI), which takes OTLP over gRPC and prints
//! what it gets.
//!
//! A missing program is a failure; `cluster-tests/peers/install` installs it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use tempfile::TempDir;

use super::ports;
use super::process::{Process, target_dir};
use super::until::{SOON, until, until_some};

/// A collector, and the configuration that sends spans there.
#[derive(Debug)]
pub struct Collector {
    process: Process,
    folder: TempDir,
    endpoint: String,
}

/// A span as the collector got it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The program: `service.name`.
    pub service: String,
    /// Which of them: `service.instance.id`.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Its trace.
    pub trace: String,
    /// Its own number.
    pub id: String,
    /// That of its parent, or nothing.
    pub parent: String,
    /// `SERVER` and the like.
    pub kind: String,
    /// `UNSET`, `OK` or `ERROR`.
    pub status: String,
    /// When it began and ended: nanoseconds since 1970.
    pub times: (u64, u64),
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// The spans that it is linked to: trace and number.
    pub links: Vec<(String, String)>,
}

impl Collector {
    /// Starts one, and waits until it listens.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let path = target_dir().join("peers/rotel/rotel-agent");
        assert!(
            path.is_file(),
            "{} is missing: run cluster-tests/peers/install",
            path.display()
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = ports::free(2);
        let mut command = Command::new(&path);
        // The program embeds an interpreter, which is not where the linker looks on all systems.
        let libraries = path.with_file_name("lib");
        command.env("LD_LIBRARY_PATH", libraries);
        command.args(["start", "--exporter", "blackhole"]);
        command.args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"]);
        command.args(["--batch-timeout", "20ms"]);
        for (flag, addr) in ["--otlp-grpc-endpoint", "--otlp-http-endpoint"]
            .iter()
            .zip(&ports)
        {
            command.arg(flag).arg(addr.to_string());
        }
        for (flag, file) in [("--pid-file", "pid"), ("--log-file", "log")] {
            command.arg(flag).arg(folder.path().join(file));
        }
        let process = Process::spawn("rotel", &command);
        let endpoint = format!("http://{}", ports[0]);
        let this = Self {
            process,
            folder,
            endpoint,
        };
        this.write(
            "trace.toml",
            &format!("[trace]\nendpoint = \"{}\"\n", this.endpoint),
        );
        this.write(
            "clients.toml",
            &format!(
                "[trace]\nendpoint = \"{}\"\nclients = true\n",
                this.endpoint
            ),
        );
        until("the collector listens", SOON, || {
            std::net::TcpStream::connect(ports[0]).is_ok()
        });
        this
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("a temporary file");
    }

    /// A configuration for nodes that send their spans here.
    #[must_use]
    pub fn config(&self) -> String {
        self.folder.path().join("trace.toml").display().to_string()
    }

    /// As [`Self::config`], for edges whose clients may say which trace they belong to.
    #[must_use]
    pub fn config_with_clients(&self) -> String {
        self.folder
            .path()
            .join("clients.toml")
            .display()
            .to_string()
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What it got so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        read(&self.process.stdout())
    }

    /// Waits for a span.
    ///
    /// # Panics
    /// When it does not come in time.
    #[track_caller]
    pub fn until(&self, what: &str, mut wanted: impl FnMut(&Span) -> bool) -> Span {
        until_some(what, SOON, || {
            self.spans().into_iter().find(|span| wanted(span))
        })
    }

    /// Waits for so many spans.
    ///
    /// # Panics
    /// When they do not come in time.
    #[track_caller]
    pub fn until_all(
        &self,
        what: &str,
        count: usize,
        mut wanted: impl FnMut(&Span) -> bool,
    ) -> Vec<Span> {
        until_some(what, SOON, || {
            let mut found = self.spans();
            found.retain(|span| wanted(span));
            (found.len() >= count).then_some(found)
        })
    }

    /// The spans of a trace as a table, for a failure's text.
    #[must_use]
    pub fn table(&self, trace: &str) -> String {
        let mut text = String::new();
        let mut spans = self.spans();
        spans.retain(|span| span.trace == trace);
        spans.sort_by_key(|span| span.times);
        for span in &spans {
            let _ = writeln!(
                text,
                "{:8} {:20} {:8} {} <- {:16} {:6} {} us {:?}",
                span.node,
                span.name,
                span.kind,
                span.id,
                span.parent,
                span.status,
                (span.times.1 - span.times.0) / 1000,
                span.attributes,
            );
        }
        text
    }
}

impl Span {
    /// An attribute, or nothing.
    #[must_use]
    pub fn says(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    /// Whether its parent is that one, and they are of one trace.
    #[must_use]
    pub fn is_part_of(&self, parent: &Self) -> bool {
        self.trace == parent.trace && self.parent == parent.id
    }

    /// Whether it is linked to that one.
    #[must_use]
    pub fn is_linked_to(&self, other: &Self) -> bool {
        let other = (&other.trace, &other.id);
        self.links.iter().any(|(trace, id)| (trace, id) == other)
    }
}

/// Reads what the collector prints.
fn read(said: &str) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut resource = Span::default();
    let (mut part, mut link) = (Part::Resource, String::new());
    // The last line may be still on its way, and with it the last span.
    let whole = &said[..said.rfind('\n').map_or(0, |end| end + 1)];
    for line in whole.lines() {
        let line = line.trim();
        if line.starts_with("ResourceSpans #") {
            (part, resource) = (Part::Resource, Span::default());
        } else if line.starts_with("Span #") {
            part = Part::Span;
            spans.push(Span {
                service: resource.service.clone(),
                node: resource.node.clone(),
                ..Span::default()
            });
        } else if line == "Attributes:" {
            part = Part::Attributes;
        } else if line.starts_with("Events:") || line.starts_with("Event #") {
            part = Part::Other;
        } else if line.starts_with("Links:")
            || line.starts_with("Link #")
            || line.starts_with("SpanLink #")
        {
            part = Part::Links;
        }
        let Some(span) = spans.last_mut() else {
            note(&mut resource, line);
            continue;
        };
        let field = |name: &str| {
            let (key, value) = line.split_once(':')?;
            let key = key.trim().trim_start_matches("-> ");
            (key == name).then(|| value.trim().to_owned())
        };
        match part {
            Part::Resource => note(&mut resource, line),
            Part::Span => {
                for (name, to) in [
                    ("Trace ID", &mut span.trace),
                    ("Parent ID", &mut span.parent),
                    ("ID", &mut span.id),
                    ("Name", &mut span.name),
                ] {
                    if let Some(value) = field(name) {
                        *to = value;
                    }
                }
                if let Some(kind) = field("Kind") {
                    kind.trim_start_matches("SPAN_KIND_")
                        .clone_into(&mut span.kind);
                }
                if let Some(code) = field("Status code") {
                    code.trim_start_matches("STATUS_CODE_")
                        .clone_into(&mut span.status);
                }
                if let Some(at) = field("Start time") {
                    span.times.0 = at.parse().unwrap_or_default();
                }
                if let Some(at) = field("End time") {
                    span.times.1 = at.parse().unwrap_or_default();
                }
            }
            Part::Attributes => {
                if let Some((key, value)) = attribute(line) {
                    span.attributes.insert(key, value);
                }
            }
            Part::Links => {
                if let Some(trace) = field("Trace ID") {
                    link = trace;
                }
                if let Some(id) = field("ID").or_else(|| field("Span ID")) {
                    span.links.push((link.clone(), id));
                }
            }
            Part::Other => {}
        }
    }
    spans
}

enum Part {
    Resource,
    Span,
    Attributes,
    Links,
    Other,
}

fn note(resource: &mut Span, line: &str) {
    match attribute(line) {
        Some((key, value)) if key == "service.name" => resource.service = value,
        Some((key, value)) if key == "service.instance.id" => resource.node = value,
        Some(_) | None => {}
    }
}

/// `-> key: Str(value)`.
fn attribute(line: &str) -> Option<(String, String)> {
    let (key, value) = line.strip_prefix("-> ")?.split_once(": ")?;
    let (_type, value) = value.split_once('(')?;
    Some((key.to_owned(), value.strip_suffix(')')?.to_owned()))
}
