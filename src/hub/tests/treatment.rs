//! Topics whose events are not all of the same use: what of them goes out, and what is given again.

use std::collections::BTreeMap;

use super::*;

/// A hub that treats topics below `x/` in this way, and keeps so many events of each topic.
fn treating(treatment: Treatment, events: usize) -> Arc<Hub> {
    let retention = Retention {
        events,
        ..Retention::default()
    };
    ruled(retention, &[("x/*", treatment)])
}

fn replayed(replay: Replay, events: usize) -> Arc<Hub> {
    let treatment = Treatment {
        replay,
        ..Treatment::default()
    };
    treating(treatment, events)
}

fn publish_state(hub: &Hub, name: &str, key: &str, data: &str) -> String {
    let mut entry = event(&[name], data);
    if let Entry::Event { target, .. } = &mut entry {
        target.key = Some(key.into());
    }
    hub.id(put(hub, entry, clock::now()).1).to_string()
}

#[test]
fn of_each_key_the_newest_is_given_again() {
    let hub = replayed(Replay::Latest, 6);
    let start = publish(&hub, &["other"], "0").id;
    for (key, data) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("a", "a3")] {
        publish_state(&hub, "x/1", key, data);
    }
    let mut reader = subscribe(&hub, &["x/1"], Resume::After(&start));
    publish_state(&hub, "x/1", "c", "c1");
    publish_state(&hub, "x/1", "c", "c2");
    // Every one of those that came since it began.
    assert_eq!(data(&drain(&mut reader, 999)), ["b1", "a3", "c1", "c2"]);
    let mut reader = subscribe(&hub, &["x/1"], Resume::Last(9));
    assert_eq!(data(&drain(&mut reader, 999)), ["b1", "a3", "c2"]);
    publish_state(&hub, "x/1", "c", "c3");
    publish_state(&hub, "x/1", "c", "c4");
    // Of a1 and b1, which are not held any more, b1 was the newest of its key.
    let mut reader = subscribe(&hub, &["x/1"], Resume::After(&start));
    let read = drain(&mut reader, 999);
    assert_eq!(gap(&read[0])["missed"], 1);
    assert_eq!(data(&read[1..]), ["a3", "c4"]);
}

#[test]
fn a_slow_reader_of_the_newest_is_told_of_all_it_missed() {
    let hub = replayed(Replay::Latest, 4);
    let mut reader = subscribe(&hub, &["x/1"], Resume::Live);
    for n in 1..=9 {
        publish_state(&hub, "x/1", "a", &n.to_string());
    }
    let read = drain(&mut reader, 999);
    assert_eq!(gap(&read[0])["missed"], 5);
    assert_eq!(data(&read[1..]), ["6", "7", "8", "9"]);
    assert_eq!(reader.settled(), reader.handle().addressed());
}

#[test]
fn what_is_not_given_again_is_not_missing() {
    let hub = replayed(Replay::None, 4);
    let start = publish(&hub, &["other"], "0").id;
    for n in 1..=9 {
        publish(&hub, &["x/1", "other"], &n.to_string());
    }
    delete(&hub, "x/1");
    for n in 10..=12 {
        publish(&hub, &["x/1"], &n.to_string());
    }
    for resume in [Resume::After(&start), Resume::Last(9)] {
        let mut reader = subscribe(&hub, &["x/1"], resume);
        publish(&hub, &["x/1"], "now");
        assert_eq!(data(&drain(&mut reader, 999)), ["now"]);
    }
    // Another topic gives it again that has it as well.
    let mut reader = subscribe(&hub, &["x/1", "other"], Resume::Last(2));
    assert_eq!(data(&drain(&mut reader, 999)), ["8", "9"]);
    // One that is slow has missed what came since it began.
    let mut reader = subscribe(&hub, &["x/1"], Resume::Live);
    for n in 1..=6 {
        publish(&hub, &["x/1"], &n.to_string());
    }
    assert_eq!(gap(&drain(&mut reader, 999)[0])["missed"], 2);
}

const SECOND: Duration = Duration::from_secs(1);

fn every(interval: Duration) -> Treatment {
    Treatment {
        interval: Some(interval),
        ..Treatment::default()
    }
}

