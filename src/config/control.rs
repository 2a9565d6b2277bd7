//! `[control]`

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    reader::Reader,
    value::{Raw, Setting},
};
use crate::access::Token;

/// The private listener.
#[derive(Clone, Debug)]
pub struct Control {
    /// `control.listen`
    pub listen: SocketAddr,
    /// `control.allow_remote`
    pub allow_remote: bool,
    /// `control.token`
    pub token: Option<Token>,
}

impl Setting for Token {
    const KIND: &'static str = "text";

    fn read(raw: &Raw) -> Result<Self, String> {
        Self::parse(&String::read(raw)?)
    }

    fn show(&self) -> String {
        "(secret)".into()
    }
}

pub(super) fn take(reader: &mut Reader) -> Control {
    let control = Control {
        listen: reader.take(
            "control.listen",
            SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            "Where publishers and operators connect: plain HTTP/1.1 and HTTP/2, private.",
        ),
        allow_remote: reader.take(
            "control.allow_remote",
            false,
            "Whether `control.listen` may be beyond loopback; takes a `control.token` too.",
        ),
        token: reader.take(
            "control.token",
            None,
            "When set, requests to the control listener need `Authorization: Bearer` with it.",
        ),
    };
    let remote = !control.listen.ip().is_loopback();
    if remote && !(control.allow_remote && control.token.is_some()) {
        reader.mistake(
            "control.listen",
            format!(
                "{} is beyond loopback, where anyone could publish; bind 127.0.0.1, or set \
                 control.allow_remote = true and a control.token",
                control.listen
            ),
        );
    }
    control
}
