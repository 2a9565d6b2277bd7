//! Looking after the order while nothing happens: who is there, whether it is still the same, and who waits in vain.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::MissedTickBehavior,
};

use super::{
    applier::Applier,
    broker::{Broker, BrokerError, StreamInfo},
    metrics::ClusterMetrics,
    nodes::{Beat, Nodes},
    settings::ClusterSettings,
};
use crate::{
    clock,
    hub::{PLACE_BITS, end_of_frame},
};

/// How often an edge says that it is there.
const BEAT: Duration = Duration::from_secs(1);
/// After how many of them the order is looked at.
const LOOK: u32 = 2;

/// What looks after the order.
pub(super) struct Monitor {
    pub(super) broker: Broker,
    pub(super) settings: Arc<ClusterSettings>,
    pub(super) applier: Arc<Applier>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) metrics: ClusterMetrics,
    /// What it says of itself.
    pub(super) own: Beat,
    pub(super) doubt: Arc<Notify>,
    pub(super) is_open: watch::Receiver<bool>,
    pub(super) info: watch::Sender<StreamInfo>,
}

impl Monitor {
    pub(super) async fn run(self) {
        tokio::join!(self.hear(), self.look());
    }

    /// Hears of the others.
    async fn hear(&self) {
        loop {
            if let Ok(mut beats) = self.broker.listen(self.settings.beats("*")).await {
                while let Some(beat) = beats.next().await {
                    match serde_json::from_slice::<Beat>(&beat.payload) {
                        Ok(beat) => self.hear_of(beat),
                        Err(error) => tracing::debug!("what an edge said is not known: {error}"),
                    }
                }
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    fn hear_of(&self, beat: Beat) {
        let node = beat.node.clone();
        if node == self.settings.node {
            if beat.boot != self.own.boot {
                tracing::error!(
                    "another edge is called {node} too; give each a cluster.node of its own"
                );
            }
            return;
        }
        let differs = self.own.differs_from(&beat);
        if self.nodes.hear(beat, clock::now()) {
            return;
        }
        tracing::info!("the edge {node} is there");
        // It is so for as long as it lives.
        if differs {
            tracing::error!(
                "the edge {node} has another [[topic]], history.duplicates or history.duplicates_age: what it gives its \
                 readers is not what this one does"
            );
        }
    }

    async fn look(&self) {
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 0u32.. {
            ticks.tick().await;
            let now = clock::now();
            self.applier.answer_late(now);
            self.applier.tidy(now);
            // Those whose streams have ended are forgotten, whatever is there.
            self.applier.hub.settle_ahead(u64::MAX, now);
            if !*self.is_open.borrow() {
                // Nobody says anything then.
                self.nodes.are_unheard(now);
            }
            for node in self.nodes.forget(now) {
                tracing::warn!("the edge {node} is gone: nothing was heard of it for a while");
            }
            self.metrics.nodes.set(self.nodes.all(now).len() as i64 + 1);
            if !*self.is_open.borrow() {
                continue;
            }
            self.say().await;
            if tick % LOOK == 0 {
                self.check().await;
            }
        }
    }

    /// Says that this edge is there. Nobody answers.
    async fn say(&self) {
        let applied = self.applier.position().sequence;
        let beat = serde_json::to_vec(&self.own.at(applied)).expect("text and numbers");
        let subject = self.settings.beats(&self.settings.node);
        let _: Result<_, _> = self.broker.client().publish(subject, beat.into()).await;
    }

    /// Looks how far the order is, and whether it is still the same.
    async fn check(&self) {
        let position = self.applier.position().sequence;
        let looked = async {
            let info = self.broker.stream().await?;
            let epoch = self.broker.epoch(&info).await?.0;
            Ok::<_, BrokerError>((info, epoch))
        };
        let (info, epoch) = match looked.await {
            Ok(looked) => looked,
            // The reader finds out too.
            Err(BrokerError::Away(why)) => {
                return tracing::debug!("the order cannot be looked at: {why}");
            }
            Err(error) => {
                tracing::error!("the order cannot be looked at: {error}");
                return self.doubt.notify_one();
            }
        };
        if info.last < position || epoch != self.applier.hub.cursor().epoch {
            return self.doubt.notify_one();
        }
        let behind = info.last - position;
        self.metrics
            .behind
            .set(i64::try_from(behind).unwrap_or(i64::MAX));
        let end = end_of_frame(info.last << PLACE_BITS);
        self.info.send_replace(info);
        self.applier.hub.settle_ahead(end, clock::now());
    }
}
