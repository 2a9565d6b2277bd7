//! Tokens that are refused for what they say, although the right key has signed them: claims of the
//! wrong type or value, missing ones, double ones, and payloads that are no claims at all.

use serde_json::json;

use super::{BadTokens, HEADER, claims, now, sign_raw, token};

pub(super) fn add_to(bad: &mut BadTokens) {
    wrong_or_missing(bad);
    odd_payloads(bad);
    twice(bad);
}

fn wrong_or_missing(bad: &mut BadTokens) {
    for (name, values) in [
        (
            "exp",
            vec![
                json!(null),
                json!("9999999999"),
                json!(-1),
                json!(true),
                json!([9999999999u64]),
                json!({}),
                json!(1e300),
                json!(0),
                json!(now() - 1),
            ],
        ),
        (
            "nbf",
            vec![json!(now() + 600), json!("0"), json!(null), json!(-5)],
        ),
        ("iat", vec![json!("x"), json!([])]),
        (
            "iss",
            vec![
                json!(null),
                json!("App"),
                json!("app "),
                json!(["app"]),
                json!(1),
                json!(""),
            ],
        ),
        (
            "aud",
            vec![
                json!(null),
                json!("Seventh"),
                json!([]),
                json!(["x"]),
                json!(["seventh", 1]),
                json!(7),
                json!({"seventh": 1}),
            ],
        ),
        (
            "sub",
            vec![
                json!(null),
                json!(""),
                json!(5),
                json!(["bob"]),
                json!("x".repeat(256)),
                json!("a\nb"),
                json!("a\u{0}"),
            ],
        ),
        (
            "groups",
            vec![
                json!("editors"),
                json!(5),
                json!([5]),
                json!({}),
                json!([""]),
                json!(["a\u{7}"]),
                json!(vec!["g"; 257]),
                json!(null),
            ],
        ),
        (
            "topics",
            vec![json!("a"), json!([1]), json!([""]), json!(null), json!({})],
        ),
        ("publish", vec![json!("**"), json!([null])]),
    ] {
        for value in values {
            let mut claims = claims();
            claims[name] = value.clone();
            bad.add(&format!("{name} {value}"), token(&claims));
        }
        if matches!(name, "exp" | "iss" | "aud" | "sub") {
            let mut claims = claims();
            claims.as_object_mut().expect("an object").remove(name);
            bad.add(&format!("no {name}"), token(&claims));
        }
    }
}

fn odd_payloads(bad: &mut BadTokens) {
    let payload = claims().to_string();
    for odd in [
        "[]",
        "\"x\"",
        "null",
        "{}",
        "{",
        "",
        "5",
        &format!("{payload}x"),
    ] {
        bad.add("an odd payload", sign_raw(HEADER, odd));
    }
}

/// A claim that is there more than once says nothing, even when all of them say the same.
fn twice(bad: &mut BadTokens) {
    let payload = claims().to_string();
    for (name, value) in [
        ("exp", "9999999999"),
        ("sub", "\"eve\""),
        ("iss", "\"app\""),
        ("x", "1"),
    ] {
        let twice = payload.replacen('{', &format!("{{\"{name}\":{value},\"{name}\":{value},"), 1);
        bad.add(&format!("{name} twice"), sign_raw(HEADER, &twice));
    }
}
