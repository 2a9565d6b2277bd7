//! What a publisher may publish.

use std::{sync::Arc, time::SystemTime};

use http::{StatusCode, request::Parts};

use crate::{
    access::{Denied, Publisher, bearer},
    clock,
    exchange::Problem,
    limits::digest,
    pattern::Pattern,
    service::Context,
    topic::Topic,
};

/// What a publisher may publish to: everything, or what its token names.
#[derive(Clone, Debug)]
pub(in crate::service) struct Permit {
    named: Option<(Arc<[Pattern]>, SystemTime)>,
    /// Whose it is, on the public listeners.
    publisher: Option<u64>,
}

impl Permit {
    /// That of the control listener.
    pub(in crate::service) fn everything() -> Self {
        Self {
            named: None,
            publisher: None,
        }
    }

    /// What a publisher outside may do: by `Authorization: Bearer` and nothing else.
    pub(in crate::service) async fn of_publisher(
        context: &Context,
        parts: &Parts,
    ) -> Result<Self, Problem> {
        let publisher = context
            .access
            .publisher(&parts.headers, clock::now(), clock::wall())
            .await?;
        let token = bearer(&parts.headers)?;
        Ok(Self {
            named: match publisher {
                Publisher::Everything => None,
                Publisher::Topics(patterns, expires) => Some((patterns.into(), expires)),
            },
            publisher: token.map(|token| digest(token.as_bytes())),
        })
    }

    /// Whether one more event may be published now.
    fn check_rate(&self, context: &Context) -> Result<(), Problem> {
        let Some(publisher) = self.publisher else {
            return Ok(());
        };
        let mut rates = context
            .publish_rates
            .lock()
            .expect("no holder of this lock panics");
        let taken = rates.take(publisher, clock::now());
        taken.map_err(|_| Problem::too_often(context.limits.publish_rate))
    }

    /// Whether people may be sent to, whom a token's claim cannot name.
    pub(super) fn check_people(&self, context: &Context) -> Result<(), Problem> {
        if self.named.is_none() {
            return self.check_rate(context);
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "a token's `publish` claim is for topics; this takes a publisher's key",
        ))
    }

    /// Whether an event may be published now, to all of these topics.
    pub(super) fn check(&self, context: &Context, topics: &[Topic]) -> Result<(), Problem> {
        let Some((patterns, expires)) = &self.named else {
            return self.check_rate(context);
        };
        if *expires <= clock::wall() {
            return Err(Denied::Expired.into());
        }
        let matches = |topic: &&Topic| {
            patterns
                .iter()
                .any(|pattern| pattern.matches(topic.as_str()))
        };
        match topics.iter().find(|topic| !matches(topic)) {
            None => self.check_rate(context),
            Some(topic) => {
                let detail = format!("the token does not let you publish to `{topic}`");
                Err(Problem::field("topic", topic.as_str(), detail).forbidden())
            }
        }
    }
}