/// A hub with topics that have an interval, and its time, which stands still until it is told to go on.
struct Paced {
    hub: Arc<Hub>,
    now: Instant,
}

impl Paced {
    fn new() -> Self {
        let hub = ruled(
            Retention::default(),
            &[("t/*", every(SECOND)), ("u/*", every(2 * SECOND))],
        );
        let now = hub.began.0;
        Self { hub, now }
    }

    /// Publishes a state; whether it has to wait.
    fn state(&self, names: &[&str], key: &str, data: &str) -> bool {
        self.publish(names, key, data, |_| ()).0
    }

    fn publish(
        &self,
        names: &[&str],
        key: &str,
        data: &str,
        change: impl FnOnce(&mut Target),
    ) -> (bool, String) {
        let mut entry = event(names, data);
        if let Entry::Event { target, .. } = &mut entry {
            target.key = Some(key.into());
            change(target);
        }
        let (applied, number) = put(&self.hub, entry, self.now);
        (applied.deferred, self.hub.id(number).to_string())
    }

    /// Lets time go on, and what comes to its turn go out, each at its moment.
    fn go_on(&mut self, by: Duration) {
        let then = self.now + by;
        loop {
            let first = self.hub.lock().first_turn();
            let Some(turn) = first.filter(|turn| *turn <= then) else {
                break;
            };
            for entry in self.hub.due(turn, 2) {
                put(&self.hub, entry, turn);
            }
        }
        self.now = then;
    }

    fn passed_over(&self) -> u64 {
        self.hub.metrics.passed_over.get()
    }
}

#[test]
fn the_first_goes_out_at_once_and_the_newest_at_its_turn() {
    let mut paced = Paced::new();
    let mut reader = subscribe(&paced.hub, &["t/1", "chat"], Resume::Live);
    assert!(!paced.state(&["t/1"], "a", "a1"));
    assert!(!paced.state(&["t/1"], "b", "b1"));
    assert!(paced.state(&["t/1"], "a", "a2"));
    assert!(paced.state(&["t/1"], "a", "a3"));
    assert!(!paced.state(&["t/2"], "a", "other"));
    publish(&paced.hub, &["chat"], "hello");
    assert_eq!(data(&drain(&mut reader, 999)), ["a1", "b1", "hello"]);
    paced.go_on(SECOND - Duration::from_millis(1));
    assert_eq!(drain(&mut reader, 999).len(), 0);
    paced.go_on(Duration::from_millis(1));
    let read = drain(&mut reader, 999);
    assert_eq!((data(&read), paced.passed_over()), (vec!["a3"], 1));
    // It has the place in the order at which it went out: a client that is cut resumes after it.
    let mut again = subscribe(&paced.hub, &["t/1", "chat"], Resume::After(&read[0].id));
    assert_eq!(drain(&mut again, 999).len(), 0);
    // What was passed over is history; what went out is there once.
    let mut late = subscribe(&paced.hub, &["t/1"], Resume::Last(9));
    assert_eq!(data(&drain(&mut late, 999)), ["a1", "b1", "a2", "a3"]);
    // After a rest the next one is the first again.
    paced.go_on(SECOND);
    assert!(!paced.state(&["t/1"], "a", "a4"));
    assert_eq!(data(&drain(&mut reader, 999)), ["a4"]);
    paced.go_on(2 * SECOND);
    assert_eq!(paced.hub.lock().first_turn(), None);
    assert_eq!(reader.settled(), reader.handle().addressed());
    paced.hub.lock().audit();
}

#[test]
fn an_event_of_several_topics_waits_for_all_of_them_and_not_if_one_has_no_interval() {
    let mut paced = Paced::new();
    let mut reader = subscribe(&paced.hub, &["t/1", "u/1", "plain"], Resume::Live);
    let mut of_one = subscribe(&paced.hub, &["t/1"], Resume::Live);
    assert!(!paced.state(&["t/1", "u/1"], "", "1"));
    assert!(paced.state(&["t/1", "u/1"], "", "2"));
    assert!(!paced.state(&["t/1", "plain"], "", "3"));
    paced.go_on(SECOND);
    assert_eq!(data(&drain(&mut reader, 999)), ["1", "3"]);
    paced.go_on(SECOND);
    // In the one topic it was passed over, in the other it was the newest.
    assert_eq!(data(&drain(&mut reader, 999)), ["2"]);
    assert_eq!(data(&drain(&mut of_one, 999)), ["1", "3"]);
    paced.hub.lock().audit();
}

