//! A client whose connections are kept and shared, over HTTP/1.1: an HTTP/2 client loses all that
//! is under way when its one connection is lost.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use thiserror::Error;

use super::{connector::Connector, trust};

/// How long connecting may take; how long an answer may take is the asker's to say.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection is kept on which nothing is asked: less than servers commonly keep theirs
/// (2 s and more), as one that closes just when it is asked again has not answered.
const IDLE: Duration = Duration::from_secs(1);
/// How many such connections of a host.
const IDLE_CONNECTIONS: usize = 32;

type Pooled = Client<HttpsConnector<Connector>, Full<Bytes>>;

/// Asks servers over HTTP and HTTPS. Clones share its connections.
#[derive(Clone, Debug, Default)]
pub struct Outbound(Arc<OnceLock<Pooled>>);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum OutboundError {
    #[error("no answer from the server")]
    NoAnswer(#[from] hyper_util::client::legacy::Error),
    #[error("the answer is cut short")]
    CutShort(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is over {0} bytes long")]
    TooLong(usize),
}

impl Outbound {
    /// Sends a request, whose URI is absolute, and returns its answer once the head is there. A body
    /// that nobody reads is dropped, with its connection if it is still coming.
    ///
    /// # Errors
    ///
    /// [`OutboundError`] when there is none.
    pub async fn ask(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, OutboundError> {
        Ok(self.client().request(request).await?)
    }

    /// The same, with its body read whole, at most so many bytes.
    ///
    /// # Errors
    ///
    /// [`OutboundError`] when there is none, or not all of it.
    pub async fn read(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Response<Bytes>, OutboundError> {
        let (head, body) = self.ask(request).await?.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                OutboundError::TooLong(most)
            } else {
                OutboundError::CutShort(error)
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    fn client(&self) -> &Pooled {
        self.0
            .get_or_init(|| pooled(Connector::to_hosts(CONNECT), false, IDLE_CONNECTIONS))
    }
}

/// A client that keeps its connections for a while, so many of a host.
pub(super) fn pooled<B>(
    connector: Connector,
    http2: bool,
    idle_connections: usize,
) -> Client<HttpsConnector<Connector>, B>
where
    B: Body<Data: Send> + Send,
{
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trust::config())
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(idle_connections)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_only(http2)
        .build(connector)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers `count` requests on one connection and accepts no other.
    async fn serve(listener: TcpListener, count: usize, answer: &'static str) {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        drop(listener);
        for _ in 0..count {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            let answered = stream.write_all(answer.as_bytes()).await;
            answered.expect("it is read");
        }
    }

    #[tokio::test]
    async fn a_connection_is_used_again_and_an_answer_is_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        let server = tokio::spawn(serve(listener, 3, answer));
        let outbound = Outbound::default();
        let request = || Request::get(&url).body(Full::default()).expect("a request");
        for _ in 0..2 {
            let answer = outbound
                .clone()
                .read(request(), 5)
                .await
                .expect("an answer");
            assert_eq!(answer.body(), "hello");
        }
        let error = outbound.read(request(), 4).await.expect_err("it is longer");
        assert!(matches!(error, OutboundError::TooLong(4)), "{error:?}");
        server.await.expect("one connection was enough");
        let gone = outbound
            .read(request(), 5)
            .await
            .expect_err("nobody is there");
        assert!(matches!(gone, OutboundError::NoAnswer(_)), "{gone:?}");
    }
}
