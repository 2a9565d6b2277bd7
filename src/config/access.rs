//! `[access]` and `[groups]`.

use std::{net::IpAddr, time::Duration};

use http::Uri;
use serde::Deserialize;
use toml::Table;

use super::{
    items::{each, of_table},
    range::{self, MAX_TIME},
    reader::Reader,
    secret,
    value::{Raw, Setting},
};
use crate::{
    access::{
        AccessSettings, Groups, Key, KeyHolder, Keys, Member, Name, Origins, Otherwise, Publisher,
        Rule, SessionSettings, Standing, Token,
    },
    pattern::Pattern,
};

/// The cookie that may carry a token, unless another is named.
const COOKIE: &str = "seventh";

/// `[[access.key]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    algorithm: String,
    kid: Option<String>,
    secret: Option<secret::Text>,
    secret_file: Option<String>,
    public_key: Option<String>,
    issuer: Option<String>,
    audience: Option<String>,
}

/// `[[access.rule]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    topic: String,
    allow: Vec<String>,
    #[serde(default)]
    presence: bool,
}

/// `[[access.publisher]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublisherTable {
    name: String,
    key: Option<secret::Text>,
    key_file: Option<String>,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    audience: bool,
}

impl Setting for Otherwise {
    const KIND: &'static str = "word";

    fn read(raw: &Raw) -> Result<Self, String> {
        match &*String::read(raw)? {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            other => Err(format!("`{other}` is neither allow nor deny")),
        }
    }

    fn show(&self) -> String {
        let word = match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        };
        format!("\"{word}\"")
    }
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
    let Tokens {
        keys,
        jwks,
        jwks_max_stale,
        cookie,
    } = take_tokens(reader);
    let session = take_session(reader);
    check_tokens(reader, &keys, jwks.as_ref(), &cookie);
    let identifies = !keys.is_empty() || jwks.is_some() || session.is_some();
    if subscribe.as_ref().is_some_and(Vec::is_empty) {
        let nobody = "it is empty, so that nobody could open an event stream; name authenticated, anonymous or \
                      both, or leave it out";
        reader.mistake("access.subscribe", nobody.to_owned());
    }
    let only = vec![Standing::Authenticated];
    let both = vec![Standing::Authenticated, Standing::Anonymous];
    AccessSettings {
        subscribe: subscribe.unwrap_or(if identifies { only } else { both }),
        cookie,
        keys,
        jwks,
        jwks_max_stale,
        session,
        expiry_notice: reader.take_if(
            "access.expiry_notice",
            Duration::from_secs(30),
            "How long before its token's end a stream is told, by `edge-auth`.",
            |time| range::time(*time, &(Duration::ZERO..=MAX_TIME)),
        ),
        origins: take_origins(reader),
        revoked_for: reader.take_if(
            "access.revoked_for",
            Duration::from_secs(30 * 24 * 3600),
            "How long it is remembered that tokens of a user were revoked: no shorter than tokens last.",
            |time| range::time(*time, &(Duration::from_secs(60)..=366 * MAX_TIME)),
        ),
        ticket_opens: reader.take_if(
            "access.ticket_opens",
            Duration::from_secs(30),
            "How long a ticket opens event streams by itself; afterwards it takes the id of an event that one of them \
             has brought.",
            |time| range::time(*time, &(Duration::from_secs(1)..=Duration::from_secs(600))),
        ),
        settling: reader.take_if(
            "access.settling",
            Duration::from_secs(60),
            "How long after a start those who come are taken to have been in their groups before it: they come back. \
             Later, what was sent to a group is for those who were in it then.",
            |time| range::time(*time, &(Duration::ZERO..=MAX_TIME)),
        ),
        rules: take_rules(reader),
        default: reader.take(
            "access.default",
            Otherwise::Allow,
            "What becomes of topics that no rule matches: `\"allow\"` (whoever may open event streams may read \
             them) or `\"deny\"`.",
        ),
        publish: take_publish(reader),
        publishers: take_publishers(reader),
        publish_claim: reader.take(
            "access.publish_claim",
            false,
            "Whether a token's `publish` claim, a list of topic patterns, lets its bearer publish on the \
             public listeners.",
        ),
        groups: take_groups(reader),
    }
}

