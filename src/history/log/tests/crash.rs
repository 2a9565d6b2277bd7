//! Processes that are killed, and power that is cut.

use proptest::{prelude::*, test_runner::Config};

use super::{
    torn_disk::{Chance, Faults, Nothing},
    *,
};
use crate::hub::Key;

#[derive(Clone, Debug)]
enum Step {
    Publish,
    /// So many at once.
    Many(u8),
    /// Of so many bytes.
    Large(u16),
    Delete,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Publish),
        2 => (2u8..20).prop_map(Step::Many),
        1 => (600u16..3000).prop_map(Step::Large),
        1 => Just(Step::Close),
        1 => Just(Step::Delete),
    ]
}

fn policy() -> impl Strategy<Value = SyncPolicy> {
    prop_oneof![
        Just(SyncPolicy::Always),
        Just(SyncPolicy::Every(Duration::from_millis(1))),
        Just(SyncPolicy::Never),
    ]
}

pub(super) struct Numbers(pub(super) Vec<u16>, pub(super) usize);

impl Chance for Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.1 += 1;
        let at = self.1 % self.0.len();
        (usize::from(self.0[at]) ^ (self.1 / self.0.len())) % most
    }
}

/// What was told while there was power.
#[derive(Debug, Default)]
struct Told {
    /// What was acknowledged, and what was asked for, of topic `a`; in their order.
    acked: Vec<String>,
    sent: Vec<String>,
    /// The highest number that anyone was told.
    highest: u64,
}

/// Takes steps until the power fails.
fn live(edge: &Edge, steps: &[Step], life: usize) -> Told {
    let mut told = Told::default();
    for (n, step) in steps.iter().enumerate() {
        let entries: Vec<(String, Entry)> = match step {
            Step::Publish => vec![format!("{life}.{n}")],
            Step::Large(bytes) => vec![format!("{life}.{n}.{}", "x".repeat(usize::from(*bytes)))],
            Step::Many(count) => (0..*count).map(|m| format!("{life}.{n}.{m}")).collect(),
            Step::Delete => {
                let _: Result<_, _> = edge.put(Entry::Delete(topics(&["b"])[0].clone()));
                continue;
            }
            Step::Close => {
                let _: Result<_, _> = edge.put(Entry::Close(topics(&["b"])[0].clone()));
                continue;
            }
        }
        .into_iter()
        .map(|data| (data.clone(), event(&["a", "b"], &data)))
        .collect();
        told.sent
            .extend(entries.iter().map(|(data, _)| data.clone()));
        let (data, entries): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        for (data, receipt) in data.into_iter().zip(edge.put_all(entries)) {
            let Ok(receipt) = receipt else { continue };
            told.highest = told.highest.max(number(&receipt));
            told.acked.push(data);
        }
    }
    told
}

/// Whether the first are among the second, in their order.
fn is_subsequence(few: &[String], many: &[String]) -> bool {
    let mut many = many.iter();
    few.iter().all(|one| many.any(|other| other == one))
}

