//! One visit to one stream: what it has to say is moved into its sink, as far as there is room.
//!
//! Nothing here waits: what cannot go on leaves its stream's waker.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;

use super::sink::{Ended, Gone, Sink};
use crate::{
    exchange::{Body, BodyError, EventBody, Output},
    hub::{StreamHandle, Wire, mailbox::StreamWaker},
};

/// The most one stream writes before the others get their turn.
const TURN: usize = 64 << 10;

/// One reply that is being sent.
pub(super) struct Outgoing<S> {
    pub(super) sink: S,
    pub(super) body: Body,
    /// The place in the mailbox of a body that is not an event stream, which has its own.
    pub(super) _handle: Option<StreamHandle>,
    /// It knows whether it is left where its client's leaving would be seen.
    pub(super) waker: Arc<StreamWaker>,
    /// What was taken from the body and not sent yet.
    pub(super) pending: Bytes,
    /// `pending` is the end of the body.
    pub(super) last: bool,
    /// Since when flow control has no room for it and its client has taken nothing.
    pub(super) blocked: Option<Instant>,
    /// Invariant: the key is in `ready`.
    pub(super) queued: bool,
}

/// What became of a visit.
pub(super) enum Visited {
    /// The stream waits for its waker.
    Waits,
    /// It used up its turn.
    TurnOver,
    /// It is finished, or its client is gone.
    Done,
    /// Its client has made no room for it for too long.
    Stalled,
    /// The rest of its body is not to be had.
    CutShort,
}

/// What was taken from a body.
enum Taken {
    Events(Wire),
    /// Other bytes, and whether they are its last.
    Bytes(Bytes, bool),
    /// Fields that end it (RFC 9110 6.5).
    Trailers(HeaderMap),
}

pub(super) fn sooner(deadline: Option<Instant>, at: Instant) -> Option<Instant> {
    Some(deadline.map_or(at, |deadline| deadline.min(at)))
}

pub(super) struct Visit {
    pub(super) now: Instant,
    pub(super) due: bool,
    pub(super) stall: Duration,
    /// Readers leave too much unread: a little at a time is too slow as well.
    pub(super) pressed: bool,
    pub(super) wrote: usize,
    pub(super) delivered: u64,
    pub(super) deadline: Option<Instant>,
}

