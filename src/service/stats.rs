//! What the edge says of itself while anyone wants to know.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Context;
use crate::{
    clock,
    hub::{Entry, Target},
    sse::Draft,
    topic::Topic,
};

/// How often at most.
const PACE: Duration = Duration::from_secs(1);

/// Says how many connections there are, by `connections`, for as long as it is polled.
pub(crate) async fn tell(context: &Context, started: Instant, connections: impl Fn() -> u64) {
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = String::new();
    loop {
        ticks.tick().await;
        let topic = Topic::stats();
        let known = context.hub.topic(&topic);
        if known.is_none_or(|known| known.subscribers == 0) {
            continue;
        }
        let now = clock::now();
        let data = json!({
            "connections": connections(),
            "event_streams": context.metrics.event_streams.total(),
            "requests": context.metrics.requests.opened(),
            "uptime": now.saturating_duration_since(started).as_secs(),
        });
        let data = data.to_string();
        if data == said {
            continue;
        }
        let entry = Entry::Event {
            draft: Draft::new(None, &data, None),
            target: Target {
                topics: vec![topic],
                // It is of the moment: who comes next is told what is so then.
                is_live_only: true,
                ..Target::default()
            },
        };
        if context.order.put(entry, now).await.is_ok() {
            said = data;
        }
    }
}
