//! The keys of a session: what both sides say, and what follows from it (RFC 7425 §4.5,
//! §4.6).
//!
//! Either side has a static public key in its certificate or sends an ephemeral one. They
//! also negotiate, each direction by itself, whether packets are authenticated and numbered.
//! Known clients announce what they cannot do; [`Wish::Mirror`] is what all of them can
//! live with.

use hmac::Mac;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::identity::{Certificate, Identity};
use super::{Entropy, FlashSuite, Group, HMAC_LEN_MAX, KeyPair, Opener, Sealer, Verification};
use crate::error::Error;
use crate::limits;
use crate::option::{Opt, Options};
use crate::wire::{Reader, Writer};

mod kind {
    pub(super) const EPHEMERAL_KEY: u64 = 0x0d;
    pub(super) const EXTRA_RANDOMNESS: u64 = 0x0e;
    pub(super) const GROUP_SELECT: u64 = 0x1d;
    pub(super) const HMAC: u64 = 0x1a;
    pub(super) const SEQUENCE: u64 = 0x1e;
}

/// The flags of a negotiation option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags {
    /// The sender will do it.
    always: bool,
    /// The sender will do it if the other side requests it.
    on_request: bool,
    /// The sender wants the other side to do it.
    request: bool,
}

impl Flags {
    const fn from_byte(byte: u8) -> Self {
        Self {
            always: byte & 4 != 0,
            on_request: byte & 2 != 0,
            request: byte & 1 != 0,
        }
    }

    fn byte(self) -> u8 {
        u8::from(self.always) << 2 | u8::from(self.on_request) << 1 | u8::from(self.request)
    }

    const fn can(self) -> bool {
        self.always || self.on_request
    }

    const fn does(self, other: Self) -> bool {
        self.always || self.on_request && other.request
    }
}

/// What we want of something that is negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing of it in either direction.
    Never,
    /// As responder, do what the initiator requests and request what it will do anyhow. As
    /// initiator, do it when the responder requests it. Some clients announce that they do
    /// it on request and do not: nothing is requested that they might have announced in vain.
    Mirror,
    /// Do it, and request it.
    Always,
    /// Do it, request it, and take no session with one who does not do it.
    Required,
}

impl Wish {
    const fn initiator(self) -> Flags {
        match self {
            Self::Never => Flags::from_byte(0),
            Self::Mirror => Flags::from_byte(2),
            Self::Always | Self::Required => Flags::from_byte(7),
        }
    }

    const fn responder(self, far: Flags) -> Flags {
        match self {
            Self::Never => Flags::from_byte(0),
            Self::Mirror => Flags {
                always: far.request,
                on_request: false,
                request: far.always,
            },
            Self::Always | Self::Required => Flags::from_byte(7),
        }
    }
}

/// What we want negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Authentication of packets.
    pub hmac: Wish,
    /// The length of our authentication codes, 4 to 32.
    pub hmac_len: u8,
    /// Numbering of packets.
    pub sequence: Wish,
}

impl Policy {
    /// What every known peer can live with.
    pub const MIRROR: Self = Self {
        hmac: Wish::Mirror,
        hmac_len: 16,
        sequence: Wish::Mirror,
    };

    /// Authentication and numbers in both directions, when the peer can.
    pub const ALWAYS: Self = Self {
        hmac: Wish::Always,
        hmac_len: 16,
        sequence: Wish::Always,
    };
}

/// What one side says.
#[derive(Clone, Copy, Debug)]
struct Component<'a> {
    ephemeral: Option<(u64, &'a [u8])>,
    group: Option<u64>,
    hmac: Flags,
    hmac_len: u8,
    sequence: Flags,
}

impl<'a> Component<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let malformed = Error::Malformed {
            what: "session keying component",
        };
        if bytes.len() > limits::COMPONENT_MAX {
            return Err(malformed);
        }
        let mut found = Self {
            ephemeral: None,
            group: None,
            hmac: Flags::default(),
            hmac_len: 0,
            sequence: Flags::default(),
        };
        for option in Options::parse_all(bytes).ok_or(malformed)? {
            let mut value = Reader::new(option.value);
            match option.kind {
                kind::EPHEMERAL_KEY => {
                    let group = value.vlu().ok_or(malformed)?;
                    if found.ephemeral.replace((group, value.rest())).is_some() {
                        return Err(malformed);
                    }
                }
                kind::GROUP_SELECT => {
                    let group = value.vlu().ok_or(malformed)?;
                    if found.group.replace(group).is_some() {
                        return Err(malformed);
                    }
                }
                kind::HMAC => {
                    found.hmac = Flags::from_byte(value.u8().ok_or(malformed)?);
                    let len = value.vlu().ok_or(malformed)?;
                    found.hmac_len = u8::try_from(len).map_err(|_| malformed)?;
                }
                kind::SEQUENCE => {
                    found.sequence = Flags::from_byte(value.u8().ok_or(malformed)?);
                }
                _ => {}
            }
        }
        if found.hmac.can() && !(4..=HMAC_LEN_MAX).contains(&usize::from(found.hmac_len)) {
            return Err(malformed);
        }
        Ok(found)
    }
}

