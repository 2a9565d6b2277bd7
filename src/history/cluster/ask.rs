//! Asking the other edges what only each of them knows: how many of its event streams entries went to, and whatever the
//! service wants to know.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{applier::Applier, broker::Broker, settings::ClusterSettings};
use crate::{history::Receipt, hub::PLACE_BITS};

/// How long the others have to answer.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long they wait for an entry to come that they are asked about.
const COMES: Duration = Duration::from_millis(250);
/// How long is waited before it is listened for questions anew.
const PAUSE: Duration = Duration::from_millis(500);
/// How many questions may wait for the service.
pub(super) const WAITING: usize = 64;

/// A question, which all edges hear.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    /// Who is to answer.
    to: BTreeSet<String>,
    of: About,
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum About {
    /// How many event streams the entries with these numbers went to, in their order; null of one that was not applied,
    /// or is not remembered.
    Receivers(Vec<u64>),
    /// Of the service.
    Service(Value),
}

/// What an edge answers.
#[derive(Serialize, Deserialize)]
struct Answer {
    node: String,
    said: Value,
}

/// What another edge asks of the service.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The question.
    pub(crate) question: Value,
    /// Who asks takes the answer from here.
    pub(crate) answer: oneshot::Sender<Value>,
}

/// What the others answered.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// By their names.
    pub(crate) answers: Vec<(String, Value)>,
    /// Those that did not.
    pub(crate) missing: Vec<String>,
}

/// Why another edge did not answer.
#[derive(Debug, Error)]
pub(crate) enum Unheard {
    /// It is not there.
    #[error("there is no edge {0} in the cluster")]
    Unknown(String),
    /// It says nothing.
    #[error("the edge {0} does not answer; ask again")]
    Silent(String),
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

    /// An edge has said how many.
    fn add(&mut self, receivers: Option<usize>) {
        self.receivers += receivers.unwrap_or_default();
        // It may not have applied it yet.
        self.answered += usize::from(receivers.is_some());
    }
}

/// What asks.
pub(super) struct Asking<'a> {
    pub(super) broker: &'a Broker,
    pub(super) settings: &'a ClusterSettings,
}

impl Asking<'_> {
    /// How many event streams of all edges some entries went to; the others are these.
    pub(super) async fn reached(
        &self,
        others: BTreeSet<String>,
        receipts: &[&Receipt],
    ) -> Vec<Reached> {
        let own = receipts.iter().map(|receipt| {
            let mut reached = Reached {
                receivers: 0,
                nodes: others.len() + 1,
                answered: 0,
            };
            reached.add(receipt.receivers);
            reached
        });
        let mut all: Vec<Reached> = own.collect();
        let numbers = receipts.iter().map(|receipt| receipt.sequence).collect();
        let about = About::Receivers(numbers);
        self.ask(others, about, |_, said| {
            let said: Vec<Option<usize>> = serde_json::from_value(said).unwrap_or_default();
            for (reached, receivers) in all.iter_mut().zip(said) {
                reached.add(receivers);
            }
        })
        .await;
        all
    }

    /// What these others answer to a question of the service.
    pub(super) async fn gather(&self, others: BTreeSet<String>, question: &Value) -> Gathered {
        let about = About::Service(question.clone());
        let mut answers = Vec::new();
        let silent = self.ask(others, about, |node, said| answers.push((node, said)));
        let missing = silent.await.into_iter().collect();
        Gathered { answers, missing }
    }

    /// Has each answer of the others taken; those that did not answer.
    async fn ask(
        &self,
        others: BTreeSet<String>,
        of: About,
        mut take: impl FnMut(String, Value),
    ) -> BTreeSet<String> {
        let mut silent = others;
        if silent.is_empty() {
            return silent;
        }
        let until = Instant::now() + PATIENCE;
        let question = Question {
            to: silent.clone(),
            of,
        };
        let question = serde_json::to_vec(&question).expect("numbers and JSON");
        let asking = async {
            let client = self.broker.client();
            let inbox = client.new_inbox();
            let mut answers = client.subscribe(inbox.clone()).await.ok()?;
            let questions = self.settings.questions();
            let asked = client.publish_with_reply(questions, inbox, question.into());
            asked.await.ok()?;
            while !silent.is_empty() {
                let answer = answers.next().await?;
                if let Ok(Answer { node, said }) = serde_json::from_slice(&answer.payload)
                    && silent.remove(&node)
                {
                    take(node, said);
                }
            }
            Some(())
        };
        let _: Result<_, _> = tokio::time::timeout_at(until, asking).await;
        silent
    }
}

/// What answers the other edges.
pub(super) struct Answering {
    pub(super) broker: Broker,
    pub(super) settings: Arc<ClusterSettings>,
    pub(super) applier: Arc<Applier>,
    pub(super) ask: mpsc::Sender<Asked>,
}

impl Answering {
    /// Answers for ever.
    pub(super) async fn run(&self) {
        loop {
            if let Ok(mut questions) = self.broker.listen(self.settings.questions()).await {
                while let Some(message) = questions.next().await {
                    let question = serde_json::from_slice(&message.payload);
                    let (Ok(Question { to, of }), Some(reply)) = (question, message.reply) else {
                        continue;
                    };
                    if !to.contains(&self.settings.node) {
                        continue;
                    }
                    let client = self.broker.client();
                    let answer = self.answer(of);
                    // One that waits holds no other up.
                    tokio::spawn(async move {
                        if let Some(answer) = answer.await {
                            let answer = serde_json::to_vec(&answer).expect("JSON");
                            let _: Result<_, _> = client.publish(reply, answer.into()).await;
                        }
                    });
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn answer(&self, about: About) -> impl Future<Output = Option<Answer>> + use<> {
        let (applier, ask) = (self.applier.clone(), self.ask.clone());
        let node = self.settings.node.clone();
        async move {
            let said = match about {
                About::Receivers(numbers) => {
                    let last = numbers.iter().max()? >> PLACE_BITS;
                    applier.until(last, COMES).await;
                    let all = numbers.iter().map(|number| applier.receivers(*number));
                    json!(all.collect::<Vec<_>>())
                }
                About::Service(question) => {
                    let (answer, said) = oneshot::channel();
                    // With so many that wait it would come too late.
                    ask.try_send(Asked { question, answer }).ok()?;
                    said.await.ok()?
                }
            };
            Some(Answer { node, said })
        }
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
