//! A JSON array of events: all of them are right, or none is published.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{
    kind::Kind,
    permit::Permit,
    published::{Asked, Published},
};
use crate::{exchange::Problem, service::Context};

/// The most events of one array: what is more comes as lines.
const MOST: usize = 1000;

/// Whether a body is an array.
pub(super) fn is_array(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"[")
}

/// Publishes the events of an array, in their order; what each of them is answered. One has been counted against
/// the publisher's rate.
pub(super) async fn publish(
    context: &Arc<Context>,
    kind: Kind,
    permit: Permit,
    json: &[u8],
) -> Result<Vec<Published>, Problem> {
    let texts: Vec<&RawValue> = super::event::parse(json)?;
    let all = texts.len();
    if all == 0 || all > MOST {
        let detail = format!(
            "{all} events are in the array; put 1 to {MOST} there, and send more as application/x-ndjson"
        );
        return Err(Problem::field("events", &all.to_string(), detail).with_limit(MOST));
    }
    let read = |(at, text): (usize, &&RawValue)| {
        let event = kind.read(text.get().as_bytes(), context, &permit);
        let asked = event.and_then(|event| {
            let asked = Asked::new(event, &permit);
            context.order.check_size(&asked.entry)?;
            Ok(asked)
        });
        let part = || format!("event {} of {all}, none of which was published", at + 1);
        asked.map_err(|problem| problem.within(&part()))
    };
    let events: Vec<Asked> = texts
        .iter()
        .enumerate()
        .map(read)
        .collect::<Result<_, _>>()?;
    permit.check_rate_of_more(context, all - 1)?;
    Published::check_memory(context)?;
    // From here on they are all published, whether the publisher waits for the answer or not.
    let context = context.clone();
    let publishing = tokio::spawn(async move {
        let mut published = Vec::with_capacity(all);
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            if !published.is_empty() {
                tokio::task::yield_now().await;
            }
            let batch = events.by_ref().take(context.order.batch());
            let batch = Published::put_entries(&context, &permit, batch, kind.is_to_people()).await;
            for answer in batch {
                // What follows one that is not stored is not published before it.
                let part = || {
                    let at = published.len() + 1;
                    format!(
                        "event {at} of {all}, before which {} were published",
                        at - 1
                    )
                };
                published.push(answer.map_err(|problem| problem.within(&part()))?);
            }
        }
        Ok(published)
    });
    publishing
        .await
        .unwrap_or_else(|_| Err(Problem::internal()))
}
