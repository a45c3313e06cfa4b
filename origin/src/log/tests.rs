use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn owner() -> Owner {
    Owner {
        name: "origin-1".into(),
        node: 2,
        cluster: 0xc1,
    }
}

/// Small, so that a few entries fill a segment.
const SMALL: u64 = 600;

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let fill = (index % 250) as u8 + 1;
    Entry {
        index,
        term,
        payload: vec![fill; bytes].into(),
    }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Write {
    Write {
        hard_state: Some(Bytes::from(format!("term {term}"))),
        entries: range.map(|index| entry(index, term, 40)).collect(),
        ..Write::default()
    }
}

fn open(disk: &Ram) -> Result<(Log, Recovered), Error> {
    Log::open_with(Box::new(disk.clone()), owner(), 0xabcd, SMALL)
}

fn snapshot(index: u64, term: u64) -> Snapshot {
    Snapshot {
        index,
        term,
        data: Bytes::from(format!("state at {index}")),
    }
}

fn segments(disk: &Ram) -> Vec<String> {
    let names = disk.names().unwrap();
    names
        .into_iter()
        .filter(|name| name.ends_with(".log"))
        .collect()
}

fn refused(disk: &Ram) -> String {
    match open(disk) {
        Ok((_, recovered)) => panic!("opened: {recovered:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_was_appended_is_there_over_several_segments() {
    let disk = Ram::new();
    let (mut log, recovered) = open(&disk).unwrap();
    assert!(recovered.is_blank());
    for index in 1..=40 {
        log.append(&[entries(index..=index, 3)]).unwrap();
    }
    drop(log);
    assert!(segments(&disk).len() > 3, "{:?}", segments(&disk));
    let (log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries, entries(1..=40, 3).entries);
    assert_eq!(recovered.hard_state, entries(1..=1, 3).hard_state);
    assert_eq!((log.last(), log.instance()), (40, 0xabcd));
}

#[test]
fn a_conflicting_tail_is_taken_back_also_across_segments() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    for index in 1..=40 {
        log.append(&[entries(index..=index, 1)]).unwrap();
    }
    log.append(&[entries(5..=6, 2)]).unwrap();
    log.append(&[entries(7..=30, 2)]).unwrap();
    drop(log);
    let (mut log, recovered) = open(&disk).unwrap();
    let mut expected = entries(1..=4, 1).entries;
    expected.extend(entries(5..=30, 2).entries);
    assert_eq!(recovered.entries, expected);
    log.append(&[entries(31..=31, 2)]).unwrap();
    assert_eq!(open(&disk).unwrap().1.entries.len(), 31);
}

#[test]
fn what_is_lazy_is_written_with_the_next_that_is_not() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    log.append(&[entries(1..=1, 1)]).unwrap();
    let syncs = disk.syncs();
    let lazy = Write {
        hard_state: Some(Bytes::from_static(b"commit 1")),
        lazy: true,
        ..Write::default()
    };
    log.append(std::slice::from_ref(&lazy)).unwrap();
    assert_eq!(disk.syncs(), syncs);
    let crashed = disk.crash(Crash::Keeps(0));
    assert_eq!(
        open(&crashed).unwrap().1.hard_state,
        entries(1..=1, 1).hard_state
    );
    log.settle().unwrap();
    assert_eq!(disk.syncs(), syncs + 1);
    drop(log);
    assert_eq!(open(&disk).unwrap().1.hard_state, lazy.hard_state);
}

#[test]
fn a_log_that_holds_nothing_is_given_another_number() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    assert_eq!(log.node(), 2);
    log.renumber(7).unwrap();
    drop(log);
    assert_eq!(open(&disk).unwrap().0.node(), 7);
}

#[test]
fn a_gap_in_what_is_appended_is_refused() {
    let (mut log, _) = open(&Ram::new()).unwrap();
    assert!(matches!(
        log.append(&[entries(2..=2, 1)]),
        Err(Error::Gap { .. })
    ));
    assert!(matches!(
        log.append(&[entries(1..=1, 1)]),
        Err(Error::Failed)
    ));
}

