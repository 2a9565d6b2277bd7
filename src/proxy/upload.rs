//! A request's body on its way to an app: it can be taken back as long as nothing of it was read, and it
//! says how far it is.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty};
use tokio::time::Sleep;

use super::headers;
use crate::{
    clock,
    exchange::{BodyError, RequestBody},
};

/// A request's body, and what whoever waits for the answer knows of it.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What is left of it; `None` when there is none.
    body: Option<RequestBody>,
    /// Something of it was sent.
    begun: bool,
    /// Which attempt sends it: one that has failed may still be around.
    attempt: usize,
    /// When it last went on.
    moved: Instant,
    failure: Option<Failure>,
}

/// Why a body does not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The client has left, or has broken a rule.
    Broken,
    /// It paused for too long.
    Paused,
}

impl Progress {
    pub(super) fn new(body: Option<RequestBody>) -> Self {
        Self(Arc::new(Mutex::new(State {
            body,
            begun: false,
            attempt: 0,
            moved: clock::now(),
            failure: None,
        })))
    }

    /// Whether all of it can be sent once more.
    pub(super) fn is_whole(&self) -> bool {
        !self.lock().begun
    }

    /// When it last went on.
    pub(super) fn moved(&self) -> Instant {
        self.lock().moved
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.lock().failure
    }

    /// The body for one attempt, which may pause so long.
    pub(super) fn attempt(&self, pause: Duration) -> RequestBody {
        let mut state = self.lock();
        state.moved = clock::now();
        state.attempt += 1;
        if state.body.is_none() {
            return empty();
        }
        let upload = Upload {
            progress: self.clone(),
            attempt: state.attempt,
            pause,
            late: None,
        };
        upload.boxed_unsync()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// No body.
pub(super) fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

struct Upload {
    progress: Progress,
    attempt: usize,
    pause: Duration,
    late: Option<Pin<Box<Sleep>>>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self {
            progress,
            attempt,
            pause,
            late,
        } = &mut *self;
        let mut state = progress.lock();
        if state.attempt != *attempt {
            return Poll::Ready(Some(Err("another attempt sends it".into())));
        }
        let Some(body) = &mut state.body else {
            return Poll::Ready(None);
        };
        let mut frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let sleep = || Box::pin(tokio::time::sleep(*pause));
                ready!(late.get_or_insert_with(sleep).as_mut().poll(cx));
                state.failure = Some(Failure::Paused);
                return Poll::Ready(Some(Err("it paused for too long".into())));
            }
        };
        *late = None;
        state.moved = clock::now();
        match &mut frame {
            Some(Ok(frame)) => {
                state.begun = true;
                frame.trailers_mut().map(headers::of_trailers);
            }
            Some(Err(_)) => state.failure = Some(Failure::Broken),
            None => state.body = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.progress.lock().body.is_none()
    }
}
