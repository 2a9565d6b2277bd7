//! All orders in which a publisher and a reader can come, with up to three switches between them where neither waits.

use loom::thread;

use super::*;

/// A hub, and a reader on a connection.
fn begin() -> (Arc<Hub>, Arc<Mailbox>, Subscription) {
    let hub = hub(4);
    let mailbox = Mailbox::new(LOCAL);
    let reader = hub.subscribe(&topics(&["a"]), Resume::Live, &mailbox, clock::now());
    (hub, mailbox, reader.expect("there is room").0)
}

/// What a connection does when it is woken: only who is marked looks. How many events there were.
fn look(mailbox: &Mailbox, reader: &mut Subscription) -> (usize, u64) {
    let mut ready = Vec::new();
    mailbox.take_ready(Waker::noop(), &mut ready);
    let (marks, mut events) = (ready.len(), 0);
    for _ in ready {
        while let Some(chunk) = chunk(reader.next(99)) {
            events += chunk.events;
        }
    }
    (marks, events)
}

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 100_000;
    model.check(test);
}

/// Ring, watermark, mark: whoever takes the mark finds the event, and whoever took it before is marked again.
#[test]
fn no_event_is_slept_on() {
    model(|| {
        let (hub, mailbox, mut reader) = begin();
        let publisher = {
            let hub = hub.clone();
            thread::spawn(move || {
                for n in 0..2 {
                    publish(&hub, &["a"], &n.to_string());
                }
            })
        };
        let (marks, mut events) = look(&mailbox, &mut reader);
        assert!(marks == 0 || events > 0, "a mark without an event");
        publisher.join().expect("it does not panic");
        events += look(&mailbox, &mut reader).1;
        assert_eq!(events, 2);
    });
}

/// A reader that begins while something is published is marked for it, or begins behind it.
#[test]
fn whoever_begins_meanwhile_misses_nothing() {
    model(|| {
        let hub = hub(4);
        let start = publish(&hub, &["a"], "before").id;
        let publisher = {
            let hub = hub.clone();
            thread::spawn(move || drop(publish(&hub, &["a"], "x")))
        };
        let mailbox = Mailbox::new(LOCAL);
        let names = topics(&["a"]);
        let reader = hub.subscribe(&names, Resume::After(&start), &mailbox, clock::now());
        let mut reader = reader.expect("there is room").0;
        let mut events = 0;
        while let Some(chunk) = chunk(reader.next(99)) {
            events += chunk.events;
        }
        publisher.join().expect("it does not panic");
        events += look(&mailbox, &mut reader).1;
        assert_eq!(events, 1);
        assert_eq!(reader.settled(), reader.handle().addressed());
    });
}

/// What is judged and applied by one thread, and asked for by another, is there once it may be asked for.
#[test]
fn what_may_be_seen_is_there() {
    model(|| {
        let (hub, _mailbox, mut reader) = begin();
        let publisher = {
            let hub = hub.clone();
            thread::spawn(move || {
                let batch = (1..3).map(|n| Placed::new(n, clock::now(), event(&["a"], "x")));
                drop(hub.apply(batch.collect::<Vec<_>>()));
            })
        };
        let seen = hub.cursor().sequence;
        let mut events = 0;
        while let Some(chunk) = chunk(reader.next(99)) {
            events += chunk.events;
        }
        assert!(events >= seen, "{events} of {seen}");
        publisher.join().expect("it does not panic");
        while let Some(chunk) = chunk(reader.next(99)) {
            events += chunk.events;
        }
        assert_eq!(events, 2);
    });
}
