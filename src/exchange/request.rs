//! A request, and who sends it.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header, request::Parts};
use http_body_util::combinators::UnsyncBoxBody;

use crate::{
    hub::mailbox::Mailbox,
    limits::{Limit, Limits, Occupant, Place, Slot, Slots, Tenant},
    protocol::Protocol,
};

/// A request's body.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// Why a request's body ended early: the peer, its connection, or its pace.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request whose head came in.
#[derive(Debug)]
pub(crate) struct Request {
    /// Its head.
    pub parts: Parts,
    /// Its body, if it may have one.
    pub body: Option<RequestBody>,
    /// Who asks.
    pub peer: Peer,
}

/// Who asks, and over what.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub protocol: Protocol,
    /// Its address.
    pub remote: SocketAddr,
    /// Whether its address is what a proxy says that is trusted: the connection is the proxy's.
    pub by_proxy: bool,
    /// The mailbox of its connection.
    pub mailbox: Arc<Mailbox>,
    /// The event streams of its connection.
    pub places: Slots,
    /// Where it comes from, as far as event streams are shared out.
    pub tenant: Arc<Tenant>,
    /// Its connection, as far as it does something.
    pub occupant: Arc<Occupant>,
    /// What tells it that HTTP/3 is there, if it is and the peer does not use it.
    pub alt_svc: Option<HeaderValue>,
}

impl Peer {
    /// Takes a place for an event stream: on the connection, of as many as the client's kind can have
    /// without being left with nothing else, and among all there are.
    ///
    /// # Errors
    ///
    /// The limit that bites.
    pub(crate) fn take_place(&self, chromium: bool, limits: &Limits) -> Result<Seat, Limit> {
        let on_connection = match self.protocol {
            Protocol::Http2 if chromium => self.places.take_within(limits.event_streams_http2),
            _ => self.places.take(),
        };
        Ok(Seat {
            _on_connection: on_connection?,
            _of_all: Some(self.tenant.take()?),
        })
    }
}

impl Peer {
    /// The same for an operator, who is not to be kept out by how many others there are.
    ///
    /// # Errors
    ///
    /// The limit that bites.
    pub(crate) fn take_operators_place(&self) -> Result<Seat, Limit> {
        Ok(Seat {
            _on_connection: self.places.take()?,
            _of_all: None,
        })
    }
}

/// The place of an event stream; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Seat {
    _on_connection: Slot,
    _of_all: Option<Place>,
}

/// Whether a request comes from Chromium or one of its kin.
#[must_use]
pub(crate) fn is_chromium(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-ch-ua")
}

impl Request {
    /// Joins the parts of `Cookie` that browsers send as fields of their own over HTTP/2 and HTTP/3
    /// (RFC 9113 8.2.3), before anyone reads the first and takes it for all.
    pub(crate) fn join_cookies(&mut self) {
        let cookies = self.parts.headers.get_all(header::COOKIE);
        if cookies.iter().nth(1).is_none() {
            return;
        }
        let parts: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
        let joined = HeaderValue::from_bytes(&parts.join(&b"; "[..]));
        let mut joined = joined.expect("values and a separator make a value");
        joined.set_sensitive(true);
        self.parts.headers.insert(header::COOKIE, joined);
    }
}
