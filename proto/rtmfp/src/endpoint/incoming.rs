//! Datagrams that come in.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Endpoint, Event, OpeningId, queue};
use crate::chunk::{Chunk, InitiatorHello, InitiatorKeying, ResponderHelloCookieChange};
use crate::crypto::Suite;
use crate::crypto::identity::{Certificate, Discriminator};
use crate::error::Error;
use crate::limits;
use crate::packet::{Mode, Packet, STARTUP_SESSION, open_multiplex};
use crate::startup::{self, Cookie, Opening};

impl Endpoint {
    /// Takes a datagram in, which came from `from`. It is changed.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &mut [u8], now: Instant) {
        self.stats.datagrams += 1;
        let room = datagram.len();
        if room > limits::STARTUP_DATAGRAM_MAX {
            self.stats.dropped += 1;
            return;
        }
        let Ok((id, sealed)) = open_multiplex(datagram) else {
            self.stats.dropped += 1;
            return;
        };
        if let Some(entry) = self.sessions.get_mut(&id) {
            match entry.suite.open(sealed) {
                Ok(plain) => {
                    entry.session.handle_packet(from, plain, now);
                    queue(&mut self.ready, id, entry);
                    if !entry.proved {
                        self.prove(id);
                    }
                }
                Err(_) => self.stats.dropped += 1,
            }
            return;
        }
        if id != STARTUP_SESSION && !self.openings.contains_key(&id) {
            self.stats.unknown_session += 1;
            return;
        }
        if self.handle_startup(from, id, sealed, room, now).is_err() {
            self.stats.dropped += 1;
        }
    }

    fn handle_startup(
        &mut self,
        from: SocketAddr,
        id: u32,
        sealed: &mut [u8],
        room: usize,
        now: Instant,
    ) -> Result<(), Error> {
        let packet = Packet::parse(self.startup.open(sealed)?)?;
        if packet.header.mode != Mode::Startup {
            return Err(Error::PacketMode);
        }
        // One chunk a packet is all there is in a startup; more would be work for nothing.
        match packet.chunks().next() {
            Some(Chunk::PacketFragment(part)) => {
                let part = self
                    .fragments
                    .handle_fragment(from, Mode::Startup, &part, now);
                let Some(whole) = part else { return Ok(()) };
                let packet = Packet::parse(&whole)?;
                if packet.header.mode != Mode::Startup {
                    return Err(Error::PacketMode);
                }
                match packet.chunks().next() {
                    // So many bytes came, and more: an answer may be as long.
                    Some(chunk) => self.handle_chunk(from, id, chunk, whole.len(), now),
                    None => Ok(()),
                }
            }
            Some(chunk) => self.handle_chunk(from, id, chunk, room, now),
            None => Ok(()),
        }
    }

    fn handle_chunk(
        &mut self,
        from: SocketAddr,
        id: u32,
        chunk: Chunk<'_>,
        room: usize,
        now: Instant,
    ) -> Result<(), Error> {
        match (chunk, id) {
            (Chunk::InitiatorHello(hello), STARTUP_SESSION) => {
                self.answer_hello(&hello, from, room, now);
            }
            (Chunk::InitiatorKeying(keying), STARTUP_SESSION) => {
                self.handle_keying(&keying, from, room, now)?;
            }
            (Chunk::ResponderHello(hello), STARTUP_SESSION) => {
                if let Some(opening) = opening_of(&mut self.openings, hello.tag) {
                    let (near, entropy) = (&self.config.identity, &mut *self.entropy);
                    opening.handle_hello(from, &hello, near, entropy, now)?;
                }
            }
            (Chunk::Redirect(redirect), STARTUP_SESSION) => {
                if let Some(opening) = opening_of(&mut self.openings, redirect.tag) {
                    opening.handle_redirect(from, &redirect, now);
                }
            }
            (Chunk::CookieChange(change), _) => {
                if let Some(opening) = self.openings.get_mut(&id) {
                    opening.handle_cookie_change(&change, now);
                }
            }
            (Chunk::ResponderKeying(keying), _) => {
                let opening = self.openings.get(&id);
                let opened = opening
                    .map(|o| o.handle_keying(from, &keying))
                    .transpose()?;
                if let Some(opened) = opened.flatten() {
                    self.openings.remove(&id);
                    self.insert(opened, Mode::Initiator, None, Some(OpeningId(id)), now);
                }
            }
            _ => self.stats.dropped += 1,
        }
        Ok(())
    }

    /// Answers a hello for us, and tells of one for another. A hello that names nobody we
    /// know of meets silence.
    pub(super) fn answer_hello(
        &mut self,
        hello: &InitiatorHello<'_>,
        from: SocketAddr,
        room: usize,
        now: Instant,
    ) {
        let wanted = Discriminator::parse(hello.discriminator);
        let Ok(wanted) = wanted.map_err(|_| self.stats.dropped += 1) else {
            return;
        };
        if hello.tag.len() > limits::TAG_MAX {
            self.stats.dropped += 1;
        } else if wanted.selects_identity(&self.config.identity) {
            if !self.hellos.take_own(from.ip(), now) {
                self.stats.limited += 1;
                return;
            }
            self.stats.hellos += 1;
            if !self.config.redirect.is_empty() {
                let to = std::mem::take(&mut self.config.redirect);
                self.redirect(from, hello.tag, &to, room, now);
                self.config.redirect = to;
                return;
            }
            let timestamp = self.timestamp(now);
            let (suite, outbox) = (&mut self.startup, &mut self.outbox);
            if outbox.len() >= limits::STARTUP_QUEUE_MAX {
                self.stats.limited += 1;
                return;
            }
            let (near, cookies) = (&self.config.identity, &self.cookies);
            startup::write_hello(hello, from, near, cookies, now, |chunk| {
                super::push_startup(suite, outbox, from, STARTUP_SESSION, timestamp, &chunk);
            });
        } else if let Some(target) = wanted.fingerprint {
            if !self.introductions.take(now) || self.events.len() >= limits::STARTUP_QUEUE_MAX {
                self.stats.limited += 1;
                return;
            }
            self.events.push_back(Event::Introduce {
                target: *target,
                held: self.session_of(target),
                from,
                tag: hello.tag.to_vec(),
                room,
            });
        }
    }

    fn handle_keying(
        &mut self,
        keying: &InitiatorKeying<'_>,
        from: SocketAddr,
        room: usize,
        now: Instant,
    ) -> Result<(), Error> {
        match self.cookies.check(keying.cookie, from, now) {
            Cookie::Good => {}
            Cookie::OtherAddress => {
                if !self.hellos.take_own(from.ip(), now) {
                    self.stats.limited += 1;
                    return Ok(());
                }
                let new = self.cookies.make(from, now);
                let chunk = Chunk::CookieChange(ResponderHelloCookieChange {
                    old: keying.cookie,
                    new: &new,
                });
                // Whoever sends this may have another's address and a cookie of its own: the
                // answer is no longer than what it answers. A keying with a key is.
                self.send_startup(from, keying.session, &chunk, room, now);
                return Ok(());
            }
            Cookie::Forged | Cookie::Expired => {
                self.stats.cookies_refused += 1;
                return Err(Error::Cookie);
            }
        }
        let certificate = Certificate::parse(keying.certificate)?;
        let request = startup::request_of(keying);
        let there = self.by_address.get(&from).copied();
        if let Some(entry) = there.and_then(|id| self.sessions.get(&id)) {
            if let Some((known, component)) = &entry.answered
                && *known == request
            {
                let (id, component) = (there.unwrap_or_default(), component.clone());
                let chunk = startup::keying_chunk(id, &component);
                self.send_startup(from, keying.session, &chunk, limits::DATAGRAM_MAX, now);
                return Ok(());
            }
            // Another's session is not touched, unless it is over.
            if entry.session.is_open() && entry.certificate != keying.certificate {
                return Ok(());
            }
        }
        // Glare (§3.5.1.3): the one whose certificate comes first goes on.
        let asking = self.openings.iter().find(|(_, o)| o.is_asking(from));
        let asking = asking.map(|(id, opening)| (*id, opening.wants(&certificate)));
        if asking.is_some() && self.config.identity.as_bytes() <= keying.certificate {
            return Ok(());
        }
        if !self.keyings.take(from.ip(), now) || !self.has_room() {
            self.stats.limited += 1;
            return Ok(());
        }
        self.stats.keyings += 1;
        let id = self.fresh_id();
        let (near, policy) = (&self.config.identity, &self.config.answer);
        let (opened, component) =
            startup::answer(keying, from, near, id, policy, &mut *self.entropy)?;
        // The same certificate from the same address: the old session is stale (§3.5.1.1.2).
        if let Some(entry) = there.and_then(|id| self.sessions.get_mut(&id)) {
            entry.session.abort();
            queue(&mut self.ready, there.unwrap_or_default(), entry);
        }
        let fulfilled = asking.filter(|(_, wanted)| *wanted).map(|(id, _)| id);
        if let Some(opening) = fulfilled {
            self.openings.remove(&opening);
        }
        let chunk = startup::keying_chunk(id, &component);
        self.send_startup(from, keying.session, &chunk, limits::DATAGRAM_MAX, now);
        let answered = Some((request, component));
        let opening = fulfilled.map(OpeningId);
        self.insert(opened, Mode::Responder, answered, opening, now);
        Ok(())
    }

    /// One who came back from another address has shown to hold the static key of its
    /// certificate: its old sessions are stale. An ephemeral key shows nothing of the kind,
    /// and anyone may have copied the certificate.
    pub(super) fn override_others(&mut self, id: u32) {
        let Some(entry) = self.sessions.get(&id) else {
            return;
        };
        if !Certificate::parse(&entry.certificate).is_ok_and(|c| c.is_static()) {
            return;
        }
        let certificate = entry.certificate.clone();
        let same = self.by_fingerprint.get(&entry.fingerprint);
        let others: Vec<_> = same.into_iter().flatten().copied().collect();
        for other in others.into_iter().filter(|other| *other != id) {
            if let Some(entry) = self.sessions.get_mut(&other)
                && entry.certificate == certificate
            {
                entry.session.abort();
                queue(&mut self.ready, other, entry);
            }
        }
    }
}

fn opening_of<'a>(
    openings: &'a mut std::collections::BTreeMap<u32, Opening>,
    tag: &[u8],
) -> Option<&'a mut Opening> {
    openings.values_mut().find(|opening| opening.tag() == tag)
}