/// A life that ends in the middle, and the next: after power was cut, or the process killed.
fn two_lives(
    sync: SyncPolicy,
    steps: &[Step],
    power_until: usize,
    is_kill: bool,
    chance: Vec<u16>,
) -> Result<(), TestCaseError> {
    let disk = TornDisk::default();
    let mut chance = Numbers(chance, 0);
    let before = Edge::open(&disk, sync);
    let epoch = before.log.hub.id(0).epoch;
    disk.fail(Faults {
        power_until: Some(disk.asked() + power_until),
        ..Faults::default()
    });
    let told = live(&before, steps, 1);
    let left = if is_kill {
        disk.after_kill()
    } else {
        disk.after_power_cut(&mut chance)
    };
    drop(before);
    // The next start does not come far either.
    let left = interrupted(&left, sync, is_kill, &mut chance);

    let after = Edge::open(&left, sync);
    prop_assert_eq!(after.log.hub.id(0).epoch, epoch);
    let there = after.all(&["a"]);
    // Nobody is given what was never sent, or in another order, or twice.
    prop_assert!(is_subsequence(&there, &told.sent), "{there:?} of {told:?}");
    let is_kept = is_kill || sync == SyncPolicy::Always;
    prop_assert!(
        !is_kept || is_subsequence(&told.acked, &there),
        "{there:?} of {told:?}"
    );

    // A reader that saw the last of all before.
    let seen = after.id(told.highest);
    let mut reader = after.subscribe(&["a"], Resume::After(&seen));
    let again = live(&after, &[Step::Publish, Step::Many(3)], 2);
    let got = after.take(&mut reader);
    let is_lost = got.first().is_some_and(|first| first == "gap:lost");
    prop_assert!(!is_kept || !is_lost);
    let news: Vec<String> = got
        .into_iter()
        .skip(usize::from(is_lost))
        .filter(|data| data.starts_with("2."))
        .collect();
    prop_assert_eq!(&news, &again.acked);
    // No number is given twice.
    let first = again.highest - 3;
    prop_assert!(first > told.highest, "{first} after {told:?}");

    // And again, now in good order: it is all there.
    let all = after.all(&["a"]);
    after.close();
    let last = Edge::open(&left, sync);
    prop_assert_eq!(last.all(&["a"]), all);
    prop_assert_eq!(
        last.after(&["a"], &last.id(again.highest)),
        Vec::<String>::new()
    );
    Ok(())
}

/// A disk whose log is opened, which ends in the middle of it, or right after.
fn interrupted(disk: &TornDisk, sync: SyncPolicy, is_kill: bool, chance: &mut Numbers) -> TornDisk {
    disk.fail(Faults {
        power_until: Some(disk.asked() + chance.below(16)),
        ..Faults::default()
    });
    drop(Edge::try_open(disk, keeping(sync), Retention::default()));
    if is_kill {
        disk.after_kill()
    } else {
        disk.after_power_cut(chance)
    }
}

fn lives(cases: u32) -> Config {
    Config {
        cases,
        max_shrink_iters: 200,
        ..Config::default()
    }
}

