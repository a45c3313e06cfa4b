//! What one edge keeps for its clients.

use std::time::Duration;

/// Requests of one client that wait or are under way. A player waits for each answer, so
/// this is some for each of its objects; who sends more blindly is refused.
pub const REQUESTS_MAX: usize = 256;

/// Bytes of them.
pub const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Numbers of one client's own session that wait to be used up, those of refused requests
/// among them. While no majority is in reach a client that asks again and again is refused
/// for minutes before it comes to this; then it is sent away.
pub const NUMBERS_MAX: usize = 4096;

/// Objects that one client subscribes to, or asks for. Each costs the edge a place in the
/// object's list.
pub const OBJECTS_PER_SUBSCRIBER_MAX: usize = 256;

/// Objects that an edge holds or opens. Each is up to a mebibyte, in a few bytes usually;
/// the cluster's limit is not much higher.
pub const OBJECTS_HELD_MAX: usize = crate::limits::HELD_MAX;

/// Subscriptions that wait for an answer: a whole edge's clients come back at once.
pub const USES_WAITING_MAX: usize = 65_536;

/// Requests of the edge itself that wait or are under way: some for each object and
/// publication, while no origin is in reach.
pub const OWN_REQUESTS_MAX: usize = 131_072;

/// Publications that claim or hold a name at this edge.
pub const PUBLICATIONS_MAX: usize = 65_536;

/// Streams that are followed at this edge.
pub const FOLLOWED_MAX: usize = 65_536;

/// How long the session of a client that counts its requests is kept after the client left,
/// if it comes back nowhere: as long as a client may try.
pub const DEPARTED_KEPT: Duration = Duration::from_secs(600);

/// Such sessions. More than clients that one edge has at once.
pub const DEPARTED_MAX: usize = 65_536;

/// Sessions that end by one request, so that a thousand clients that leave at once are a
/// few entries of the log.
pub const ENDS_PER_REQUEST: usize = 256;

/// The first pause before what is not answered is proposed again: some elections long, so
/// that a new leader has it from those that were told of the change first.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest such pause.
pub const RETRY_LAST: Duration = Duration::from_secs(8);

/// How long an origin may be without a leader, or leave an attachment unanswered, before
/// another is tried.
pub const REATTACH_AFTER: Duration = Duration::from_secs(1);

/// How long an origin has for the answer to an attachment; it waits 2 s itself to catch up.
pub const ATTACH_WAIT: Duration = Duration::from_secs(3);

/// The pause before it is asked again for another origin.
pub const REATTACH_AGAIN: Duration = Duration::from_secs(5);
