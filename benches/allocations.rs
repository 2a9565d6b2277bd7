//! How often memory is allocated for an event: counted, so that it says the same on every machine.
//!
//! What is done once for an event may allocate; what is done for each of its readers may not.

mod crowd;

use allocation_counter::measure;
use seventh::sse::{Draft, Parser};

use crowd::Crowd;

const EVENTS: u64 = 100;

/// Allocations for an event, once the ring is as large as it gets.
fn allocations(connections: usize, streams: usize) -> f64 {
    let mut crowd = Crowd::new(connections, streams);
    for _ in 0..5000 {
        crowd.deliver("some data");
    }
    let counted = measure(|| {
        for _ in 0..EVENTS {
            crowd.deliver("some data");
        }
    });
    counted.count_total as f64 / EVENTS as f64
}

fn main() {
    let alone = allocations(1, 1);
    let many = allocations(10, 100);
    let wide = allocations(1000, 1);
    println!(
        "an event: {alone} allocations with 1 reader, {many} with 10 x 100, {wide} with 1,000 x 1"
    );
    assert!(alone <= 8.0, "an event takes {alone} allocations");
    let each = (many - alone).max(wide - alone) / 999.0;
    assert!(each < 0.02, "a delivery takes {each} allocations");

    let data = "0123456789\n".repeat(10);
    let encode = measure(|| {
        let draft = Draft::new(Some("goal"), &data, None);
        std::hint::black_box(draft.finish("k3f9x2ab-1234"));
    });
    println!("encoding: {} allocations", encode.count_total);
    assert!(encode.count_total <= 4);

    let wire = Draft::new(Some("goal"), &data, None).finish("k3f9x2ab-1234");
    let mut parser = Parser::new(usize::MAX);
    let mut items = Vec::with_capacity(8);
    let parse = measure(|| {
        parser.push(&wire, &mut items).expect("no limit");
    });
    println!("parsing: {} allocations", parse.count_total);
    assert!(parse.count_total <= 12);
}
