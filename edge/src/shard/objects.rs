//! What a shard's clients are told of objects.

use std::rc::Rc;
use std::sync::Arc;

use ledger::replica::Recipients;
use model::object::ObjectUpdate;

use super::Shard;
use crate::connection::{Connection, Drawn};
use crate::shared::shard_of;
use crate::traces::Fanout;

impl Shard {
    /// Tells this shard's own among the recipients. What all are told is drawn once.
    pub(super) fn tell(
        self: &Rc<Self>,
        to: &Recipients,
        update: Arc<ObjectUpdate>,
        span: Option<Arc<Fanout>>,
    ) {
        let (mut count, mut bytes) = (0, 0);
        match to {
            Recipients::One(one) => {
                if let Some(connection) = self.client(*one) {
                    connection.answer(self, &update);
                    self.touch(connection);
                    count = 1;
                }
            }
            Recipients::Many {
                subscribers,
                except,
            } => {
                let drawn = Drawn::new(update);
                let index = self.handle.index;
                let first = subscribers.partition_point(|one| shard_of(*one) < index);
                let own = subscribers[first..]
                    .iter()
                    .take_while(|one| shard_of(**one) == index)
                    .filter(|one| Some(**one) != *except);
                for one in own {
                    if let Some(connection) = self.client(*one) {
                        connection.tell(self, &drawn);
                        self.touch(connection);
                        count += 1;
                    }
                }
                bytes = count * drawn.bytes();
            }
        }
        if let Some(span) = span {
            span.told(count, bytes);
            self.telling.borrow_mut().push(span);
        }
    }

    fn touch(&self, connection: Rc<Connection>) {
        if connection.touch() {
            self.touched.borrow_mut().push(connection);
        }
    }

    /// Writes to those who were told something: once, however much it was.
    pub(super) fn write_touched(self: &Rc<Self>) {
        for connection in self.touched.take() {
            connection.pump_touched(self);
        }
        self.telling.borrow_mut().clear();
    }
}