#[test]
fn readers_of_their_own_take_no_place_of_what_is_for_others() {
    let mut paced = Paced::new();
    let mut ann = subscribe(&paced.hub, &["t/1", "for/ann"], Resume::Live);
    let mut bob = subscribe(&paced.hub, &["t/1", "for/bob"], Resume::Live);
    for (name, data) in [
        ("for/ann", "1"),
        ("for/bob", "2"),
        ("for/ann", "3"),
        ("for/bob", "4"),
    ] {
        let (waits, _) = paced.publish(&["t/1"], "a", data, |target| {
            target.to = Some(topics(&[name]));
        });
        assert_eq!(waits, data > "2");
    }
    paced.go_on(2 * SECOND);
    assert_eq!(data(&drain(&mut ann, 999)), ["1", "3"]);
    assert_eq!(data(&drain(&mut bob, 999)), ["2", "4"]);
}

#[test]
fn what_waits_can_be_taken_back_deleted_and_be_over() {
    let mut paced = Paced::new();
    let mut reader = subscribe(&paced.hub, &["t/1"], Resume::Live);
    let retract = |paced: &Paced, id: &str| {
        let entry = Entry::Retract {
            topics: topics(&["t/1"]).into(),
            id: id.into(),
        };
        put(&paced.hub, entry, paced.now).0.removed
    };
    paced.state(&["t/1"], "a", "1");
    let (waits, id) = paced.publish(&["t/1"], "a", "2", |_| ());
    assert!(waits);
    assert_eq!(retract(&paced, &id), Some(1));
    paced.go_on(2 * SECOND);
    assert_eq!(data(&drain(&mut reader, 999)), ["1"]);

    paced.state(&["t/1"], "a", "3");
    let (_, id) = paced.publish(&["t/1"], "a", "4", |_| ());
    paced.go_on(2 * SECOND);
    assert_eq!(data(&drain(&mut reader, 999)), ["3", "4"]);
    // Its publisher knows it by the id that it was told.
    assert_eq!(retract(&paced, &id), Some(1));
    assert_eq!(retract(&paced, &id), None);

    paced.state(&["t/1"], "a", "5");
    paced.publish(&["t/1"], "a", "6", |target| target.ttl = Some(2 * SECOND));
    // Late, as on a machine that was asleep.
    paced.now += 2 * SECOND;
    for entry in paced.hub.due(paced.now, 9) {
        put(&paced.hub, entry, paced.now);
    }
    paced.go_on(2 * SECOND);
    assert_eq!(data(&drain(&mut reader, 999)), ["5"]);

    for (data, waits) in [("7", false), ("8", true)] {
        let live = |target: &mut Target| target.is_live_only = true;
        assert_eq!(paced.publish(&["t/1"], "a", data, live).0, waits);
    }
    let mut late = subscribe(&paced.hub, &["t/1"], Resume::Live);
    paced.go_on(2 * SECOND);
    assert_eq!(data(&drain(&mut reader, 999)), ["7", "8"]);
    assert_eq!(data(&drain(&mut late, 999)), ["8"]);
    assert_eq!(reader.settled(), reader.handle().addressed());

    paced.state(&["t/1"], "a", "9");
    assert!(paced.state(&["t/1"], "a", "10"));
    delete(&paced.hub, "t/1");
    paced.go_on(2 * SECOND);
    let read = drain(&mut reader, 999);
    assert_eq!((read.len(), &*read[0].event), (1, "edge-gap"));
    paced.hub.lock().audit();
}

#[test]
fn an_event_that_left_history_while_it_waited_goes_out_all_the_same() {
    let retention = Retention {
        events: 2,
        ..Retention::default()
    };
    let hub = ruled(retention, &[("t/*", every(SECOND))]);
    let now = hub.began.0;
    let mut paced = Paced { hub, now };
    let mut reader = subscribe(&paced.hub, &["t/1"], Resume::Live);
    paced.state(&["t/1"], "a", "a1");
    assert!(paced.state(&["t/1"], "a", "a2"));
    for n in 0..9 {
        paced.state(&["t/1"], &format!("k{n}"), &n.to_string());
    }
    drain(&mut reader, 999);
    paced.go_on(SECOND);
    assert_eq!(data(&drain(&mut reader, 999)), ["a2"]);
    assert_eq!(reader.settled(), reader.handle().addressed());
}

