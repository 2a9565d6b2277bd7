//! A hub of an order that others apply too.

use proptest::prelude::*;

use super::*;

fn shared() -> Arc<Hub> {
    let hub = hub(100);
    hub.share(clock::now());
    hub
}

/// Applies an event as the one entry of a frame.
fn frame(hub: &Hub, frame: u64, data: &str) {
    let sequence = frame << PLACE_BITS;
    hub.apply([Placed::new(sequence, clock::now(), event(&["a"], data))]);
    hub.pass(end_of_frame(sequence), clock::now());
}

fn id(hub: &Hub, frame: u64) -> String {
    hub.id(frame << PLACE_BITS).to_string()
}

/// All that there is for a reader, and whether a gap was told.
fn all(reader: &mut Subscription) -> (Vec<String>, bool) {
    let (mut data, mut is_gap) = (Vec::new(), false);
    while let Some(chunk) = chunk(reader.next(1 << 20)) {
        is_gap |= chunk.missed != Some(0);
        let mut items = Vec::new();
        let bytes = chunk.wire.payload();
        Parser::new(usize::MAX)
            .push(&bytes, &mut items)
            .expect("no limit");
        data.extend(items.into_iter().filter_map(|item| match item {
            Item::Message(message) if message.event != "edge-gap" => Some(message.data),
            _ => None,
        }));
    }
    (data, is_gap)
}

#[test]
fn who_comes_from_a_hub_that_is_ahead_waits_and_misses_nothing() {
    let hub = shared();
    frame(&hub, 1, "1");
    let mut reader = subscribe(&hub, &["a"], Resume::After(&id(&hub, 3)));
    for n in 2..=3 {
        frame(&hub, n, &n.to_string());
        assert_eq!(all(&mut reader), (vec![], false), "it has it");
    }
    // Whatever is asked for meanwhile, there is more to come.
    hub.settle_ahead(end_of_frame(1 << PLACE_BITS), clock::now());
    frame(&hub, 4, "4");
    assert_eq!(all(&mut reader), (vec!["4".to_owned()], false));
    // All that came is settled, though a part of it was not taken.
    assert_eq!(all(&mut reader), (vec![], false));
    assert_eq!(reader.settled(), reader.handle().addressed());
}

#[test]
fn who_comes_with_an_id_of_nothing_is_told_so_after_a_while() {
    let hub = shared();
    frame(&hub, 1, "1");
    let bogus = hub.id(u64::MAX).to_string();
    let mut reader = subscribe(&hub, &["a"], Resume::After(&bogus));
    let end = end_of_frame(1 << PLACE_BITS);
    hub.settle_ahead(end, clock::now());
    assert_eq!(all(&mut reader), (vec![], false));
    hub.settle_ahead(end, clock::now() + Duration::from_secs(6));
    let mut ready = Vec::new();
    let mailbox = reader.handle().mailbox().clone();
    mailbox.take_ready(Waker::noop(), &mut ready);
    assert_eq!(ready, [reader.handle().key()]);
    assert_eq!(all(&mut reader), (vec!["1".to_owned()], true));
    frame(&hub, 2, "2");
    assert_eq!(all(&mut reader), (vec!["2".to_owned()], false));
}

/// Whoever is ahead may know that a topic goes on which has ended here.
#[test]
fn a_topic_that_has_ended_here_has_not_for_who_is_ahead() {
    let hub = shared();
    let close = Placed::new(1 << PLACE_BITS, clock::now(), Entry::Close(topic("a")));
    hub.apply([close]);
    hub.pass(end_of_frame(1 << PLACE_BITS), clock::now());
    assert!(subscribe(&hub, &["a"], Resume::After(&id(&hub, 1))).is_finished());
    let mut ahead = subscribe(&hub, &["a"], Resume::After(&id(&hub, 2)));
    assert!(!ahead.is_finished());
    frame(&hub, 2, "more");
    assert_eq!(all(&mut ahead), (vec![], false));
    assert!(!ahead.is_finished());
}

