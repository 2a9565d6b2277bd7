//! Topics with an interval, over restarts.

use super::*;
use crate::{
    hub::{Replay, TopicRule, Treatment},
    pattern::Pattern,
};

fn rules() -> TopicRules {
    let rule = |pattern: &str, treatment| TopicRule {
        pattern: Pattern::parse(pattern).expect("a pattern"),
        treatment,
    };
    // Nothing is ever due by itself.
    let interval = Some(Duration::from_secs(3600));
    let slow = Treatment {
        interval,
        ..Treatment::default()
    };
    let latest = Treatment {
        replay: Replay::Latest,
        ..Treatment::default()
    };
    [rule("paced", slow), rule("latest", latest)]
        .into_iter()
        .collect()
}

fn open(disk: &TornDisk, retention: Retention) -> Edge {
    Edge::ruled(disk, keeping(SyncPolicy::Always), retention, rules()).expect("it opens")
}

fn close(edge: &Edge) {
    edge.put(Entry::Close(topics(&["paced"])[0].clone()))
        .expect("it is stored");
}

/// What waits is not lost, what went out does not again, whatever of the log is read at the start.
#[test]
fn what_waits_for_its_turn_outlives_the_process() {
    for (rings, between) in [
        (Retention::default(), 0),
        (small(2), 60),
        (
            Retention {
                total_bytes: 1,
                ..small(2)
            },
            120,
        ),
    ] {
        let disk = TornDisk::default();
        let edge = open(&disk, rings);
        let first = edge.publish(&["paced"], "1").expect("it is stored");
        assert!(!first.deferred);
        // Both wait, in one commit: the second takes the place of the first.
        let waiting = edge.put_all(vec![event(&["paced"], "2"), event(&["paced"], "3")]);
        assert!(waiting.iter().flatten().all(|receipt| receipt.deferred));
        for n in 0..between {
            edge.publish(&["other"], &format!("{n} {}", "x".repeat(100)))
                .expect("it is stored");
        }
        let mut left = disk.after_kill();
        drop(edge);
        for _ in 0..2 {
            let edge = open(&left, rings);
            let got = edge.after(&["paced"], &first.id);
            assert!(!got.contains(&"3".to_owned()), "it waits: {got:?}");
            let next = left.after_kill();
            drop(edge);
            left = next;
        }
        let edge = open(&left, rings);
        let mut live = edge.subscribe(&["paced"], Resume::Live);
        close(&edge);
        let live = edge.take(&mut live);
        assert_eq!(live, ["3"], "{between} between");
        for n in 0..between {
            edge.publish(&["other"], &format!("{n} {}", "x".repeat(100)))
                .expect("it is stored");
        }
        let of_three = |edge: &Edge| {
            let got = edge.after(&["paced"], &first.id);
            got.iter().filter(|data| *data == "3").count()
        };
        assert_eq!(of_three(&edge), 1);
        edge.close();
        assert_eq!(of_three(&open(&left, rings)), 1);
    }
}

/// Two in one commit: the second waits for the first.
#[test]
fn turns_are_settled_before_they_are_written() {
    let disk = TornDisk::default();
    let edge = open(&disk, Retention::default());
    let both = edge.put_all(vec![event(&["paced"], "1"), event(&["paced"], "2")]);
    let deferred: Vec<bool> = both
        .iter()
        .flatten()
        .map(|receipt| receipt.deferred)
        .collect();
    assert_eq!(deferred, [false, true]);
    edge.close();
    let edge = open(&disk, Retention::default());
    assert_eq!(edge.all(&["paced"]), ["1"]);
    close(&edge);
    assert_eq!(edge.all(&["paced"]), ["1", "2"]);
}

#[test]
fn who_comes_back_is_given_the_newest_of_each_key_from_the_log_too() {
    let disk = TornDisk::default();
    let edge = open(&disk, small(2));
    let keyed = |key: &str, data: &str| {
        let mut entry = event(&["latest"], data);
        if let Entry::Event { target, .. } = &mut entry {
            target.key = Some(key.into());
        }
        edge.put(entry).expect("it is stored")
    };
    keyed("rare", "r1");
    for n in 0..9 {
        keyed("often", &format!("o{n}"));
    }
    let got = edge.all(&["latest"]);
    assert_eq!(got, ["r1", "o8"]);
}
