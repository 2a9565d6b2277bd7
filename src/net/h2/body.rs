//! The body of an HTTP/2 request.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;

/// A request's body, whose window opens as it is read.
pub(super) struct Http2Body {
    pub(super) body: RecvStream,
    pub(super) received: Arc<AtomicU64>,
}

impl http_body::Body for Http2Body {
    type Data = Bytes;
    type Error = crate::exchange::BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(data) = ready!(self.body.poll_data(cx)) else {
            let trailers = ready!(self.body.poll_trailers(cx))?;
            return Poll::Ready(trailers.map(|fields| Ok(Frame::trailers(fields))));
        };
        let data = data?;
        self.body.flow_control().release_capacity(data.len())?;
        self.received
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}
