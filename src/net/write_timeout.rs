//! Cuts a connection whose peer takes nothing of what waits for it: nothing in hyper or h2 does.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::{
    clock,
    limits::{Bound, Hits, Occupant},
};

/// An IO whose writes fail with `TimedOut` once none has made progress for a time.
#[derive(Debug)]
pub(super) struct WriteTimeout<T> {
    io: T,
    bound: Bound<Duration>,
    /// Until it has been counted.
    hits: Option<Arc<Hits>>,
    /// The connection, if it is one that counts.
    occupant: Option<Arc<Occupant>>,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> WriteTimeout<T> {
    pub(super) fn new(
        io: T,
        bound: Bound<Duration>,
        hits: Arc<Hits>,
        occupant: Option<Arc<Occupant>>,
    ) -> Self {
        Self {
            io,
            bound,
            occupant,
            hits: Some(hits),
            waiting: None,
        }
    }

    fn watch<R>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if let Some(occupant) = &self.occupant {
            occupant.set_stuck(result.is_pending(), clock::now);
        }
        if result.is_ready() {
            self.waiting = None;
            return result;
        }
        let limit = self.bound.value;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        ready!(waiting.as_mut().poll(cx));
        if let Some(hits) = self.hits.take() {
            hits.count(self.bound.limit);
        }
        let (seconds, key) = (limit.as_secs_f64(), self.bound.limit.key());
        let message = format!("the peer took nothing for {seconds} s ({key})");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // One slice is what TLS nearly always has, and send(2) costs the kernel less than writev(2).
        let result = match bufs {
            [one] => Pin::new(&mut self.io).poll_write(cx, one),
            _ => Pin::new(&mut self.io).poll_write_vectored(cx, bufs),
        };
        self.watch(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut_and_one_that_takes_a_little_is_not() {
        let bound = crate::limits::Limits::default().stall;
        let limit = bound.value;
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = WriteTimeout::new(near, bound, Arc::default(), None);
        for _ in 0..3 {
            near.write_all(b"12345678")
                .await
                .expect("there is room, or will be in time");
            tokio::time::sleep(limit * 2).await;
            far.read_exact(&mut [0; 8]).await.expect("it was written");
        }
        near.write_all(b"12345678").await.expect("there is room");
        let error = near.write_all(b"9").await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
