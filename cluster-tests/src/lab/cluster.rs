//! A cluster of real processes with ports of the system's choosing.

use std::net::SocketAddr;

use super::process::Process;
use super::until::{SOON, until};

/// Origins and edges, each a process of its own.
#[derive(Debug)]
pub struct Cluster {
    /// The origins, `origin-0` first.
    pub origins: Vec<Node>,
    /// The edges, `edge-0` first. Every edge knows every origin.
    pub edges: Vec<Node>,
}

/// One process with one role.
#[derive(Debug)]
pub struct Node {
    /// `edge-0` and the like.
    pub id: String,
    /// The process.
    pub process: Process,
    /// Where RTMP (an edge) or gRPC (an origin) is spoken.
    pub addr: SocketAddr,
    /// Where health and metrics are asked for.
    pub http: SocketAddr,
}

impl Cluster {
    /// Starts so many of each and waits until all listen.
    ///
    /// # Panics
    /// When one does not start.
    #[track_caller]
    pub fn start(origins: usize, edges: usize) -> Self {
        Self::start_with(origins, edges, &[])
    }

    /// As [`Self::start`], with more arguments for every edge.
    ///
    /// # Panics
    /// When one does not start.
    #[track_caller]
    pub fn start_with(origins: usize, edges: usize, edge_args: &[&str]) -> Self {
        let origins: Vec<Node> = (0..origins).map(Node::origin).collect();
        let known: Vec<SocketAddr> = origins.iter().map(|origin| origin.addr).collect();
        let edges: Vec<Node> = (0..edges)
            .map(|number| Node::edge(number, &known, edge_args))
            .collect();
        for edge in &edges {
            until("every edge has a link to every origin", SOON, || {
                edge.links() == known.len()
            });
        }
        Self { origins, edges }
    }

    /// `rtmp://…/live/a` at an edge.
    pub fn url(&self, edge: usize, app: &str, name: &str) -> String {
        format!("rtmp://{}/{app}/{name}", self.edges[edge].addr)
    }
}

impl Node {
    /// An origin on a port of the system's choosing.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn origin(number: usize) -> Self {
        let id = format!("origin-{number}");
        let args = [
            "origin",
            "--id",
            &id,
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ];
        Self::start(&id, "grpc", &args)
    }

    /// An edge that knows these origins, on a port of the system's choosing.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn edge(number: usize, origins: &[SocketAddr], more: &[&str]) -> Self {
        let id = format!("edge-{number}");
        let known = origins
            .iter()
            .map(SocketAddr::to_string)
            .collect::<Vec<_>>()
            .join(",");
        let mut args = vec!["edge", "--id", &id, "--origins", &known];
        args.extend(["--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        args.extend(more);
        Self::start(&id, "rtmp", &args)
    }

    /// How many links to origins an edge has made so far, by what it says in its log.
    pub fn links(&self) -> usize {
        self.process
            .stderr()
            .matches("link to origin is up")
            .count()
    }

    #[track_caller]
    fn start(id: &str, what: &str, args: &[&str]) -> Self {
        let mut process = Process::selvage(id, args);
        let addr = process.listening(id, what);
        let http = process.listening(id, "http");
        Self {
            id: id.to_owned(),
            process,
            addr,
            http,
        }
    }
}

/// `selvage dev`: the whole cluster in one process.
#[derive(Debug)]
pub struct Dev {
    /// The process.
    pub process: Process,
    edges: usize,
}

impl Dev {
    /// Starts it with ports of the system's choosing.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start(origins: usize, edges: usize) -> Self {
        let counts = [origins.to_string(), edges.to_string()];
        let args = ["dev", "--origins", &counts[0], "--edges", &counts[1]];
        let ports = ["--rtmp-port", "0", "--rtmps-port", "0", "--http-port", "0"];
        let mut process = Process::selvage("dev", args.iter().chain(&ports));
        for edge in 0..edges {
            process.listening(&format!("edge-{edge}"), "rtmp");
        }
        Self { process, edges }
    }

    /// How many edges it has.
    pub fn edges(&self) -> usize {
        self.edges
    }

    /// Where an edge speaks RTMP.
    ///
    /// # Panics
    /// When there is no such edge.
    #[track_caller]
    pub fn rtmp(&mut self, edge: usize) -> SocketAddr {
        self.process.listening(&format!("edge-{edge}"), "rtmp")
    }

    /// `rtmp://…/live/a` at an edge.
    ///
    /// # Panics
    /// When there is no such edge.
    #[track_caller]
    pub fn url(&mut self, edge: usize, app: &str, name: &str) -> String {
        format!("rtmp://{}/{app}/{name}", self.rtmp(edge))
    }

    /// `rtmps://…/live/a` at an edge.
    ///
    /// # Panics
    /// When there is no such edge.
    #[track_caller]
    pub fn tls_url(&mut self, edge: usize, app: &str, name: &str) -> String {
        let addr = self.process.listening(&format!("edge-{edge}"), "rtmps");
        format!("rtmps://{addr}/{app}/{name}")
    }
}
