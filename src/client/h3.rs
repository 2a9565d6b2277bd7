//! HTTP/3 by h3 over h3-quinn.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3_quinn::{OpenStreams, RecvStream};
use http::{Request, response::Parts};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use quinn::{Endpoint, VarInt, crypto::rustls::QuicClientConfig};
use tokio::task::JoinHandle;

use super::{
    error::{ClientError, lost},
    target::Origin,
    upload::Upload,
};
use crate::protocol::Protocol;

/// How long a connection may be quiet before the server is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// `H3_NO_ERROR` (RFC 9114, section 8.1).
const NO_ERROR: VarInt = VarInt::from_u32(0x100);

#[derive(Clone, Debug)]
pub(super) struct Http3 {
    sender: Sender,
    connection: Arc<Driven>,
}

/// What drives a connection, until nobody holds it.
#[derive(Debug)]
struct Driven {
    quic: quinn::Connection,
    driver: JoinHandle<()>,
    endpoint: Endpoint,
}

#[derive(Clone)]
struct Sender(SendRequest<OpenStreams, Bytes>);

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl Http3 {
    pub(super) async fn connect(target: &Origin) -> Result<Self, ClientError> {
        if !target.secure {
            return Err(ClientError::Protocol {
                host: target.authority(),
                protocol: Protocol::Http3,
            });
        }
        let mut failure = None;
        for address in target.resolve().await? {
            match Self::connect_to(target, address).await {
                Ok(client) => return Ok(client),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| target.unreachable("the name has no address")))
    }

    async fn connect_to(target: &Origin, address: SocketAddr) -> Result<Self, ClientError> {
        // On loopback no more than loopback is bound: a server may start there beside it.
        let any: SocketAddr = match (address, address.ip().is_loopback()) {
            (SocketAddr::V4(_), true) => (Ipv4Addr::LOCALHOST, 0).into(),
            (SocketAddr::V4(_), false) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            (SocketAddr::V6(_), true) => (Ipv6Addr::LOCALHOST, 0).into(),
            (SocketAddr::V6(_), false) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let tls = target.tls(Protocol::Http3)?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| target.unreachable(error))?;
        let endpoint = Endpoint::client(any).map_err(|error| target.unreachable(error))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        // A server that vanished is noticed, though nothing is sent.
        transport.keep_alive_interval(Some(KEEPALIVE));
        config.transport_config(Arc::new(transport));
        let connecting = endpoint
            .connect_with(config, address, &target.host)
            .map_err(|error| target.unreachable(error))?;
        let quic = connecting
            .await
            .map_err(|error| target.unreachable(error))?;
        let built = h3::client::builder()
            .build(h3_quinn::Connection::new(quic.clone()))
            .await;
        let (mut driver, sender) = built.map_err(lost)?;
        let driver = tokio::spawn(async move {
            // The error reaches whoever waits for a response.
            let _ = std::future::poll_fn(|cx| driver.poll_close(cx)).await;
        });
        Ok(Self {
            sender: Sender(sender),
            connection: Arc::new(Driven {
                quic,
                driver,
                endpoint,
            }),
        })
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<(Parts, Http3Incoming), ClientError> {
        let (parts, mut body) = request.into_parts();
        let stream = self
            .sender
            .0
            .send_request(Request::from_parts(parts, ()))
            .await
            .map_err(lost)?;
        let (mut send, mut recv) = stream.split();
        if body.is_end_stream() {
            send.finish().await.map_err(lost)?;
        } else {
            tokio::spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    let sent = match frame.into_data() {
                        Ok(data) if data.is_empty() => Ok(()),
                        Ok(data) => send.send_data(data).await,
                        Err(frame) => {
                            let trailers = frame.into_trailers().unwrap_or_default();
                            send.send_trailers(trailers).await
                        }
                    };
                    // The server may answer before it has read the whole body, and not read the rest.
                    if sent.is_err() {
                        return;
                    }
                }
                let _: Result<(), _> = send.finish().await;
            });
        }
        let response = recv.recv_response().await.map_err(lost)?;
        let (head, ()) = response.into_parts();
        Ok((head, Http3Incoming(recv)))
    }
}

impl Http3 {
    /// Tells the server, and waits until it has been told.
    pub(super) async fn close(self) {
        self.connection.quic.close(NO_ERROR, b"");
        self.connection.endpoint.wait_idle().await;
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.driver.abort();
        self.quic.close(NO_ERROR, b"");
    }
}

/// A response's body.
pub(super) struct Http3Incoming(RequestStream<RecvStream, Bytes>);

impl Http3Incoming {
    pub(super) async fn frame(&mut self) -> Result<Option<Frame<Bytes>>, ClientError> {
        let Some(mut data) = self.0.recv_data().await.map_err(lost)? else {
            let trailers = self.0.recv_trailers().await.map_err(lost)?;
            return Ok(trailers.map(Frame::trailers));
        };
        Ok(Some(Frame::data(data.copy_to_bytes(data.remaining()))))
    }
}
