//! An app to stand behind proxies: it answers any path, and streams events in the plainest way.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
};

/// How many events wait for a reader before it loses the oldest.
const WAITING: usize = 1024;
/// The largest event.
const MAX_EVENT: usize = 16 << 20;
/// How long accepting pauses when it fails.
const PAUSE: Duration = Duration::from_millis(50);
const EVENTS: &str = "/events/";
const PUBLISH: &str = "/publish/";

/// Run an app to stand behind proxies.
#[derive(Debug, Args)]
pub(super) struct App {
    /// Where it listens, without TLS
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// What ordinary requests are answered with, in bytes
    #[arg(long, default_value_t = 1024)]
    size: usize,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Debug)]
struct State {
    page: Bytes,
    topics: Mutex<HashMap<String, broadcast::Sender<Bytes>>>,
}

impl App {
    pub(super) async fn serve(self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.listen).await?;
        println!("listening on http://{}", listener.local_addr()?);
        let state = Arc::new(State {
            page: "x".repeat(self.size).into(),
            topics: Mutex::default(),
        });
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of open files: some come back.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            tokio::spawn(converse(stream, state.clone()));
        }
    }
}

async fn converse(stream: TcpStream, state: Arc<State>) {
    // A peer that is gone is noticed by what is written next.
    let _: std::io::Result<()> = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(state.answer(request).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _: hyper::Result<()> = connection.await;
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if let Some(topic) = path.strip_prefix(EVENTS) {
            return if request.headers().contains_key("grip-sig") {
                hold(topic)
            } else {
                self.stream(topic)
            };
        }
        let topic = path.strip_prefix(PUBLISH);
        if let (Some(topic), &Method::POST) = (topic, request.method()) {
            let body = Limited::new(request.into_body(), MAX_EVENT).collect().await;
            let Ok(body) = body else {
                return plain(StatusCode::PAYLOAD_TOO_LARGE, Bytes::new());
            };
            self.publish(topic, &body.to_bytes());
            return plain(StatusCode::OK, Bytes::new());
        }
        plain(StatusCode::OK, self.page.clone())
    }

    fn topic(&self, topic: &str) -> broadcast::Sender<Bytes> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        match topics.get(topic) {
            Some(sender) => sender.clone(),
            None => {
                let sender = broadcast::Sender::new(WAITING);
                topics.insert(topic.to_owned(), sender.clone());
                sender
            }
        }
    }

    fn publish(&self, topic: &str, data: &[u8]) {
        let event = [b"data: ", data, b"\n\n"].concat();
        // Nobody may be reading.
        let _: Result<usize, _> = self.topic(topic).send(event.into());
    }

    fn stream(&self, topic: &str) -> Response<Body> {
        let events = stream::unfold(self.topic(topic).subscribe(), |mut events| async {
            // Whoever has lost events is told by the end of the stream.
            let event = events.recv().await.ok()?;
            Some((Ok(Frame::data(event)), events))
        });
        respond(StatusCode::OK, StreamBody::new(events).boxed_unsync())
    }
}

/// Hands the stream over to a proxy that speaks GRIP, such as Pushpin.
fn hold(topic: &str) -> Response<Body> {
    let mut response = respond(StatusCode::OK, Full::default().boxed_unsync());
    let headers = response.headers_mut();
    headers.insert("grip-hold", HeaderValue::from_static("stream"));
    if let Ok(topic) = HeaderValue::from_str(topic) {
        headers.insert("grip-channel", topic);
    }
    response
}

fn respond(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = plain(status, Bytes::new());
    *response.body_mut() = body;
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    let store = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, store);
    response
}

fn plain(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response
}
