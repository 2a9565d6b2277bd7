//! Lines of JSON: each is published as it comes, and answered on its own.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, header};
use http_body::Frame;

use super::{
    event::Event, kind::Kind, line_buffer::LineBuffer, permit::Permit, published::Published,
};
use crate::{
    drain::Watch,
    exchange::{Body, Named, Problem, Reply, RequestBody},
    service::{
        Context,
        body::{in_time, next_chunk},
    },
};

/// How many bytes of lines are published at once, unless the first is longer.
const BATCH_BYTES: usize = 512 << 10;

/// Why a publisher is not listened to any longer.
fn ending() -> Problem {
    let detail = "the edge is ending: what was not answered was not published; send it again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).named(Named::EdgeEnding)
}

/// Publishes line by line, as the lines come, and answers line by line.
struct Lines {
    context: Arc<Context>,
    kind: Kind,
    permit: Permit,
    body: Option<RequestBody>,
    drain: Watch,
    /// What came and was not published yet.
    buffer: LineBuffer,
}

pub(super) fn lines(
    context: Arc<Context>,
    kind: Kind,
    permit: Permit,
    body: Option<RequestBody>,
    drain: Watch,
) -> Reply {
    let lines = Lines {
        context,
        kind,
        permit,
        body,
        drain,
        buffer: LineBuffer::default(),
    };
    let answers = stream::unfold(lines, |mut lines| async {
        let answers = lines.answers().await?;
        Some((Ok(Frame::data(answers)), lines))
    });
    Reply::new(StatusCode::OK, Body::Stream(Box::pin(answers)))
        .with(header::CONTENT_TYPE, "application/x-ndjson")
        .with(header::CACHE_CONTROL, "no-store")
}

impl Lines {
    /// The answers to the next lines, one or more; `None` at the end.
    async fn answers(&mut self) -> Option<Bytes> {
        let mut answers = String::new();
        loop {
            self.answer_some(&mut answers).await;
            if !answers.is_empty() {
                // Readers take what was published before more comes: the ring is their queue.
                tokio::task::yield_now().await;
                return Some(answers.into());
            }
            let limit = self.context.limits.json_bytes();
            let body = self.body.as_mut()?;
            let between_lines = self.buffer.is_empty();
            let next = async {
                // Between two lines a publisher may think as long as it likes, but not within one.
                if between_lines {
                    next_chunk(body).await
                } else {
                    in_time(&self.context, next_chunk(body)).await
                }
            };
            let chunk = tokio::select! {
                biased;
                () = self.drain.clone().draining() => Err(ending()),
                chunk = next => chunk,
            };
            let ended = match chunk {
                Ok(Some(chunk)) if self.buffer.len() + chunk.len() > limit.value + (64 << 10) => {
                    Err(Problem::too_large(
                        "line",
                        self.buffer.len() + chunk.len(),
                        limit,
                    ))
                }
                Ok(Some(chunk)) => {
                    self.buffer.push(&chunk);
                    continue;
                }
                Ok(None) => Ok(()),
                Err(problem) => Err(problem),
            };
            self.body = None;
            match ended {
                Ok(()) if self.buffer.is_empty() => return None,
                Ok(()) => self.buffer.finish(),
                Err(problem) => {
                    self.buffer.clear();
                    return Some((self.refuse(&problem) + "\n").into());
                }
            }
        }
    }

    /// The answer to a line that is refused.
    fn refuse(&self, problem: &Problem) -> String {
        if let Some(limit) = problem.bitten() {
            self.context.hits.count(limit);
        }
        if let Some(why) = problem.is_of_sender() {
            self.context.metrics.turned_away.count(why);
        }
        problem.json()
    }

    /// Publishes some of the lines that have come, and answers each; a blank one has no answer.
    async fn answer_some(&mut self, answers: &mut String) {
        let (mut events, mut lines) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while lines.len() < self.context.order.batch()
            && bytes < BATCH_BYTES
            && let Some(line) = self.buffer.line()
        {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            bytes += line.len();
            lines.push(self.read(line).map(|event| events.push(event)));
        }
        let to_people = self.kind.is_to_people();
        let published = Published::put_all(&self.context, &self.permit, events, to_people).await;
        let mut published = published.into_iter();
        for line in lines {
            let answer = line.and_then(|()| published.next().expect("there is one for each event"));
            match answer {
                Ok(published) => answers.push_str(
                    &serde_json::to_string(&published).expect("strings and numbers only"),
                ),
                Err(problem) => answers.push_str(&self.refuse(&problem)),
            }
            answers.push('\n');
        }
    }

    fn read(&self, line: &[u8]) -> Result<Event, Problem> {
        self.permit.check_rate(&self.context)?;
        let event = self.kind.read(line, &self.context, &self.permit)?;
        Published::check_memory(&self.context)?;
        Ok(event)
    }
}
