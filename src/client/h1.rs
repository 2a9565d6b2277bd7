//! HTTP/1.1 by hyper.

use bytes::Bytes;
use http::{Request, response::Parts};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use super::{
    error::{ClientError, lost},
    target::Origin,
    upload::Upload,
};
use crate::protocol::Protocol;

#[derive(Debug)]
pub(super) struct Http1 {
    sender: http1::SendRequest<Upload>,
    connection: JoinHandle<()>,
}

impl Http1 {
    pub(super) async fn connect(target: &Origin) -> Result<Self, ClientError> {
        let stream = target.stream(Protocol::Http1).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let connection = tokio::spawn(async {
            // The error reaches whoever waits for a response.
            let _: hyper::Result<()> = connection.await;
        });
        Ok(Self { sender, connection })
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<(Parts, Incoming), ClientError> {
        self.sender.ready().await.map_err(lost)?;
        let (head, body) = self
            .sender
            .send_request(request)
            .await
            .map_err(lost)?
            .into_parts();
        Ok((head, body))
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

pub(super) async fn frame(body: &mut Incoming) -> Result<Option<Frame<Bytes>>, ClientError> {
    body.frame().await.transpose().map_err(lost)
}
