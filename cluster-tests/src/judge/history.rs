//! What clients asked and were told.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// An object of which versions can be compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Its incarnation, where a test knows that a temporary object was made anew; else 0.
    #[serde(default)]
    pub incarnation: u64,
}

/// Slots with their values, as text of the test's choosing.
pub type Slots = BTreeMap<String, String>;

/// One thing that happened. `at` is nanoseconds since the test began, on one clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Record {
    /// A client has a connection.
    Open {
        /// When.
        at: u64,
        /// Its number, unique in the history.
        connection: u32,
        /// Whose.
        client: u32,
        /// The connection that the same client had before and goes on from: what it knows,
        /// this one may not contradict.
        resumes: Option<u32>,
    },
    /// A connection is over: what it asked and was not answered is undecided.
    Close {
        /// When.
        at: u64,
        /// Which.
        connection: u32,
    },
    /// A client asks for something.
    Ask {
        /// When.
        at: u64,
        /// On which connection.
        connection: u32,
        /// Its number, unique in the history.
        ask: u64,
        /// Of which object.
        object: Object,
        /// What.
        what: Ask,
    },
    /// It is answered.
    Answer {
        /// When.
        at: u64,
        /// What was asked.
        ask: u64,
        /// What became of it.
        answer: Answer,
    },
    /// A message about an object came. Answers stand in it too: they are recorded as
    /// [`Record::Answer`] besides.
    Seen {
        /// When.
        at: u64,
        /// On which connection.
        connection: u32,
        /// About which object.
        object: Object,
        /// The version in its header.
        version: u32,
        /// What it says, in order.
        events: Vec<Event>,
    },
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// To subscribe.
    Use,
    /// To subscribe no more.
    Release,
    /// To change slots, in one version.
    Write {
        /// The version that the client has seen, where the first writer wins; `None` where
        /// the last does.
        base: Option<u32>,
        /// In order.
        ops: Vec<Op>,
    },
    /// To tell all subscribers.
    Send {
        /// What, unique in the history.
        id: String,
    },
    /// To hold the object.
    Lock {
        /// For how long at most.
        lease_ms: u32,
    },
    /// To let it go.
    Unlock,
}

/// One step of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Give a slot a value.
    Set {
        /// Which.
        slot: String,
        /// What.
        value: String,
    },
    /// Take a slot away.
    Remove {
        /// Which.
        slot: String,
    },
    /// Take all slots away.
    Clear,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Use: subscribed; this is the object.
    Used {
        /// Its version.
        version: u32,
        /// All of its slots, also if the message only told the difference.
        slots: Slots,
    },
    /// Write: done in this version (or, if nothing changed, at it), but for these.
    Written {
        /// The version.
        version: u32,
        /// What was refused, by its place in `ops`, with what the slot holds.
        #[serde(default, with = "rows")]
        refused: BTreeMap<usize, Option<String>>,
    },
    /// Write: done as a whole, and the object had this version afterwards; it was made in
    /// that one or an earlier one.
    Made {
        /// The version.
        version: u32,
    },
    /// Send, Unlock, Release: done.
    Done,
    /// Lock: it is held, by this token.
    Locked {
        /// The same for nested locks.
        token: u64,
    },
    /// Unlock: the client did not hold it.
    NotLocked,
    /// It did certainly not happen, and why is no matter of the object.
    Unavailable,
    /// It may have happened, or may yet.
    Undecided,
}

/// A table as its rows. The keys of a JSON object are text, and what has a tag is not read
/// as something else again.
mod rows {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Table = BTreeMap<usize, Option<String>>;

    pub(super) fn serialize<S: Serializer>(table: &Table, to: S) -> Result<S::Ok, S::Error> {
        table.iter().collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Table, D::Error> {
        let rows = Vec::<(usize, Option<String>)>::deserialize(from)?;
        Ok(rows.into_iter().collect())
    }
}

/// One event of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// All slots are gone.
    Clear,
    /// A slot has a value.
    Set {
        /// Which.
        slot: String,
        /// What.
        value: String,
        /// Why this is said.
        why: Why,
    },
    /// A slot is gone.
    Remove {
        /// Which.
        slot: String,
    },
    /// A message to all.
    Send {
        /// What.
        id: String,
    },
}

