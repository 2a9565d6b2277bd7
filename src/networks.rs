//! Whose word on a client's address counts. Pure.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// `trusted.networks`: proxies in front of the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl Networks {
    /// Whether `address` is in one of them. An IPv4 address may be written as an IPv6 one.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client that a request comes from, by `X-Forwarded-For`, when `peer` is a proxy that is trusted:
    /// the last address of the list that is not a trusted proxy's too. Whatever stands before it anybody
    /// may have written.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.contain(peer) {
            return None;
        }
        let lists = headers.get_all("x-forwarded-for").iter();
        let lists: Vec<&str> = lists.filter_map(|list| list.to_str().ok()).collect();
        let mut client = peer;
        for text in lists.iter().flat_map(|list| list.split(',')).rev() {
            let Some(address) = address(text.trim()) else {
                break;
            };
            client = address;
            if !self.contain(address) {
                break;
            }
        }
        Some(client)
    }
}

/// An address as proxies write it: some add a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>().ok();
    address
        .or_else(|| {
            text.parse::<std::net::SocketAddr>()
                .ok()
                .map(|address| address.ip())
        })
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_that_is_not_ours_is_the_clients() {
        let networks =
            ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network"));
        let trusted = Networks(networks.to_vec());
        let client = |peer: &str, lists: &[&str]| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append("x-forwarded-for", list.parse().expect("a value"));
            }
            trusted
                .client(peer.parse().expect("an address"), &headers)
                .map(|address| address.to_string())
        };
        let some = |address: &str| Some(address.to_owned());
        assert_eq!(client("192.0.2.1", &["198.51.100.1"]), None);
        assert_eq!(client("10.0.0.1", &[]), some("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), some("198.51.100.1"));
        assert_eq!(
            client("::ffff:10.0.0.1", &["evil, 198.51.100.1 , 10.0.0.9"]),
            some("198.51.100.1")
        );
        assert_eq!(
            client("10.0.0.1", &["203.0.113.7", "198.51.100.1:4711"]),
            some("198.51.100.1")
        );
        assert_eq!(client("fd00::1", &["[2001:db8::1]"]), some("2001:db8::1"));
        assert_eq!(
            client("10.0.0.1", &["198.51.100.1, unknown"]),
            some("10.0.0.1")
        );
    }
}
