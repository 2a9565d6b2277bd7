//! What a publisher may publish.

use std::time::Duration;

use http::{StatusCode, request::Parts};

use super::event::Event;
use crate::{
    access::{Publisher, bearer},
    clock,
    exchange::{Named, Problem},
    limits::{BURST, digest},
    service::Context,
};

/// The longest time that a publisher may have clients wait who does not know people: they are not its own.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// What a publisher may publish.
#[derive(Clone, Debug)]
pub(in crate::service) struct Permit {
    publisher: Publisher,
    /// By what its events are counted, on the public listeners.
    rated: Option<u64>,
}

impl Permit {
    /// That of the control listener.
    pub(in crate::service) fn everything() -> Self {
        Self {
            publisher: Publisher::of_everything(),
            rated: None,
        }
    }

    /// What a publisher outside may do: by `Authorization: Bearer` and nothing else.
    pub(in crate::service) async fn of_publisher(
        context: &Context,
        parts: &Parts,
    ) -> Result<Self, Problem> {
        let (now, wall) = (clock::now(), clock::wall());
        let publisher = context.access.publisher(&parts.headers, now, wall).await?;
        let token = bearer(&parts.headers)?;
        Ok(Self {
            publisher,
            rated: token.map(|token| digest(token.as_bytes())),
        })
    }

    /// What the log calls the publisher.
    pub(super) fn name(&self) -> Option<&str> {
        self.publisher.name.as_deref()
    }

    /// Whether the publisher is told how many got an event: of one for some people only it could learn who is
    /// there.
    pub(super) fn is_told_receivers(&self, event: &Event) -> bool {
        self.publisher.knows_people || !event.is_for_some()
    }

    /// Whether people may be sent to.
    pub(super) fn check_people(&self) -> Result<(), Problem> {
        if self.publisher.knows_people {
            return Ok(());
        }
        let detail = "a token's `publish` claim, and a publisher without `audience = true`, are for topics; this \
                      takes a key that is for people too";
        Err(Problem::new(StatusCode::FORBIDDEN, detail).named(Named::PublisherAudience))
    }

    /// Whether an event may be published, to all of its topics, as far as it is known.
    pub(super) fn check(&self, context: &Context, event: &Event) -> Result<(), Problem> {
        context
            .access
            .check_publisher(&self.publisher, clock::wall())?;
        if let Some(foreign) = self.publisher.first_foreign(event.topics()) {
            let detail = format!("`{foreign}` is not a topic that you may publish to");
            let problem = Problem::field("topic", foreign.as_str(), detail).forbidden();
            return Err(problem.named(Named::PublisherTopic));
        }
        if !self.publisher.knows_people {
            event.check_retry(MAX_RETRY)?;
        }
        Ok(())
    }

    /// Whether so many more events may be published now, besides the one of their request: all of them, or none.
    pub(super) fn check_rate_of_more(&self, context: &Context, more: usize) -> Result<(), Problem> {
        let (all, rate) = (more + 1, context.limits.publish_rate);
        let most = rate.value.saturating_mul(BURST);
        if self.rated.is_some() && all > most {
            let detail = format!(
                "{all} events at once are more than {most}, which is {BURST} seconds' worth of {}; send fewer, or lines",
                rate.limit.key()
            );
            let problem = Problem::field("events", &all.to_string(), detail);
            return Err(problem.by(rate).with_limit(most));
        }
        self.take(context, more)
    }

    /// Whether one more event may be published now.
    pub(super) fn check_rate(&self, context: &Context) -> Result<(), Problem> {
        self.take(context, 1)
    }

    fn take(&self, context: &Context, events: usize) -> Result<(), Problem> {
        let Some(publisher) = self.rated else {
            return Ok(());
        };
        let mut rates = context
            .publish_rates
            .lock()
            .expect("no holder of this lock panics");
        let taken = rates.take_many(publisher, events, clock::now());
        taken.map_err(|_| Problem::too_often(context.limits.publish_rate))
    }
}
