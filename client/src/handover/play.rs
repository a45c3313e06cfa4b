//! The handover of a play.
//!
//! ```text
//!   old ··· 7 8 9 10 11            seen since we were asked to go:  8 9 10 11
//!   new           9 10 11 12 ···   fresh:  C 9 10 11 12
//!                                          ╰ 9 is the seam: 10 and 11 are left out, 12 follows
//! ```
//!
//! Servers of one fabric give a stream in one order. As soon as one frame has come by both
//! connections it is known what of the new one the player has had already, and by how much its
//! clock differs. Until then the old connection is played on.

use std::collections::VecDeque;
use std::time::Instant;

use rtmp::{Message, StreamId};
use session::client::{Closed, Event};

use super::splice::{Lasts, Seam, Splice, is_seam};
use super::{Home, Opened, Opening, Pace};
use crate::limits::{FRESH_BYTES_MAX, FRESH_MAX, SEAM_PATIENCE, SEEN_BYTES_MAX, SEEN_MAX};
use crate::{Arrival, Connection, Error};

/// A play that is on its way to another server.
pub(crate) struct Moving {
    home: Home,
    tc_url: Option<String>,
    arriving: Arriving,
    /// What the old connection has given since.
    seen: VecDeque<Message>,
    seen_bytes: usize,
    /// What the new one has given.
    fresh: Fresh,
    /// The times of what was given out last.
    last: Lasts,
    /// Why the old connection has ended.
    lost: Option<Error>,
    /// When the seam is no longer waited for.
    until: Option<Instant>,
}

enum Arriving {
    Opening(Opening),
    Open(Box<Opened>),
}

/// What became of one wait.
pub(crate) enum Heard {
    /// The old connection says so.
    Old(Event, Instant),
    /// It is time to go over.
    Go(Box<Gone>),
    /// Neither of the two will say anything.
    Lost(Error),
}

/// A move that is done.
pub(crate) struct Gone {
    pub(crate) connection: Connection,
    pub(crate) stream: StreamId,
    /// Whether the old connection is still there, and is to be closed.
    pub(crate) leave: bool,
    /// What follows what was given out.
    pub(crate) ready: Vec<Arrival>,
    pub(crate) splice: Splice,
    /// For the next move.
    pub(crate) pace: Pace,
}

impl std::fmt::Debug for Moving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moving")
            .field("open", &matches!(self.arriving, Arriving::Open(_)))
            .field("seen", &self.seen.len())
            .field("fresh", &self.fresh.arrivals.len())
            .finish_non_exhaustive()
    }
}

impl Moving {
    /// Sets out.
    pub(crate) fn begin(home: &Home, tc_url: Option<String>, last: Lasts) -> Self {
        Self {
            arriving: open(home, tc_url.as_deref(), home.pace.asked(Instant::now())),
            home: home.clone(),
            tc_url,
            seen: VecDeque::new(),
            seen_bytes: 0,
            fresh: Fresh::default(),
            last,
            lost: None,
            until: None,
        }
    }

    /// Waits for what concerns the player. May be dropped and called again.
    pub(crate) async fn hear(&mut self, old: &mut Connection) -> Heard {
        loop {
            let there = match &mut self.arriving {
                Arriving::Opening(opening) => There::Opening(opening),
                Arriving::Open(open) => There::Open(&mut open.connection, self.fresh.has_room()),
            };
            let gone = self.lost.is_some();
            let until = self.until.map(tokio::time::Instant::from_std);
            let turn = tokio::select! {
                heard = old.next_event(), if !gone => Turn::Old(heard),
                heard = there.next() => heard,
                () = sleep_until(until) => Turn::Late,
            };
            match turn {
                Turn::Old(Ok((event, at))) => return Heard::Old(event, at),
                Turn::Old(Err(error)) => {
                    self.lost = Some(error);
                    let until = Instant::now() + self.home.options.patience;
                    self.until = Some(self.until.map_or(until, |earlier| earlier.min(until)));
                }
                Turn::Opened(open) => {
                    self.arriving = Arriving::Open(open);
                    let until = Instant::now() + SEAM_PATIENCE;
                    self.until = Some(self.until.map_or(until, |earlier| earlier.min(until)));
                }
                Turn::New(Ok((event, at))) => self.take(event, at),
                Turn::New(Err(_)) => self.again(),
                Turn::Late if matches!(self.arriving, Arriving::Opening(_)) => {
                    if let Some(error) = self.lost.take() {
                        return Heard::Lost(error);
                    }
                    self.until = None;
                }
                Turn::Late => return self.go(None),
            }
            if let Some(seam) = self.newest_seam() {
                return self.go(Some(seam));
            }
            if self.lost.is_some() && self.is_beyond() {
                return self.go(None);
            }
        }
    }

    /// The player is given a message of the old connection. Says so when it is time to go over.
    pub(crate) fn note(&mut self, message: &Message) -> Option<Heard> {
        self.last.note(message);
        self.seen_bytes += message.payload.len();
        self.seen.push_back(message.clone());
        while self.seen.len() > SEEN_MAX || self.seen_bytes > SEEN_BYTES_MAX {
            let oldest = self.seen.pop_front();
            self.seen_bytes -= oldest.map_or(0, |oldest| oldest.payload.len());
        }
        let matches = |arrival: &Arrival| is_seam(message, &arrival.message);
        let fresh = self.fresh.arrivals.iter().rposition(matches)?;
        let seen = self.seen.len().checked_sub(1)?;
        Some(self.go(Some(Seam { seen, fresh })))
    }

