//! What is left of a request's body once its reply is made.
//!
//! A client that still sends when it is answered must be able to read the answer. If the body were
//! just dropped, h2 would reset the stream and hyper the connection, and clients would report that
//! instead of what was wrong.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;

use crate::{
    exchange::{BodyError, RequestBody},
    limits::Limits,
};

/// How long the rest of a body is waited for.
const LINGER: Duration = Duration::from_secs(5);

/// What becomes of a body that is longer than what is read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// It is read on: the transport has no other way to keep an answer from being lost.
    Read,
    /// It is left alone, so that its flow control stops the client, who can end it.
    Hold,
    /// It is given up, which the transport tells the client without harm to the answer.
    GiveUp,
}

/// How the rest of a body is read and thrown away, for five seconds at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// How many bytes are read.
    pub(super) most: usize,
    pub(super) beyond: Beyond,
    /// The client waits for `100 Continue`, which it gets when the body is read: if nobody did, there
    /// is nothing to read.
    pub(super) on_request: bool,
}

impl Rest {
    /// As much as a body may have is read, and what comes `beyond`.
    pub(super) fn new(limits: &Limits, beyond: Beyond) -> Self {
        Self {
            most: limits.json_bytes().value,
            beyond,
            on_request: false,
        }
    }
}

/// A body whose rest is seen to when nobody wants it.
pub(super) fn lingering<B>(body: B, rest: Rest) -> RequestBody
where
    B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    let body = Some(body);
    Lingering { body, rest }.boxed_unsync()
}

struct Lingering<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    /// `None` once it has ended.
    body: Option<B>,
    rest: Rest,
}

impl<B> Body for Lingering<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.rest.on_request = false;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        // Nothing comes after trailers.
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            self.body = None;
        }
        Poll::Ready(frame)
    }
}

impl<B> Drop for Lingering<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    fn drop(&mut self) {
        let is_left = |body: &B| !body.is_end_stream() && !self.rest.on_request;
        let Some(body) = self.body.take().filter(is_left) else {
            return;
        };
        // Outside of a runtime the process ends, and the body with it.
        if let Ok(runtime) = Handle::try_current() {
            let discarded = discard(body, self.rest);
            runtime.spawn(tokio::time::timeout(LINGER, discarded));
        }
    }
}

async fn discard<B>(mut body: B, rest: Rest)
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > rest.most {
            match rest.beyond {
                Beyond::Read => {}
                Beyond::Hold => std::future::pending().await,
                Beyond::GiveUp => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;

    use super::*;

    fn frames(
        receiver: mpsc::Receiver<Bytes>,
    ) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, BodyError>> {
        stream::unfold(receiver, |mut receiver| async {
            let bytes = receiver.recv().await?;
            Some((Ok(Frame::data(bytes)), receiver))
        })
    }

    /// Ten bytes at a time, as long as somebody wants them; how many were taken.
    async fn taken(most: usize, beyond: Beyond, parts: usize) -> (usize, Duration) {
        let (sender, receiver) = mpsc::channel(1);
        let start = tokio::time::Instant::now();
        let rest = Rest {
            most,
            beyond,
            on_request: false,
        };
        drop(lingering(StreamBody::new(Box::pin(frames(receiver))), rest));
        let mut taken = 0;
        while taken < parts && sender.send("ten bytes!".into()).await.is_ok() {
            taken += 1;
        }
        if taken == parts {
            drop(sender);
        } else {
            sender.closed().await;
        }
        (taken, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_read_within_its_bounds() {
        for beyond in [Beyond::Read, Beyond::Hold, Beyond::GiveUp] {
            assert_eq!(taken(100, beyond, 10).await, (10, Duration::ZERO));
        }
        assert_eq!(taken(100, Beyond::Read, 50).await, (50, Duration::ZERO));
        let (held, until) = taken(100, Beyond::Hold, 50).await;
        assert!(
            (11..14).contains(&held) && until >= LINGER,
            "{held} {until:?}"
        );
        let (given_up, until) = taken(100, Beyond::GiveUp, 50).await;
        assert!(
            (11..14).contains(&given_up) && until < LINGER,
            "{given_up} {until:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_for_that_a_client_waits_to_send() {
        for (read, waits) in [(false, false), (true, true)] {
            let (sender, receiver) = mpsc::channel::<Bytes>(1);
            let rest = Rest {
                most: 100,
                beyond: Beyond::Read,
                on_request: true,
            };
            let mut body = lingering(StreamBody::new(Box::pin(frames(receiver))), rest);
            if read {
                sender.send("x".into()).await.expect("there is room");
                body.frame().await.expect("a frame").expect("no error");
            }
            let start = tokio::time::Instant::now();
            drop(body);
            sender.closed().await;
            assert_eq!(start.elapsed() >= LINGER, waits);
        }
    }
}
