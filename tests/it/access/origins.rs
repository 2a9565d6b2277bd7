//! Which pages may read an answer (CORS): those of the origins on the list, to the letter.

use seventh::client::Protocol;

use super::send;
use crate::harness::{TestEdge, every_protocol};

every_protocol!(origins_on_the_list_and_no_others);

async fn origins_on_the_list_and_no_others(protocol: Protocol) {
    let edge =
        TestEdge::with("access.origins = [\"https://app.example\", \"http://localhost:3000\"]");
    let mut connection = edge.connect(protocol).await;
    for (origin, listed) in [
        ("https://app.example", true),
        ("http://localhost:3000", true),
        ("null", false),
        ("https://APP.example", false),
        ("https://app.example:443", false),
        ("https://app.example.evil", false),
        ("https://evil-app.example", false),
        ("http://app.example", false),
    ] {
        for (method, status) in [("HEAD", 200), ("OPTIONS", 204), ("POST", 405)] {
            let fields = [("origin", origin)];
            let answer = send(&mut connection, method, "/events?topic=a", &fields, "").await;
            assert_eq!(answer.status.as_u16(), status);
            assert_eq!(answer.header("vary"), "Origin");
            let (allowed, credentials) = if listed { (origin, "true") } else { ("", "") };
            assert_eq!(
                answer.header("access-control-allow-origin"),
                allowed,
                "{method} {origin}"
            );
            assert_eq!(
                answer.header("access-control-allow-credentials"),
                credentials,
                "{method} {origin}"
            );
            let preflight = listed && method == "OPTIONS";
            assert_eq!(
                answer.headers.contains_key("access-control-allow-headers"),
                preflight
            );
        }
    }
}
