//! A cluster under attack: an edge that somebody publishes to and somebody watches while
//! the test does its worst.

use std::net::{SocketAddr, TcpStream};

use super::cluster::Cluster;
use super::live::{Live, Pace, Viewer};
use super::raw::{Raw, dial};
use super::until::SOON;

/// What an attack may add to the memory of the edge, and to that of the origin. Debug
/// builds, buffers of the bystanders and the allocator's habits included.
const MEMORY_MAX: u64 = 192 << 20;

/// One origin, one edge, an undisturbed publisher and its viewer.
#[derive(Debug)]
pub struct Arena {
    cluster: Cluster,
    live: Live,
    viewer: Viewer,
    resident: [u64; 2],
}

impl Arena {
    /// Starts it, with the bystanders on air.
    ///
    /// # Panics
    /// When something does not start.
    #[track_caller]
    pub fn open() -> Self {
        Self::open_with(&[])
    }

    /// As [`Self::open`], with more arguments for the edge.
    ///
    /// # Panics
    /// When something does not start.
    #[track_caller]
    pub fn open_with(edge_args: &[&str]) -> Self {
        let cluster = Cluster::start_with(1, 1, edge_args);
        let edge = cluster.edges[0].addr;
        let viewer = Viewer::play(edge, "live", "bystander");
        let live = Live::publish(edge, "live", "bystander", Pace::real());
        live.go_on(50);
        let resident = Self::measure(&cluster);
        Self {
            cluster,
            live,
            viewer,
            resident,
        }
    }

    /// Where the edge speaks RTMP.
    pub fn edge(&self) -> SocketAddr {
        self.cluster.edges[0].addr
    }

    /// Where the edge speaks RTMFP.
    ///
    /// # Panics
    /// When it does not say.
    #[track_caller]
    pub fn rtmfp(&mut self) -> SocketAddr {
        self.cluster.edges[0].process.listening("edge-0", "rtmfp")
    }

    /// Where the origin speaks gRPC.
    pub fn origin(&self) -> SocketAddr {
        self.cluster.origins[0].addr
    }

    /// Where the edge tells its health.
    pub fn edge_http(&self) -> SocketAddr {
        self.cluster.edges[0].http
    }

    /// A TCP connection to the edge.
    ///
    /// # Panics
    /// When it takes none.
    #[track_caller]
    pub fn dial(&self) -> TcpStream {
        dial(self.edge()).expect("the edge takes connections")
    }

    /// A connection with the handshake done.
    ///
    /// # Panics
    /// When the edge refuses.
    #[track_caller]
    pub fn open_raw(&self) -> Raw {
        Raw::open(self.edge()).expect("the edge shakes hands")
    }

    /// A connection to the application `live`.
    ///
    /// # Panics
    /// When the edge refuses.
    #[track_caller]
    pub fn connect(&self) -> Raw {
        Raw::connect(self.edge(), "live").expect("the edge takes clients")
    }

    /// How much more memory the edge and the origin use than at the beginning, in bytes.
    pub fn grown(&self) -> [u64; 2] {
        let now = Self::measure(&self.cluster);
        [0, 1].map(|node| now[node].saturating_sub(self.resident[node]))
    }

    /// After the attack: the bystanders noticed nothing, new clients are served, memory
    /// stayed bounded.
    ///
    /// # Panics
    /// When that is not so.
    #[track_caller]
    pub fn is_unharmed(self) {
        let grown = self.grown();
        println!(
            "memory: the edge grew by {} kB, the origin by {} kB",
            grown[0] >> 10,
            grown[1] >> 10
        );
        assert!(
            grown.iter().all(|bytes| *bytes <= MEMORY_MAX),
            "memory grew by {grown:?} bytes"
        );
        let late = Viewer::play(self.edge(), "live", "bystander");
        self.live.go_on(50);
        let sent = self.live.leave();
        for viewer in [&self.viewer, &late] {
            viewer.until_got(sent.last().expect("something was sent"));
            viewer.judge(&sent);
        }
    }

    fn measure(cluster: &Cluster) -> [u64; 2] {
        [
            cluster.edges[0].process.resident(),
            cluster.origins[0].process.resident(),
        ]
    }
}

/// Whether a stream's name can be published, that is, whether nobody holds it.
///
/// # Panics
/// When the edge does not answer.
#[track_caller]
pub fn is_free(edge: SocketAddr, name: &str) -> bool {
    let mut raw = Raw::connect(edge, "live").expect("the edge takes a publisher");
    raw.socket()
        .set_read_timeout(Some(SOON))
        .expect("an open socket");
    let stream = raw.create_stream().expect("the edge gives a stream");
    raw.publish(stream, name)
        .expect("the edge answers a publish")
        == "NetStream.Publish.Start"
}
