//! Sessions that come and go.

use std::ops::Bound;
use std::time::Instant;

use super::{Endpoint, Entry, Event, OpeningId, SessionId, queue};
use crate::crypto::identity::Certificate;
use crate::limits;
use crate::packet::Mode;
use crate::session::Session;
use crate::startup::{self, Opened};

/// How many sessions are looked at for one that is over, when there is no room for another.
const SEARCHED_MAX: usize = 256;

impl Endpoint {
    pub(super) fn insert(
        &mut self,
        opened: Opened,
        mode: Mode,
        answered: Option<(startup::Request, Vec<u8>)>,
        opening: Option<OpeningId>,
        now: Instant,
    ) {
        let Ok(certificate) = Certificate::parse(&opened.certificate) else {
            return;
        };
        let (id, far, fingerprint) = (opened.near_id, opened.far, certificate.fingerprint());
        let mut secret = [0; 32];
        self.entropy.fill(&mut secret);
        let mut config = self.config.session.clone();
        // A responder's component came under keys that only it could make.
        let proved = mode == Mode::Initiator;
        if !proved {
            config.silence_max = config.silence_max.min(limits::HALF_OPEN_FOR);
            self.half_open.push_back(id);
        }
        let mut entry = Box::new(Entry {
            session: Session::new(config, mode, far, secret, now),
            suite: opened.keys.suite(),
            far_id: opened.far_id,
            certificate: opened.certificate,
            fingerprint,
            answered,
            bound: far,
            reported: Vec::new(),
            deadline: None,
            queued: false,
            proved,
            told: false,
        });
        if proved {
            // The far end counts the session once it has seen our keys at work, and its owner
            // may be the one who is to speak first.
            entry.session.ask_at_once();
        }
        queue(&mut self.ready, id, &mut entry);
        self.by_address.insert(far, id);
        self.by_fingerprint
            .entry(fingerprint)
            .or_default()
            .insert(id);
        self.sessions.insert(id, entry);
        // An attempt of ours is answered by whichever session comes of it, also when it is
        // we who speak first.
        if proved || opening.is_some() {
            self.tell_opened(id, opening);
        }
        while self.half_open.len() > self.half_open_max() {
            let oldest = self.half_open.pop_front();
            if let Some(id) = oldest.filter(|id| self.is_half_open(*id)) {
                self.stats.limited += 1;
                self.forget(id);
            }
        }
    }

    /// A packet came that shows that the keys of a session are held.
    pub(super) fn prove(&mut self, id: u32) {
        let Some(entry) = self.sessions.get_mut(&id).filter(|entry| !entry.proved) else {
            return;
        };
        entry.proved = true;
        entry
            .session
            .set_silence_max(self.config.session.silence_max);
        self.tell_opened(id, None);
        self.override_others(id);
    }

    fn tell_opened(&mut self, id: u32, opening: Option<OpeningId>) {
        let Some(entry) = self.sessions.get_mut(&id).filter(|entry| !entry.told) else {
            return;
        };
        entry.told = true;
        self.events.push_back(Event::Opened {
            session: SessionId(id),
            opening,
            far: entry.session.far(),
            fingerprint: entry.fingerprint,
        });
    }

    fn is_half_open(&self, id: u32) -> bool {
        self.sessions
            .get(&id)
            .is_some_and(|entry| !entry.proved && !entry.told)
    }

    /// Sessions that are half open never take more than a quarter of all places.
    fn half_open_max(&self) -> usize {
        limits::HALF_OPEN_MAX.min(self.config.sessions_max / 4)
    }

    /// Whether there is room for another session. One that only waits for the answer to its
    /// end has to go when there is none.
    pub(super) fn has_room(&mut self) -> bool {
        if self.sessions.len() < self.config.sessions_max {
            return true;
        }
        let after = (Bound::Excluded(self.searched), Bound::Unbounded);
        let found = self
            .sessions
            .range(after)
            .chain(&self.sessions)
            .take(SEARCHED_MAX)
            .inspect(|(id, _)| self.searched = **id)
            .find(|(_, entry)| !entry.session.is_open() && !entry.queued)
            .map(|(id, _)| *id);
        if let Some(id) = found {
            self.forget(id);
        }
        found.is_some()
    }

    pub(super) fn forget(&mut self, id: u32) {
        let Some(entry) = self.sessions.remove(&id) else {
            return;
        };
        if let Some(at) = entry.deadline {
            self.timers.remove(&(at, id));
        }
        if self.by_address.get(&entry.bound) == Some(&id) {
            self.by_address.remove(&entry.bound);
        }
        if let Some(ids) = self.by_fingerprint.get_mut(&entry.fingerprint) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_fingerprint.remove(&entry.fingerprint);
            }
        }
    }
}
