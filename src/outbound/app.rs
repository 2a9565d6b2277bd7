//! The client of one app's address, through which requests go on as they come.

use std::{io, time::Duration};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, Error};

use super::{address::Address, connector::Connector, pool::pooled};

/// How many connections are kept on which nothing is asked: as many as were busy a second ago.
const IDLE_CONNECTIONS: usize = 1024;

/// Asks one app, whose connections are kept and shared by clones.
#[derive(Clone, Debug)]
pub(crate) struct AppClient<B> {
    address: Address,
    client: Client<HttpsConnector<Connector>, B>,
}

/// Why an app has not answered, by what it means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// There was no connection: it has seen nothing of the request.
    Unreachable,
    /// There was no connection in time.
    ConnectTimeout,
    /// The connection ended before a byte of an answer came; the app may have seen the request.
    Closed,
    /// What came is not HTTP, or the connection broke otherwise.
    Broken,
}

impl<B> AppClient<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static,
{
    /// A client of the app at `address`, to which connecting may take so long.
    #[must_use]
    pub(crate) fn new(address: Address, connect: Duration) -> Self {
        let connector = Connector::to(&address, connect);
        Self {
            client: pooled(connector, address.http2, IDLE_CONNECTIONS),
            address,
        }
    }

    /// Where the app is.
    #[must_use]
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request whose URI is [the address'](Address::uri), and returns its answer once the head is
    /// there.
    ///
    /// # Errors
    ///
    /// [`Unanswered`] says how far it came.
    pub(crate) async fn ask(&self, request: Request<B>) -> Result<Response<Incoming>, Unanswered> {
        self.client.request(request).await.map_err(|error| {
            tracing::debug!("{} has not answered: {}", self.address, chain(&error));
            unanswered(&error)
        })
    }
}

fn unanswered(error: &Error) -> Unanswered {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let (mut closed, mut late) = (false, false);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            closed |= error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut};
            closed |= matches!(error.kind(), BrokenPipe | ConnectionReset);
            late |= error.kind() == TimedOut;
        }
        cause = error.source();
    }
    match (error.is_connect(), late, closed) {
        (true, true, _) => Unanswered::ConnectTimeout,
        (true, false, _) => Unanswered::Unreachable,
        (false, _, true) => Unanswered::Closed,
        (false, _, false) => Unanswered::Broken,
    }
}

/// An error with its causes, in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
