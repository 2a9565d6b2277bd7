//! Disks that are full, and disks that fail.

use super::{
    super::disk::Disk,
    torn_disk::{Faults, Nothing},
    *,
};

#[test]
fn a_full_disk_is_told_and_written_to_again_once_there_is_room() {
    let disk = TornDisk::default();
    let edge = Edge::open(&disk, SyncPolicy::Always);
    let mut reader = edge.subscribe(&["a"], Resume::Live);
    disk.fail(Faults {
        room: Some(20_000),
        ..Faults::default()
    });
    let mut acked = Vec::new();
    let mut refused = 0;
    for n in 0..200 {
        let data = format!("{n} {}", "x".repeat(100));
        match edge.publish(&["a"], &data) {
            Ok(_) => acked.push(data),
            Err(error) => {
                assert_eq!(error, NotStored::Full);
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && acked.len() > 10, "{refused} refused");
    disk.fail(Faults::default());
    let more = edge.publish(&["a"], "more").expect("there is room");
    acked.push("more".into());
    assert_eq!(edge.take(&mut reader), acked);
    // No number was skipped for what was refused.
    assert_eq!(number(&more), acked.len() as u64);
    let left = disk.after_kill();
    drop(edge);
    assert_eq!(Edge::open(&left, SyncPolicy::Always).all(&["a"]), acked);
}

#[test]
fn a_write_that_fails_is_told_and_leaves_nothing_behind() {
    let disk = TornDisk::default();
    let edge = Edge::open(&disk, SyncPolicy::Always);
    edge.publish(&["a"], "1").expect("it is stored");
    disk.fail(Faults {
        write: true,
        ..Faults::default()
    });
    let failed = edge.publish(&["a"], "2");
    assert!(matches!(failed, Err(NotStored::Failed(_))), "{failed:?}");
    disk.fail(Faults::default());
    edge.publish(&["a"], "3").expect("it is stored");
    assert_eq!(edge.all(&["a"]), ["1", "3"]);
}

#[test]
fn after_a_sync_that_failed_nothing_is_acknowledged_any_more() {
    for sync in [
        SyncPolicy::Always,
        SyncPolicy::Every(Duration::from_millis(1)),
    ] {
        let disk = TornDisk::default();
        let edge = Edge::open(&disk, sync);
        edge.publish(&["a"], "1").expect("it is stored");
        disk.fail(Faults {
            sync: true,
            ..Faults::default()
        });
        let mut reader = edge.subscribe(&["a"], Resume::Live);
        let mut last = edge.publish(&["a"], "2");
        if sync == SyncPolicy::Always {
            assert_eq!(last, Err(NotStored::Unknown));
            assert_eq!(edge.take(&mut reader), Vec::<String>::new());
        }
        // Whoever synced it, it is found out.
        while matches!(last, Ok(_) | Err(NotStored::Unknown)) {
            last = edge.publish(&["a"], "3");
        }
        // It is not tried again: that would say nothing of what was to be synced before.
        disk.fail(Faults::default());
        let after = edge.publish(&["a"], "4");
        assert!(matches!(after, Err(NotStored::Failed(_))), "{after:?}");
        assert_eq!(edge.all(&["a"])[0], "1");
    }
}

/// Whoever starts the edge again is shown what is on disk, though a sync failed before and the next does not say so.
#[test]
fn what_is_found_after_a_sync_that_failed_lasts() {
    for sync in [SyncPolicy::Always, SyncPolicy::Never] {
        let disk = TornDisk::default();
        let edge = Edge::open(&disk, sync);
        edge.publish(&["a"], "1").expect("it is stored");
        disk.fail(Faults {
            sync: true,
            ..Faults::default()
        });
        let second = edge.publish(&["a"], "2");
        assert_eq!(second.is_err(), sync == SyncPolicy::Always);
        edge.close();
        disk.fail(Faults::default());
        let left = disk.after_kill();
        let edge = Edge::open(&left, sync);
        assert_eq!(edge.all(&["a"]), ["1", "2"]);
        let left = left.after_power_cut(&mut Nothing);
        drop(edge);
        let edge = Edge::open(&left, sync);
        assert_eq!(edge.all(&["a"]), ["1", "2"]);
    }
}

/// A segment that went before the disk failed is gone: what follows it goes yet.
#[test]
fn what_is_half_let_go_of_goes() {
    let disk = TornDisk::default();
    let kept = Keeping {
        bytes: 20_000,
        ..keeping(SyncPolicy::Always)
    };
    let edge = Edge::try_open(&disk, kept, small(1)).expect("it opens");
    let publish = |count: usize| {
        for n in 0..count {
            let data = format!("{n} {}", "x".repeat(100));
            edge.publish(&["a"], &data).expect("it is stored");
        }
    };
    publish(100);
    let mut names = Disk::list(&disk).expect("names");
    names.sort();
    // As if the end of the process, or of the disk, had come between the two.
    let (index, segment) = (&names[0], &names[1]);
    assert!(index.ends_with(".idx") && segment.ends_with(".seg"));
    Disk::remove(&disk, segment).expect("it is there");
    publish(100);
    let (count, bytes) = edge.segments().state().size();
    assert!(bytes <= 20_500, "{bytes} bytes in {count} segments");
}

#[test]
fn what_is_too_much_or_too_old_goes_by_whole_segments() {
    let disk = TornDisk::default();
    let kept = Keeping {
        bytes: 20_000,
        ..keeping(SyncPolicy::Always)
    };
    let edge = Edge::try_open(&disk, kept, small(1)).expect("it opens");
    for n in 0..400 {
        let data = format!("{n} {}", "x".repeat(100));
        edge.publish(&["a"], &data).expect("it is stored");
    }
    let (segments, bytes) = edge.segments().state().size();
    assert!(
        bytes <= 20_000 + 500,
        "{bytes} bytes in {segments} segments"
    );
    let files = Disk::list(&disk).expect("names");
    assert_eq!(
        files.iter().filter(|name| name.ends_with(".seg")).count(),
        segments
    );
    assert_eq!(
        files.iter().filter(|name| name.ends_with(".idx")).count(),
        segments - 1
    );
    // Who comes from before is told; what is held follows.
    let got = edge.all(&["a"]);
    assert_eq!(got[0], "gap:trimmed");
    assert_eq!(got.last().expect("some")[..3], *"399");
    // Who comes from within gets all of it.
    let oldest = edge.segments().state().oldest();
    let got = edge.after(&["a"], &edge.id(oldest));
    assert!(got.iter().all(|said| !said.starts_with("gap:")));
    assert_eq!(got.len() as u64, 400 - oldest);
}
