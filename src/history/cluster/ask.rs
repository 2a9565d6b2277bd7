//! Asking the other edges what only each of them knows: how many of its event streams an entry went to.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{applier::Applier, broker::Broker, settings::ClusterSettings};
use crate::hub::PLACE_BITS;

/// How long the others have to answer.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long is waited before it is listened for questions anew.
const PAUSE: Duration = Duration::from_millis(500);

/// What is asked: of the entry with this number.
#[derive(Serialize, Deserialize)]
struct Question {
    number: u64,
}

/// What an edge answers; nothing if it has not applied the entry, or does not remember it.
#[derive(Serialize, Deserialize)]
struct Answer {
    node: String,
    receivers: Option<usize>,
}

/// How many event streams of all edges an entry went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Of those edges that answered.
    pub(crate) receivers: usize,
    /// How many edges there are, with this one, and how many of them have answered.
    pub(crate) nodes: usize,
    pub(crate) answered: usize,
}

impl Reached {
    /// Of an edge on its own.
    pub(crate) fn alone(receivers: usize) -> Self {
        Self {
            receivers,
            nodes: 1,
            answered: 1,
        }
    }

    /// Whether it went to anyone: nobody knows if none of those who answered had one, and others did not answer.
    pub(crate) fn is_delivered(&self) -> Option<bool> {
        let is_known = self.receivers > 0 || self.answered == self.nodes;
        is_known.then_some(self.receivers > 0)
    }
}

/// Asks the other edges, which these are.
pub(super) async fn ask(
    broker: &Broker,
    settings: &ClusterSettings,
    others: BTreeSet<String>,
    number: u64,
    own: Option<usize>,
) -> Reached {
    let nodes = others.len() + 1;
    // This edge may not have applied it yet.
    let own_silent = usize::from(own.is_none());
    let (mut silent, mut receivers) = (others, own.unwrap_or_default());
    let until = Instant::now() + PATIENCE;
    if nodes > 1 {
        let asking = async {
            let client = broker.client();
            let inbox = client.new_inbox();
            let mut answers = client.subscribe(inbox.clone()).await.ok()?;
            let question = serde_json::to_vec(&Question { number }).expect("a number");
            let asked = client.publish_with_reply(settings.questions(), inbox, question.into());
            asked.await.ok()?;
            while !silent.is_empty() {
                let answer = answers.next().await?;
                let Ok(answer) = serde_json::from_slice::<Answer>(&answer.payload) else {
                    continue;
                };
                if let Some(count) = answer.receivers
                    && silent.remove(&answer.node)
                {
                    receivers += count;
                }
            }
            Some(())
        };
        let _: Result<_, _> = tokio::time::timeout_at(until, asking).await;
    }
    Reached {
        receivers,
        nodes,
        answered: nodes - silent.len() - own_silent,
    }
}

/// Answers the other edges, for ever.
pub(super) async fn answer(broker: &Broker, settings: &ClusterSettings, applier: &Arc<Applier>) {
    loop {
        let client = broker.client();
        if let Ok(mut questions) = client.subscribe(settings.questions()).await {
            while let Some(message) = questions.next().await {
                let question = serde_json::from_slice::<Question>(&message.payload);
                let (Ok(Question { number }), Some(reply)) = (question, message.reply) else {
                    continue;
                };
                let (applier, client) = (applier.clone(), client.clone());
                let node = settings.node.clone();
                // One that waits holds no other up.
                tokio::spawn(async move {
                    applier.until(number >> PLACE_BITS, PATIENCE).await;
                    let receivers = applier.receivers(number);
                    let answer = serde_json::to_vec(&Answer { node, receivers });
                    let answer = answer.expect("a name and a number");
                    let _: Result<_, _> = client.publish(reply, answer.into()).await;
                });
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_it_went_to_anyone_is_said_only_if_it_is_known() {
        let of = |receivers, nodes, answered| Reached {
            receivers,
            nodes,
            answered,
        };
        assert_eq!(Reached::alone(0).is_delivered(), Some(false));
        assert_eq!(of(0, 3, 3).is_delivered(), Some(false));
        assert_eq!(of(0, 3, 2).is_delivered(), None);
        assert_eq!(of(1, 3, 1).is_delivered(), Some(true));
    }
}