#[test]
fn segments_go_when_the_older_kept_state_includes_them() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    for index in 1..=60 {
        log.append(&[entries(index..=index, 1)]).unwrap();
    }
    let all = segments(&disk).len();
    log.save(&snapshot(20, 1)).unwrap();
    let after_one = segments(&disk).len();
    assert!(after_one < all);
    log.save(&snapshot(50, 1)).unwrap();
    assert_eq!(
        segments(&disk).len(),
        after_one,
        "the older state still needs its entries"
    );
    log.save(&snapshot(60, 1)).unwrap();
    assert!(segments(&disk).len() < after_one);
    drop(log);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.snapshot, Some(snapshot(60, 1)));
    assert!(recovered.before.0 <= 50 && recovered.before.1 == 1);
    assert_eq!(recovered.entries.last().unwrap().index, 60);
}

#[test]
fn a_damaged_state_costs_nothing_while_the_log_covers_it() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    for index in 1..=60 {
        log.append(&[entries(index..=index, 1)]).unwrap();
    }
    log.save(&snapshot(20, 1)).unwrap();
    log.save(&snapshot(50, 1)).unwrap();
    drop(log);
    let newest = format!("{:016x}-{:016x}.snapshot", 50, 1);
    disk.damage(&newest, |bytes| bytes[55] ^= 4);
    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.snapshot, Some(snapshot(20, 1)));
    assert_eq!(recovered.entries.last().unwrap().index, 60);
    // And it is no hindrance later.
    log.save(&snapshot(55, 1)).unwrap();
    drop(log);
    assert_eq!(open(&disk).unwrap().1.snapshot, Some(snapshot(55, 1)));
    // With both damaged, the entries before them are missing.
    for index in [20, 55] {
        let name = format!("{index:016x}-{:016x}.snapshot", 1);
        disk.damage(&name, |bytes| bytes[55] ^= 4);
    }
    assert!(refused(&disk).contains("checksum"), "{}", refused(&disk));
}

#[test]
fn a_state_from_elsewhere_takes_the_place_of_the_log() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    log.append(&[entries(1..=9, 1)]).unwrap();
    log.install(&snapshot(100, 4)).unwrap();
    log.append(&[entries(101..=120, 4)]).unwrap();
    drop(log);
    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.snapshot, Some(snapshot(100, 4)));
    assert_eq!(recovered.before, (100, 4));
    assert_eq!(recovered.entries, entries(101..=120, 4).entries);
    // What was written behind it is void, and what is written with it is not.
    let mut write = entries(111..=112, 4);
    write.snapshot = Some(snapshot(110, 4));
    log.append(&[entries(121..=125, 4), write]).unwrap();
    drop(log);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.snapshot, Some(snapshot(110, 4)));
    assert_eq!(recovered.entries, entries(111..=112, 4).entries);
}

#[test]
fn a_crash_between_a_state_and_its_word_in_the_log_is_mended() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    log.append(&[entries(1..=9, 1)]).unwrap();
    let instance = log.instance();
    snapshot::save(log.disk.as_mut(), instance, &snapshot(100, 4)).unwrap();
    drop(log);
    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.before, (100, 4));
    assert!(recovered.entries.is_empty());
    log.append(&[entries(101..=101, 4)]).unwrap();
    drop(log);
    assert_eq!(open(&disk).unwrap().1.entries.len(), 1);
}

#[test]
fn the_folder_belongs_to_one_node_of_one_cluster() {
    let disk = Ram::new();
    drop(open(&disk).unwrap());
    let other = Owner {
        name: "origin-2".into(),
        ..owner()
    };
    let error = Log::open(Box::new(disk.clone()), other, 1).map(|_| ());
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("origin-1") && text.contains("origin-2"),
        "{text}"
    );
}

#[test]
fn a_log_without_its_stamp_and_a_stamp_without_its_log_are_refused() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    log.append(&[entries(1..=3, 1)]).unwrap();
    drop(log);
    let stampless = disk.crash(Crash::Keeps(usize::MAX));
    stampless.lose("stamp");
    assert!(
        refused(&stampless).contains("stamp"),
        "{}",
        refused(&stampless)
    );
    disk.lose("0000000000000001.log");
    assert!(refused(&disk).contains("no segment is left"));
}

