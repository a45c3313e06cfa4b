//! The one who begins (RFC 7016 §3.5.1.1.1).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{NO_SIGNATURE, Opened};
use crate::chunk::{
    Chunk, InitiatorHello, InitiatorKeying, Redirect, ResponderHello, ResponderHelloCookieChange,
    ResponderKeying,
};
use crate::crypto::identity::{Certificate, Discriminator, Identity};
use crate::crypto::keying::{Initiation, Policy};
use crate::crypto::{Entropy, Group};
use crate::error::Error;
use crate::limits;

/// An attempt is over after so long, whatever happened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(95);
/// The first time to wait for an answer, and what is added each time (at least 1.5 s).
const BACKOFF: Duration = Duration::from_millis(1500);
/// The tag of our hellos in bytes. At least 8 are recommended.
const TAG_LEN: usize = 16;

/// When something is sent the next time.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    due: Instant,
    interval: Duration,
}

impl Backoff {
    const fn new(now: Instant) -> Self {
        Self {
            due: now,
            interval: BACKOFF,
        }
    }

    fn sent(&mut self, now: Instant) {
        self.due = now + self.interval;
        self.interval += BACKOFF;
    }
}

#[derive(Debug)]
struct Keying {
    to: SocketAddr,
    certificate: Vec<u8>,
    cookie: Vec<u8>,
    cookie_changed: bool,
    begun: Initiation,
    backoff: Backoff,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It changed something: ask [`Opening::next_send`].
    Taken,
    /// It is not for this attempt, or came too late or twice.
    Ignored,
}

/// An attempt to open a session.
#[derive(Debug)]
pub struct Opening {
    discriminator: Vec<u8>,
    tag: [u8; TAG_LEN],
    near_id: u32,
    strongest: Group,
    policy: Policy,
    candidates: Vec<(SocketAddr, Backoff)>,
    keying: Option<Keying>,
    fail_at: Instant,
}

impl Opening {
    /// Looks for `discriminator` at each of `to`, of which no more than
    /// [`limits::CANDIDATES_MAX`] are asked. `near_id` is the id of the session's packets
    /// to us, and no other session's.
    #[must_use]
    pub fn new(
        discriminator: &[u8],
        to: &[SocketAddr],
        near_id: u32,
        (strongest, policy): (Group, Policy),
        entropy: &mut dyn Entropy,
        now: Instant,
    ) -> Self {
        let mut tag = [0; TAG_LEN];
        entropy.fill(&mut tag);
        let mut opening = Self {
            discriminator: discriminator.to_vec(),
            tag,
            near_id,
            strongest,
            policy,
            candidates: Vec::new(),
            keying: None,
            fail_at: now + OPEN_TIMEOUT,
        };
        for address in to {
            opening.add_candidate(*address, now);
        }
        opening
    }

    /// Asks at `address` as well.
    pub fn add_candidate(&mut self, address: SocketAddr, now: Instant) {
        let known = self.candidates.iter().any(|(known, _)| *known == address);
        let unusable = address.port() == 0 || address.ip().is_unspecified();
        if !known && !unusable && self.candidates.len() < limits::CANDIDATES_MAX {
            self.candidates.push((address, Backoff::new(now)));
        }
    }

    /// The tag of its hellos.
    #[must_use]
    pub const fn tag(&self) -> &[u8] {
        &self.tag
    }

    /// The id of packets to us.
    #[must_use]
    pub const fn near_id(&self) -> u32 {
        self.near_id
    }

    /// Whether it is talking to `address`: a keying from there is glare.
    #[must_use]
    pub fn is_asking(&self, address: SocketAddr) -> bool {
        match &self.keying {
            Some(keying) => keying.to == address,
            None => self.candidates.iter().any(|(known, _)| *known == address),
        }
    }

    /// Whether it wants the one with this certificate.
    #[must_use]
    pub fn wants(&self, certificate: &Certificate<'_>) -> bool {
        match &self.keying {
            Some(keying) => keying.certificate == certificate.as_bytes(),
            None => Discriminator::parse(&self.discriminator)
                .is_ok_and(|wanted| wanted.selects(certificate)),
        }
    }

