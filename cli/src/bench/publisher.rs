//! The publisher of a measurement.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use client::{Options, Publisher, Target};
use rtmp::MessageKind;

use super::stream::Synthetic;
use super::wall_micros;

/// How many publishing times are remembered: half an hour of video.
const KEPT: usize = 30 * 1800;

/// When the pictures were published.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Rc<RefCell<VecDeque<u64>>>);

impl Log {
    /// How many pictures were published from one moment to another (microseconds of the
    /// wall clock).
    pub(super) fn between(&self, from: u64, to: u64) -> usize {
        self.0
            .borrow()
            .iter()
            .filter(|at| (from..to).contains(at))
            .count()
    }

    fn note(&self) -> u64 {
        let now = wall_micros();
        let mut log = self.0.borrow_mut();
        if log.len() == KEPT {
            log.pop_front();
        }
        log.push_back(now);
        now
    }
}

/// Publishes until it is dropped or the connection fails.
pub(super) async fn publish(
    target: &Target,
    bits_per_second: u64,
    log: &Log,
) -> Result<std::convert::Infallible, client::Error> {
    let mut publisher = Publisher::open(target, &Options::publisher()).await?;
    for (kind, payload) in Synthetic::configs() {
        publisher.send(kind, 0, payload).await?;
    }
    let mut stream = Synthetic::new(bits_per_second);
    let began = Instant::now();
    loop {
        let due = stream.next();
        let at = began + Duration::from_micros(due.at_micros);
        if at > Instant::now() {
            tokio::select! {
                biased;
                ended = publisher.idle() => match ended? {},
                () = tokio::time::sleep_until(at.into()) => {}
            }
        }
        let stamp = if due.kind == MessageKind::Video {
            log.note()
        } else {
            wall_micros()
        };
        publisher
            .send(due.kind, due.time(), due.payload(stamp))
            .await?;
    }
}