#[test]
fn a_missing_segment_and_a_missing_state_are_named() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    for index in 1..=60 {
        log.append(&[entries(index..=index, 1)]).unwrap();
    }
    drop(log);
    let names = segments(&disk);
    let holed = disk.crash(Crash::Keeps(usize::MAX));
    holed.lose(&names[1]);
    assert!(refused(&holed).contains(&names[1]), "{}", refused(&holed));
    disk.lose(&names[0]);
    assert!(
        refused(&disk).contains("there is no state"),
        "{}",
        refused(&disk)
    );
}

#[test]
fn a_flipped_bit_anywhere_but_in_padding_keeps_the_log_from_opening() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    for index in 1..=7 {
        log.append(&[entries(index..=index, 1)]).unwrap();
    }
    drop(log);
    let names = segments(&disk);
    assert!(names.len() > 1);
    for name in names {
        let len = disk.read(&name).unwrap().len();
        for at in 0..len {
            let rotten = disk.crash(Crash::Keeps(usize::MAX));
            rotten.damage(&name, |bytes| bytes[at] ^= 0x10);
            let text = refused(&rotten);
            assert!(text.contains(&name), "{name} at {at}: {text}");
        }
    }
}

#[test]
fn an_older_segment_that_ends_early_is_refused() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    for index in 1..=20 {
        log.append(&[entries(index..=index, 1)]).unwrap();
    }
    drop(log);
    let first = segments(&disk)[0].clone();
    for cut in 1..100 {
        let short = disk.crash(Crash::Keeps(usize::MAX));
        short.damage(&first, |bytes| bytes.truncate(bytes.len() - cut));
        assert!(matches!(
            open(&short).map(|_| ()),
            Err(Error::Broken { .. } | Error::Gap { .. })
        ));
    }
}

#[test]
fn a_full_disk_is_said_and_what_was_there_stays() {
    let disk = Ram::new();
    let (mut log, _) = open(&disk).unwrap();
    log.append(&[entries(1..=2, 1)]).unwrap();
    for room in [0, 1, 30, 100] {
        disk.set_faults(Faults {
            room: Some(room),
            ..Faults::default()
        });
        let error = log.append(&[entries(3..=9, 1)]).unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        assert!(matches!(
            log.append(&[entries(3..=9, 1)]),
            Err(Error::Failed)
        ));
        disk.set_faults(Faults::default());
        let (again, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.entries.len(), 2);
        log = again;
    }
}

#[test]
fn short_writes_are_finished() {
    let disk = Ram::new();
    disk.set_faults(Faults {
        short_writes: Some(7),
        ..Faults::default()
    });
    let (mut log, _) = open(&disk).unwrap();
    log.append(&[entries(1..=30, 1)]).unwrap();
    drop(log);
    assert_eq!(open(&disk).unwrap().1.entries.len(), 30);
}

