//! `seventh publish`

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http::{Method, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{
    exit::Refused,
    fields::Fields,
    operator::{Operator, printable, streams, succeeded, topic_in_path},
};
use crate::client::{Response, Upload, full};

/// Publish an event, or the lines of standard input.
#[derive(Debug, Args)]
pub(super) struct Publish {
    /// The topic
    topic: String,
    /// The data; `-` publishes standard input, an event a line, as the lines come
    #[arg(default_value = "-")]
    data: String,
    #[command(flatten)]
    fields: Fields,
    /// A key of this event alone: sent again with it, it is not published again
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// What clients are to wait before they reconnect, in milliseconds
    #[arg(long, value_name = "MS")]
    retry: Option<u64>,
    /// Of what the event is the newest state: topics with an interval or a replay of their own look at it
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    operator: Operator,
}

impl Publish {
    pub(super) fn run(self) -> anyhow::Result<()> {
        super::runtime::block_on(self.publish())
    }

    async fn publish(self) -> anyhow::Result<()> {
        let mut connection = self.operator.connect().await?;
        let (path, content_type, body) = match self.data.as_str() {
            "-" => {
                if self.fields.id.is_some() {
                    bail!("--id is for one event; with `-` every line would have it");
                }
                if self.idempotency_key.is_some() {
                    bail!("--idempotency-key is for one event; with `-` there may be many");
                }
                ("/publish".to_owned(), "application/x-ndjson", self.lines())
            }
            data => (self.path(), "text/plain", full(data.to_owned())),
        };
        let request = self.operator.request(Method::POST, &path)?;
        let mut request = request.header(header::CONTENT_TYPE, content_type);
        if let Some(key) = &self.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let response = connection.send(request.body(body)?).await?;
        print(succeeded(response).await.context("not published")?).await
    }

    fn path(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(id) = &self.fields.id {
            query.append_pair("id", id);
        }
        for (name, value) in self.fields() {
            let text = value.as_str().map(str::to_owned);
            query.append_pair(&name, &text.unwrap_or_else(|| value.to_string()));
        }
        format!("/topics/{}?{}", topic_in_path(&self.topic), query.finish())
    }

    /// What it has besides its topic, its data and its id.
    fn fields(&self) -> Map<String, Value> {
        let own = [("retry", json!(self.retry)), ("key", json!(self.key))];
        let own = own.into_iter().filter(|(_, value)| !value.is_null());
        let all = self.fields.given().chain(own);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Standard input as the lines of JSON that the edge takes.
    fn lines(&self) -> Upload {
        let mut line = self.fields();
        line.insert("topic".into(), json!(self.topic));
        let input = BufReader::new(tokio::io::stdin()).lines();
        let lines = stream::unfold(input, move |mut input| {
            let mut line = line.clone();
            async move {
                // An error of standard input is its end.
                let data = json!(input.next_line().await.ok().flatten()?);
                line.insert("data".into(), data);
                let bytes = Bytes::from(format!("{}\n", Value::Object(line)));
                Some((Ok(Frame::data(bytes)), input))
            }
        });
        StreamBody::new(lines).boxed_unsync()
    }
}

/// Prints the answer as it comes. Problems go to standard error and make the command fail.
async fn print(mut response: Response) -> anyhow::Result<()> {
    let mut refused = 0;
    let mut partial = Vec::new();
    let mut out = std::io::stdout();
    while let Some(chunk) = response.chunk().await? {
        partial.extend_from_slice(&chunk);
        let Some(end) = partial.iter().rposition(|&b| b == b'\n') else {
            continue;
        };
        for line in partial[..end].split(|&b| b == b'\n') {
            let answer: Value = serde_json::from_slice(line).context("the answer is not JSON")?;
            match answer["detail"].as_str() {
                Some(detail) => {
                    refused += 1;
                    eprintln!("not published: {}", printable(detail));
                }
                None if out.is_terminal() => {
                    let id = printable(answer["id"].as_str().unwrap_or_default());
                    match answer["duplicate"].as_bool() {
                        Some(true) => writeln!(out, "{id}  published before")?,
                        _ if answer["deferred"] == true => {
                            writeln!(out, "{id}  waits for its turn")?;
                        }
                        _ => writeln!(out, "{id}  to {}", streams(&answer["receivers"]))?,
                    }
                }
                None => out.write_all(&[line, b"\n"].concat())?,
            }
        }
        partial.drain(..=end);
    }
    match refused {
        0 => Ok(()),
        n => Err(Refused(format!("{n} events were not published")).into()),
    }
}
