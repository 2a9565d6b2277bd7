//! Putting an event into the order, and what its publisher is told.

use serde::Serialize;
use smallvec::SmallVec;

use super::{event::Event, permit::Permit};
use crate::{
    clock,
    exchange::Problem,
    history::{Durability, Reached, Receipt},
    hub::Entry,
    service::Context,
};

/// Of how many edges it is known who got an event.
#[derive(Serialize)]
struct Edges {
    nodes: usize,
    answered: usize,
}

/// Who got an event of an edge on its own; of several nobody knows without asking.
fn alone(context: &Context, receipt: &Receipt) -> Option<Reached> {
    let receivers = receipt.receivers.filter(|_| !context.order.is_shared());
    receivers.map(Reached::alone)
}

/// What a publisher is told.
#[derive(Serialize)]
pub(super) struct Published {
    id: String,
    /// None of a duplicate, which went out before; not said to whom it would tell who is there, nor where it may be
    /// others on other edges.
    #[serde(skip_serializing_if = "Option::is_none")]
    receivers: Option<usize>,
    /// Whether anyone got it, for who sends to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<Option<bool>>,
    /// How many edges there are, and how many of them have said who got it.
    #[serde(flatten)]
    of: Option<Edges>,
    /// It was published before, under this id, and not again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    /// It waits for its turn, in topics with an interval, and has gone to nobody yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deferred: bool,
    /// What it survives, and never more than that.
    stored: Durability,
}

/// An event as it is put into the order.
pub(super) struct Asked {
    pub(super) entry: Entry,
    /// Its publisher is told how many event streams it went to.
    is_told: bool,
}

impl Asked {
    pub(super) fn new(event: Event, permit: &Permit) -> Self {
        Self {
            is_told: permit.is_told_receivers(&event),
            entry: event.into_entry(),
        }
    }
}

impl Published {
    /// Publishes an event; whoever sends to people is told whether any of them got it.
    pub(super) async fn of(
        context: &Context,
        permit: &Permit,
        event: Event,
        is_to_people: bool,
    ) -> Result<Self, Problem> {
        Self::told(context, permit, event, is_to_people, is_to_people).await
    }

    /// The same; who `asks_all` is told of those at all edges.
    pub(super) async fn told(
        context: &Context,
        permit: &Permit,
        event: Event,
        is_to_people: bool,
        asks_all: bool,
    ) -> Result<Self, Problem> {
        Self::check_memory(context)?;
        let is_told = permit.is_told_receivers(&event);
        log(permit);
        let receipt = context.order.put(event.into_entry(), clock::now()).await?;
        let reached = if asks_all && !receipt.duplicate {
            Some(context.order.reached(&receipt).await)
        } else {
            alone(context, &receipt)
        };
        Ok(Self::answer(receipt, reached, is_told, is_to_people))
    }

    /// Whether there is memory for more.
    pub(super) fn check_memory(context: &Context) -> Result<(), Problem> {
        if context.memory.is_short() {
            return Err(Problem::no_memory(context.limits.memory));
        }
        Ok(())
    }

    /// Publishes events for which there is memory, in their order; what each of them is answered.
    pub(super) async fn put_all(
        context: &Context,
        permit: &Permit,
        events: Vec<Event>,
        is_to_people: bool,
    ) -> Vec<Result<Self, Problem>> {
        let entries = events.into_iter();
        let entries = entries.map(|event| Asked::new(event, permit));
        Self::put_entries(context, permit, entries, is_to_people).await
    }

    /// The same of events as they are put into the order.
    pub(super) async fn put_entries(
        context: &Context,
        permit: &Permit,
        asked: impl Iterator<Item = Asked>,
        is_to_people: bool,
    ) -> Vec<Result<Self, Problem>> {
        log(permit);
        let asked = asked.map(|asked| (asked.entry, asked.is_told));
        let (entries, told): (Vec<Entry>, SmallVec<[bool; 1]>) = asked.unzip();
        let receipts = context.order.put_all(entries, clock::now()).await;
        let mut reached = Vec::new().into_iter();
        if is_to_people {
            let new = receipts.iter().filter_map(|receipt| receipt.as_ref().ok());
            let new: Vec<&Receipt> = new.filter(|receipt| !receipt.duplicate).collect();
            reached = context.order.reached_all(&new).await.into_iter();
        }
        let answers = receipts.into_iter().zip(told);
        let answer = |(receipt, is_told): (Result<Receipt, _>, bool)| {
            let receipt = receipt?;
            let reached = if is_to_people && !receipt.duplicate {
                reached.next()
            } else {
                alone(context, &receipt)
            };
            Ok(Self::answer(receipt, reached, is_told, is_to_people))
        };
        answers.map(answer).collect()
    }

    fn answer(
        receipt: Receipt,
        reached: Option<Reached>,
        is_told: bool,
        is_to_people: bool,
    ) -> Self {
        let delivered = reached.filter(|_| is_to_people && !receipt.duplicate);
        let edges = reached.filter(|reached| reached.nodes > 1);
        Self {
            id: receipt.id,
            receivers: reached.filter(|_| is_told).map(|reached| reached.receivers),
            delivered: delivered.map(|reached| reached.is_delivered()),
            of: edges.map(
                |Reached {
                     nodes, answered, ..
                 }| Edges { nodes, answered },
            ),
            duplicate: receipt.duplicate,
            deferred: receipt.deferred,
            stored: receipt.durability,
        }
    }
}

fn log(permit: &Permit) {
    if let Some(publisher) = permit.name() {
        tracing::debug!(publisher, "publishes");
    }
}
