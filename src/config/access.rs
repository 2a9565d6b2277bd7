//! `[access]` and `[groups]`.

use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use toml::Table;

use super::{
    items::{each, of_table},
    range::{self, MAX_TIME},
    reader::Reader,
    value::{Raw, Setting},
};
use crate::access::{
    AccessSettings, Groups, Key, Keys, Member, Name, Origins, Rule, Standing, Token,
};

/// `[[access.key]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    algorithm: String,
    kid: Option<String>,
    secret: Option<String>,
    public_key: Option<String>,
}

/// `[[access.rule]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    topic: String,
    allow: Vec<String>,
}

impl Setting for Vec<Standing> {
    const KIND: &'static str = "list";

    fn read(raw: &Raw) -> Result<Self, String> {
        let words = Vec::<String>::read(raw)?;
        let read = |word: &String| match word.as_str() {
            "authenticated" => Ok(Standing::Authenticated),
            "anonymous" => Ok(Standing::Anonymous),
            other => Err(format!("`{other}` is neither authenticated nor anonymous")),
        };
        words
            .iter()
            .filter(|word| !word.is_empty())
            .map(read)
            .collect()
    }

    fn show(&self) -> String {
        let words: Vec<_> = self
            .iter()
            .map(|standing| format!("\"{}\"", standing.as_str()))
            .collect();
        format!("[{}]", words.join(", "))
    }
}

pub(super) fn take(reader: &mut Reader) -> AccessSettings {
    let subscribe: Option<Vec<Standing>> = reader.take(
        "access.subscribe",
        None,
        "Who may open event streams: `[\"authenticated\", \"anonymous\"]`. Unset: both, but only the \
         authenticated once there are keys or a session.",
    );
    let keys = take_keys(reader);
    let jwks: Option<Uri> = reader.take("access.jwks", None, "A JWK set with more public keys.");
    let cookie = reader.take_if(
        "access.cookie",
        "seventh".to_owned(),
        "The cookie that may carry a token, for `withCredentials`.",
        is_cookie,
    );
    let keys = Keys {
        keys,
        issuer: reader.take(
            "access.issuer",
            None,
            "What a token's `iss` must be, if set.",
        ),
        audience: reader.take(
            "access.audience",
            None,
            "What a token's `aud` must name, if set.",
        ),
        groups_claim: reader.take(
            "access.groups_claim",
            "groups".to_owned(),
            "The claim with the user's groups.",
        ),
    };
    let session: Option<Uri> = reader.take(
        "access.session",
        None,
        "An endpoint of the app that says who someone is: it gets the request's cookies and \
         `Authorization`, and answers 200 with `Remote-User` and `Remote-Groups`, or 401.",
    );
    let identifies = !keys.is_empty() || jwks.is_some() || session.is_some();
    let only = vec![Standing::Authenticated];
    let both = vec![Standing::Authenticated, Standing::Anonymous];
    AccessSettings {
        subscribe: subscribe.unwrap_or(if identifies { only } else { both }),
        cookie,
        keys,
        jwks,
        session,
        session_cache: reader.take_if(
            "access.session_cache",
            Duration::from_secs(10),
            "How long the app's answer is remembered for the very same credentials.",
            |time| range::time(*time, &(Duration::ZERO..=MAX_TIME)),
        ),
        session_timeout: reader.take_if(
            "access.session_timeout",
            Duration::from_secs(2),
            "How long the app's answer is waited for.",
            |time| range::time(*time, &(Duration::from_millis(50)..=Duration::from_secs(60))),
        ),
        expiry_notice: reader.take_if(
            "access.expiry_notice",
            Duration::from_secs(30),
            "How long before its token's end a stream is told, by `edge-auth`.",
            |time| range::time(*time, &(Duration::ZERO..=MAX_TIME)),
        ),
        origins: take_origins(reader),
        rules: take_rules(reader),
        publish: take_publish(reader),
        publish_claim: reader.take(
            "access.publish_claim",
            false,
            "Whether a token's `publish` claim, a list of topic patterns, lets its bearer publish on the \
             public listeners.",
        ),
        groups: take_groups(reader),
    }
}

fn is_cookie(name: &String) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !name.is_empty() && name.bytes().all(plain) {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not a name for a cookie; take letters, digits, - and _"
    ))
}

fn take_keys(reader: &mut Reader) -> Vec<Key> {
    let tables: Vec<Table> = reader.take(
        "access.key",
        Vec::new(),
        "`[[access.key]]`: a key that tokens may be signed with. `algorithm` (HS256, HS384, HS512, RS256 \
         to PS512, ES256, ES384, EdDSA) with `secret`, or with `public_key`, a PEM file; `kid` if it has one.",
    );
    each(reader, "access.key", tables, |table| {
        let table: KeyTable = of_table(table)?;
        Key::parse(
            &table.algorithm,
            table.kid,
            table.secret.as_deref(),
            table.public_key.as_deref(),
        )
        .map_err(|error| error.to_string())
    })
}

fn take_rules(reader: &mut Reader) -> Vec<Rule> {
    let tables: Vec<Table> = reader.take(
        "access.rule",
        Vec::new(),
        "`[[access.rule]]`: who may read the topics that match: `topic = \"orders/*\"`, `allow = \
         [\"authenticated\", \"user:bob\", \"group:sales\"]`. `*` stands for anything within a segment, `**` \
         across segments; the first that matches decides.",
    );
    each(reader, "access.rule", tables, |table| {
        let table: RuleTable = of_table(table)?;
        Rule::parse(&table.topic, &table.allow).map_err(|error| error.to_string())
    })
}

fn take_origins(reader: &mut Reader) -> Origins {
    let list: Vec<String> = reader.take(
        "access.origins",
        Vec::new(),
        "The origins of other sites whose pages may open event streams, with credentials: an exact list. \
         `*` lets the pages of all others in too, as anonymous visitors: their cookies and tokens are ignored.",
    );
    Origins::parse(&list).unwrap_or_else(|error| {
        reader.mistake("access.origins", error.to_string());
        Origins::default()
    })
}

fn take_publish(reader: &mut Reader) -> Vec<Token> {
    let list: Vec<String> = reader.take(
        "access.publish",
        Vec::new(),
        "Keys that let publishers in on the public listeners too, by `Authorization: Bearer`.",
    );
    each(reader, "access.publish", list, |key| Token::parse(&key))
}

fn take_groups(reader: &mut Reader) -> Groups {
    let section = reader.take_section(
        "groups.*",
        "`[groups]`: which groups are nested in which: `staff = [\"editors\", \"sales\"]`; `user:NAME` makes a \
         user a member.",
    );
    let mut groups = Groups::default();
    for (group, members) in section {
        let key = format!("groups.{group}");
        let Ok(name) = Name::parse(&group) else {
            reader.mistake(key, "is not a name for a group");
            continue;
        };
        for member in members {
            let typed = if member.contains(':') {
                member
            } else {
                format!("group:{member}")
            };
            let added = Member::parse(&typed).and_then(|member| groups.add(&name, member));
            if let Err(error) = added {
                reader.mistake(key.clone(), error.to_string());
            }
        }
    }
    groups
}
