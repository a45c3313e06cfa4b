//! What the judge found.

use std::fmt;
use std::time::Duration;

use super::history::Object;

/// The result of a judgement.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Searches that were not decided in their time.
    pub undecided: Vec<String>,
    /// Requests that were looked at.
    pub asks: usize,
    /// Searches that were made.
    pub searches: usize,
    /// How long it took.
    pub took: Duration,
}

impl Verdict {
    /// Whether nothing was found.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }

    pub(super) fn found(&mut self, violation: Violation) {
        self.violations.push(violation);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// As many are shown: what follows from one fault is long.
        const SHOWN: usize = 20;
        writeln!(
            f,
            "{} requests, {} searches, {} violations, {} undecided, {:?}",
            self.asks,
            self.searches,
            self.violations.len(),
            self.undecided.len(),
            self.took
        )?;
        let mut kinds: std::collections::BTreeMap<String, usize> =
            std::collections::BTreeMap::new();
        for violation in &self.violations {
            let text = format!("{violation:?}");
            let kind = text.split(|c: char| !c.is_alphanumeric()).next();
            *kinds
                .entry(kind.unwrap_or_default().to_owned())
                .or_default() += 1;
        }
        if self.violations.len() > SHOWN {
            writeln!(f, "  {kinds:?}")?;
        }
        for violation in self.violations.iter().take(SHOWN) {
            writeln!(f, "  {violation}")?;
        }
        if self.violations.len() > SHOWN {
            writeln!(f, "  and {} more", self.violations.len() - SHOWN)?;
        }
        for undecided in &self.undecided {
            writeln!(f, "  undecided: {undecided}")?;
        }
        Ok(())
    }
}

/// Something that one object in one place would not do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the text of each is below, with its fields")]
pub enum Violation {
    /// The history itself is wrong.
    Malformed(String),
    NotAnswered {
        ask: u64,
    },
    AnsweredTwice {
        ask: u64,
    },
    WentBack {
        connection: u32,
        object: Object,
        from: u32,
        to: u32,
    },
    NotTheSame {
        object: Object,
        version: u32,
        slot: String,
        connections: [u32; 2],
        values: [Option<String>; 2],
    },
    Lost {
        ask: u64,
        slot: String,
        written: u32,
        connection: u32,
        version: u32,
        found: Option<String>,
    },
    NeverSeen {
        ask: u64,
        written: u32,
    },
    TooEarly {
        ask: u64,
        slot: String,
        written: u32,
        connection: u32,
        version: u32,
    },
    RefusedButSeen {
        ask: u64,
        slot: String,
        connection: u32,
        version: u32,
    },
    FromNowhere {
        connection: u32,
        object: Object,
        version: u32,
        slot: String,
        value: String,
    },
    ToldTwice {
        connection: u32,
        object: Object,
        version: u32,
        slot: String,
        value: String,
    },
    AgainstTime {
        earlier: u64,
        earlier_version: u32,
        later: u64,
        later_version: u32,
    },
    NotLinearizable {
        object: Object,
        what: String,
        asks: [u64; 2],
        ops: usize,
    },
    WrittenUnderLock {
        write: u64,
        lock: u64,
    },
    SendFromNowhere {
        connection: u32,
        id: String,
    },
    SendRefusedButSeen {
        connection: u32,
        id: String,
    },
    SendTwice {
        connection: u32,
        id: String,
    },
    SendLost {
        connection: u32,
        id: String,
    },
    SendOrder {
        object: Object,
        ids: Vec<String>,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the history is wrong: {why}"),
            Self::NotAnswered { ask } => write!(f, "request {ask} was not answered"),
            Self::AnsweredTwice { ask } => write!(f, "request {ask} was answered twice"),
            Self::WentBack {
                connection,
                object,
                from,
                to,
            } => write!(
                f,
                "connection {connection}: {object} went back from version {from} to {to}"
            ),
            Self::NotTheSame {
                object,
                version,
                slot,
                connections: [one, other],
                values,
            } => write!(
                f,
                "{object} at version {version}: slot {slot} is {:?} at connection {one} and {:?} \
                 at connection {other}",
                values[0], values[1]
            ),
            Self::Lost {
                ask,
                slot,
                written,
                connection,
                version,
                found,
            } => write!(
                f,
                "request {ask} wrote slot {slot} in version {written}, and connection \
                 {connection} found {found:?} at version {version}"
            ),
            Self::NeverSeen { ask, written } => write!(
                f,
                "request {ask} wrote in version {written}, and nobody ever got there"
            ),
            Self::TooEarly {
                ask,
                slot,
                written,
                connection,
                version,
            } => write!(
                f,
                "request {ask} wrote slot {slot} in version {written}, and connection \
                 {connection} saw it at version {version}"
            ),
            Self::RefusedButSeen {
                ask,
                slot,
                connection,
                version,
            } => write!(
                f,
                "request {ask} was refused, and connection {connection} saw what it wrote to \
                 slot {slot} at version {version}"
            ),
            Self::FromNowhere {
                connection,
                object,
                version,
                slot,
                value,
            } => write!(
                f,
                "connection {connection}: slot {slot} of {object} is {value:?} at version \
                 {version}, which nobody wrote"
            ),
            Self::ToldTwice {
                connection,
                object,
                version,
                slot,
                value,
            } => write!(
                f,
                "connection {connection}: {value:?} in slot {slot} of {object} is no news at \
                 version {version}"
            ),
            Self::AgainstTime {
                earlier,
                earlier_version,
                later,
                later_version,
            } => write!(
                f,
                "request {later} was asked after {earlier} was answered at version \
                 {earlier_version}, and was answered at version {later_version}"
            ),
            Self::NotLinearizable {
                object,
                what,
                asks: [first, last],
                ops,
            } => write!(
                f,
                "{what} of {object} is not linearizable: {ops} operations, requests {first} to \
                 {last}"
            ),
            Self::WrittenUnderLock { write, lock } => write!(
                f,
                "request {write} wrote while another held the object by request {lock}"
            ),
            Self::SendFromNowhere { connection, id } => {
                write!(f, "connection {connection}: nobody sent {id:?}")
            }
            Self::SendRefusedButSeen { connection, id } => {
                write!(f, "connection {connection}: {id:?} was refused, and came")
            }
            Self::SendTwice { connection, id } => {
                write!(f, "connection {connection}: {id:?} came twice")
            }
            Self::SendLost { connection, id } => {
                write!(f, "connection {connection}: {id:?} was sent and never came")
            }
            Self::SendOrder { object, ids } => {
                write!(f, "{object}: {ids:?} came in different orders")
            }
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.incarnation)
    }
}
