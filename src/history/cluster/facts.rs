//! What all edges are to know beside the order, as it is to outlive that: each fact by its key, of which the last is kept.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::{
    broker::{Broker, BrokerError, Delivered},
    follow::{self, BEHIND, PAUSE},
};

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    /// What it is of.
    pub(crate) key: String,
    /// What is so.
    pub(crate) value: Bytes,
    /// Which of all facts it is: a later one has a higher number.
    pub(crate) revision: u64,
}

/// The facts that came and were not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    came: Mutex<Vec<Fact>>,
    news: Notify,
    /// Up to where they are known to whoever takes them.
    taken: watch::Sender<u64>,
}

impl Facts {
    fn push(&self, fact: Fact) {
        self.came
            .lock()
            .expect("no holder of this lock panics")
            .push(fact);
        self.news.notify_one();
    }

    /// All were removed, and are counted anew: what is told first has the revision 0.
    fn begin_anew(&self) {
        self.taken.send_replace(0);
        self.push(Fact {
            key: String::new(),
            value: Bytes::from_static(b"null"),
            revision: 0,
        });
    }

    /// What came since it was last asked, in its order. One without a key says that all of before were removed.
    pub(crate) fn take(&self) -> Vec<Fact> {
        std::mem::take(&mut *self.came.lock().expect("no holder of this lock panics"))
    }

    /// Returns once something may have come. Cancel-safe.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Those up to this revision are known to whoever takes them.
    pub(crate) fn are_known(&self, revision: u64) {
        self.taken.send_if_modified(|known| {
            let is_news = *known < revision;
            *known = (*known).max(revision);
            is_news
        });
    }

    /// Waits a little for a fact to be known here.
    pub(super) async fn until_known(&self, revision: u64, patience: Duration) {
        let mut taken = self.taken.subscribe();
        let known = taken.wait_for(|known| *known >= revision);
        let _: Result<_, _> = tokio::time::timeout(patience, known).await.map(drop);
    }
}

/// What follows the facts.
pub(super) struct Follower {
    pub(super) broker: Broker,
    pub(super) facts: Arc<Facts>,
    pub(super) connected: watch::Receiver<bool>,
    /// All that there were at the start have come.
    pub(super) is_whole: watch::Sender<bool>,
}

impl Follower {
    /// Follows for ever.
    pub(super) async fn run(mut self) {
        let (mut seen, mut pause) = (0, PAUSE.start);
        loop {
            match self.follow(&mut seen).await {
                Ok(why) => {
                    pause = PAUSE.start;
                    tracing::debug!("what all edges know is read anew: {why}");
                }
                Err(BrokerError::Away(why)) => {
                    tracing::debug!("what all edges know is read anew: {why}");
                }
                Err(error) => tracing::error!("what all edges know cannot be read: {error}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.end);
        }
    }

    async fn follow(&mut self, seen: &mut u64) -> Result<String, BrokerError> {
        let closed = |_| BrokerError::Away("the edge ends".into());
        self.connected
            .wait_for(|connected| *connected)
            .await
            .map_err(closed)?;
        let last = self.broker.facts().await?;
        if last < *seen {
            tracing::error!("what all edges know was removed: this one goes on with what it knows");
            *seen = 0;
            self.facts.begin_anew();
        }
        let consumer = self
            .broker
            .consume(self.broker.facts_stream(), *seen + 1)
            .await?;
        if consumer.pending == 0 {
            // The last of them may be gone by now.
            if *seen < last && self.broker.is_fact_from(*seen + 1).await? {
                return Err(BrokerError::Away(BEHIND.into()));
            }
            self.is_whole.send_replace(true);
        }
        let (facts, is_whole) = (&self.facts, &self.is_whole);
        let take = |delivered: Option<Delivered>| {
            let Some(delivered) = delivered else {
                let is_whole = *is_whole.borrow();
                return if is_whole { Ok(()) } else { Err(BEHIND.into()) };
            };
            let Delivered {
                sequence,
                subject,
                payload,
                pending,
                ..
            } = delivered;
            if sequence > *seen {
                *seen = sequence;
                facts.push(Fact {
                    key: Broker::fact_key(&subject).to_owned(),
                    value: payload,
                    revision: sequence,
                });
            }
            if pending == 0 {
                if sequence < last {
                    return Err(BEHIND.into());
                }
                is_whole.send_replace(true);
            }
            Ok(())
        };
        Ok(follow::follow(consumer, &mut self.connected, take).await)
    }
}