/// What is of the moment has numbers that are each hub's own.
#[test]
fn a_number_of_another_hubs_own_stands_for_the_end_of_its_frame() {
    let hub = shared();
    frame(&hub, 1, "1");
    let own = hub.id(1 << PLACE_BITS | 700).to_string();
    let mut reader = subscribe(&hub, &["a"], Resume::After(&own));
    let of_the_moment = Placed::new(1 << PLACE_BITS | 512, clock::now(), event(&["a"], "own"));
    hub.apply([of_the_moment]);
    assert_eq!(all(&mut reader).0, ["own"]);
}

#[test]
fn a_hub_that_begins_anew_ends_its_streams_and_knows_nothing_of_before() {
    let hub = shared();
    frame(&hub, 5, "old");
    let before = id(&hub, 5);
    let mut reader = subscribe(&hub, &["a"], Resume::Live);
    frame(&hub, 6, "old too");
    hub.begin_anew(Epoch::from_random(8), end_of_frame(0));
    assert_eq!(reader.next(1 << 20), Next::Ended);
    assert!(reader.is_ended());
    drop(reader);
    hub.lock().audit();
    frame(&hub, 1, "new");
    let (data, is_gap) = all(&mut subscribe(&hub, &["a"], Resume::After(&before)));
    assert_eq!((data, is_gap), (vec!["new".to_owned()], true));
    let (data, is_gap) = all(&mut subscribe(&hub, &["a"], Resume::After(&id(&hub, 1))));
    assert_eq!((data, is_gap), (vec![], false));
    hub.lock().audit();
}

/// A hub whose topics below `x/` have an interval of a second, of an order with this grid.
fn paced(origin: Instant) -> Arc<Hub> {
    let treatment = Treatment {
        interval: Some(Duration::from_secs(1)),
        ..Treatment::default()
    };
    let hub = ruled(Retention::default(), &[("x/*", treatment)]);
    hub.share(origin);
    hub
}

proptest! {
    /// One hub looks at its clock all the time, which is fast, or what it applies late; another never; a third has come later, and was judged
    /// before what it applies was applied.
    #[test]
    fn what_waits_is_settled_alike_by_all(
        steps in proptest::collection::vec((0u64..700, 0usize..2, any::<bool>(), 0u64..90_000), 1..60),
    ) {
        let origin = clock::now();
        let (fast, slow, judged) = (paced(origin), paced(origin), paced(origin));
        let mut now = origin + Duration::from_secs(60);
        let mut waiting: Vec<(u64, usize)> = Vec::new();
        for (nth, (passed, of, is_released, ahead)) in steps.into_iter().enumerate() {
            now += Duration::from_millis(passed);
            let name = ["x/1", "x/2"][of];
            let number = (nth as u64 + 1) << PLACE_BITS;
            // Some hub has it go out when it is its turn by its clock: the first of all that is due anywhere.
            drop(fast.due(now + Duration::from_millis(ahead), 10));
            let released = waiting.iter().position(|(_, topic)| *topic == of).filter(|_| is_released);
            let entry = |hub: &Hub| match released {
                Some(at) => {
                    let target = Target { topics: topics(&[name]), ..Target::default() };
                    hub.to_release((waiting[at].0, now), Draft::new(None, "x", None), target)
                }
                None => event(&[name], "x"),
            };
            let verdicts = judged.judge([(number, now, &entry(&judged))].into_iter());
            let mut deferred = Vec::new();
            for hub in [&fast, &slow, &judged] {
                let mut placed = Placed::new(number, now, entry(hub));
                if Arc::ptr_eq(hub, &judged) && released.is_none() {
                    placed.judged = Judged::Before(verdicts[0]);
                }
                deferred.push(hub.apply([placed]).applied[0].deferred);
                hub.pass(end_of_frame(number), now);
            }
            prop_assert!(deferred.iter().all(|one| *one == deferred[0]), "{deferred:?} at {nth}");
            match released {
                Some(at) => drop(waiting.remove(at)),
                None => {
                    // It takes the place of another.
                    waiting.retain(|(_, topic)| *topic != of);
                    waiting.extend(deferred[0].then_some((number, of)));
                }
            }
            for name in ["x/1", "x/2"] {
                let held = [&fast, &slow, &judged].map(|hub| hub.waiting_in(&topic(name)).len());
                prop_assert_eq!(held[0], held[1]);
                prop_assert_eq!(held[0], held[2]);
            }
        }
    }
}