#[test]
fn lost_syncs_lose_a_tail_or_keep_the_log_from_opening_and_never_tear_a_hole() {
    for segment_bytes in [SMALL, SEGMENT_BYTES] {
        let disk = Ram::new();
        let open =
            |disk: &Ram| Log::open_with(Box::new(disk.clone()), owner(), 0xabcd, segment_bytes);
        let (mut log, _) = open(&disk).unwrap();
        log.append(&[entries(1..=3, 1)]).unwrap();
        disk.set_faults(Faults {
            lost_syncs: true,
            ..Faults::default()
        });
        for index in 4..=8 {
            log.append(&[entries(index..=index, 1)]).unwrap();
        }
        let unsynced = disk.unsynced();
        assert!(unsynced > 0);
        for keeps in 0..=unsynced {
            match open(&disk.crash(Crash::Keeps(keeps))) {
                Ok((_, recovered)) => {
                    let whole = recovered.entries.len() as u64;
                    assert!((3..=8).contains(&whole));
                    assert_eq!(recovered.entries, entries(1..=whole, 1).entries);
                }
                // A later segment proves that the earlier one was whole once.
                Err(Error::Broken { .. } | Error::Gap { .. }) => {
                    assert_eq!(segment_bytes, SMALL);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Append { entries: u64, bytes: usize },
    Conflict { back: u64, bytes: usize },
    Save,
    Install { ahead: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..6, 0usize..300).prop_map(|(entries, bytes)| Step::Append { entries, bytes }),
        2 => (1u64..5, 0usize..300).prop_map(|(back, bytes)| Step::Conflict { back, bytes }),
        1 => Just(Step::Save),
        1 => (1u64..9).prop_map(|ahead| Step::Install { ahead }),
    ]
}

/// The newest state and the entries behind it.
type Visible = (Option<(u64, u64)>, Vec<(u64, u64, usize)>);

/// What a log must hold: entries by index behind the newest state.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    snapshot: Option<(u64, u64)>,
    entries: Vec<(u64, u64, usize)>,
    term: u64,
}

impl Model {
    fn last(&self) -> u64 {
        let state = self.snapshot.map_or(0, |(index, _)| index);
        self.entries
            .last()
            .map_or(state, |entry| entry.0.max(state))
    }

    fn of(recovered: &Recovered) -> Visible {
        let state = recovered.snapshot.as_ref().map(|s| (s.index, s.term));
        let from = state.map_or(0, |s| s.0);
        let entries = recovered.entries.iter().filter(|entry| entry.index > from);
        (
            state,
            entries
                .map(|entry| (entry.index, entry.term, entry.payload.len()))
                .collect(),
        )
    }

    fn behind_state(&self) -> Visible {
        let from = self.snapshot.map_or(0, |s| s.0);
        let entries = self.entries.iter().filter(|entry| entry.0 > from);
        (self.snapshot, entries.copied().collect())
    }

    /// Takes the step, at the log as well if there is one.
    fn take(&mut self, step: &Step, log: &mut Log) -> Result<(), Error> {
        match *step {
            Step::Append { entries, bytes } => self.write(self.last() + 1, entries, bytes, log),
            Step::Conflict { back, bytes } => {
                let floor = self.snapshot.map_or(0, |s| s.0) + 1;
                let from = (self.last() + 1).saturating_sub(back).max(floor);
                self.term += 1;
                self.write(from, 1, bytes, log)
            }
            Step::Save => {
                let floor = self.snapshot.map_or(0, |s| s.0);
                let newest = self.entries.iter().rfind(|entry| entry.0 > floor);
                let Some(&(index, term, _)) = newest else {
                    return Ok(());
                };
                self.snapshot = Some((index, term));
                log.save(&snapshot(index, term))
            }
            Step::Install { ahead } => {
                self.term += 1;
                let index = self.last() + ahead;
                self.snapshot = Some((index, self.term));
                self.entries.clear();
                log.install(&snapshot(index, self.term))
            }
        }
    }

    fn write(&mut self, from: u64, count: u64, bytes: usize, log: &mut Log) -> Result<(), Error> {
        self.entries.retain(|entry| entry.0 < from);
        let term = self.term;
        let new: Vec<_> = (from..from + count)
            .map(|index| entry(index, term, bytes))
            .collect();
        self.entries
            .extend(new.iter().map(|e| (e.index, e.term, e.payload.len())));
        let hard_state = Some(Bytes::from(term.to_string()));
        log.append(&[Write {
            hard_state,
            entries: new,
            ..Write::default()
        }])
        .map(|_| ())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 30,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(11),
        ..ProptestConfig::default()
    })]

    /// After a crash at any byte of what was not synced, everything synced is there, and
    /// what is there beyond it is what was being written.
    #[test]
    fn a_crash_loses_nothing_that_was_synced(
        steps in proptest::collection::vec(step(), 1..25),
        room in 0usize..600,
        sectors in any::<u64>(),
    ) {
        let disk = Ram::new();
        let (mut log, _) = open(&disk).unwrap();
        let mut model = Model::default();
        let (last, before) = steps.split_last().unwrap();
        for step in before {
            model.take(step, &mut log).unwrap();
        }
        let durable = model.behind_state();
        // The last step is interrupted: first by the disk, then by a crash.
        disk.set_faults(Faults { room: Some(room), failing_syncs: true, ..Faults::default() });
        let mut after = model.clone();
        let _ = after.take(last, &mut log);
        for crash in (0..=disk.unsynced()).map(Crash::Keeps).chain([Crash::Sectors(sectors)]) {
            let (mut log, recovered) = open(&disk.crash(crash)).unwrap();
            let found = Model::of(&recovered);
            prop_assert!(
                found == durable || found == after.behind_state(),
                "{crash:?}: {found:?} is neither {durable:?} nor {:?}", after.behind_state()
            );
            // And it goes on from there.
            let next = log.last() + 1;
            log.append(&[entries(next..=next, 99)]).unwrap();
        }
    }
}