proptest! {
    /// However states come, and however often a reader is cut: it never gets an older state after a
    /// newer one, nothing twice, in the end the newest of each key; and one that is not cut gets of no
    /// key more than one in an interval, and the first at once.
    #[test]
    fn in_the_end_a_reader_has_the_newest_of_every_key(
        steps in proptest::collection::vec((0u8..3, 0u8..3, 0u64..700, any::<bool>()), 1..60),
        latest in any::<bool>(),
    ) {
        let treatment = Treatment {
            replay: if latest { Replay::Latest } else { Replay::All },
            ..every(SECOND)
        };
        let hub = ruled(Retention::default(), &[("t/*", treatment), ("u/*", every(2 * SECOND))]);
        let now = hub.began.0;
        let mut paced = Paced { hub, now };
        const READ: [&str; 2] = ["t/1", "chat"];
        let mut steady = subscribe(&paced.hub, &READ, Resume::Live);
        let mut cut = subscribe(&paced.hub, &READ, Resume::Live);
        let mut cursor = paced.hub.id(0).to_string();
        let mut newest: BTreeMap<u8, usize> = BTreeMap::new();
        // The states that each of the readers got, by key, and when.
        type Got = BTreeMap<u8, Vec<(usize, Instant)>>;
        let (mut of_steady, mut of_cut) = (Got::new(), Got::new());
        let note = |got: &mut Got, read: Vec<Message>, now: Instant| {
            let last = read.last().map(|message| message.id.clone());
            for message in read {
                let (key, state) = message.data.split_once(' ').expect("key and state");
                let all = got.entry(key.parse().expect("a key")).or_default();
                all.push((state.parse().expect("a number"), now));
            }
            last
        };
        for (n, (key, kind, later, is_cut)) in steps.into_iter().enumerate() {
            let then = paced.now + Duration::from_millis(later);
            // Each turn is looked at by itself.
            loop {
                let first = paced.hub.lock().first_turn();
                let Some(turn) = first.filter(|turn| *turn <= then) else { break };
                paced.go_on(turn - paced.now);
                note(&mut of_steady, drain(&mut steady, 100), turn);
            }
            paced.go_on(then - paced.now);
            let names: &[&str] = [&["t/1"][..], &["t/1", "u/1"], &["t/1", "chat"]][kind as usize];
            let (waits, _) = paced.publish(names, &key.to_string(), &format!("{key} {n}"), |_| ());
            newest.insert(key, n);
            note(&mut of_steady, drain(&mut steady, 100), then);
            if !waits {
                prop_assert_eq!(of_steady[&key].last(), Some(&(n, then)));
            }
            if is_cut {
                if let Some(last) = note(&mut of_cut, drain(&mut cut, 100), then) {
                    cursor = last;
                }
                cut = subscribe(&paced.hub, &READ, Resume::After(&cursor));
            }
        }
        paced.go_on(10 * SECOND);
        note(&mut of_steady, drain(&mut steady, 100), paced.now);
        note(&mut of_cut, drain(&mut cut, 100), paced.now);
        for got in [&of_steady, &of_cut] {
            for (key, all) in got {
                let states: Vec<usize> = all.iter().map(|(state, _)| *state).collect();
                prop_assert!(states.is_sorted_by(|a, b| a < b), "{} {:?}", key, states);
            }
            let last = got.iter().map(|(key, all)| (*key, all.last().expect("some").0));
            prop_assert_eq!(&last.collect::<BTreeMap<_, _>>(), &newest);
        }
        prop_assert_eq!(steady.settled(), steady.handle().addressed());
        prop_assert_eq!(cut.settled(), cut.handle().addressed());
        paced.hub.lock().audit();
    }
}

fn overflowing(overflow: Overflow) -> Arc<Hub> {
    let treatment = Treatment {
        overflow,
        ..Treatment::default()
    };
    treating(treatment, 4)
}

