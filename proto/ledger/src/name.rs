//! The name of a log.

use model::LogIndex;

/// Which log it is. Entries of two logs have the same numbers and mean other things, so who
/// has seen a part of one must know whether it is told of the same.
///
/// 0 is a log that is not known yet: an edge that was never attached, an origin that was not
/// given the state it is to go on from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName(pub u64);

impl LogName {
    /// The log that these founders begin, each with the stamp of its folder. The same in any
    /// order, and another whenever a folder is another.
    #[must_use]
    pub fn founded_by(founders: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut founders: Vec<(u64, u64)> = founders.into_iter().collect();
        founders.sort_unstable();
        // FNV-1a: stamps are drawn at random, so any mixture of them is as good.
        let numbers = founders.iter().flat_map(|(id, stamp)| [*id, *stamp]);
        let bytes = numbers.flat_map(u64::to_be_bytes);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash.max(1))
    }

    /// Whether it is known.
    #[must_use]
    pub fn is_known(self) -> bool {
        self.0 != 0
    }
}

/// How a state stands to what somebody has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It includes that.
    Includes,
    /// It does not yet.
    Behind,
    /// It is of another log: what was seen counts for nothing.
    Other,
}

impl Standing {
    /// Of a state of `log` up to `applied`, for one who has seen `seen` of `theirs`.
    pub(crate) fn of(
        (log, applied): (LogName, LogIndex),
        (theirs, seen): (LogName, LogIndex),
    ) -> Self {
        match (log.is_known(), theirs.is_known()) {
            (true, true) if log != theirs => Self::Other,
            // It will be given a state, and it is not known of which log.
            (false, true) => Self::Behind,
            _ if applied < seen => Self::Behind,
            _ => Self::Includes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_one_name_whoever_counts_its_founders_first() {
        let name = LogName::founded_by([(1, 10), (2, 20)]);
        assert_eq!(name, LogName::founded_by([(2, 20), (1, 10)]));
        assert_ne!(name, LogName::founded_by([(1, 10), (2, 21)]));
        assert_ne!(name, LogName::founded_by([(1, 10)]));
        assert!(name.is_known());
    }

    #[test]
    fn only_a_log_that_is_known_to_be_another_is_another() {
        let (none, a, b) = (LogName(0), LogName(1), LogName(2));
        let at = LogIndex;
        assert_eq!(Standing::of((a, at(3)), (b, at(9))), Standing::Other);
        assert_eq!(Standing::of((a, at(9)), (b, at(3))), Standing::Other);
        assert_eq!(Standing::of((none, at(0)), (b, at(3))), Standing::Behind);
        assert_eq!(Standing::of((a, at(2)), (a, at(3))), Standing::Behind);
        assert_eq!(Standing::of((a, at(3)), (a, at(3))), Standing::Includes);
        assert_eq!(Standing::of((a, at(3)), (none, at(0))), Standing::Includes);
    }
}
