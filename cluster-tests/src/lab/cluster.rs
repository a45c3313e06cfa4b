//! A cluster of real processes with ports of the system's choosing.

use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;

use super::http;
use super::ports;
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
    /// How it is started again.
    again: Option<Again>,
}

#[derive(Clone, Debug)]
struct Again {
    args: Vec<String>,
    /// Holds an origin's data; goes with the last who knows it.
    folder: Option<Arc<TempDir>>,
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
        Self::start_configured(origins, &[], edges, edge_args)
    }

    /// As [`Self::start`], with more arguments for every origin and every edge.
    ///
    /// # Panics
    /// When one does not start.
    #[track_caller]
    pub fn start_configured(
        origins: usize,
        origin_args: &[&str],
        edges: usize,
        edge_args: &[&str],
    ) -> Self {
        let addrs = ports::free(origins);
        let origins: Vec<Node> = (0..origins)
            .map(|number| Node::founding(number, &addrs, origin_args))
            .collect();
        let known: Vec<SocketAddr> = origins.iter().map(|origin| origin.addr).collect();
        let edges: Vec<Node> = (0..edges)
            .map(|number| Node::edge(number, &known, edge_args))
            .collect();
        for origin in &origins {
            until("every origin knows a leader", SOON, || {
                http::get(origin.http, "/readyz").is_ok_and(|(status, _)| status == 200)
            });
        }
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
    /// An origin by itself.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn origin(number: usize) -> Self {
        Self::origin_at(number, &ports::free(1)[0].to_string(), &[])
    }

    /// One of the origins that found a cluster at these addresses.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn origin_of(number: usize, addrs: &[SocketAddr]) -> Self {
        Self::founding(number, addrs, &[])
    }

    /// As [`Self::origin_of`], with more arguments.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn founding(number: usize, addrs: &[SocketAddr], args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned());
        if addrs.len() == 1 {
            let addr = ports::free(1)[0].to_string();
            return Self::origin_at(number, &addr, &args.collect::<Vec<_>>());
        }
        let peers: Vec<_> = addrs
            .iter()
            .zip(1..)
            .map(|(addr, node)| format!("{node}={addr}"))
            .collect();
        let mut more = vec!["--peers".to_owned(), peers.join(",")];
        more.extend(args);
        Self::origin_at(number, &addrs[number].to_string(), &more)
    }

    /// An origin that joins the cluster of those at these addresses, with more arguments.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn joining(number: usize, addrs: &[SocketAddr], args: &[&str]) -> Self {
        let known: Vec<_> = addrs.iter().map(SocketAddr::to_string).collect();
        let mut more = vec!["--join".to_owned(), known.join(",")];
        more.extend(args.iter().map(|arg| (*arg).to_owned()));
        Self::origin_at(number, &ports::free(1)[0].to_string(), &more)
    }

    /// One of the origins at these addresses, all of which have one configuration: so many of
    /// them found the cluster, and the others join it.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn alike(number: usize, founders: usize, addrs: &[SocketAddr], args: &[&str]) -> Self {
        let peers = addrs.iter().zip(1..).take(founders);
        let peers: Vec<_> = peers.map(|(addr, node)| format!("{node}={addr}")).collect();
        let join: Vec<_> = addrs.iter().map(SocketAddr::to_string).collect();
        let mut more = vec!["--peers".to_owned(), peers.join(",")];
        more.extend(["--join".to_owned(), join.join(",")]);
        more.extend(args.iter().map(|arg| (*arg).to_owned()));
        Self::origin_at(number, &addrs[number].to_string(), &more)
    }

    #[track_caller]
    fn origin_at(number: usize, listen: &str, more: &[String]) -> Self {
        let id = format!("origin-{number}");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data").display().to_string();
        let mut args: Vec<String> = ["origin", "--id", &id, "--data", &data]
            .into_iter()
            .chain(["--http", "127.0.0.1:0"])
            .map(str::to_owned)
            .collect();
        args.extend_from_slice(more);
        let mut first = args.clone();
        first.extend(["--listen".to_owned(), listen.to_owned()]);
        let mut node = Self::start(&id, "grpc", &words(&first));
        args.extend(["--listen".to_owned(), node.addr.to_string()]);
        node.again = Some(Again {
            args,
            folder: Some(Arc::new(folder)),
        });
        node
    }

    /// Ends an origin at once, and starts it again with the data it had, where it was.
    ///
    /// # Panics
    /// When it does not start, or is no origin.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.kill();
        self.start_again();
    }

    /// Starts an origin that has ended again with the data it had, where it was; or an edge of
    /// [`Self::lasting_edge`].
    ///
    /// # Panics
    /// When it does not start, or is another edge.
    #[track_caller]
    pub fn start_again(&mut self) {
        let again = self.again.clone().expect("one that can be started again");
        let what = if again.folder.is_some() {
            "grpc"
        } else {
            "rtmp"
        };
        *self = Self {
            again: Some(again.clone()),
            ..Self::start(&self.id.clone(), what, &words(&again.args))
        };
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.readiness().is_ok()
    }

    /// Takes an origin's data away, as a disk does that is replaced. It must have ended.
    ///
    /// # Panics
    /// When it is no origin, or there is nothing.
    #[track_caller]
    pub fn lose_data(&self) {
        let folder = self.again.as_ref().and_then(|again| again.folder.as_ref());
        std::fs::remove_dir_all(folder.expect("an origin").path().join("data")).expect("the data");
    }

    /// The names of the files that an origin keeps its data in.
    ///
    /// # Panics
    /// When it is no origin, or there are none.
    #[track_caller]
    pub fn data_files(&self) -> Vec<String> {
        let folder = self.again.as_ref().and_then(|again| again.folder.as_ref());
        let data = folder.expect("an origin").path().join("data");
        let files = std::fs::read_dir(data).expect("the data");
        let names = files.map(|file| file.expect("a file").file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    /// What the node says of its readiness: 200, or the reason why not.
    pub fn readiness(&self) -> Result<(), String> {
        match http::get(self.http, "/readyz") {
            Ok((200, _)) => Ok(()),
            Ok((_, why)) => Err(why),
            Err(error) => Err(error.to_string()),
        }
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

    /// An edge as of [`Self::edge`], at addresses that it has again when it is started again.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn lasting_edge(number: usize, origins: &[SocketAddr], more: &[&str]) -> Self {
        let id = format!("edge-{number}");
        let known: Vec<_> = origins.iter().map(SocketAddr::to_string).collect();
        let addrs = ports::free(2);
        let mut args: Vec<String> = ["edge", "--id", &id, "--origins", &known.join(",")]
            .into_iter()
            .map(str::to_owned)
            .collect();
        for (flag, addr) in ["--rtmp", "--http"].into_iter().zip(addrs) {
            args.extend([flag.to_owned(), addr.to_string()]);
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let mut node = Self::start(&id, "rtmp", &words(&args));
        node.again = Some(Again { args, folder: None });
        node
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
            again: None,
        }
    }
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
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
