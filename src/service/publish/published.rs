//! Putting an event into the order, and what its publisher is told.

use serde::Serialize;

use super::event::Event;
use crate::{clock, exchange::Problem, service::Context};

/// What a publisher is told.
#[derive(Serialize)]
pub(super) struct Published {
    id: String,
    /// None of a duplicate, which went out before.
    receivers: usize,
    /// Whether anyone got it, for who sends to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<bool>,
    /// It was published before, under this id, and not again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    /// It waits for its turn, in topics with an interval, and has gone to nobody yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deferred: bool,
}

impl Published {
    /// Publishes an event.
    pub(super) async fn of(context: &Context, event: Event) -> Result<Self, Problem> {
        if context.memory.is_short() {
            return Err(Problem::no_memory(context.limits.memory));
        }
        let receipt = context.order.put(event.into_entry(), clock::now()).await?;
        Ok(Self {
            id: receipt.id,
            receivers: receipt.receivers,
            delivered: None,
            duplicate: receipt.duplicate,
            deferred: receipt.deferred,
        })
    }

    /// Sends an event to people.
    pub(super) async fn to_people(context: &Context, event: Event) -> Result<Self, Problem> {
        let published = Self::of(context, event).await?;
        let delivered = (!published.duplicate).then_some(published.receivers > 0);
        Ok(Self {
            delivered,
            ..published
        })
    }
}
