//! What a client's message asks.

use model::object::ObjectAsk;
use model::{SlotName, SlotOp};

use super::value;
use super::wire::{ObjectMessage, WireEvent};

/// A client's events in the words of the model.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    pub(crate) asks: Vec<ObjectAsk>,
    /// Slots that were to be given a value that cannot be read, or is too large. They must
    /// be answered like any other, or the client waits for ever.
    pub(crate) unreadable: Vec<SlotName>,
}

impl Asks {
    /// Neighbouring changes are one batch. What only servers say is left out, and so are
    /// messages to all that nobody could read.
    ///
    /// A slot that is given null is taken away, as players mean it; and so is one that is
    /// given undefined: to a script, a slot that is undefined and one that is not there
    /// are the same, and the request is answered.
    pub(crate) fn of(message: ObjectMessage) -> Self {
        let mut all = Self::default();
        for event in message.events {
            match event {
                WireEvent::Use => all.asks.push(ObjectAsk::Use),
                WireEvent::Release => all.asks.push(ObjectAsk::Release),
                WireEvent::RequestChange { slot, value } if value::is_nothing(&value) => {
                    all.write(SlotOp::Remove { slot });
                }
                WireEvent::RequestChange { slot, value } => all.write(SlotOp::Set { slot, value }),
                WireEvent::RequestRemove { slot } => all.write(SlotOp::Remove { slot }),
                WireEvent::RequestClear => all.write(SlotOp::Clear),
                WireEvent::Send(payload) if value::is_call(&payload) => {
                    all.asks.push(ObjectAsk::Send(payload));
                }
                WireEvent::Unreadable { event: 3, slot } => all.unreadable.push(slot),
                WireEvent::Send(_)
                | WireEvent::Unreadable { .. }
                | WireEvent::Change { .. }
                | WireEvent::Success { .. }
                | WireEvent::Status { .. }
                | WireEvent::Clear
                | WireEvent::Remove { .. }
                | WireEvent::UseSuccess
                | WireEvent::SlotNumber { .. }
                | WireEvent::ChangeEcho { .. } => {}
            }
        }
        all
    }

    fn write(&mut self, op: SlotOp) {
        if let Some(ObjectAsk::Write(batch)) = self.asks.last_mut() {
            batch.push(op);
        } else {
            self.asks.push(ObjectAsk::Write(vec![op]));
        }
    }
}