impl Visit {
    pub(super) fn stream<S: Sink>(&mut self, slot: &mut Outgoing<S>) -> Visited {
        let Outgoing {
            sink,
            body,
            waker: own,
            pending,
            last,
            blocked,
            ..
        } = slot;
        let waker = Waker::from(own.clone());
        let mut cx = Context::from_waker(&waker);
        // Nearly always one event is all there is, which is shared. Room for more is asked for when
        // there is more.
        let mut want = 1;
        loop {
            if self.wrote >= TURN {
                return Visited::TurnOver;
            }
            match sink.poll_flush(&mut cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Gone)) => return Visited::Done,
                Poll::Pending => return self.blocked(sink, blocked),
            }
            if pending.is_empty() && !*last {
                if let Some(at) = self.quiet_until(body) {
                    *blocked = None;
                    self.wait_until(at);
                    return self.waits(sink, own, &mut cx);
                }
                // Nothing is taken from the ring before there is room for it.
                let room = match sink.poll_room(&mut cx, want) {
                    Poll::Ready(Ok(room)) => room,
                    Poll::Ready(Err(Gone)) => return Visited::Done,
                    Poll::Pending => return self.blocked(sink, blocked),
                };
                want = TURN;
                match self.take(body, room, &mut cx) {
                    Poll::Ready(Ok(Taken::Events(wire))) => {
                        let bytes = wire.len();
                        *pending = sink.begin(wire);
                        self.wrote += bytes - pending.len();
                    }
                    Poll::Ready(Ok(Taken::Bytes(chunk, end))) => (*pending, *last) = (chunk, end),
                    Poll::Ready(Ok(Taken::Trailers(fields))) => match sink.trailers(fields) {
                        Ok(Ended::Yes) | Err(Gone) => return Visited::Done,
                        Ok(Ended::NotYet) => *last = true,
                    },
                    Poll::Ready(Err(error)) => {
                        tracing::debug!("a reply is cut short: {error}");
                        return Visited::CutShort;
                    }
                    Poll::Pending => return self.waits(sink, own, &mut cx),
                }
            }
            let before = pending.len();
            let sent = sink.poll_send(&mut cx, pending, *last);
            self.wrote += before - pending.len();
            match sent {
                Poll::Ready(Ok(())) if *last => return Visited::Done,
                Poll::Ready(Ok(())) => *blocked = None,
                Poll::Ready(Err(Gone)) => return Visited::Done,
                Poll::Pending => return self.blocked(sink, blocked),
            }
        }
    }

    /// There is nothing to say: whether the client is still there to say it to.
    fn waits<S: Sink>(&self, sink: &mut S, own: &StreamWaker, cx: &mut Context<'_>) -> Visited {
        sink.rest();
        if !own.take_spent() {
            return Visited::Waits;
        }
        match sink.poll_gone(cx) {
            Poll::Ready(()) => Visited::Done,
            Poll::Pending => Visited::Waits,
        }
    }

    /// Waits for room, but not for ever: a peer that takes a little at a time is slow, one that
    /// takes nothing is stalled.
    fn blocked<S: Sink>(&mut self, sink: &mut S, since: &mut Option<Instant>) -> Visited {
        if sink.take_progress() && !self.pressed {
            *since = None;
        }
        let until = *since.get_or_insert(self.now) + self.stall;
        if until <= self.now {
            return Visited::Stalled;
        }
        self.wait_until(until);
        Visited::Waits
    }

    fn wait_until(&mut self, at: Instant) {
        self.deadline = sooner(self.deadline, at);
    }

    fn slack(&self, stream: &dyn EventBody) -> Duration {
        if self.due {
            stream.slack()
        } else {
            Duration::ZERO
        }
    }

    fn quiet_until(&self, body: &Body) -> Option<Instant> {
        match body {
            Body::Events(stream) => stream.quiet_until(self.now, self.slack(&**stream)),
            Body::Full(_) | Body::Stream(_) | Body::Tunnel(_) => None,
        }
    }

    /// What comes next of a body.
    fn take(
        &mut self,
        body: &mut Body,
        room: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Taken, BodyError>> {
        match body {
            Body::Full(bytes) => Poll::Ready(Ok(Taken::Bytes(std::mem::take(bytes), true))),
            Body::Tunnel(_) => Poll::Ready(Err("no tunnel was asked for".into())),
            Body::Stream(stream) => match ready!(stream.as_mut().poll_next(cx)) {
                Some(Ok(frame)) => Poll::Ready(Ok(match frame.into_data() {
                    Ok(bytes) => Taken::Bytes(bytes, false),
                    Err(frame) => Taken::Trailers(frame.into_trailers().unwrap_or_default()),
                })),
                Some(Err(error)) => Poll::Ready(Err(error)),
                None => Poll::Ready(Ok(Taken::Bytes(Bytes::new(), true))),
            },
            Body::Events(stream) => match stream.next(self.now, self.slack(&**stream), room) {
                Output::Events(wire, events) => {
                    self.delivered += events;
                    Poll::Ready(Ok(Taken::Events(wire)))
                }
                Output::Chunk(bytes) => Poll::Ready(Ok(Taken::Bytes(bytes, false))),
                Output::Last(bytes) => Poll::Ready(Ok(Taken::Bytes(bytes, true))),
                Output::Wait(at) => {
                    self.wait_until(at);
                    Poll::Pending
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;

    use super::*;
    use crate::{clock, hub::mailbox::Mailbox};

    /// Takes everything.
    #[derive(Default)]
    struct Taken(Vec<u8>);

    impl Sink for Taken {
        const OWN_WAKES: bool = false;

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
            Poll::Ready(Ok(()))
        }

        fn take_progress(&mut self) -> bool {
            true
        }

        fn poll_room(&mut self, _: &mut Context<'_>, want: usize) -> Poll<Result<usize, Gone>> {
            Poll::Ready(Ok(want))
        }

        fn begin(&mut self, wire: Wire) -> Bytes {
            wire.payload()
        }

        fn poll_send(
            &mut self,
            _: &mut Context<'_>,
            chunk: &mut Bytes,
            _: bool,
        ) -> Poll<Result<(), Gone>> {
            self.0.extend_from_slice(&std::mem::take(chunk));
            Poll::Ready(Ok(()))
        }

        fn trailers(&mut self, fields: HeaderMap) -> Result<Ended, Gone> {
            self.0.extend_from_slice(format!("{fields:?}").as_bytes());
            Ok(Ended::NotYet)
        }

        fn rest(&mut self) {}

        fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn abort(&mut self) {}
    }

    fn visit(parts: Vec<Result<Frame<Bytes>, BodyError>>) -> (Visited, Vec<u8>) {
        let place = Mailbox::new(std::net::Ipv4Addr::LOCALHOST.into()).open();
        let mut slot = Outgoing {
            sink: Taken::default(),
            body: Body::Stream(Box::pin(stream::iter(parts))),
            waker: place.waker(),
            _handle: Some(place),
            pending: Bytes::new(),
            last: false,
            blocked: None,
            queued: false,
        };
        let mut visit = Visit {
            now: clock::now(),
            due: false,
            stall: Duration::MAX,
            pressed: false,
            wrote: 0,
            delivered: 0,
            deadline: None,
        };
        (visit.stream(&mut slot), slot.sink.0)
    }

    #[test]
    fn a_body_that_breaks_never_ends_as_a_whole_one() {
        let part = || Ok(Frame::data(Bytes::from("part")));
        let (visited, sent) = visit(vec![part(), Err("upstream is gone".into())]);
        assert!(matches!(visited, Visited::CutShort));
        assert_eq!(sent, b"part");
        let (visited, sent) = visit(vec![part(), part()]);
        assert!(matches!(visited, Visited::Done));
        assert_eq!(sent, b"partpart");
    }

    #[test]
    fn trailers_come_last() {
        let mut fields = HeaderMap::new();
        fields.insert("x-sum", http::HeaderValue::from_static("7"));
        let part = Frame::data(Bytes::from("part"));
        let (visited, sent) = visit(vec![Ok(part), Ok(Frame::trailers(fields))]);
        assert!(matches!(visited, Visited::Done));
        assert_eq!(sent, b"part{\"x-sum\": \"7\"}");
    }
}