#[test]
fn a_reader_too_slow_goes_on_with_the_newest_of_each_key() {
    let hub = overflowing(Overflow::Latest);
    let mut reader = subscribe(&hub, &["x/1", "chat"], Resume::Live);
    let start = publish(&hub, &["chat"], "hello").id;
    for (key, data) in [
        ("a", "a1"),
        ("b", "b1"),
        ("a", "a2"),
        ("b", "b2"),
        ("a", "a3"),
        ("a", "a4"),
    ] {
        publish_state(&hub, "x/1", key, data);
    }
    assert_eq!(data(&drain(&mut reader, 999)), ["hello", "b2", "a4"]);
    assert_eq!(hub.metrics.skipped.get(), 1);
    // From then on it gets all again.
    publish_state(&hub, "x/1", "a", "a5");
    publish_state(&hub, "x/1", "a", "a6");
    assert_eq!(data(&drain(&mut reader, 999)), ["a5", "a6"]);
    assert_eq!(reader.settled(), reader.handle().addressed());
    // One that comes back is told what it missed, and is given all that is held.
    let mut back = subscribe(&hub, &["x/1", "chat"], Resume::After(&start));
    let read = drain(&mut back, 999);
    assert_eq!(gap(&read[0])["missed"], 4);
    assert_eq!(data(&read[1..]), ["a3", "a4", "a5", "a6"]);
    // So is one that is too slow for a topic that says nothing of it as well.
    let mut reader = subscribe(&hub, &["x/1", "chat"], Resume::Live);
    for n in 0..5 {
        publish_state(&hub, "x/1", "a", &n.to_string());
        publish(&hub, &["chat"], &n.to_string());
    }
    let read = drain(&mut reader, 999);
    assert_eq!(gap(&read[0])["topics"], serde_json::json!(["x/1", "chat"]));
    assert_eq!(reader.settled(), reader.handle().addressed());
}

#[test]
fn a_reader_too_slow_is_ended_and_comes_back() {
    let hub = overflowing(Overflow::Disconnect);
    let mut reader = subscribe(&hub, &["x/1"], Resume::Live);
    let first = publish_state(&hub, "x/1", "", "1");
    assert_eq!(data(&drain(&mut reader, 999)), ["1"]);
    for n in 2..=9 {
        publish_state(&hub, "x/1", "", &n.to_string());
    }
    assert_eq!(reader.next(999), Next::Ended);
    assert_eq!(hub.metrics.disconnected.get(), 1);
    let mut back = subscribe(&hub, &["x/1"], Resume::After(&first));
    let read = drain(&mut back, 999);
    assert_eq!(gap(&read[0])["missed"], 4);
    assert_eq!(data(&read[1..]), ["6", "7", "8", "9"]);
}

#[test]
fn any_number_of_old_states_is_not_missing() {
    let hub = replayed(Replay::Latest, 4);
    let start = publish(&hub, &["other"], "0").id;
    for n in 0..3000 {
        publish_state(&hub, "x/1", "a", &n.to_string());
    }
    let mut reader = subscribe(&hub, &["x/1"], Resume::After(&start));
    assert_eq!(data(&drain(&mut reader, 999)), ["2999"]);
    // One of another key was the newest of it, long ago.
    publish_state(&hub, "x/1", "b", "lost");
    for n in 0..3000 {
        publish_state(&hub, "x/1", "a", &n.to_string());
    }
    let mut reader = subscribe(&hub, &["x/1"], Resume::After(&start));
    let read = drain(&mut reader, 999);
    assert_eq!(
        (&*read[0].event, data(&read[1..])),
        ("edge-gap", vec!["2999"])
    );
}

#[test]
fn what_is_held_where_it_is_not_given_again_is_missing() {
    let hub = replayed(Replay::None, 2);
    let start = publish(&hub, &["other"], "0").id;
    publish(&hub, &["x/1", "room"], "1");
    for n in 2..=3 {
        publish(&hub, &["room"], &n.to_string());
    }
    let mut reader = subscribe(&hub, &["x/1", "room"], Resume::After(&start));
    let read = drain(&mut reader, 999);
    assert_eq!(gap(&read[0])["missed"], 1);
    assert_eq!(data(&read[1..]), ["2", "3"]);
    // What leaves such a topic while others are replayed is not missing.
    let mut reader = subscribe(&hub, &["x/1", "room"], Resume::Last(9));
    for n in 4..=6 {
        publish(&hub, &["x/1"], &n.to_string());
    }
    let read = drain(&mut reader, 999);
    assert_eq!(data(&read[..2]), ["2", "3"]);
    assert_eq!(gap(&read[2])["reason"], "slow");
}

