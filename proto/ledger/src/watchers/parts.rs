//! What is too much for one message goes in parts.

use bytes::Bytes;
use model::{EdgeLife, Epoch, ObjectKey, StreamKey, Version};

use super::{FOLLOWED_MAX, Refusal};
use crate::codec::{parts, size};
use crate::effect::Applied;
use crate::ledger::Ledger;
use crate::limits::{ATTACHED_BYTES_MAX, HELD_MAX, PART_BYTES};
use crate::wire::ToEdge;

/// What an edge says that it has.
#[derive(Debug, Default)]
pub(super) struct Holds {
    pub(super) objects: Vec<(ObjectKey, Epoch, Version)>,
    pub(super) streams: Vec<StreamKey>,
}

impl Holds {
    /// Some more.
    pub(super) fn extend(
        &mut self,
        objects: Vec<(ObjectKey, Epoch, Version)>,
        streams: Vec<StreamKey>,
    ) -> Result<(), Refusal> {
        self.objects.extend(objects);
        self.streams.extend(streams);
        if self.objects.len() > HELD_MAX || self.streams.len() > FOLLOWED_MAX {
            return Err(Refusal::TooMany);
        }
        Ok(())
    }
}

/// What an edge is told that must be told the state: of the objects that it has open as many
/// as have room, and all its streams.
pub(super) fn attached(
    ledger: &Ledger,
    edge: &EdgeLife,
    known: bool,
    holds: &Holds,
) -> Vec<ToEdge> {
    let mut room = ATTACHED_BYTES_MAX;
    let objects = holds
        .objects
        .iter()
        .filter(|(key, _, _)| known && ledger.has_open(key, edge))
        .filter_map(|(key, epoch, version)| {
            let sync = ledger.sync(key, Some((*epoch, *version)))?;
            Some((key.clone(), sync))
        })
        .take_while(|object| {
            let is_room = room > 0;
            room = room.saturating_sub(size(object));
            is_room
        });
    let mut objects = parts(objects);
    let streams = holds.streams.iter();
    let mut streams = parts(streams.map(|key| (key.clone(), ledger.stream(key))));
    let mut messages = Vec::new();
    let mut last = (Vec::new(), Vec::new());
    if objects.len() + streams.len() <= 2 && total(&objects) + total(&streams) <= PART_BYTES {
        last = (
            objects.pop().unwrap_or_default(),
            streams.pop().unwrap_or_default(),
        );
    }
    messages.extend(objects.into_iter().map(|objects| ToEdge::Holds {
        objects,
        streams: Vec::new(),
    }));
    messages.extend(streams.into_iter().map(|streams| ToEdge::Holds {
        objects: Vec::new(),
        streams,
    }));
    messages.push(ToEdge::Attached {
        log: ledger.name(),
        index: ledger.applied(),
        known,
        objects: last.0,
        streams: last.1,
    });
    messages
}

fn total<T: crate::codec::Coded>(parts: &[Vec<T>]) -> usize {
    parts.iter().flatten().map(size).sum()
}

/// What an entry did, in one message or in some.
pub(super) fn applied(applied: Applied) -> Vec<Bytes> {
    let message = ToEdge::Applied(applied);
    let bytes = message.encode();
    if bytes.len() <= PART_BYTES {
        return vec![bytes];
    }
    let ToEdge::Applied(applied) = message else {
        return vec![bytes];
    };
    let Applied {
        index,
        trace,
        effects,
    } = applied;
    let mut parts = parts(effects);
    let last = parts.pop().unwrap_or_default();
    let of = |effects| Applied {
        index,
        trace: trace.clone(),
        effects,
    };
    let mut messages: Vec<Bytes> = parts
        .into_iter()
        .map(|effects| ToEdge::Part(of(effects)).encode())
        .collect();
    messages.push(ToEdge::Applied(of(last)).encode());
    messages
}

#[cfg(test)]
mod tests {
    use model::{
        AppInstance, AppName, InstanceName, LogIndex, ObjectName, SlotName, SlotValue, VhostName,
    };

    use super::*;
    use crate::effect::{Effect, ObjectChange};
    use crate::limits::{BATCH_OPS_MAX, MESSAGE_BYTES_MAX, OBJECT_BYTES_MAX, SLOTS_MAX};

    fn key() -> ObjectKey {
        ObjectKey {
            at: AppInstance {
                vhost: VhostName::default_vhost(),
                app: AppName::new("app").unwrap(),
                instance: InstanceName::default_instance(),
            },
            name: ObjectName::new("chat").unwrap(),
        }
    }

    /// As many slots as there may be, and as large as they may be together.
    fn largest(version: u32) -> Effect {
        let count = SLOTS_MAX + BATCH_OPS_MAX;
        let value = SlotValue(Bytes::from(vec![0; OBJECT_BYTES_MAX / count]));
        let slots = (0..count).map(|n| {
            let name = SlotName::new(&n.to_string()).unwrap();
            (name, Some(value.clone()))
        });
        Effect::Object {
            key: key(),
            epoch: Epoch(1),
            by: None,
            change: ObjectChange::Slots {
                version: Version(version),
                cleared: true,
                slots: slots.collect(),
            },
        }
    }

    #[test]
    fn what_an_entry_did_is_told_in_messages_that_fit_however_much_it_is() {
        let whole = Applied {
            index: LogIndex(7),
            trace: Bytes::from_static(b"trace"),
            effects: (2..12).map(largest).collect(),
        };
        let messages = applied(whole.clone());
        assert_eq!(messages.len(), 10, "each fills a part");
        let mut effects = Vec::new();
        for (place, message) in messages.into_iter().enumerate() {
            assert!(message.len() <= MESSAGE_BYTES_MAX);
            match (place, ToEdge::decode(message).unwrap()) {
                (0..9, ToEdge::Part(part)) | (9, ToEdge::Applied(part)) => {
                    assert_eq!((part.index, &part.trace), (whole.index, &whole.trace));
                    effects.extend(part.effects);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(effects, whole.effects);
    }

    #[test]
    fn what_is_little_goes_in_one_message() {
        let little = Applied {
            index: LogIndex(7),
            trace: Bytes::new(),
            effects: Vec::new(),
        };
        let message = ToEdge::Applied(little.clone()).encode();
        assert_eq!(applied(little), [message]);
    }

    #[test]
    fn an_edge_may_not_say_that_it_has_more_than_there_can_be() {
        let mut holds = Holds::default();
        let some = vec![(key(), Epoch(1), Version(1)); HELD_MAX / 2];
        assert_eq!(holds.extend(some.clone(), Vec::new()), Ok(()));
        assert_eq!(holds.extend(some, Vec::new()), Ok(()));
        let one = vec![(key(), Epoch(1), Version(1))];
        assert_eq!(holds.extend(one, Vec::new()), Err(Refusal::TooMany));
    }
}
