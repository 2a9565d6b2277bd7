//! Gathers what HTTP/2 writes until the connection's task has nothing more to say.
//!
//! h2 flushes after every DATA frame of 256 bytes or more, which would make a TLS record and a
//! system call of each. Here its flushes do nothing: the driver, which knows when the batch is
//! complete, flushes once. A record holds 16 KiB, so that is what is gathered at most.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use crate::{clock, limits::Limit};

/// Room for an event of a few lines.
const LEAST: usize = 512;
/// How much is read before the driver looks at what came, and how many requests.
const PASS: usize = 256 << 10;
const REQUESTS: usize = 32;
/// How much is read beyond the frame that the next byte is of.
const FEW: usize = 1 << 10;
/// As much as a TLS record holds (RFC 8446 5.1).
const RECORD: usize = 16 << 10;

/// The side that h2 writes to.
#[derive(Debug)]
pub(super) struct Corked<T>(Arc<Mutex<Gathering<T>>>);

/// The side that the driver flushes.
#[derive(Debug)]
pub(super) struct Cork<T>(Arc<Mutex<Gathering<T>>>);

#[derive(Debug)]
struct Gathering<T> {
    io: T,
    gathered: BytesMut,
    /// How much was gathered at most since the last flush, and before that one.
    most: usize,
    usual: usize,
    unflushed: bool,
    /// The peer took not all of what was last written.
    blocked: bool,
    read: u64,
    /// How much may be read yet before the driver has looked at what came.
    budget: usize,
    frames: Frames,
    /// What the peer has passed: nothing more is read.
    passed: Option<Limit>,
}

impl<T> Cork<T> {
    /// Both sides of `io`. They belong to one task.
    pub(super) fn new(io: T) -> (Self, Corked<T>) {
        let inner = Arc::new(Mutex::new(Gathering {
            io,
            gathered: BytesMut::new(),
            most: 0,
            usual: LEAST,
            unflushed: false,
            blocked: false,
            read: 0,
            budget: PASS,
            frames: Frames::new(clock::now()),
            passed: None,
        }));
        (Self(inner.clone()), Corked(inner))
    }

    /// Whether h2 waits to write.
    pub(super) fn is_blocked(&self) -> bool {
        lock(&self.0).blocked
    }

    /// The driver has looked at what came, and is to see what else comes. The limit that the peer has
    /// passed, if it has: then nothing more is read.
    pub(super) fn begin_pass(&self) -> Option<Limit> {
        let mut inner = lock(&self.0);
        inner.budget = PASS;
        inner.frames.forget_requests();
        inner.passed
    }

    /// How many bytes of bodies the peer has let the connection send since it began.
    pub(super) fn granted(&self) -> u64 {
        lock(&self.0).frames.granted()
    }

    /// How many bytes the peer has sent.
    pub(super) fn bytes_read(&self) -> u64 {
        lock(&self.0).read
    }
}

impl<T: AsyncWrite + Unpin> Cork<T> {
    /// Writes what was gathered, and flushes. Pending: the peer is slow; the task will be woken.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *lock(&self.0);
        ready!(inner.poll_write_out(cx))?;
        if inner.unflushed {
            ready!(Pin::new(&mut inner.io).poll_flush(cx))?;
            inner.unflushed = false;
        }
        // An idle connection keeps no buffer.
        if inner.gathered.capacity() > 0 {
            inner.usual = inner.most.max(LEAST);
            inner.most = 0;
            inner.gathered = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Gathering<T> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            self.blocked = true;
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered))?;
            self.blocked = false;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

fn lock<T>(inner: &Mutex<Gathering<T>>) -> MutexGuard<'_, Gathering<T>> {
    inner.lock().expect("no holder of this lock panics")
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *lock(&self.0);
        if inner.passed.is_some() {
            return Poll::Pending;
        }
        if inner.budget == 0 || inner.frames.requests() >= REQUESTS {
            // h2 reads on as long as anything comes; the driver has to have its turn.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // A long frame comes whole; of short ones, as requests are, a few at a time.
        let most = buf.remaining().min(inner.frames.left() + FEW);
        let before = buf.filled().len();
        ready!(poll_read_some(&mut inner.io, cx, buf, most))?;
        let came = &buf.filled()[before..];
        inner.read += came.len() as u64;
        inner.budget = inner.budget.saturating_sub(came.len());
        if let Err(limit) = inner.frames.feed(came, clock::now) {
            buf.set_filled(before);
            inner.passed = Some(limit);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads `most` bytes at most.
fn poll_read_some<T: AsyncRead + Unpin>(
    io: &mut T,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    most: usize,
) -> Poll<io::Result<()>> {
    if most > FEW {
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(io).poll_read(cx, &mut part))?;
        let came = part.filled().len();
        buf.advance(came);
    } else {
        // Between frames there is nearly always nothing: the buffer of h2, which is cold, is not touched for it.
        let mut few = [0; FEW];
        let mut part = ReadBuf::new(&mut few[..most]);
        ready!(Pin::new(io).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
    }
    Poll::Ready(Ok(()))
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *lock(&self.0);
        if inner.gathered.len() >= RECORD {
            ready!(inner.poll_write_out(cx))?;
        }
        if inner.gathered.capacity() == 0 {
            let usual = inner.usual;
            inner.gathered.reserve(usual.max(buf.len()).min(RECORD));
        }
        let taken = buf.len().min(RECORD - inner.gathered.len());
        inner.gathered.extend_from_slice(&buf[..taken]);
        inner.most = inner.most.max(inner.gathered.len());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *lock(&self.0);
        ready!(inner.poll_write_out(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Counts writes; takes all of each while it has room.
    #[derive(Default)]
    struct Sink {
        writes: Vec<usize>,
        room: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.room -= taken;
            self.writes.push(taken);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn many_small_writes_with_flushes_become_one() {
        let (cork, mut corked) = Cork::new(Sink {
            room: usize::MAX,
            ..Sink::default()
        });
        for _ in 0..100 {
            corked.write_all(&[0; 300]).await.expect("it is gathered");
            corked.flush().await.expect("it does nothing");
        }
        let mut cx = Context::from_waker(Waker::noop());
        assert!(cork.poll_flush(&mut cx).is_ready());
        assert_eq!(lock(&cork.0).io.writes, [RECORD, 30_000 - RECORD]);
    }

    #[tokio::test]
    async fn a_slow_peer_makes_the_writer_wait_at_one_record() {
        let (cork, mut corked) = Cork::new(Sink {
            room: 10,
            ..Sink::default()
        });
        let mut cx = Context::from_waker(Waker::noop());
        let mut written = 0;
        while let Poll::Ready(n) = Pin::new(&mut corked).poll_write(&mut cx, &[0; 1000]) {
            written += n.expect("it is gathered");
        }
        assert!(written <= RECORD + 10, "{written}");
        assert!(cork.poll_flush(&mut cx).is_pending());
        lock(&cork.0).io.room = usize::MAX;
        assert!(cork.poll_flush(&mut cx).is_ready());
        assert_eq!(lock(&cork.0).io.writes.iter().sum::<usize>(), written);
    }
}