fn torn_writes(cases: u32) {
    let chance = proptest::collection::vec(any::<u16>(), 1..60);
    let steps = proptest::collection::vec(step(), 1..12);
    let all = (policy(), steps, 0usize..60, any::<bool>(), chance);
    let mut runner = proptest::test_runner::TestRunner::new(lives(cases));
    runner
        .run(&all, |(sync, steps, power_until, is_kill, chance)| {
            two_lives(sync, &steps, power_until, is_kill, chance)
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_crash_takes_nothing_that_was_promised() {
    torn_writes(400);
}

#[test]
#[ignore = "a soak"]
fn ten_thousand_crashes_take_nothing_that_was_promised() {
    torn_writes(10_000);
}

proptest! {
    #![proptest_config(lives(150))]
    /// Bits that flip in what was sealed are found, located, and never passed in silence: the log does not open, or what
    /// is missing is told.
    #[test]
    fn a_bit_that_flips_is_never_passed_in_silence(
        count in 20usize..80, at in any::<prop::sample::Index>(), which in any::<prop::sample::Index>(), bit in 0u8..8, of_index in any::<bool>(),
    ) {
        let disk = TornDisk::default();
        let edge = Edge::open(&disk, SyncPolicy::Always);
        let mut sent = Vec::new();
        for n in 0..count {
            let data = format!("{n} {}", "x".repeat(100));
            edge.publish(&["a"], &data).expect("it is stored");
            sent.push(data);
        }
        edge.close();
        let suffix = if of_index { ".idx" } else { ".seg" };
        let mut names: Vec<String> = super::super::disk::Disk::list(&disk).expect("names");
        names.retain(|name| name.ends_with(suffix));
        prop_assume!(!names.is_empty());
        names.sort();
        let name = which.get(&names);
        disk.flip(name, at.index(disk.len_of(name)), bit);
        // Rings that hold nearly nothing: all is read from the log.
        let retention = Retention { total_bytes: 1, ..small(2) };
        match Edge::try_open(&disk, keeping(SyncPolicy::Always), retention) {
            Ok(edge) => {
                let got = edge.all(&["a"]);
                let is_whole = got == sent;
                let is_told = got.iter().any(|said| said.starts_with("gap:"));
                let rest: Vec<String> = got.iter().filter(|said| !said.starts_with("gap:")).cloned().collect();
                // What is torn off the end was not said to be synced, as nothing followed it.
                let is_cut = !of_index && name == names.last().expect("some") && sent.starts_with(&got);
                prop_assert!(is_whole || is_told || is_cut, "{got:?}");
                prop_assert!(is_subsequence(&rest, &sent), "{got:?}");
            }
            Err(OpenError::Damaged(damage)) => {
                prop_assert!(!of_index);
                prop_assert_eq!(&damage.file, name);
                let checked = super::super::check::look(&disk).expect("it can be read");
                let found = checked.segments.iter().find_map(|segment| segment.damage.clone());
                prop_assert_eq!(found.as_ref(), Some(&damage));
                // What is left goes on, and whoever comes across the hole is told.
                let cuts = super::super::check::mend(&disk);
                let Ok(cuts) = cuts else {
                    prop_assert_eq!(names.len(), 1);
                    return Ok(());
                };
                prop_assert_eq!(cuts.len(), 1);
                let edge = Edge::open(&disk, SyncPolicy::Always);
                let got = edge.all(&["a"]);
                prop_assert!(got.iter().any(|said| said.starts_with("gap:")) || got == sent, "{got:?}");
                let rest: Vec<String> = got.into_iter().filter(|said| !said.starts_with("gap:")).collect();
                prop_assert!(is_subsequence(&rest, &sent));
                let next = edge.publish(&["a"], "next").expect("it is stored");
                prop_assert!(number(&next) > count as u64);
            }
            Err(OpenError::Format(..)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// An event with an `Idempotency-Key`.
fn keyed(key: &str, data: &str) -> Entry {
    let mut entry = event(&["a"], data);
    if let Entry::Event { target, .. } = &mut entry {
        target.identity = Identity::of_key(Some(Key::new(key.as_bytes(), &[data.as_bytes()])));
    }
    entry
}

#[test]
fn a_key_is_known_again_after_a_restart() {
    let disk = TornDisk::default();
    let edge = Edge::open(&disk, SyncPolicy::Always);
    let first = edge.put(keyed("k", "x")).expect("it is stored");
    let left = disk.after_kill();
    drop(edge);
    let edge = Edge::open(&left, SyncPolicy::Always);
    let again = edge.put(keyed("k", "x")).expect("it is known");
    assert!(again.duplicate);
    assert_eq!(again.id, first.id);
    assert_eq!(edge.put(keyed("k", "y")), Err(NotStored::KeyReused));
    drop(edge);
    // The repetitions are no events of the next life either.
    let edge = Edge::open(&left, SyncPolicy::Always);
    assert_eq!(edge.all(&["a"]), ["x"]);
    let small = Edge::try_open(&left.after_kill(), keeping(SyncPolicy::Always), small(1));
    assert_eq!(small.expect("it opens").all(&["a"]), ["x"]);
}

#[test]
fn a_key_is_known_again_though_its_event_was_of_the_moment() {
    let disk = TornDisk::default();
    let edge = Edge::open(&disk, SyncPolicy::Always);
    let live = || {
        let mut entry = keyed("k", "x");
        if let Entry::Event { target, .. } = &mut entry {
            target.is_live_only = true;
        }
        entry
    };
    let first = edge.put(live()).expect("it is stored");
    let left = disk.after_kill();
    drop(edge);
    let edge = Edge::open(&left, SyncPolicy::Always);
    let again = edge.put(live()).expect("it is known");
    assert!(again.duplicate);
    assert_eq!(again.id, first.id);
    assert_eq!(edge.all(&["a"]), Vec::<String>::new());
}

#[test]
fn numbers_that_were_shown_and_lost_are_recognised() {
    let disk = TornDisk::default();
    let edge = Edge::open(&disk, SyncPolicy::Never);
    let first = edge.publish(&["a"], "1").expect("it is stored");
    let second = edge.publish(&["a"], "2").expect("it is stored");
    let left = disk.after_power_cut(&mut Nothing);
    drop(edge);
    let edge = Edge::open(&left, SyncPolicy::Never);
    let next = edge.publish(&["a"], "3").expect("it is stored");
    assert!(number(&next) > number(&second));
    assert_eq!(edge.after(&["a"], &first.id), ["gap:lost", "3"]);
    assert_eq!(edge.after(&["a"], &second.id), ["gap:lost", "3"]);
    // One that came before all of it has missed nothing that it could know of.
    assert_eq!(edge.after(&["a"], &edge.id(0)), ["3"]);
    assert_eq!(edge.after(&["a"], &next.id), Vec::<String>::new());
}

/// The key of an event is known though the start does not read that far.
#[test]
fn a_key_is_known_again_though_its_event_is_not_read() {
    let disk = TornDisk::default();
    let little = Retention {
        total_bytes: 1,
        ..Retention::default()
    };
    let edge = Edge::open(&disk, SyncPolicy::Always);
    let first = edge.put(keyed("k", "x")).expect("it is stored");
    edge.put(Entry::Close(topics(&["closed"])[0].clone()))
        .expect("it is stored");
    for n in 0..100 {
        let data = format!("{n} {}", "x".repeat(100));
        edge.publish(&["other"], &data).expect("it is stored");
    }
    let left = disk.after_kill();
    drop(edge);
    let edge = Edge::try_open(&left, keeping(SyncPolicy::Always), little).expect("it opens");
    let again = edge.put(keyed("k", "x")).expect("it is known");
    assert_eq!((again.duplicate, again.id), (true, first.id));
    assert!(edge.subscribe(&["closed"], Resume::Live).is_finished());
}

/// A machine that has no luck: each life ends without a word.
#[test]
fn a_log_opens_however_often_it_was_not_closed() {
    let little = Retention {
        total_bytes: 1,
        ..Retention::default()
    };
    let open = |disk: &TornDisk| {
        Edge::try_open(disk, keeping(SyncPolicy::Never), little).expect("it opens")
    };
    for events in [0, 1] {
        let mut disk = TornDisk::default();
        let mut sent = Vec::new();
        let mut publish = |edge: &Edge, data: String| {
            edge.publish(&["a"], &data).expect("it is stored");
            sent.push(data);
        };
        for life in 0..300 {
            let edge = open(&disk);
            let before = if life == 0 { 1 } else { events };
            (0..before).for_each(|n| publish(&edge, format!("{life}.{n}")));
            disk = disk.after_kill();
        }
        let edge = open(&disk);
        assert_eq!(edge.all(&["a"]), sent);
        drop(edge);
        let checked = super::super::check::look(&disk).expect("it can be read");
        assert_eq!(checked.missing, []);
        let cuts = super::super::check::mend(&disk).expect("nothing to mend");
        assert_eq!(cuts.len(), 0);
    }
}

/// Whatever is read at the start, the topics are closed then that were before.
#[test]
fn a_topic_that_was_opened_again_is_not_closed_by_a_restart() {
    let disk = TornDisk::default();
    let little = Retention {
        total_bytes: 1,
        ..Retention::default()
    };
    let edge = Edge::open(&disk, SyncPolicy::Always);
    let fill = || {
        for n in 0..100 {
            let data = format!("{n} {}", "x".repeat(100));
            edge.publish(&["other"], &data).expect("it is stored");
        }
    };
    for name in ["again", "closed"] {
        edge.put(Entry::Close(topics(&[name])[0].clone()))
            .expect("it is stored");
    }
    fill();
    edge.publish(&["again"], "more").expect("it is stored");
    fill();
    let kept = disk.after_kill();
    let without_indexes = disk.after_kill();
    for name in super::super::disk::Disk::list(&without_indexes).expect("names") {
        if name.ends_with(".idx") {
            super::super::disk::Disk::remove(&without_indexes, &name).expect("it is there");
        }
    }
    for left in [kept, without_indexes] {
        let edge = Edge::try_open(&left, keeping(SyncPolicy::Always), little).expect("it opens");
        let is_closed = |name| edge.subscribe(&[name], Resume::Live).is_finished();
        assert_eq!([is_closed("again"), is_closed("closed")], [false, true]);
    }
}

/// The segment that says so is gone, and what is left is all read.
#[test]
fn a_topic_stays_closed_though_the_log_has_let_go_of_its_end() {
    let disk = TornDisk::default();
    let kept = Keeping {
        bytes: 20_000,
        ..keeping(SyncPolicy::Always)
    };
    let edge = Edge::try_open(&disk, kept, Retention::default()).expect("it opens");
    for name in ["again", "closed"] {
        edge.put(Entry::Close(topics(&[name])[0].clone()))
            .expect("it is stored");
    }
    for n in 0..300 {
        let data = format!("{n} {}", "x".repeat(100));
        edge.publish(&["other"], &data).expect("it is stored");
    }
    edge.publish(&["again"], "more").expect("it is stored");
    assert!(edge.segments().state().oldest() > 2);
    edge.close();
    let edge = Edge::try_open(&disk, kept, Retention::default()).expect("it opens");
    let is_closed = |name| edge.subscribe(&[name], Resume::Live).is_finished();
    assert_eq!([is_closed("again"), is_closed("closed")], [false, true]);
}

/// What was judged for a commit that was not written is forgotten.
#[test]
fn a_key_that_was_not_stored_is_not_known() {
    let disk = TornDisk::default();
    let edge = Edge::open(&disk, SyncPolicy::Always);
    disk.fail(Faults {
        write: true,
        ..Faults::default()
    });
    assert!(edge.put(keyed("k", "x")).is_err());
    disk.fail(Faults::default());
    let stored = edge.put(keyed("k", "x")).expect("it is stored");
    assert!(!stored.duplicate);
    assert_eq!(edge.all(&["a"]), ["x"]);
}

/// Damage somewhere, and a tail that a crash tore: mended in one go, and no number is given twice.
#[test]
fn a_log_that_is_damaged_and_torn_is_mended_at_once() {
    for sync in [SyncPolicy::Always, SyncPolicy::Never] {
        let disk = TornDisk::default();
        let edge = Edge::open(&disk, sync);
        let mut last = 0;
        for n in 0..150 {
            let data = format!("{n} {}", "x".repeat(100));
            last = number(&edge.publish(&["a"], &data).expect("it is stored"));
        }
        let left = disk.after_kill();
        drop(edge);
        let mut names = super::super::disk::Disk::list(&left).expect("names");
        names.retain(|name| name.ends_with(".seg"));
        names.sort();
        left.flip(&names[0], left.len_of(&names[0]) / 2 + 1500, 3);
        left.flip(
            names.last().expect("some"),
            left.len_of(names.last().expect("some")) - 1,
            3,
        );
        super::super::check::mend(&left).expect("it can be mended");
        let edge = Edge::open(&left, sync);
        let next = edge.publish(&["a"], "next").expect("it is stored");
        assert!(number(&next) >= last, "{} after {last}", number(&next));
        if sync == SyncPolicy::Never {
            assert!(number(&next) > last);
        }
        let got = edge.all(&["a"]);
        assert!(got.contains(&"gap:lost".to_owned()) && got.last().is_some_and(|l| l == "next"));
    }
}