/// How tokens are known to be good.
struct Tokens {
    keys: Keys,
    jwks: Option<Uri>,
    jwks_max_stale: Duration,
    cookie: String,
}

fn take_tokens(reader: &mut Reader) -> Tokens {
    let keys = take_keys(reader);
    let jwks: Option<Uri> = reader.take(
        "access.jwks",
        None,
        "A JWK set with more public keys; it takes `access.audience`.",
    );
    let jwks_max_stale = reader.take_if(
        "access.jwks_max_stale",
        Duration::from_secs(24 * 3600),
        "How old the key set may get while it cannot be fetched; tokens are then answered gently, as nobody can \
         say what they are worth.",
        |time| range::time(*time, &(Duration::from_secs(300)..=30 * MAX_TIME)),
    );
    let cookie = reader.take_if(
        "access.cookie",
        COOKIE.to_owned(),
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
        leeway: reader.take_if(
            "access.leeway",
            Duration::from_secs(5),
            "How far the clock of who signs tokens may be ahead of the edge's, for `nbf`.",
            |time| range::time(*time, &(Duration::ZERO..=Duration::from_secs(300))),
        ),
    };
    Tokens {
        keys,
        jwks,
        jwks_max_stale,
        cookie,
    }
}

/// What would be left of tokens if the configuration were taken as it is.
fn check_tokens(reader: &mut Reader, keys: &Keys, jwks: Option<&Uri>, cookie: &str) {
    let insecure = reader.take(
        "access.insecure",
        false,
        "Whether `access.jwks` may be asked over `http` beyond loopback.",
    );
    if jwks.is_some() && keys.audience.is_none() {
        let missing = "access.jwks takes access.audience too: such a set signs tokens for other services as well, \
                       which would all be let in here";
        reader.mistake("access.jwks", missing.to_owned());
    }
    if let Some(jwks) = jwks
        && jwks.scheme_str() == Some("http")
        && !is_loopback(jwks)
        && !insecure
    {
        let open = format!(
            "{jwks} is asked in the clear: whoever is on the way could put keys of their own; use https, or say access.insecure = true"
        );
        reader.mistake("access.jwks", open);
    }
    if keys.is_empty() && jwks.is_none() {
        for (key, is_set) in [
            ("access.issuer", keys.issuer.is_some()),
            ("access.audience", keys.audience.is_some()),
            ("access.cookie", cookie != COOKIE),
        ] {
            if is_set {
                let unused = "it says what a token must be, and there is no key that could sign one: add \
                              [[access.key]] or access.jwks";
                reader.mistake(key, unused.to_owned());
            }
        }
    }
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn take_session(reader: &mut Reader) -> Option<SessionSettings> {
    let url: Option<Uri> = reader.take(
        "access.session",
        None,
        "An endpoint of the app that says who someone is: it gets the request's cookies and \
         `Authorization`, and answers 200 with `Remote-User`, `Remote-Groups`, `Remote-Topics` and \
         `Remote-Expires` (in seconds), or 401.",
    );
    let cache = reader.take_if(
        "access.session_cache",
        Duration::from_secs(10),
        "How long the app's answer is remembered for the same credentials; that someone is nobody, or is \
         refused, no longer than 1 s.",
        |time| range::time(*time, &(Duration::ZERO..=MAX_TIME)),
    );
    let timeout = reader.take_if(
        "access.session_timeout",
        Duration::from_secs(2),
        "How long the app's answer is waited for.",
        |time| {
            range::time(
                *time,
                &(Duration::from_millis(50)..=Duration::from_secs(60)),
            )
        },
    );
    let recheck = reader.take_if(
        "access.session_recheck",
        Duration::from_secs(300),
        "How often the app is asked again about those whose streams are open, which end when it says \
         something else.",
        |time| range::time(*time, &(Duration::from_secs(1)..=MAX_TIME)),
    );
    let cookies: Vec<String> = reader.take(
        "access.session_cookies",
        Vec::new(),
        "The cookies that say who someone is, such as `[\"sid\"]`: the app is asked with these alone. Unset: \
         with all, so that who has another of any is asked about anew.",
    );
    for cookie in &cookies {
        if let Err(wrong) = is_cookie(cookie) {
            reader.mistake("access.session_cookies", wrong);
        }
    }
    let by_uri = reader.take(
        "access.session_by_uri",
        false,
        "Whether the app decides by what is asked for, too: what it says of one URI is then not taken for what \
         it would say of another.",
    );
    url.map(|url| SessionSettings {
        url,
        cache,
        timeout,
        recheck,
        cookies,
        by_uri,
    })
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
         to PS512, ES256, ES384, EdDSA) with `secret` or `secret_file`, or with `public_key`, a PEM file; `kid` if it has one; `issuer` and `audience` if its tokens have others than those below.",
    );
    each(reader, "access.key", tables, |table| {
        let table: KeyTable = of_table(table)?;
        let secret = secret::either(table.secret, table.secret_file.as_deref(), "secret")?;
        Key::parse(
            &table.algorithm,
            table.kid,
            secret.as_deref(),
            table.public_key.as_deref(),
        )
        .map(|key| key.of(table.issuer, table.audience))
        .map_err(|error| error.to_string())
    })
}