/// How many random bytes salt the keys of one who has a static key.
const SALT_LEN: usize = 64;

/// The negotiating options, in the order that known clients demand of a responder.
fn write_flags(
    out: &mut Writer<'_>,
    hmac: Flags,
    sequence: Flags,
    policy: &Policy,
) -> Result<(), Error> {
    let len = if hmac.can() { policy.hmac_len } else { 0 };
    let (kind, value) = (kind::HMAC, &[hmac.byte(), len]);
    Opt { kind, value }.write(out)?;
    let (kind, value) = (kind::SEQUENCE, &[sequence.byte()]);
    Opt { kind, value }.write(out)?;
    Ok(())
}

fn write_salt(out: &mut Writer<'_>, entropy: &mut dyn Entropy) -> Result<(), Error> {
    let mut salt = [0; SALT_LEN];
    entropy.fill(&mut salt);
    let (kind, value) = (kind::EXTRA_RANDOMNESS, &salt);
    Ok(Opt { kind, value }.write(out)?)
}

fn write_key(out: &mut Writer<'_>, pair: &KeyPair) -> Result<(), Error> {
    let mut value = vec![pair.group().id()];
    value.extend_from_slice(pair.public());
    let kind = kind::EPHEMERAL_KEY;
    let value = &value;
    Ok(Opt { kind, value }.write(out)?)
}

/// What an initiator remembers until the responder's component comes. Keys are wiped when
/// it is dropped.
#[derive(Clone, Debug)]
pub struct Initiation {
    component: Vec<u8>,
    pair: KeyPair,
    policy: Policy,
}

impl Initiation {
    /// Chooses the strongest group that both have, at most `strongest`, and writes the
    /// initiator's component.
    ///
    /// # Errors
    /// [`Error::NoCommonGroup`], [`Error::Entropy`], [`Error::NoRoom`].
    pub fn new(
        near: &Identity,
        far: &Certificate<'_>,
        strongest: Group,
        policy: Policy,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, Error> {
        let has = |group: Group| {
            let ours =
                near.static_key(group).is_some() || near.certificate().supports_ephemeral(group);
            let theirs = far.static_key(group).is_some() || far.supports_ephemeral(group);
            group <= strongest && ours && theirs
        };
        let group = Group::ALL.into_iter().find(|group| has(*group));
        let group = group.ok_or(Error::NoCommonGroup)?;
        let mut buffer = [0; limits::COMPONENT_MAX];
        let mut out = Writer::new(&mut buffer);
        let pair = if let Some(pair) = near.static_key(group) {
            let (kind, value) = (kind::GROUP_SELECT, &[group.id()]);
            Opt { kind, value }.write(&mut out)?;
            write_salt(&mut out, entropy)?;
            pair.clone()
        } else {
            let pair = KeyPair::generate(group, entropy)?;
            write_key(&mut out, &pair)?;
            pair
        };
        let (hmac, sequence) = (policy.hmac.initiator(), policy.sequence.initiator());
        write_flags(&mut out, hmac, sequence, &policy)?;
        Ok(Self {
            component: out.written().to_vec(),
            pair,
            policy,
        })
    }

    /// What goes to the responder.
    #[must_use]
    pub fn component(&self) -> &[u8] {
        &self.component
    }

    /// The session's keys, when the responder's component is here.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::NoCommonGroup`] when the responder's key is missing
    /// or of another group, [`Error::WeakPublicKey`], [`Error::Required`].
    pub fn finish(&self, far: &Certificate<'_>, component: &[u8]) -> Result<SessionKeys, Error> {
        let said = Component::parse(component)?;
        let near = Component::parse(&self.component)?;
        let group = self.pair.group();
        let public = match far.static_key(group) {
            Some(key) => key,
            None => ephemeral_of(&said, group)?,
        };
        let secret = self.pair.agree(public)?;
        let (send, receive) = verification(&near, &said, &self.policy)?;
        let sides = [&self.component, component];
        Ok(SessionKeys::derive(&secret, sides, send, receive))
    }
}

fn ephemeral_of<'a>(said: &Component<'a>, group: Group) -> Result<&'a [u8], Error> {
    match said.ephemeral {
        Some((id, key)) if id == u64::from(group.id()) => Ok(key),
        Some(_) | None => Err(Error::NoCommonGroup),
    }
}

/// How packets of ours are verified, and how those of the other side.
fn verification(
    near: &Component<'_>,
    far: &Component<'_>,
    policy: &Policy,
) -> Result<(Verification, Verification), Error> {
    if policy.hmac == Wish::Required && !far.hmac.can() {
        return Err(Error::Required {
            what: "authentication of packets",
        });
    }
    if policy.sequence == Wish::Required && !far.sequence.can() {
        return Err(Error::Required {
            what: "numbers of packets",
        });
    }
    let direction = |from: &Component<'_>, to: &Component<'_>| Verification {
        hmac_len: from.hmac.does(to.hmac).then_some(from.hmac_len),
        sequence: from.sequence.does(to.sequence),
    };
    Ok((direction(near, far), direction(far, near)))
}

