//! Three kinds of JSON, by whom they are for.

use super::{event::Event, permit::Permit};
use crate::{exchange::Problem, service::Context};

/// Whom an event in JSON is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Readers of topics: `POST /publish`.
    Topics,
    /// All, or all of a standing: `POST /broadcast`.
    Everyone,
    /// Users and groups: `POST /send`.
    People,
}

impl Kind {
    /// Whether its publisher is told if anyone got it.
    pub(super) fn is_to_people(self) -> bool {
        self != Self::Topics
    }

    /// Reads an event that may be published.
    pub(super) fn read(
        self,
        json: &[u8],
        context: &Context,
        permit: &Permit,
    ) -> Result<Event, Problem> {
        if self.is_to_people() {
            permit.check_people()?;
        }
        match self {
            Self::Topics => {
                let event = Event::from_json(json, context, context.limits.stream_topics)?;
                permit.check(context, &event)?;
                Ok(event)
            }
            Self::Everyone => Event::from_broadcast(json, context),
            Self::People => Event::from_send(json, context),
        }
    }
}
