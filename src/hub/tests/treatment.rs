//! Topics whose events are not all of the same use: what of them goes out, and what is given again.

use super::*;

fn replayed(replay: Replay, events: usize) -> Arc<Hub> {
    let treatment = Treatment {
        replay,
        ..Treatment::default()
    };
    let retention = Retention {
        events,
        ..Retention::default()
    };
    ruled(retention, &[("x/*", treatment)])
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
