//! Apps behind an edge: one that answers as a closure has it, and one that sends bytes as they are.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The body of an app's answer; an error cuts it short.
pub type Sent = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// An app over HTTP/1.1. Dropped, it is gone with its connections.
pub struct Upstream {
    pub address: SocketAddr,
    serving: JoinSet<()>,
}

impl Upstream {
    /// One that answers as `answer` does.
    pub async fn start<A, F>(answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Sent>> + Send + 'static,
    {
        Self::at("127.0.0.1:0", answer).await
    }

    /// The same, at a certain address.
    pub async fn at<A, F>(address: &str, answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Sent>> + Send + 'static,
    {
        let answer = Arc::new(answer);
        Self::accepting(address, move |stream| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let io = TokioIo::new(stream);
                let served = http1::Builder::new().serve_connection(io, service);
                let _: Result<(), hyper::Error> = served.with_upgrades().await;
            }
        })
        .await
    }

    /// One that does with each connection what `serve` does.
    pub async fn accepting<S, F>(address: &str, serve: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
        Self { address, serving }
    }

    /// One that reads the head of a request, sends these bytes and closes the connection.
    pub async fn raw(answer: impl Into<Bytes>) -> Self {
        let answer = answer.into();
        Self::accepting("127.0.0.1:0", move |mut stream| {
            let answer = answer.clone();
            async move {
                if read_head(&mut stream).await.is_some() {
                    let _: std::io::Result<()> = stream.write_all(&answer).await;
                    let _: std::io::Result<()> = stream.shutdown().await;
                }
            }
        })
        .await
    }

    /// One that answers with what it was asked, as JSON.
    pub async fn echo() -> Self {
        Self::start(echo).await
    }

    /// Has it gone with its connections, so that another can take its place.
    pub async fn stop(mut self) {
        self.serving.shutdown().await;
    }

    /// The line of configuration that puts it behind an edge.
    pub fn route(&self) -> String {
        format!("proxy.upstream = [\"{}\"]", self.url())
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Reads the head of a request or an answer; `None` when the other side is gone.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(head)
}

/// What was asked, as JSON: method, target, fields, body, trailers.
pub async fn echo(request: Request<Incoming>) -> Response<Sent> {
    let (parts, body) = request.into_parts();
    let fields: Vec<Value> = parts
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let collected = body.collect().await;
    let (body, trailers) = match collected {
        Ok(collected) => {
            let trailers = collected.trailers().cloned().unwrap_or_default();
            (collected.to_bytes(), trailers)
        }
        Err(_) => (Bytes::from("broken"), Default::default()),
    };
    let seen = json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "fields": fields,
        "body": String::from_utf8_lossy(&body),
        "length": body.len(),
        "trailers": trailers.iter().map(|(n, v)| (n.to_string(), v.to_str().expect("text").into())).collect::<serde_json::Map<_, _>>(),
    });
    Response::new(whole(seen.to_string()))
}

/// A body that is known.
pub fn whole(bytes: impl Into<Bytes>) -> Sent {
    let body = http_body_util::Full::new(bytes.into());
    body.map_err(|never| match never {}).boxed_unsync()
}
