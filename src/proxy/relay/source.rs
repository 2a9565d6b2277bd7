//! From an app's answer into its feed, over the app's restarts.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::{
    events::{Events, Said},
    feed::Feed,
};
use crate::{
    backoff, clock,
    history::Order,
    hub::{Entry, Target},
    proxy::{
        asking::{Answer, Asking, Errand, LAST_EVENT_ID, LONGEST_RETRY},
        table::Route,
    },
    sse::{Draft, Item, Message},
};

/// The shortest time that a browser is told to wait: Chromium spins on less.
const SHORTEST_RETRY: Duration = Duration::from_millis(500);
/// How long an app is left alone after it has failed for the first time, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Reads one event stream of an app.
pub(super) struct Source {
    pub(super) asking: Arc<Asking>,
    /// Where its events get their place.
    pub(super) order: Arc<Order>,
    /// How long the app may be gone.
    pub(super) patience: Duration,
    pub(super) feed: Arc<Feed>,
    pub(super) route: Arc<Route>,
    pub(super) errand: Errand,
    pub(super) said: Progress,
}

/// What an app has said so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How many events were numbered.
    number: u64,
    /// The last id that the app gave.
    last_id: String,
    /// A retry time that no event has brought along.
    retry: Option<Duration>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Clean,
    Broken,
}

impl Source {
    /// Reads `answer` to its end, and those that continue it.
    pub(super) async fn run(&mut self, mut answer: Answer) {
        while self.read(answer).await == Ended::Broken {
            self.asking.metrics.cut.inc();
            match self.ask_again().await {
                Some(next) => answer = next,
                None => return,
            }
            if !self.feed.has_ids() {
                // It began anew: what was said meanwhile nobody knows.
                self.put(gap("upstream"), None).await;
            }
        }
    }

    async fn read(&mut self, answer: Answer) -> Ended {
        let Answer {
            response,
            busy: _busy,
        } = answer;
        let mut body = response.into_body();
        let mut events = Events::new(self.asking.limits.event_bytes.value);
        let mut said = Vec::new();
        loop {
            match body.frame().await {
                None => return Ended::Clean,
                Some(Err(_)) => return Ended::Broken,
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        events.push(bytes, &mut said);
                    }
                }
            }
            for said in said.drain(..) {
                self.say(said).await;
            }
        }
    }

    async fn say(&mut self, said: Said) {
        match said {
            Said::Item(Item::Message(message)) => self.pass_on(message).await,
            Said::Item(Item::Retry(retry)) => {
                let retry = retry.clamp(SHORTEST_RETRY, LONGEST_RETRY);
                self.feed.set_retry(retry);
                self.said.retry = Some(retry);
            }
            Said::Item(Item::Comment(_)) => {}
            Said::TooLong => self.put(gap("too_long"), None).await,
        }
    }

    async fn pass_on(&mut self, message: Message) {
        let event = Some(message.event.as_str()).filter(|event| *event != "message");
        let draft = Draft::new(event, &message.data, self.said.retry.take());
        let id = Some(message.id).filter(|id| !id.is_empty());
        if let Some(id) = &id {
            self.feed.set_has_ids();
            self.said.last_id.clone_from(id);
        }
        self.put(draft, id).await;
    }

    /// Puts an event into the feed, under its own id or the next number.
    async fn put(&mut self, draft: Draft, id: Option<String>) {
        let id = id.unwrap_or_else(|| {
            self.said.number += 1;
            self.feed.token.id(self.said.number)
        });
        let target = Target {
            topics: vec![self.feed.topic.clone()],
            id: Some(id.into()),
            ..Target::default()
        };
        let put = self.order.put(Entry::Event { draft, target }, clock::now());
        let _it_has_no_key: Result<_, _> = put.await;
    }

    /// Asks the app anew, until it continues, says something else, or has been gone for too long.
    async fn ask_again(&mut self) -> Option<Answer> {
        let until = clock::now() + self.patience;
        let mut fields = self.errand.fields.clone();
        if !self.said.last_id.is_empty()
            && let Ok(id) = HeaderValue::from_bytes(self.said.last_id.as_bytes())
        {
            fields.insert(LAST_EVENT_ID, id);
        }
        let errand = self.errand.again(fields);
        for failures in 1.. {
            let pause = backoff::exponential(FIRST_PAUSE, LONGEST_PAUSE, failures, fastrand::f64());
            if clock::now() + pause > until {
                break;
            }
            tokio::time::sleep(pause).await;
            match self.asking.ask_any(&self.route, &errand).await {
                Ok(answer) if answer.is_plain_event_stream() => {
                    self.asking.metrics.resumed.inc();
                    return Some(answer);
                }
                Ok(answer) if answer.is_passing() => {}
                // The browser's own next request gets the app's word.
                Ok(_) => return None,
                Err(_) => {}
            }
        }
        None
    }
}

/// Tells browsers that events may be missing.
pub(super) fn gap(reason: &str) -> Draft {
    let data = json!({ "reason": reason, "missed": null });
    Draft::new(Some("edge-gap"), &data.to_string(), None)
}
