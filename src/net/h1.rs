//! HTTP/1.1 by hyper: one event stream a connection, and a body that polls itself.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    deadline::Deadline,
    linger::{Beyond, Rest, lingering},
    listening::Listening,
};
use crate::{
    backoff, clock,
    drain::Watch,
    exchange::{Body, BodyError, BodyStream, EventBody, Output, Peer, Request, Tunnel},
    hub::mailbox::Mailbox,
    limits::{Limit, Occupant},
    protocol::Protocol,
};

/// hyper's buffer for a request's head and for what is to be written: a slow reader's backlog
/// stays in the ring.
const BUFFER: usize = 32 << 10;
/// How much of events is put together at a time for a reader that is behind.
const EVENTS: usize = 16 << 10;

/// Serves a connection to its end. Its first request must come before `by`.
pub(super) async fn serve<T>(
    io: T,
    by: Instant,
    listening: Arc<Listening>,
    peer: Peer,
    drain: Watch,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = listening.context().limits;
    let _open = listening.open(Protocol::Http1);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle.value)
        // Above the service's own bound, which answers with a problem.
        .max_headers(limits.header_count.value + 36)
        .max_buf_size(BUFFER);
    let watch = drain.clone();
    let answering = listening.clone();
    let asked = Arc::new(AtomicBool::new(false));
    let asking = asked.clone();
    let tunnel = Tunnelled::default();
    let tunnelled = tunnel.clone();
    let occupant = peer.occupant.clone();
    let answer = service_fn(move |request| {
        asking.store(true, Ordering::Relaxed);
        let (listening, peer, watch) = (answering.clone(), peer.clone(), watch.clone());
        let tunnelled = tunnelled.clone();
        // Boxed: hyper keeps room for it for as long as the connection lasts.
        let response = Box::pin(respond(listening, peer, watch, tunnelled, request));
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = builder.serve_connection(TokioIo::new(io), answer);
    let mut connection = pin!(connection.with_upgrades());
    let mut draining = pin!(drain.draining());
    let mut late = pin!(async {
        tokio::time::sleep_until(by.into()).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    });
    let mut leaving = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                ended(&listening, result);
                break;
            }
            () = draining.as_mut(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = late.as_mut() => return listening.context().hits.count(Limit::Handshake),
        }
    }
    // As long as what it was handed over to.
    let _busy = Busy::new(&occupant);
    let handed_over = tunnel.lock().expect("no holder of this lock panics").take();
    if let Some((upgrade, tunnel)) = handed_over
        && let Ok(io) = upgrade.await
    {
        // As long as the connection, whose place it holds; the end of the drain's grace cuts it.
        tunnel(io).await;
    }
}

/// What the connection becomes once its protocol was changed.
type Tunnelled = Arc<Mutex<Option<(OnUpgrade, Tunnel)>>>;

fn ended(listening: &Listening, result: hyper::Result<()>) {
    if let Err(error) = result {
        if error.is_timeout() {
            listening.context().hits.count(Limit::Idle);
        } else if error.is_parse_too_large() {
            listening.context().hits.count(Limit::HeaderBytes);
        }
        tracing::debug!("HTTP/1.1 connection ended: {error}");
    }
}

async fn respond(
    listening: Arc<Listening>,
    peer: Peer,
    drain: Watch,
    tunnelled: Tunnelled,
    mut request: hyper::Request<Incoming>,
) -> Response<Sending> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let mailbox = peer.mailbox.clone();
    let busy = Busy::new(&peer.occupant);
    let rest = Rest {
        on_request: parts.headers.contains_key(header::EXPECT),
        ..Rest::new(&listening.context().limits, Beyond::Read)
    };
    let body = (!body.is_end_stream()).then(|| lingering(body.map_err(Into::into), rest));
    let reply = listening.service.call(Request { parts, body, peer }).await;
    let (head, body) = reply.into_response();
    let parts = match body {
        Body::Full(bytes) => Parts::Full(Some(bytes)),
        Body::Stream(stream) => Parts::Stream(stream),
        Body::Tunnel(tunnel) => {
            let handed_over = Some((upgrade, tunnel));
            *tunnelled.lock().expect("no holder of this lock panics") = handed_over;
            Parts::Full(None)
        }
        Body::Events(stream) => Parts::Events(Box::new(Events {
            stream: Some(stream),
            listening,
            mailbox,
            marks: Vec::new(),
            timer: Deadline::new(),
            draining: Some(Box::pin(drain.draining())),
        })),
    };
    head.map(|()| Sending { parts, _busy: busy })
}

/// Something is under way on a connection.
struct Busy(Arc<Occupant>);

impl Busy {
    fn new(occupant: &Arc<Occupant>) -> Self {
        occupant.set_busy(true, clock::now());
        Self(occupant.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set_busy(false, clock::now());
    }
}

/// The body of a reply on its way.
struct Sending {
    parts: Parts,
    _busy: Busy,
}

enum Parts {
    Full(Option<Bytes>),
    Stream(BodyStream),
    Events(Box<Events>),
}

struct Events {
    stream: Option<Box<dyn EventBody>>,
    listening: Arc<Listening>,
    mailbox: Arc<Mailbox>,
    marks: Vec<u32>,
    timer: Deadline,
    draining: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let bytes = match &mut self.get_mut().parts {
            Parts::Full(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()),
            // hyper closes the connection at an error: no last chunk, nothing that looks whole.
            Parts::Stream(stream) => return stream.as_mut().poll_next(cx),
            Parts::Events(events) => ready!(events.poll_next(cx)),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.parts {
            Parts::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Parts::Stream(_) => false,
            Parts::Events(events) => events.stream.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.parts {
            Parts::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            _ => SizeHint::default(),
        }
    }
}

impl Events {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(None);
        };
        self.mailbox.take_ready(cx.waker(), &mut self.marks);
        self.marks.clear();
        if let Some(draining) = &mut self.draining
            && draining.as_mut().poll(cx).is_ready()
        {
            self.draining = None;
            let context = self.listening.context();
            let at = clock::now() + backoff::within(context.drain_spread, fastrand::f64());
            stream.end_at(at, context.drain_retry());
        }
        loop {
            match stream.next(clock::now(), Duration::ZERO, EVENTS) {
                Output::Events(wire, events) => {
                    self.listening.delivered(Protocol::Http1, events);
                    return Poll::Ready(Some(wire.payload()));
                }
                Output::Chunk(bytes) => return Poll::Ready(Some(bytes)),
                Output::Last(bytes) => {
                    self.stream = None;
                    return Poll::Ready(Some(bytes));
                }
                Output::Wait(at) => ready!(self.timer.poll(cx, at)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_that_breaks_is_an_error_to_hyper() {
        let parts: Vec<Result<Bytes, BodyError>> = vec![Ok("part".into()), Err("gone".into())];
        let parts = parts.into_iter().map(|part| part.map(Frame::data));
        let nobody = Occupant::of_nobody([127, 0, 0, 1].into(), clock::now());
        let mut sending = Sending {
            parts: Parts::Stream(Box::pin(stream::iter(parts))),
            _busy: Busy::new(&nobody),
        };
        let first = sending
            .frame()
            .await
            .expect("a frame")
            .expect("it is whole");
        assert_eq!(first.into_data().expect("data"), "part");
        assert!(sending.frame().await.expect("an end").is_err());
    }
}
