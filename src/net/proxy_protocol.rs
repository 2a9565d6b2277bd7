//! The PROXY protocol, in which a balancer says whose connection it passes on, before anything else
//! (haproxy.org, proxy-protocol.txt, versions 1 and 2).

use std::{io, net::SocketAddr};

use proxy_header::{Error, ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What a header of version 2 begins with, section 2.2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// A header of version 1 has no more, section 2.1.
const LONGEST_LINE: usize = 107;
/// More than the addresses and what balancers add to them.
const LONGEST: usize = 4 << 10;

/// Reads the header and not a byte more. The client, or `None` where the balancer speaks for itself, as it
/// does to see whether the edge is there.
///
/// # Errors
///
/// What is wrong with it, if it is one at all.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    // No header is shorter.
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(16, 0);
        stream.read_exact(&mut header[12..]).await?;
        let len = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if len > LONGEST {
            return Err(invalid(format!(
                "its header has {len} bytes, over {LONGEST}"
            )));
        }
        header.resize(16 + len, 0);
        stream.read_exact(&mut header[16..]).await?;
    } else if header.starts_with(b"PROXY ") {
        while header.last() != Some(&b'\n') && header.len() < LONGEST_LINE {
            header.push(stream.read_u8().await?);
        }
    }
    let wrong = |_: Error| invalid("it does not begin with a header of the PROXY protocol".into());
    let (parsed, _) = ProxyHeader::parse(&header, ParseConfig::default()).map_err(wrong)?;
    Ok(parsed.proxied_address().map(|address| address.source))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::*;

    async fn of(mut bytes: &[u8]) -> (Result<Option<SocketAddr>, io::ErrorKind>, usize) {
        let read = read(&mut bytes).await.map_err(|error| error.kind());
        (read, bytes.len())
    }

    /// One of version 1 or 2, with what follows it.
    fn header(version: u8, client: SocketAddr) -> Vec<u8> {
        let edge: SocketAddr = match client {
            SocketAddr::V4(_) => ([192, 0, 2, 1], 443).into(),
            SocketAddr::V6(_) => "[2001:db8::1]:443".parse().expect("an address"),
        };
        let header = ProxyHeader::with_address(ProxiedAddress::stream(client, edge));
        let mut bytes = vec![0; 512];
        let len = match version {
            1 => header.encode_to_slice_v1(&mut bytes),
            _ => header.encode_to_slice_v2(&mut bytes),
        };
        bytes.truncate(len.expect("there is room"));
        bytes.extend(b"\x16\x03\x01");
        bytes
    }

    #[tokio::test]
    async fn the_client_is_whom_the_balancer_names() {
        for client in ["203.0.113.7:5000", "[2001:db8::7]:65535"] {
            let client: SocketAddr = client.parse().expect("an address");
            for version in [1, 2] {
                assert_eq!(of(&header(version, client)).await, (Ok(Some(client)), 3));
            }
        }
    }

    #[tokio::test]
    async fn a_balancer_may_speak_for_itself() {
        let local = [&SIGNATURE[..], b"\x20\x00\x00\x00", b"GET"].concat();
        assert_eq!(of(&local).await, (Ok(None), 3));
        assert_eq!(of(b"PROXY UNKNOWN\r\nGET").await, (Ok(None), 3));
    }

    #[tokio::test]
    async fn what_is_no_header_is_an_error() {
        let invalid = (Err(io::ErrorKind::InvalidData), 0);
        assert_eq!(of(b"GET / HTTP/1").await, invalid);
        assert_eq!(of(b"PROXY TCP4 nonsense\r\n").await, invalid);
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; LONGEST_LINE - 11]].concat();
        assert_eq!(of(&endless).await, invalid);
        let long = [&SIGNATURE[..], b"\x21\x11\xff\xff"].concat();
        assert_eq!(of(&long).await, invalid);
        let short = [&SIGNATURE[..], b"\x21\x11\x00\x0c", b"\xcb\x00\x71\x07"].concat();
        assert_eq!(of(&short).await.0, Err(io::ErrorKind::UnexpectedEof));
    }

    proptest! {
        /// Whatever comes, nothing panics, and nothing is read beyond a header.
        #[test]
        fn nothing_that_comes_is_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..64), version in 1u8..3, cut in 0usize..64) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let whole = header(version, ([203, 0, 113, 7], 9).into());
            let mixed = [&whole[..cut.min(whole.len())], &bytes].concat();
            let (read, left) = runtime.block_on(of(&mixed));
            if read.is_ok() {
                prop_assert!(left + 15 <= mixed.len());
            }
        }
    }
}
