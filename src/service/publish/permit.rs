//! What a publisher may publish.

use std::{sync::Arc, time::SystemTime};

use http::{StatusCode, request::Parts};

use crate::{
    access::{Denied, Publisher},
    clock,
    exchange::Problem,
    pattern::Pattern,
    service::Context,
    topic::Topic,
};

/// What a publisher may publish to: everything, or what its token names.
#[derive(Clone, Debug)]
pub(in crate::service) struct Permit(Option<(Arc<[Pattern]>, SystemTime)>);

impl Permit {
    /// That of the control listener.
    pub(in crate::service) fn everything() -> Self {
        Self(None)
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
        Ok(match publisher {
            Publisher::Everything => Self::everything(),
            Publisher::Topics(patterns, expires) => Self(Some((patterns.into(), expires))),
        })
    }

    /// Whether people may be sent to, whom a token's claim cannot name.
    pub(super) fn check_people(&self) -> Result<(), Problem> {
        if self.0.is_none() {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "a token's `publish` claim is for topics; this takes a publisher's key",
        ))
    }

    /// Whether all of these topics may be published to.
    pub(super) fn check(&self, topics: &[Topic]) -> Result<(), Problem> {
        let Some((patterns, expires)) = &self.0 else {
            return Ok(());
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
            None => Ok(()),
            Some(topic) => {
                let detail = format!("the token does not let you publish to `{topic}`");
                Err(Problem::field("topic", topic.as_str(), detail).forbidden())
            }
        }
    }
}