/// Which group an initiator chose. It is what makes a responder's work dear, and known
/// before the work is done.
///
/// # Errors
/// [`Error::Malformed`], [`Error::NoCommonGroup`].
pub fn chosen_group(
    near: &Identity,
    far: &Certificate<'_>,
    component: &[u8],
) -> Result<Group, Error> {
    let said = Component::parse(component)?;
    let id = if far.is_static() {
        said.group
    } else {
        said.ephemeral.map(|(id, _)| id)
    };
    id.and_then(Group::from_id)
        .filter(|group| {
            near.static_key(*group).is_some() || near.certificate().supports_ephemeral(*group)
        })
        .ok_or(Error::NoCommonGroup)
}

/// Answers an initiator's component with ours and the session's keys. This is the dear part
/// of a startup: one or two exponentiations.
///
/// # Errors
/// [`Error::Malformed`], [`Error::NoCommonGroup`], [`Error::WeakPublicKey`],
/// [`Error::Required`], [`Error::Entropy`], [`Error::NoRoom`].
pub fn respond(
    near: &Identity,
    far: &Certificate<'_>,
    component: &[u8],
    policy: &Policy,
    entropy: &mut dyn Entropy,
) -> Result<(Vec<u8>, SessionKeys), Error> {
    let said = Component::parse(component)?;
    let group = chosen_group(near, far, component)?;
    let public = if far.is_static() {
        far.static_key(group).ok_or(Error::NoCommonGroup)?
    } else {
        ephemeral_of(&said, group)?
    };
    // Before our own key is drawn, which is as dear.
    group.check_public_key(public)?;
    let mut buffer = [0; limits::COMPONENT_MAX];
    let mut out = Writer::new(&mut buffer);
    let hmac = policy.hmac.responder(said.hmac);
    let sequence = policy.sequence.responder(said.sequence);
    write_flags(&mut out, hmac, sequence, policy)?;
    let ephemeral;
    let pair = if let Some(pair) = near.static_key(group) {
        write_salt(&mut out, entropy)?;
        pair
    } else {
        ephemeral = KeyPair::generate(group, entropy)?;
        write_key(&mut out, &ephemeral)?;
        &ephemeral
    };
    let written = out.written();
    let (send, receive) = verification(&Component::parse(written)?, &said, policy)?;
    let secret = pair.agree(public)?;
    let keys = SessionKeys::derive(&secret, [written, component], send, receive);
    Ok((written.to_vec(), keys))
}

/// The keys of a session (§4.6). They are wiped when this is dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKeys {
    encrypt: [u8; 32],
    decrypt: [u8; 32],
    hmac_send: [u8; 32],
    hmac_receive: [u8; 32],
    near_nonce: [u8; 32],
    far_nonce: [u8; 32],
    #[zeroize(skip)]
    send: Verification,
    #[zeroize(skip)]
    receive: Verification,
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKeys")
            .field("send", &self.send)
            .field("receive", &self.receive)
            .finish_non_exhaustive()
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = super::keyed(key);
    mac.update(message);
    mac.finalize().into_bytes().into()
}

impl SessionKeys {
    /// Derives them from the shared secret and both components, ours first.
    fn derive(
        secret: &[u8],
        [near, far]: [&[u8]; 2],
        send: Verification,
        receive: Verification,
    ) -> Self {
        let encrypt = hmac(secret, &*Zeroizing::new(hmac(far, near)));
        let decrypt = hmac(secret, &*Zeroizing::new(hmac(near, far)));
        Self {
            encrypt,
            decrypt,
            hmac_send: hmac(secret, &encrypt),
            hmac_receive: hmac(secret, &decrypt),
            near_nonce: hmac(secret, near),
            far_nonce: hmac(secret, far),
            send,
            receive,
        }
    }

    /// What seals and opens the session's packets.
    #[must_use]
    pub fn suite(&self) -> FlashSuite {
        let half = |key: &[u8; 32]| {
            let mut half = Zeroizing::new([0; 16]);
            half.copy_from_slice(&key[..16]);
            half
        };
        FlashSuite::new(
            Sealer::new(&half(&self.encrypt), &self.hmac_send, self.send),
            Opener::new(&half(&self.decrypt), &self.hmac_receive, self.receive),
        )
    }

    /// How packets of ours are verified.
    #[must_use]
    pub const fn send(&self) -> Verification {
        self.send
    }

    /// How packets of the far end are verified.
    #[must_use]
    pub const fn receive(&self) -> Verification {
        self.receive
    }

    /// A secret that both ends know, ours (§4.6.5).
    #[must_use]
    pub const fn near_nonce(&self) -> &[u8; 32] {
        &self.near_nonce
    }

    /// A secret that both ends know, the far end's (§4.6.5).
    #[must_use]
    pub const fn far_nonce(&self) -> &[u8; 32] {
        &self.far_nonce
    }
}

#[cfg(test)]
#[path = "keying_tests.rs"]
mod tests;