    /// Takes an answer to its hello.
    ///
    /// # Errors
    /// [`Error::OtherCertificate`] for one who was not asked for; what
    /// [`Certificate::parse`] and [`Initiation::new`] refuse. The attempt goes on: another
    /// may answer.
    pub fn handle_hello(
        &mut self,
        from: SocketAddr,
        hello: &ResponderHello<'_>,
        near: &Identity,
        entropy: &mut dyn Entropy,
        now: Instant,
    ) -> Result<Step, Error> {
        if self.keying.is_some() || hello.tag != self.tag {
            return Ok(Step::Ignored);
        }
        if hello.cookie.len() > limits::FAR_COOKIE_MAX {
            return Err(Error::Cookie);
        }
        let far = Certificate::parse(hello.certificate)?;
        if !Discriminator::parse(&self.discriminator)?.selects(&far) {
            return Err(Error::OtherCertificate);
        }
        let begun = Initiation::new(near, &far, self.strongest, self.policy, entropy)?;
        self.keying = Some(Keying {
            to: from,
            certificate: hello.certificate.to_vec(),
            cookie: hello.cookie.to_vec(),
            cookie_changed: false,
            begun,
            backoff: Backoff::new(now),
        });
        Ok(Step::Taken)
    }

    /// Takes other addresses to ask at. Without any, `from` is one.
    pub fn handle_redirect(
        &mut self,
        from: SocketAddr,
        redirect: &Redirect<'_>,
        now: Instant,
    ) -> Step {
        if self.keying.is_some() || redirect.tag != self.tag {
            return Step::Ignored;
        }
        let before = self.candidates.len();
        let mut any = false;
        for address in redirect.to.iter() {
            any = true;
            self.add_candidate(address.at, now);
        }
        if !any {
            self.add_candidate(from, now);
        }
        if self.candidates.len() > before {
            Step::Taken
        } else {
            Step::Ignored
        }
    }

    /// Takes a new cookie in place of the one that was for another address of ours. Once:
    /// whoever answers so again is playing with us.
    pub fn handle_cookie_change(
        &mut self,
        change: &ResponderHelloCookieChange<'_>,
        now: Instant,
    ) -> Step {
        match &mut self.keying {
            Some(keying)
                if !keying.cookie_changed
                    && keying.cookie == change.old
                    && change.new.len() <= limits::FAR_COOKIE_MAX =>
            {
                keying.cookie = change.new.to_vec();
                keying.cookie_changed = true;
                keying.backoff.due = now;
                Step::Taken
            }
            Some(_) | None => Step::Ignored,
        }
    }

    /// Takes the responder's part of the keys, which came from `from` to our id. Nothing
    /// when the attempt did not get so far.
    ///
    /// # Errors
    /// What [`Initiation::finish`] refuses. The attempt goes on: it may be forged.
    pub fn handle_keying(
        &self,
        from: SocketAddr,
        keying: &ResponderKeying<'_>,
    ) -> Result<Option<Opened>, Error> {
        let Some(state) = &self.keying else {
            return Ok(None);
        };
        let far = Certificate::parse(&state.certificate)?;
        let keys = state.begun.finish(&far, keying.component)?;
        Ok(Some(Opened {
            keys,
            near_id: self.near_id,
            far_id: keying.session,
            far: from,
            certificate: state.certificate.clone(),
        }))
    }

    /// When to ask [`next_send`](Self::next_send), or give up.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        let due = match &self.keying {
            Some(keying) => Some(keying.backoff.due),
            None => self.candidates.iter().map(|(_, b)| b.due).min(),
        };
        due.map_or(self.fail_at, |due| due.min(self.fail_at))
    }

    /// Whether to give up.
    #[must_use]
    pub fn has_failed(&self, now: Instant) -> bool {
        now >= self.fail_at
    }

    /// What is to be sent now, and where to; in startup packets of session 0. Ask until
    /// there is nothing more.
    pub fn next_send(
        &mut self,
        near: &Identity,
        now: Instant,
        send: impl FnOnce(SocketAddr, Chunk<'_>),
    ) -> bool {
        if let Some(keying) = &mut self.keying {
            if keying.backoff.due > now {
                return false;
            }
            keying.backoff.sent(now);
            send(
                keying.to,
                Chunk::InitiatorKeying(InitiatorKeying {
                    session: self.near_id,
                    cookie: &keying.cookie,
                    certificate: near.as_bytes(),
                    component: keying.begun.component(),
                    signature: NO_SIGNATURE,
                }),
            );
            return true;
        }
        let mut candidates = self.candidates.iter_mut();
        let Some((to, backoff)) = candidates.find(|(_, backoff)| backoff.due <= now) else {
            return false;
        };
        backoff.sent(now);
        send(
            *to,
            Chunk::InitiatorHello(InitiatorHello {
                discriminator: &self.discriminator,
                tag: &self.tag,
            }),
        );
        true
    }
}
