//! What the book says and hears, in the words of the fabric.

use fabric::Invalid;
use fabric::peers::{id, observed, reported};
use fabric::v1::{self, FromDirectory, from_directory, outcome, to_directory, verdict};
use rtmfp::crypto::identity::Fingerprint;

use super::book::{Answer, Initiator, Presence, Verdict};

/// What an origin said.
pub(super) enum Heard {
    /// Someone wants to talk with a peer of this edge.
    Asked {
        id: u64,
        peer: Fingerprint,
        initiator: Initiator,
    },
    /// What became of a seek.
    Answered { id: u64, answer: Answer },
}

/// Reads what an origin said. Nothing, when it is not known here.
pub(super) fn heard(message: FromDirectory) -> Result<Option<Heard>, Invalid> {
    Ok(match message.body {
        Some(from_directory::Body::Introduction(asked)) => {
            let initiator = fabric::peers::initiator(asked.initiator)?;
            Some(Heard::Asked {
                id: asked.id,
                peer: id(&asked.peer)?,
                initiator: Initiator {
                    observed: observed(initiator.observed.as_ref())?,
                    reported: reported(&initiator.reported)?,
                    app: initiator.app,
                    tag: initiator.tag.to_vec(),
                },
            })
        }
        Some(from_directory::Body::Outcome(outcome)) => {
            let answer = match outcome.state() {
                outcome::State::Found => Answer::Found {
                    observed: observed(outcome.observed.as_ref())?,
                    reported: reported(&outcome.reported)?,
                },
                outcome::State::Refused => Answer::Refused,
                outcome::State::Unknown => Answer::Unknown,
                outcome::State::Busy | outcome::State::Unspecified => Answer::Busy,
            };
            let id = outcome.id;
            Some(Heard::Answered { id, answer })
        }
        None => None,
    })
}

/// Asks for a peer.
pub(super) fn seek(id: u64, peer: &Fingerprint, initiator: Initiator) -> to_directory::Body {
    let reported = initiator.reported.into_iter();
    to_directory::Body::Seek(v1::Seek {
        id,
        peer: peer.to_vec().into(),
        initiator: Some(v1::Initiator {
            observed: Some(initiator.observed.into()),
            reported: reported.map(Into::into).collect(),
            app: initiator.app,
            tag: initiator.tag.into(),
        }),
    })
}

/// Answers for a peer.
pub(super) fn verdict(id: u64, verdict: Verdict) -> to_directory::Body {
    let state = match verdict {
        Verdict::Forwarded => verdict::State::Forwarded,
        Verdict::Refused => verdict::State::Refused,
        Verdict::Gone => verdict::State::Gone,
    };
    to_directory::Body::Verdict(v1::Verdict {
        id,
        state: state.into(),
    })
}

/// Says who came and who left.
pub(super) fn news(news: Vec<(Fingerprint, Option<Presence>)>) -> to_directory::Body {
    let peers = news.into_iter().map(|(peer, presence)| {
        let mut wire = v1::PeerPresence {
            peer: peer.to_vec().into(),
            ..v1::PeerPresence::default()
        };
        if let Some(presence) = presence {
            wire.observed = Some(presence.observed.into());
            wire.reported = presence.reported.into_iter().map(Into::into).collect();
            wire.age_millis = u64::try_from(presence.age.as_millis()).unwrap_or(u64::MAX);
        }
        wire
    });
    to_directory::Body::News(v1::PeerNews {
        peers: peers.collect(),
    })
}
