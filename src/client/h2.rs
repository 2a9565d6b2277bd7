//! HTTP/2 by the h2 crate.

use std::sync::Arc;

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{Builder, SendRequest},
};
use http::{Request, response::Parts};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::task::JoinHandle;

use super::{
    error::{ClientError, lost},
    target::Origin,
    upload::Upload,
};
use crate::protocol::Protocol;

/// As browsers have them: a stream may fill, the connection hardly.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;

#[derive(Clone, Debug)]
pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
    _connection: Arc<Driven>,
}

/// What drives a connection, until nobody holds it.
#[derive(Debug)]
struct Driven(JoinHandle<()>);

impl Http2 {
    pub(super) async fn connect(target: &Origin) -> Result<Self, ClientError> {
        let stream = target.stream(Protocol::Http2).await?;
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(0)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(lost)?;
        let connection = tokio::spawn(async {
            // The error reaches whoever waits for a response.
            let _: Result<(), h2::Error> = connection.await;
        });
        Ok(Self {
            sender,
            _connection: Arc::new(Driven(connection)),
        })
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<(Parts, RecvStream), ClientError> {
        self.sender = self.sender.clone().ready().await.map_err(lost)?;
        let (parts, body) = request.into_parts();
        let end = body.is_end_stream();
        let (response, stream) = self
            .sender
            .send_request(Request::from_parts(parts, ()), end)
            .map_err(lost)?;
        let head = if end {
            response.await.map_err(lost)?
        } else {
            // The server may answer before it has read the whole body, and not read the rest.
            let sending = tokio::spawn(upload(stream, body));
            let head = response.await.map_err(lost)?;
            drop(sending);
            head
        };
        let (head, body) = head.into_parts();
        Ok((head, body))
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn upload(mut stream: SendStream<Bytes>, mut body: Upload) -> Result<(), h2::Error> {
    while let Some(Ok(frame)) = body.frame().await {
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return stream.send_trailers(frame.into_trailers().unwrap_or_default()),
        };
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            if stream.capacity() == 0 {
                match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                    Some(granted) => granted?,
                    None => return Ok(()),
                };
            }
            let part = data.split_to(data.len().min(stream.capacity()));
            stream.send_data(part, false)?;
        }
    }
    stream.send_data(Bytes::new(), true)
}

pub(super) async fn frame(body: &mut RecvStream) -> Result<Option<Frame<Bytes>>, ClientError> {
    let Some(data) = body.data().await else {
        let trailers = body.trailers().await.map_err(lost)?;
        return Ok(trailers.map(Frame::trailers));
    };
    let data = data.map_err(lost)?;
    body.flow_control()
        .release_capacity(data.len())
        .map_err(lost)?;
    Ok(Some(Frame::data(data)))
}
