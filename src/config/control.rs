//! `[control]`

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    reader::Reader,
    secret,
    value::{Raw, Setting},
};
use crate::access::Token;

/// What a path of a socket begins with.
const UNIX: &str = "unix:";
/// The longest path of a socket, in bytes: that of unix(7), with room for the name under which it is bound.
const MAX_PATH: usize = 107 - 9;

/// The private listener.
#[derive(Clone, Debug)]
pub struct Control {
    /// `control.listen`
    pub listen: ControlAt,
    /// `control.socket_mode`: who may connect to a socket in the file system.
    pub socket_mode: u32,
    /// `control.hosts`: the names under which it is reached besides its address.
    pub hosts: Vec<String>,
    /// `control.allow_remote`
    pub allow_remote: bool,
    /// `control.token`
    pub token: Option<Token>,
    /// `control.metrics_token`: of whoever may read the metrics, and nothing else.
    pub metrics_token: Option<Token>,
}

/// Where the private listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAt {
    /// An address.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for ControlAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Setting for ControlAt {
    const KIND: &'static str = "address";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = String::read(raw)?;
        let Some(path) = text.strip_prefix(UNIX) else {
            return SocketAddr::read(raw).map(Self::Tcp).map_err(|wrong| {
                format!("{wrong}, or the path of a socket such as unix:/run/seventh/control.sock")
            });
        };
        match path.len() {
            0 => Err("names no path; write unix:/run/seventh/control.sock".into()),
            n if n > MAX_PATH => Err(format!(
                "the path of the socket is {n} bytes long, the limit is {MAX_PATH}"
            )),
            _ => Ok(Self::Unix(path.into())),
        }
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
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
    let listen = reader.take(
        "control.listen",
        ControlAt::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 7070))),
        "Where publishers and operators connect: plain HTTP/1.1 and HTTP/2, private. `unix:` and a path make it a \
         socket in the file system.",
    );
    let mode: String = reader.take_if(
        "control.socket_mode",
        "0600".to_owned(),
        "Who may connect to a socket in the file system, as chmod(1) takes it in digits: `0660` lets its group in.",
        |mode: &String| parse_mode(mode).map(drop),
    );
    let hosts: Vec<String> = reader.take(
        "control.hosts",
        Vec::new(),
        "Names under which the control listener is reached besides its own address, such as a container's: \
         `[\"seventh\"]`, with a port if it is another. Beyond loopback, unset: any.",
    );
    for host in &hosts {
        if host.parse::<http::uri::Authority>().is_err() {
            let wrong = format!("`{host}` is not a name, with a port or without");
            reader.mistake("control.hosts", wrong);
        }
    }
    let control = Control {
        listen,
        socket_mode: parse_mode(&mode).unwrap_or(0o600),
        hosts,
        allow_remote: reader.take(
            "control.allow_remote",
            false,
            "Whether `control.listen` may be beyond loopback; takes a `control.token` too.",
        ),
        token: secret::take(
            reader,
            ["control.token", "control.token_file"],
            [
                "When set, requests to the control listener need `Authorization: Bearer` with it.",
                "A file with that token: what systemd, Docker or Kubernetes pass as a secret.",
            ],
            Token::parse,
        ),
        metrics_token: secret::take(
            reader,
            ["control.metrics_token", "control.metrics_token_file"],
            [
                "A second token that lets whoever has it read `/metrics`, and nothing else; it takes `control.token`.",
                "A file with that token.",
            ],
            Token::parse,
        ),
    };
    check(reader, &control);
    control
}

fn check(reader: &mut Reader, control: &Control) {
    let is_socket = matches!(control.listen, ControlAt::Unix(_));
    if is_socket && (control.allow_remote || !control.hosts.is_empty()) {
        let unused = "a socket in the file system has no names and no addresses: leave control.hosts and \
                      control.allow_remote out";
        reader.mistake("control.listen", unused);
    }
    if let ControlAt::Tcp(address) = &control.listen
        && !address.ip().is_loopback()
        && !(control.allow_remote && control.token.is_some())
    {
        let open = format!(
            "{address} is beyond loopback, where anyone could publish; bind 127.0.0.1, or set \
             control.allow_remote = true and a control.token"
        );
        reader.mistake("control.listen", open);
    }
    if control.metrics_token.is_some() && control.token.is_none() {
        let unused = "it keeps nobody out without a control.token: set that too";
        reader.mistake("control.metrics_token", unused);
    }
    if control.metrics_token.is_some() && control.metrics_token == control.token {
        let same = "it is the control.token, so that whoever reads metrics could do anything; make another";
        reader.mistake("control.metrics_token", same);
    }
}

/// The bits of a mode in digits.
fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(text, 8).ok();
    let mode = mode.filter(|mode| digits && mode & !0o777 == 0);
    mode.ok_or_else(|| format!("`{text}` is not a mode; write 0600, 0660 or 0666"))
}
