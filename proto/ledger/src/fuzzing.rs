//! What must hold for any log, and for any bytes. The fuzz targets and the replay of their
//! corpora run this.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "this is a test that the fuzz targets share: it ends at the first broken promise"
)]

mod books;
mod input;

use bytes::Bytes;
use model::LogIndex;

use self::books::Books;
use self::input::Input;
use crate::codec::Error;
use crate::command::Command;
use crate::ledger::Ledger;
use crate::wire::{ToEdge, ToOrigin};

/// Applies the log that the bytes stand for, and keeps the books beside it.
///
/// # Panics
/// If a promise of the ledger is broken.
pub fn ledger(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut ledger = Ledger::new();
    let mut twin = Ledger::new();
    let mut books = Books::default();
    let mut index = LogIndex(0);
    while let Some(command) = input.command(&ledger) {
        index.0 += 1 + u64::from(index.0 % 7 == 3);
        let bytes = command.encode();
        let read = Command::decode(&bytes);
        assert_eq!(
            read.as_ref(),
            Ok(&command),
            "a command is what it is written as"
        );
        // A twin that comes from a snapshot goes on as if it had seen everything.
        if index.0.is_multiple_of(4) {
            twin = Ledger::restore(ledger.snapshot()).unwrap();
            assert!(twin == ledger, "a snapshot holds everything");
        }
        let before = ledger.clone();
        let applied = ledger.apply(index, &command);
        assert_eq!(
            twin.apply(index, &command),
            applied,
            "the same effects everywhere"
        );
        let told = ToEdge::Applied(applied.clone());
        assert_eq!(
            ToEdge::decode(told.encode()),
            Ok(told),
            "effects travel unchanged"
        );
        books.check(&before, &command, &applied, &ledger);
    }
    assert_eq!(twin.digest(), ledger.digest(), "the same state everywhere");
    books.check_every_absence(&ledger);
}

/// Reads bytes as everything that comes from outside: whatever is taken has these bytes as
/// its only form.
///
/// # Panics
/// If bytes that are not canonical are taken.
pub fn wire(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let owned = Bytes::copy_from_slice(bytes);
    let trace = Command::trace_of(bytes);
    if let Ok(Command::Propose(proposal)) = Command::decode(bytes) {
        assert_eq!(
            proposal.trace, trace,
            "what is found in place is what is decoded"
        );
    }
    let _ = ToOrigin::trace_of(bytes);
    let again: Result<Bytes, Error> = match kind % 4 {
        0 => Command::decode(bytes).map(|command| command.encode()),
        1 => ToOrigin::decode(owned).map(|message| message.encode()),
        2 => ToEdge::decode(owned).map(|message| message.encode()),
        _ => Ledger::restore(owned).map(|ledger| ledger.snapshot()),
    };
    if let Ok(again) = again {
        assert_eq!(again, bytes, "a value has one form");
    }
}
