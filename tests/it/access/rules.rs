//! Who may read which topic: the rules decide, with groups of the operator and of the token, and a
//! token may narrow what they allow.

use serde_json::{Value, json};
use seventh::client::Protocol;

use super::{bearer, claims, head, token, with_secret};
use crate::harness::every_protocol;

every_protocol!(rules_say_who_reads_what);

async fn rules_say_who_reads_what(protocol: Protocol) {
    let edge = with_secret(
        "access.subscribe = [\"authenticated\", \"anonymous\"]
         [groups]
         staff = [\"sales\", \"user:zoe\"]
         [[access.rule]]
         topic = \"orders/*\"
         allow = [\"user:bob\", \"group:staff\"]
         [[access.rule]]
         topic = \"members/**\"
         allow = [\"authenticated\"]
         [[access.rule]]
         topic = \"users/{user}/**\"
         allow = [\"authenticated\"]
         [[access.rule]]
         topic = \"users/**\"
         allow = [\"anonymous\", \"authenticated\"]",
    );
    let as_user = |sub: &str, more: Value| {
        let mut claims = claims();
        claims["sub"] = json!(sub);
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        Some(token(&claims))
    };
    let mut connection = edge.connect(protocol).await;
    for (who, topic, status) in [
        (None, "news", 200),
        (None, "orders/eu", 401),
        (None, "members/a/b", 401),
        (None, "orders/eu/1", 200),
        (as_user("bob", json!({})), "orders/eu", 200),
        (as_user("eve", json!({})), "orders/eu", 403),
        (as_user("eve", json!({})), "members/a/b", 200),
        // Nested: sales is in staff, and zoe is by the operator's word.
        (
            as_user("eve", json!({"groups": ["sales"]})),
            "orders/eu",
            200,
        ),
        (
            as_user("eve", json!({"groups": ["staff"]})),
            "orders/eu",
            200,
        ),
        (as_user("zoe", json!({})), "orders/eu", 200),
        (
            as_user("eve", json!({"groups": ["sale"]})),
            "orders/eu",
            403,
        ),
        // Their own, and nobody else's, whatever the rules after it say.
        (as_user("bob", json!({})), "users/bob/orders", 200),
        (as_user("eve", json!({})), "users/bob/orders", 403),
        (None, "users/bob/orders", 401),
        (None, "users/bob", 200),
        // A token may narrow what is allowed, and never widen it.
        (
            as_user("bob", json!({"topics": ["news", "team/*"]})),
            "news",
            200,
        ),
        (
            as_user("bob", json!({"topics": ["news", "team/*"]})),
            "team/a",
            200,
        ),
        (
            as_user("bob", json!({"topics": ["news", "team/*"]})),
            "orders/eu",
            403,
        ),
        (as_user("eve", json!({"topics": ["**"]})), "orders/eu", 403),
        (as_user("bob", json!({"topics": []})), "news", 403),
    ] {
        let shown = who.map(|token| bearer(&token));
        let field = shown.as_deref().map(|value| ("authorization", value));
        let path = format!("/events?topic={topic}");
        let got = head(&mut connection, &path, field.as_slice()).await;
        assert_eq!(got.as_u16(), status, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_rule_names_may_be_for_nobody() {
    let edge = with_secret(
        "access.subscribe = [\"authenticated\", \"anonymous\"]
         access.default = \"deny\"
         [[access.rule]]
         topic = \"news/*\"
         allow = [\"authenticated\", \"anonymous\"]",
    );
    let mut connection = edge.connect(Protocol::Http2).await;
    let bob = bearer(&token(&claims()));
    let bob = [("authorization", bob.as_str())];
    for (fields, topic, status) in [
        (&[][..], "news/1", 200),
        (&bob, "news/1", 200),
        (&[], "other", 401),
        (&bob, "other", 403),
    ] {
        let path = format!("/events?topic={topic}");
        assert_eq!(
            head(&mut connection, &path, fields).await,
            status,
            "{topic}"
        );
    }
}
