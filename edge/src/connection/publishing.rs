//! What becomes of a client's publishes: what the log and the origins decide about them.

use std::rc::Rc;
use std::time::Instant;

use fabric::v1::refused::Reason;
use model::{Epoch, InstanceName, StreamKey};
use rtmp::{Message, MessageKind, StreamId, UserControl};
use session::{Notice, Refusal, Reply};
use tracing::{debug, info};

use super::Connection;
use super::state::{FULL, Role};
use crate::follow::Asked;
use crate::link::{Grant, LinkId};
use crate::publish::Uplink;
use crate::shard::{PublicationId, Shard};
use crate::upstream::Ask;

impl Connection {
    /// The right to publish was given, for the first time or again.
    pub(crate) fn granted(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        publication: PublicationId,
        grant: Grant,
    ) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let Some((stream, role)) = state.publish(publication) else {
            grant.decline(false);
            return;
        };
        match role {
            Role::Publishing(uplink) => uplink.attach(grant),
            Role::Asking {
                request,
                key,
                phase,
                ..
            } => {
                info!(client = self.number, stream = %key, epoch = %grant.epoch, "publishing");
                let request = *request;
                phase.count("selvage.epoch", grant.epoch.0);
                let span = phase.place();
                let chooser = shard.chooser(publication);
                let uplink = Uplink::new(publication, key.clone(), span, chooser, grant);
                state.accept_publish(stream, request, uplink, now);
                state.settle(self, shard, now);
            }
            Role::Playing(_) => {}
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The origin took bytes of a publish.
    pub(crate) fn credited(&self, publication: PublicationId, link: LinkId, bytes: u64) {
        let mut state = self.state.borrow_mut();
        let slept = !state.wants_input();
        if let Some((_, Role::Publishing(uplink))) = state.publish(publication) {
            uplink.credit(link, bytes);
        }
        if slept && state.wants_input() {
            self.wake.notify_one();
        }
    }

    /// The link that held a publish is gone.
    pub(crate) fn detached(&self, publication: PublicationId, link: LinkId) {
        if let Some((_, Role::Publishing(uplink))) = self.state.borrow_mut().publish(publication) {
            uplink.detach(link, Instant::now());
        }
        self.wake.notify_one();
    }

    /// Where a publish stands.
    pub(crate) fn position(&self, publication: PublicationId) -> Option<(Epoch, u64)> {
        match self.state.borrow_mut().publish(publication) {
            Some((_, Role::Publishing(uplink))) => Some(uplink.position()),
            Some((_, Role::Asking { .. } | Role::Playing(_))) | None => None,
        }
    }

    /// A publish is refused or over.
    pub(crate) fn ended(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        publication: PublicationId,
        reason: Reason,
    ) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let Some((stream, _)) = state.publish(publication) else {
            return;
        };
        shard.forget(publication);
        match state.streams.remove(&stream) {
            Some(Role::Asking {
                request,
                key,
                mut phase,
                ..
            }) => {
                phase.set("error.type", reason.as_str_name());
                phase.fail("the publish was refused");
                debug!(client = self.number, stream = %key, ?reason, "publish refused");
                let refusal = match reason {
                    Reason::InUse | Reason::Superseded => Refusal::BadName,
                    Reason::Limit => Refusal::Failed {
                        description: FULL.into(),
                    },
                    Reason::Unspecified | Reason::Invalid | Reason::Draining => Refusal::Failed {
                        description: "The server cannot take the stream.".into(),
                    },
                };
                state.reply(request, Reply::Refuse(refusal), now);
            }
            Some(Role::Publishing(uplink)) => {
                // It may be held where another origin's word has not been heard.
                uplink.unpublish(reason.as_str_name());
                info!(client = self.number, ?reason, "publish ended by the fabric");
                let notice = match reason {
                    Reason::InUse | Reason::Superseded => Notice::Superseded,
                    Reason::Unspecified | Reason::Limit | Reason::Invalid | Reason::Draining => {
                        Notice::Lost
                    }
                };
                state.session.handle_notice(stream, notice, now);
            }
            Some(Role::Playing(_)) | None => {}
        }
        state.settle(self, shard, now);
        drop(state);
        self.wake.notify_one();
    }

    /// Another with the same token holds the name: the publish is accepted, and its frames
    /// are kept until it is its turn.
    pub(crate) fn standby(self: &Rc<Self>, shard: &Rc<Shard>, publication: PublicationId) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        if let Some((
            stream,
            Role::Asking {
                request,
                key,
                phase,
                ..
            },
        )) = state.publish(publication)
        {
            phase.set("selvage.standby", true);
            info!(client = self.number, stream = %key, "standing by");
            let request = *request;
            let chooser = shard.chooser(publication);
            let uplink = Uplink::standby(publication, key.clone(), phase.place(), chooser);
            state.accept_publish(stream, request, uplink, now);
            state.settle(self, shard, now);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// An operator wants to see frames of a stream, if it is published here. Says whether it is.
    pub(crate) fn trace(&self, stream: &str, asked: &Asked) -> bool {
        let mut state = self.state.borrow_mut();
        let uplinks = state.streams.values_mut().filter_map(|role| match role {
            Role::Publishing(uplink) if is_called(uplink.key(), stream) => Some(uplink),
            Role::Publishing(_) | Role::Asking { .. } | Role::Playing(_) => None,
        });
        let mut taken = false;
        for uplink in uplinks {
            taken |= uplink.ask_for_traces(asked.clone());
        }
        state.stamps |= taken;
        taken
    }

    /// The publish begins anew under this epoch.
    pub(crate) fn incarnate(&self, publication: PublicationId, epoch: Epoch) {
        if let Some((_, Role::Publishing(uplink))) = self.state.borrow_mut().publish(publication) {
            uplink.incarnate(epoch, Instant::now());
        }
        self.wake.notify_one();
    }

    /// Somebody else wants the name. A publisher that was heard of a moment ago is alive, and
    /// so is one whose socket we have not been reading; any other is asked.
    pub(crate) fn challenged(self: &Rc<Self>, shard: &Rc<Shard>, publication: PublicationId) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        if !state.wants_input() || now < state.heard + shard.settings.publish_timeout {
            shard.ask(Ask::Affirm { publication });
            return;
        }
        state.carrier.write_message(&Message {
            kind: MessageKind::UserControl,
            stream: StreamId::CONNECTION,
            time: 0,
            payload: UserControl::PingRequest(0).encode(),
        });
        state.collect();
        let until = now + shard.settings.publish_timeout;
        state.challenged.push((publication, until));
        drop(state);
        self.wake.notify_one();
    }
}

/// Whether people mean this stream: the instance that every application has is left out by most.
fn is_called(key: &StreamKey, text: &str) -> bool {
    let short = || format!("{}/{}", key.at.app, key.name);
    let usual = key.at.instance == InstanceName::default_instance();
    key.to_string() == text || (usual && short() == text)
}
