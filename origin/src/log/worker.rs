//! The thread that writes the log.
//!
//! It takes everything that waits, makes it durable with one sync, and says so. While it
//! syncs the next batch gathers: under load a sync serves many proposals, and a single
//! proposal waits for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use node::metrics::Histogram;
use tokio::sync::mpsc::UnboundedSender;

use super::{Error, Log, Snapshot, Write};

/// What is to be done, in order. `T` are tickets, which only grow.
#[derive(Debug)]
pub enum Job<T> {
    /// Make it durable.
    Write {
        /// Told when it is done, which what is lazy alone never is.
        ticket: T,
        /// What.
        write: Write,
    },
    /// Keep a state that was made here.
    Save(Snapshot),
}

/// What was done.
#[derive(Debug)]
pub enum Done<T> {
    /// This write, and all before it, are durable.
    Written {
        /// The write's.
        ticket: T,
        /// When its last write began; it had waited for the one before.
        began: SystemTime,
    },
    /// A state of our own is kept.
    Saved {
        /// The last entry it includes.
        index: u64,
    },
    /// It failed, and nothing more will be done. What was not said to be done may or may not
    /// be durable.
    Failed(Error),
}

/// Writes that are made durable with one sync, at most: with more, those at the front would
/// wait for the copying of those at the back.
const WRITES_MAX: usize = 1024;

/// Bytes of such writes, about.
const BYTES_MAX: usize = 8 << 20;

/// The log's thread, to give jobs to. It ends when this value is dropped and what was given
/// is done.
#[derive(Debug)]
pub struct Worker<T> {
    jobs: Option<Sender<Job<T>>>,
    thread: Option<JoinHandle<Log>>,
    appends: Arc<Appends>,
}

/// Twice the number of appends that have ended, and one more while one goes on.
#[derive(Debug, Default)]
struct Appends(AtomicU64);

/// How long the disk takes, in seconds.
#[derive(Clone, Debug)]
pub struct Timing {
    /// To make what waits durable.
    pub append: Histogram,
    /// The sync alone.
    pub sync: Histogram,
    /// To keep a state.
    pub save: Histogram,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts it.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(log: Log, done: UnboundedSender<Done<T>>, timing: Timing) -> Result<Self, Error> {
        let (jobs, waiting) = channel();
        let appends = Arc::<Appends>::default();
        let counted = appends.clone();
        let thread = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || {
                let mut log = log;
                log.time_syncs(timing.sync.clone());
                if let Err(error) = run(&mut log, &waiting, &done, (&counted, &timing)) {
                    // Nobody listens when the origin is gone already.
                    let _ = done.send(Done::Failed(error));
                }
                log
            })
            .map_err(|source| Error::io("start", "the thread of the log", source))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            appends,
        })
    }

    /// Gives it a job. After a failure jobs are dropped: the failure was told.
    pub fn give(&self, job: Job<T>) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }

    /// Which append goes on, if one does. No two have the same number.
    pub fn appending(&self) -> Option<u64> {
        let appends = self.appends.0.load(Ordering::Relaxed);
        (appends % 2 == 1).then_some(appends)
    }

    /// Leaves the thread to itself: it is at a call of the system that does not come back.
    pub fn desert(mut self) {
        self.jobs = None;
        self.thread = None;
    }

    /// Waits until everything is done, and gives the log back; the folder is free when that is
    /// dropped.
    pub fn finish(mut self) -> Option<Log> {
        self.jobs = None;
        self.thread.take()?.join().ok()
    }
}

fn run<T>(
    log: &mut Log,
    waiting: &Receiver<Job<T>>,
    done: &UnboundedSender<Done<T>>,
    (appends, timing): (&Appends, &Timing),
) -> Result<(), Error> {
    let mut writes = Vec::new();
    while let Ok(first) = waiting.recv() {
        let mut next = Some(first);
        let (mut newest, mut bytes) = (None, 0);
        let mut save = None;
        while let Some(job) = next.take() {
            match job {
                Job::Write { ticket, write } => {
                    let payloads = write.entries.iter().map(|entry| entry.payload.len());
                    bytes += payloads.sum::<usize>();
                    newest = Some(ticket);
                    writes.push(write);
                }
                Job::Save(snapshot) => {
                    save = Some(snapshot);
                    break;
                }
            }
            if writes.len() < WRITES_MAX && bytes < BYTES_MAX {
                next = waiting.try_recv().ok();
            }
        }
        if let Some(ticket) = newest {
            appends.0.fetch_add(1, Ordering::Relaxed);
            let began = SystemTime::now();
            let timer = timing.append.start_timer();
            let durable = log.append(&writes)?;
            timer.observe_duration();
            appends.0.fetch_add(1, Ordering::Relaxed);
            writes.clear();
            if durable {
                let _ = done.send(Done::Written { ticket, began });
            }
        }
        if let Some(snapshot) = save {
            let timer = timing.save.start_timer();
            log.save(&snapshot)?;
            timer.observe_duration();
            let index = snapshot.index;
            let _ = done.send(Done::Saved { index });
        }
    }
    log.settle()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Entry, Faults, Owner, Ram};
    use bytes::Bytes;
    use tokio::sync::mpsc::unbounded_channel;

    fn write(index: u64) -> Write {
        Write {
            entries: vec![Entry {
                index,
                term: 1,
                payload: Bytes::from_static(b"payload"),
            }],
            ..Write::default()
        }
    }

    fn timing() -> Timing {
        crate::metrics::timing(&node::metrics::Metrics::new("origin", "origin-0"))
    }

    fn open(disk: &Ram) -> Log {
        let owner = Owner {
            name: "origin-0".into(),
            node: 1,
            cluster: 1,
        };
        Log::open(Box::new(disk.clone()), owner, 7).unwrap().0
    }

    #[test]
    fn what_waits_is_made_durable_by_one_sync() {
        let disk = Ram::new();
        let mut log = open(&disk);
        log.append(&[write(1)]).unwrap();
        let (jobs, waiting) = channel();
        for index in 2..=100 {
            let ticket = index;
            let write = write(index);
            jobs.send(Job::Write { ticket, write }).unwrap();
        }
        drop(jobs);
        let before = disk.syncs();
        let (done, mut told) = unbounded_channel();
        run(&mut log, &waiting, &done, (&Appends::default(), &timing())).unwrap();
        assert_eq!(disk.syncs() - before, 1);
        assert!(matches!(
            told.try_recv(),
            Ok(Done::Written { ticket: 100, .. })
        ));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn a_failed_sync_is_told_and_nothing_is_done_behind_it() {
        let disk = Ram::new();
        let log = open(&disk);
        disk.set_faults(Faults {
            failing_syncs: true,
            ..Faults::default()
        });
        let (done, mut told) = unbounded_channel();
        let worker = Worker::start(log, done, timing()).unwrap();
        for index in 1..=2 {
            let ticket = index;
            let write = write(index);
            worker.give(Job::Write { ticket, write });
        }
        drop(worker.finish());
        assert!(matches!(
            told.try_recv(),
            Ok(Done::Failed(Error::Io { .. }))
        ));
        assert!(told.try_recv().is_err());
    }
}
