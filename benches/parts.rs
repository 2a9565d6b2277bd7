//! The pure parts of an event's way, and of a request's, each done once: for what takes their time and for what
//! counts their instructions.

use std::hint::black_box;

use seventh::{
    measured::{Fields, NestedGroups, Routes},
    pattern::Pattern,
    sse::{Draft, Parser},
};

use crate::crowd::Crowd;

/// A part.
pub(crate) struct Part {
    /// What it is.
    pub(crate) name: &'static str,
    /// How many of what it does at once, such as deliveries.
    pub(crate) times: u32,
    /// Makes what does it.
    pub(crate) make: fn() -> Box<dyn FnMut()>,
}

const ID: &str = "k3f9x2ab-1234";

fn ten_lines() -> String {
    "0123456789\n".repeat(10)
}

fn deliver(connections: usize, streams: usize) -> Box<dyn FnMut()> {
    let mut crowd = Crowd::new(connections, streams);
    let data = "x".repeat(100);
    // The ring is as large as it gets.
    for _ in 0..5_000 / (connections * streams) {
        crowd.deliver(&data);
    }
    Box::new(move || crowd.deliver(&data))
}

/// All of them.
pub(crate) const PARTS: &[Part] = &[
    Part {
        name: "encode ten lines",
        times: 1,
        make: || {
            let data = ten_lines();
            Box::new(move || {
                black_box(Draft::new(Some("goal"), black_box(&data), None).finish(ID));
            })
        },
    },
    Part {
        name: "parse ten lines",
        times: 1,
        make: || {
            let wire = Draft::new(Some("goal"), &ten_lines(), None).finish(ID);
            let (mut parser, mut items) = (Parser::new(usize::MAX), Vec::new());
            Box::new(move || {
                parser.push(black_box(&wire), &mut items).expect("no limit");
                items.clear();
            })
        },
    },
    Part {
        name: "publish, and take it for the only reader",
        times: 1,
        make: || deliver(1, 1),
    },
    Part {
        name: "deliver, to a connection with one reader",
        times: 1_000,
        make: || deliver(1_000, 1),
    },
    Part {
        name: "deliver, to a connection with a hundred readers",
        times: 1_000,
        make: || deliver(10, 100),
    },
    Part {
        name: "expand ten nested groups with ten users each",
        times: 1,
        make: || {
            let groups = NestedGroups::new(10, 10);
            Box::new(move || groups.expand())
        },
    },
    Part {
        name: "match a topic with a pattern",
        times: 1,
        make: || {
            let pattern = Pattern::parse("orders/*/items/**").expect("a pattern");
            Box::new(move || {
                assert!(pattern.matches(black_box("orders/4711/items/12/price")));
            })
        },
    },
    Part {
        name: "find one of a hundred routes",
        times: 1,
        make: || {
            let routes = Routes::new(10);
            Box::new(move || routes.find("h7.example:443", "/app/5/basket"))
        },
    },
    Part {
        name: "header fields of a request and its answer",
        times: 1,
        make: || {
            let fields = Fields::default();
            Box::new(move || fields.exchange())
        },
    },
];