/// Why a client is told what a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It is news: somebody wrote it.
    Changed,
    /// The client itself wrote it (`Success`; the value is what it asked for).
    Accepted,
    /// The client wrote something else and is refused.
    Refused,
}

/// Everything that happened, in the order in which it was recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Which test. Part of a file's name.
    pub title: String,
    /// The seed that it ran with.
    pub seed: u64,
    /// What happened.
    pub records: Vec<Record>,
}

/// The first line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    title: String,
    seed: u64,
}

impl History {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(title: &str, seed: u64) -> Self {
        Self {
            title: title.to_owned(),
            seed,
            records: Vec::new(),
        }
    }

    /// Something happened. Records of one connection are pushed in their order.
    pub fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Writes it to a file: a line of JSON for the title and the seed, and one for each
    /// record.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let header = Header {
            title: self.title.clone(),
            seed: self.seed,
        };
        serde_json::to_writer(&mut file, &header)?;
        for record in &self.records {
            file.write_all(b"\n")?;
            serde_json::to_writer(&mut file, record)?;
        }
        file.write_all(b"\n")?;
        file.flush()
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// The file cannot be read or is no history; the line is named.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut lines = BufReader::new(File::open(path)?).lines();
        let wrong = |line: usize, error: &dyn std::fmt::Display| {
            let text = format!("{}:{line}: {error}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let first = lines.next().ok_or_else(|| wrong(1, &"it is empty"))??;
        let header: Header = serde_json::from_str(&first).map_err(|error| wrong(1, &error))?;
        let mut history = Self::new(&header.title, header.seed);
        for (number, line) in lines.enumerate() {
            let record = serde_json::from_str(&line?).map_err(|error| wrong(number + 2, &error))?;
            history.push(record);
        }
        Ok(history)
    }
}

/// Writes a history down as it happens, from any thread or task.
#[derive(Debug, Clone)]
pub struct Recorder {
    started: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    history: History,
    connections: u32,
    asks: u64,
}

impl Recorder {
    /// Begins one.
    #[must_use]
    pub fn new(title: &str, seed: u64) -> Self {
        Self {
            started: Instant::now(),
            state: Arc::new(Mutex::new(State {
                history: History::new(title, seed),
                connections: 0,
                asks: 0,
            })),
        }
    }

    /// A client has a connection; it may go on from an earlier one.
    #[must_use]
    pub fn open(&self, client: u32, resumes: Option<&Connection>) -> Connection {
        let mut state = self.state();
        let connection = state.connections;
        state.connections += 1;
        state.history.push(Record::Open {
            at: self.now(),
            connection,
            client,
            resumes: resumes.map(|earlier| earlier.number),
        });
        Connection {
            recorder: self.clone(),
            number: connection,
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.state().history.clone()
    }

    /// Taken while the state is locked, so that time and order of records agree.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pen of one connection.
#[derive(Debug, Clone)]
pub struct Connection {
    recorder: Recorder,
    number: u32,
}

impl Connection {
    /// Just before something is asked; the number is for its answer.
    #[must_use]
    pub fn ask(&self, object: &Object, what: Ask) -> u64 {
        let mut state = self.recorder.state();
        let ask = state.asks;
        state.asks += 1;
        state.history.push(Record::Ask {
            at: self.recorder.now(),
            connection: self.number,
            ask,
            object: object.clone(),
            what,
        });
        ask
    }

    /// Just after something was answered.
    pub fn answer(&self, ask: u64, answer: Answer) {
        let mut state = self.recorder.state();
        let at = self.recorder.now();
        state.history.push(Record::Answer { at, ask, answer });
    }

    /// A message came.
    pub fn seen(&self, object: &Object, version: u32, events: Vec<Event>) {
        let mut state = self.recorder.state();
        state.history.push(Record::Seen {
            at: self.recorder.now(),
            connection: self.number,
            object: object.clone(),
            version,
            events,
        });
    }

    /// The connection is over.
    pub fn close(&self) {
        let mut state = self.recorder.state();
        state.history.push(Record::Close {
            at: self.recorder.now(),
            connection: self.number,
        });
    }
}