#[test]
fn what_ended_and_left_is_accounted_for() {
    let hub = hub(2);
    let mut reader = subscribe(&hub, &["a"], Resume::Live);
    let now = clock::now();
    for n in 0..6 {
        let mut entry = event(&["a"], &n.to_string());
        if let Entry::Event { target, .. } = &mut entry {
            target.ttl = (n < 4).then_some(SECOND);
        }
        put(&hub, entry, now);
        hub.sweep(now + SECOND);
    }
    let read = drain(&mut reader, 999);
    assert_eq!(reader.settled(), reader.handle().addressed());
    assert!(data(&read).ends_with(&["4", "5"]));
    hub.lock().audit();
}

#[test]
fn what_is_published_between_a_turn_and_its_release_goes_out_at_once() {
    let mut paced = Paced::new();
    let mut reader = subscribe(&paced.hub, &["t/1"], Resume::Live);
    paced.state(&["t/1"], "a", "1");
    assert!(paced.state(&["t/1"], "a", "2"));
    paced.now += SECOND;
    let due = paced.hub.due(paced.now, 9);
    assert!(!paced.state(&["t/1"], "a", "3"));
    for entry in due {
        put(&paced.hub, entry, paced.now);
    }
    assert_eq!(data(&drain(&mut reader, 999)), ["1", "3"]);
    paced.go_on(5 * SECOND);
    assert_eq!(drain(&mut reader, 999).len(), 0);
    assert_eq!(paced.hub.lock().first_turn(), None);
}

#[test]
fn what_waits_for_a_slow_topic_does_not_hold_up_a_fast_one() {
    let mut paced = Paced::new();
    let mut reader = subscribe(&paced.hub, &["t/1"], Resume::Live);
    paced.state(&["t/1", "u/1"], "a", "1");
    assert!(paced.state(&["t/1", "u/1"], "a", "2"));
    paced.go_on(SECOND);
    assert!(!paced.state(&["t/1"], "a", "3"));
    paced.go_on(SECOND);
    assert_eq!(data(&drain(&mut reader, 999)), ["1", "3"]);
    let mut slow = subscribe(&paced.hub, &["u/1"], Resume::Last(9));
    assert_eq!(data(&drain(&mut slow, 999)), ["1", "2"]);
}

#[test]
fn what_is_not_kept_takes_no_place_of_what_is() {
    let mut paced = Paced::new();
    let mut reader = subscribe(&paced.hub, &["t/1"], Resume::Live);
    paced.state(&["t/1"], "", "1");
    assert!(paced.state(&["t/1"], "", "2"));
    let (waits, _) = paced.publish(&["t/1"], "", "cursor", |target| target.is_live_only = true);
    assert!(!waits);
    let (waits, _) = paced.publish(&["t/1"], "", "offer", |target| {
        target.ttl = Some(SECOND / 2);
    });
    assert!(!waits, "it would be over");
    paced.go_on(3 * SECOND);
    assert_eq!(data(&drain(&mut reader, 999))[..2], ["1", "cursor"]);
}

#[test]
fn what_comes_to_its_turn_at_one_moment_goes_out_in_parts() {
    let mut paced = Paced::new();
    for state in ["1", "2"] {
        for key in 0..50 {
            assert_eq!(paced.state(&["t/1"], &key.to_string(), state), state == "2");
        }
    }
    paced.now += SECOND;
    let mut went_out = Vec::new();
    loop {
        let due = paced.hub.due(paced.now, 8);
        went_out.push(due.len());
        if due.is_empty() {
            break;
        }
        for entry in due {
            put(&paced.hub, entry, paced.now);
        }
    }
    assert_eq!(went_out, [8, 8, 8, 8, 8, 8, 2, 0]);
    assert_eq!(paced.hub.lock().waiting_bytes().load(Ordering::Relaxed), 0);
}
