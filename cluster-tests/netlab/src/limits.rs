//! How much of everything there is.

/// Labs on one machine at a time: the /24 networks of 198.18.0.0/15, which RFC 2544 sets
/// aside for tests like these.
pub const LABS_MAX: usize = 512;

/// Hosts in one lab, with the outside one: what fits a /24 network, less its first and
/// last address.
pub const HOSTS_MAX: usize = 253;

/// What waits for a link's rate before frames are dropped, unless
/// [`Impairment::queue`](crate::Impairment::queue) says otherwise: the buffer of a small
/// router, 170 full frames.
pub const QUEUE_BYTES: usize = 256 << 10;

/// What is under way on a link at most, however long its delay is; more is dropped. Enough
/// for 1 Gbit/s with a quarter of a second.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;

/// Ports that one translator of addresses gives at a time, and who may send to one of them:
/// some for every host of a lab.
pub(crate) const MAPPINGS_MAX: usize = 2048;

/// The largest frame the switch takes: more than an interface sends whose MTU is 1500.
pub(crate) const FRAME_BYTES_MAX: usize = 2048;

/// Frames that are taken from one host before the others have their turn.
pub(crate) const BURST_FRAMES: usize = 64;

/// The longest name of a host. The namespace is called `selvage-511-<name>`.
pub(crate) const NAME_BYTES_MAX: usize = 40;