    fn take(&mut self, event: Event, at: Instant) {
        let Arriving::Open(open) = &self.arriving else {
            return;
        };
        let stream = open.stream;
        if let Some(tc_url) = super::request(&event) {
            // It is about to go as well.
            self.tc_url = tc_url;
            self.again();
            return;
        }
        match event {
            Event::Message(message) if message.stream == stream => {
                self.fresh.push(Arrival { message, at });
            }
            Event::Status { stream: of, status } if of == stream && status.is_error() => {
                self.again();
            }
            Event::Closed { .. } => self.again(),
            Event::Connected(_)
            | Event::Rejected(_)
            | Event::StreamReady { .. }
            | Event::Status { .. }
            | Event::Message(_)
            | Event::Object(_)
            | Event::Progress { .. }
            | Event::Result { .. }
            | Event::Failed { .. }
            | Event::Call { .. } => {}
        }
    }

    /// The new server does not do.
    fn again(&mut self) {
        self.fresh = Fresh::default();
        if self.lost.is_none() {
            // The seam with the next one is waited for as long.
            self.until = None;
        }
        if let Arriving::Open(left) = &self.arriving {
            let pace = left.pace.failed(Instant::now());
            self.arriving = open(&self.home, self.tc_url.as_deref(), pace);
        }
    }

    /// What was seen that is the newest of what is fresh.
    fn newest_seam(&self) -> Option<Seam> {
        let newest = self.fresh.arrivals.back()?;
        let matches = |seen: &Message| is_seam(seen, &newest.message);
        let seen = self.seen.iter().rposition(matches)?;
        let fresh = self.fresh.arrivals.len() - 1;
        Some(Seam { seen, fresh })
    }

    /// Whether something has come that is later than all that the old connection gave.
    fn is_beyond(&self) -> bool {
        let newest = self.fresh.arrivals.back();
        newest.is_some_and(|newest| self.last.are_before(&newest.message))
    }

    fn go(&mut self, seam: Option<Seam>) -> Heard {
        let opening = Arriving::Opening(Box::pin(std::future::pending()));
        let Arriving::Open(open) = std::mem::replace(&mut self.arriving, opening) else {
            // Nowhere to go: who asks has looked.
            return Heard::Lost(self.lost.take().unwrap_or(Error::Closed(Closed::Here)));
        };
        let Opened {
            connection,
            stream,
            pace,
        } = *open;
        let fresh = std::mem::take(&mut self.fresh).arrivals;
        let seen = std::mem::take(&mut self.seen);
        let (splice, ready) = Splice::join(seam, seen, fresh, self.last);
        Heard::Go(Box::new(Gone {
            connection,
            stream,
            leave: self.lost.is_none(),
            ready,
            splice,
            pace,
        }))
    }
}

/// What the new connection has given, which waits for the seam. It is bounded because the
/// connection is read only while there is room.
#[derive(Default)]
struct Fresh {
    arrivals: VecDeque<Arrival>,
    /// Of their payloads.
    bytes: usize,
}

impl Fresh {
    fn push(&mut self, arrival: Arrival) {
        self.bytes += arrival.message.payload.len();
        self.arrivals.push_back(arrival);
    }

    fn has_room(&self) -> bool {
        self.arrivals.len() < FRESH_MAX && self.bytes < FRESH_BYTES_MAX
    }
}

enum Turn {
    Old(Result<(Event, Instant), Error>),
    New(Result<(Event, Instant), Error>),
    Opened(Box<Opened>),
    Late,
}

enum There<'a> {
    Opening(&'a mut Opening),
    /// And whether it may be read.
    Open(&'a mut Connection, bool),
}

impl There<'_> {
    async fn next(self) -> Turn {
        match self {
            Self::Opening(opening) => Turn::Opened(Box::new(opening.await)),
            Self::Open(connection, true) => Turn::New(connection.next_event().await),
            Self::Open(_, false) => std::future::pending().await,
        }
    }
}

async fn sleep_until(until: Option<tokio::time::Instant>) {
    match until {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn open(home: &Home, tc_url: Option<&str>, pace: Pace) -> Arriving {
    Arriving::Opening(home.open(tc_url, pace, |target, options| async move {
        let player = crate::Player::open_once(&target, &options).await?;
        Ok(player.into_parts())
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rtmp::MessageKind;

    use super::*;

    /// How many messages of such a length are taken while there is room.
    fn taken(length: usize) -> usize {
        let mut fresh = Fresh::default();
        let payload = Bytes::from(vec![0; length]);
        // One that would take them without an end is noticed.
        while fresh.has_room() && fresh.arrivals.len() <= FRESH_MAX {
            let message = Message {
                kind: MessageKind::Video,
                stream: StreamId(1),
                time: 0,
                payload: payload.clone(),
            };
            let at = Instant::now();
            fresh.push(Arrival { message, at });
        }
        fresh.arrivals.len()
    }

    #[test]
    fn what_waits_for_the_seam_is_bounded_in_number_and_in_bytes() {
        assert_eq!(taken(1), FRESH_MAX);
        let large = 1024 * 1024;
        assert_eq!(taken(large), FRESH_BYTES_MAX / large);
        // The one that is too much is the last.
        assert_eq!(taken(FRESH_BYTES_MAX - 1), 2);
    }
}
