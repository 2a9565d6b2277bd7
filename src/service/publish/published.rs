//! Putting an event into the order, and what its publisher is told.

use serde::Serialize;

use super::{event::Event, permit::Permit};
use crate::{clock, exchange::Problem, service::Context};

/// What a publisher is told.
#[derive(Serialize)]
pub(super) struct Published {
    id: String,
    /// None of a duplicate, which went out before; not said to whom it would tell who is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    receivers: Option<usize>,
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
    /// Publishes an event; whoever sends to people is told whether any of them got it.
    pub(super) async fn of(
        context: &Context,
        permit: &Permit,
        event: Event,
        is_to_people: bool,
    ) -> Result<Self, Problem> {
        Self::check_memory(context)?;
        Self::put(context, permit, event, is_to_people).await
    }

    /// Whether there is memory for more.
    pub(super) fn check_memory(context: &Context) -> Result<(), Problem> {
        if context.memory.is_short() {
            return Err(Problem::no_memory(context.limits.memory));
        }
        Ok(())
    }

    /// Publishes an event for which there is memory.
    pub(super) async fn put(
        context: &Context,
        permit: &Permit,
        event: Event,
        is_to_people: bool,
    ) -> Result<Self, Problem> {
        let is_told = permit.is_told_receivers(&event);
        if let Some(publisher) = permit.name() {
            tracing::debug!(publisher, "publishes");
        }
        let receipt = context.order.put(event.into_entry(), clock::now()).await?;
        let delivered = is_to_people && !receipt.duplicate;
        Ok(Self {
            id: receipt.id,
            receivers: is_told.then_some(receipt.receivers),
            delivered: delivered.then_some(receipt.receivers > 0),
            duplicate: receipt.duplicate,
            deferred: receipt.deferred,
        })
    }
}
