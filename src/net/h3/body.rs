//! The body of an HTTP/3 request.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use h3::server::RequestStream;
use http::{HeaderMap, header};
use http_body::Frame;

use super::transport::RecvHalf;

/// A request's body.
pub(super) struct Http3Body {
    stream: RequestStream<RecvHalf, Bytes>,
    /// What has come already.
    first: Option<Bytes>,
    /// How much is to come, if the request says so.
    left: Option<u64>,
    /// How much the bodies of the connection have brought.
    received: Arc<AtomicU64>,
}

impl Http3Body {
    pub(super) fn new(
        stream: RequestStream<RecvHalf, Bytes>,
        first: Option<Bytes>,
        headers: &HeaderMap,
        received: Arc<AtomicU64>,
    ) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        Self {
            stream,
            first,
            left: length.and_then(|value| value.to_str().ok()?.parse().ok()),
            received,
        }
    }
}

impl http_body::Body for Http3Body {
    type Data = Bytes;
    type Error = crate::exchange::BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = match self.first.take() {
            None => match ready!(self.stream.poll_recv_data(cx)) {
                Ok(data) => data.map(|mut data| data.copy_to_bytes(data.remaining())),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            },
            first => first,
        };
        let received = data.as_ref().map_or(0, Bytes::len);
        self.received.fetch_add(received as u64, Ordering::Relaxed);
        // RFC 9114 4.1.2: a request whose body is not as long as it says is malformed. h3 does not
        // look.
        let whole = match (&mut self.left, &data) {
            (None, _) | (Some(0), None) => true,
            (Some(_), None) => false,
            (Some(left), Some(data)) => match left.checked_sub(data.len() as u64) {
                Some(rest) => {
                    *left = rest;
                    true
                }
                None => false,
            },
        };
        if whole {
            let Some(data) = data else {
                let trailers = ready!(self.stream.poll_recv_trailers(cx))?;
                return Poll::Ready(trailers.map(|fields| Ok(Frame::trailers(fields))));
            };
            Poll::Ready(Some(Ok(Frame::data(data))))
        } else {
            Poll::Ready(Some(Err("it is not as long as Content-Length says".into())))
        }
    }
}