fn take_rules(reader: &mut Reader) -> Vec<Rule> {
    let tables: Vec<Table> = reader.take(
        "access.rule",
        Vec::new(),
        "`[[access.rule]]`: who may read the topics that match: `topic = \"orders/*\"`, `allow = \
         [\"authenticated\", \"user:bob\", \"group:sales\"]`. `*` stands for anything within a segment, `**` \
         across segments, `{user}` for the reader's own name as a segment; the first that matches decides. With \
         `presence = true` they are also told who else reads, by the topic `$presence/` and its name.",
    );
    each(reader, "access.rule", tables, |table| {
        let table: RuleTable = of_table(table)?;
        let rule = Rule::parse(&table.topic, &table.allow).map_err(|error| error.to_string())?;
        Ok(rule.with_presence(table.presence))
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
    let mut keys = each(reader, "access.publish", list, |key| Token::parse(&key));
    let file: Option<String> = reader.take(
        "access.publish_file",
        None,
        "A file with such keys, one a line.",
    );
    if let Some(file) = file {
        match secret::read(&file) {
            Ok(text) => {
                let lines = text.lines().map(str::to_owned).collect();
                let more = each(reader, "access.publish_file", lines, |key| {
                    Token::parse(&key)
                });
                keys.extend(more);
            }
            Err(wrong) => reader.mistake("access.publish_file", wrong),
        }
    }
    keys
}

fn take_publishers(reader: &mut Reader) -> Vec<KeyHolder> {
    let tables: Vec<Table> = reader.take(
        "access.publisher",
        Vec::new(),
        "`[[access.publisher]]`: one that may publish on the public listeners: `name`, which the log says at `debug`; `key` or \
         `key_file`; `topics`, patterns of those that it may publish to; `audience = true` if it may also send to \
         users, groups and everyone, and be told who is there.",
    );
    let publishers = each(reader, "access.publisher", tables, |table| {
        let table: PublisherTable = of_table(table)?;
        Name::parse(&table.name).map_err(|error| format!("name: {error}"))?;
        let key = secret::either(table.key, table.key_file.as_deref(), "key")?;
        let key = key.ok_or("takes a key or a key_file")?;
        if table.topics.is_empty() && !table.audience {
            return Err("topics is empty, so that it could publish nothing; name patterns, or [\"**\"] for all".into());
        }
        let parse = |text: &String| {
            Pattern::parse(text).ok_or_else(|| format!("`{text}` is not a pattern of topics"))
        };
        let topics = table.topics.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(KeyHolder {
            key: Token::parse(&key).map_err(|wrong| format!("key {wrong}"))?,
            publisher: Publisher::named(&table.name, topics, table.audience),
        })
    });
    for (n, publisher) in publishers.iter().enumerate() {
        let before = &publishers[..n];
        let key = format!("access.publisher, number {}", n + 1);
        if before.iter().any(|other| other.key == publisher.key) {
            reader.mistake(
                key,
                "its key is that of one before it, so that nobody could tell them apart",
            );
        } else if before
            .iter()
            .any(|other| other.publisher.name == publisher.publisher.name)
        {
            reader.mistake(key, "its name is that of one before it");
        }
    }
    publishers
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
