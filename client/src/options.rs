//! How to connect.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use amf::Value;
use model::SessionId;
use session::client::{RECONNECT, Setup};

use crate::limits::{PEERS_MAX, SERVERS_MAX};
use crate::{Target, Tracer};

/// How to connect, beside where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long each step may take: TCP, TLS, `connect`, `createStream`, `publish`, `play`.
    pub patience: Duration,
    /// Whose certificate is good enough for `rtmps`.
    pub trust: Trust,
    /// What `connect` says. `app` and `tc_url` are filled in from the target where they
    /// are empty.
    pub setup: Setup,
    /// The size of the chunks we send, bytes.
    pub chunk_size: u32,
    /// Whether to say `releaseStream` and `FCPublish` before `publish`, as encoders do.
    pub encoder_manners: bool,
    /// The kernel's receive buffer, bytes; `None` leaves it to the kernel. A small one
    /// makes a slow viewer slow at once.
    pub receive_buffer: Option<u32>,
    /// What to do where datagrams (`rtmfp`, `rtmfps`) do not get through.
    pub fallback: Fallback,
    /// How many peer connections there may be (`maxPeerConnections`); see
    /// [`crate::NetStream::open_direct`].
    pub peers_max: usize,
    /// Other servers of the same fabric, in the order in which they are tried when the first
    /// cannot be reached; at most [`SERVERS_MAX`](crate::limits::SERVERS_MAX).
    ///
    /// A [`NetConnection`](crate::NetConnection) by RTMFP that has some outlives its server:
    /// see [`NetEvent::Lost`](crate::NetEvent::Lost).
    pub others: Vec<Target>,
    /// Makes spans of what is asked; none by default.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// Whether a [`Player`](crate::Player) or a [`Publisher`](crate::Publisher) that was opened
    /// with these goes elsewhere when the server asks for it (enhanced RTMP v2, "Reconnect
    /// Request"), and says so in `connect`. A [`MultiConnection`](crate::MultiConnection) leaves
    /// the server as soon as it has another of its own, unless it publishes there.
    pub follow: bool,
}

/// What to do where datagrams do not get through: nobody answers within
/// [`DATAGRAM_PATIENCE`](crate::limits::DATAGRAM_PATIENCE), or the port is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Connect to the same host by a byte stream: [`Target::without_datagrams`].
    #[default]
    SameHost,
    /// Connect there.
    To(Target),
    /// Fail.
    Never,
}

/// Whose certificate is good enough.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// One that a well-known authority signed (Mozilla's list).
    #[default]
    WellKnown,
    /// One that an authority in this PEM file signed.
    File(PathBuf),
    /// Any, also a self-signed one. Protects against listening in, not against an impostor.
    Anything,
}

impl Options {
    /// For a player.
    #[must_use]
    pub fn player() -> Self {
        Self::of(Setup::default())
    }

    /// For a publisher; it introduces itself as an encoder.
    #[must_use]
    pub fn publisher() -> Self {
        Self::of(Setup::publisher("", ""))
    }

    fn of(setup: Setup) -> Self {
        Self {
            patience: Duration::from_secs(10),
            trust: Trust::default(),
            setup,
            // What Flash Media Server sends; larger chunks save headers that nobody notices.
            chunk_size: 4096,
            encoder_manners: true,
            receive_buffer: None,
            fallback: Fallback::default(),
            peers_max: PEERS_MAX,
            others: Vec::new(),
            tracer: None,
            follow: false,
        }
    }

    /// Accepts any certificate.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.trust = Trust::Anything;
        self
    }

    /// With further arguments of `connect`.
    #[must_use]
    pub fn with_args(mut self, args: impl IntoIterator<Item = Value>) -> Self {
        self.setup.args.extend(args);
        self
    }

    /// With an identity that other connections share.
    #[must_use]
    pub fn identify(mut self, session: SessionId) -> Self {
        self.setup = self.setup.identify(session);
        self
    }

    /// With another place to go to where datagrams do not get through, or none.
    #[must_use]
    pub fn with_fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// With another number of peer connections.
    #[must_use]
    pub const fn with_peers(mut self, max: usize) -> Self {
        self.peers_max = max;
        self
    }

    /// With other servers to go to.
    #[must_use]
    pub fn with_others(mut self, others: impl IntoIterator<Item = Target>) -> Self {
        self.others = others.into_iter().take(SERVERS_MAX).collect();
        self
    }

    /// With something that makes spans of what is asked.
    #[must_use]
    pub fn with_tracer(mut self, tracer: Arc<dyn Tracer>) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// Goes elsewhere when the server asks for it: where it says, else to the same address,
    /// else to [`Self::others`].
    ///
    /// The server chooses the host, and the stream's name goes there with its query: follow
    /// only servers that may know the secrets in it. One that names a place that is less sealed
    /// than the address that was given (`rtmps://`, then `rtmfps://`, `rtmfp://`, `rtmp://`) is
    /// taken to name none.
    #[must_use]
    pub const fn following(mut self) -> Self {
        self.follow = true;
        self
    }

    /// With another patience.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self.setup.patience = patience;
        self
    }

    /// Where to go when datagrams do not get through to the target.
    pub(crate) fn fallback_of(&self, target: &Target) -> Option<Target> {
        match &self.fallback {
            Fallback::SameHost => target.without_datagrams(),
            Fallback::To(other) => Some(other.clone()),
            Fallback::Never => None,
        }
    }

    pub(crate) fn setup_for(&self, target: &Target) -> Setup {
        let mut setup = self.setup.clone();
        if setup.app.is_empty() {
            setup.app.clone_from(&target.app);
        }
        if setup.tc_url.is_empty() {
            setup.tc_url = target.tc_url();
        }
        if self.follow {
            setup.caps_ex |= RECONNECT;
        }
        setup
    }
}
