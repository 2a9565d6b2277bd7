//! JSON Web Tokens (RFC 7519), signed by keys whose algorithm the configuration pins.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::Engine as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{Denied, Identity, Key, Name, identity::MAX_GROUPS};
use crate::pattern::Pattern;

/// The longest token.
const MAX_TOKEN: usize = 8 << 10;
/// Header parameters that name keys or change how the token is read: the key is settled here, and
/// nowhere else (RFC 8725 3.1, 3.5, 3.10).
const REFUSED_PARAMETERS: [&str; 8] = ["jku", "jwk", "x5u", "x5c", "crit", "enc", "zip", "b64"];
/// The latest end that a token may have: what a double holds exactly.
const MAX_SECONDS: f64 = 9_007_199_254_740_992.0;

/// The keys, and what else a token must say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keys {
    pub keys: Vec<Key>,
    /// `access.issuer`: what `iss` must be.
    pub issuer: Option<String>,
    /// `access.audience`: what `aud` must name.
    pub audience: Option<String>,
    /// `access.groups_claim`: the claim with the groups.
    pub groups_claim: String,
    /// `access.leeway`: how far the clock of who signs may be ahead.
    pub leeway: Duration,
}

/// What a token says, once it is known to be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`
    pub user: Name,
    pub groups: Vec<Name>,
    /// `topics`: all that may be read, if given.
    pub topics: Option<Vec<Pattern>>,
    /// `publish`: what may be published to, if given.
    pub publish: Option<Vec<Pattern>>,
    /// `exp`, in seconds since the epoch.
    expires: Duration,
    /// `iat`, in seconds since the epoch.
    issued: Option<Duration>,
}

/// Why a token is no good. The token itself is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RefusedToken {
    /// It is not three parts of Base64url, or too long, or not JSON.
    #[error("the token is not a JSON Web Token")]
    Malformed,
    #[error("the token's header is not taken here")]
    Header,
    #[error("the token names an algorithm or a key that is not known here")]
    NoKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token's claim `{0}` is missing or wrong")]
    Claim(&'static str),
}

impl From<RefusedToken> for Denied {
    fn from(refused: RefusedToken) -> Self {
        match refused {
            RefusedToken::Expired => Self::Expired,
            RefusedToken::Malformed => Self::BadCredential("the token is not a JSON Web Token"),
            RefusedToken::Header => Self::BadCredential("the token's header is not taken here"),
            RefusedToken::NoKey => {
                Self::BadCredential("the token names an algorithm or a key that is not known here")
            }
            RefusedToken::Signature => Self::BadCredential("the token's signature is wrong"),
            RefusedToken::NotYet => Self::BadCredential("the token is not valid yet"),
            RefusedToken::Claim(_) => {
                Self::BadCredential("a claim of the token is missing or wrong")
            }
        }
    }
}

/// A JSON object in which no name stands twice: readers would not agree on which counts.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(de::Error::custom("a name stands twice"));
                    }
                }
                Ok(Unique(map))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// What a token's header and its claims say, for people to look at: nobody has said that any of it is true.
#[must_use]
pub(crate) fn unverified(token: &str) -> Option<[Map<String, Value>; 2]> {
    let claims = token.split('.').nth(1)?;
    Some([header(token).ok()?, object(claims).ok()?])
}

/// A part of a token, which is a JSON object in Base64url.
fn object(part: &str) -> Result<Map<String, Value>, RefusedToken> {
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| RefusedToken::Malformed)?;
    let object: Unique = serde_json::from_slice(&json).map_err(|_| RefusedToken::Malformed)?;
    Ok(object.0)
}

/// The header of a token, as far as it can be read.
fn header(token: &str) -> Result<Map<String, Value>, RefusedToken> {
    if token.len() > MAX_TOKEN || token.split('.').count() != 3 {
        return Err(RefusedToken::Malformed);
    }
    object(token.split('.').next().unwrap_or_default())
}

/// The key that a token names.
pub(super) fn kid(token: &str) -> Option<String> {
    header(token).ok()?.get("kid")?.as_str().map(Into::into)
}

impl Keys {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The same demands, with other keys.
    pub(super) fn with_keys(&self, keys: Vec<Key>) -> Self {
        Self {
            keys,
            ..self.clone()
        }
    }

    /// Checks a token.
    ///
    /// # Errors
    ///
    /// [`RefusedToken`]; `Expired` and `NotYet` only when its signature is right.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, RefusedToken> {
        let header = header(token)?;
        if REFUSED_PARAMETERS
            .iter()
            .any(|name| header.contains_key(*name))
        {
            return Err(RefusedToken::Header);
        }
        let typ = header
            .get("typ")
            .map(|typ| typ.as_str().map(str::to_ascii_lowercase));
        if !matches!(
            typ.as_ref().map(Option::as_deref),
            None | Some(Some("jwt" | "at+jwt"))
        ) {
            return Err(RefusedToken::Header);
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid),
            Some(_) => return Err(RefusedToken::Header),
        };
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(|alg| alg.parse().ok());
        let algorithm: Algorithm = algorithm.ok_or(RefusedToken::NoKey)?;
        let candidates = self.keys.iter().filter(|key| {
            // The algorithm is the key's; the token's must be the same.
            key.algorithm == algorithm
                && (kid.is_none() || key.kid.is_none() || key.kid.as_ref() == kid)
        });
        let mut refused = RefusedToken::NoKey;
        for key in candidates {
            let mut validation = Validation::new(key.algorithm);
            // Only the signature: what the claims must be is checked below, with our clock.
            validation.required_spec_claims.clear();
            validation.validate_exp = false;
            validation.validate_aud = false;
            match jsonwebtoken::decode::<Unique>(token, &key.decoding, &validation) {
                Ok(token) => return self.claims(&token.claims.0, key, now),
                Err(error) => {
                    refused = match error.kind() {
                        jsonwebtoken::errors::ErrorKind::InvalidSignature => {
                            RefusedToken::Signature
                        }
                        _ => RefusedToken::Malformed,
                    };
                }
            }
        }
        Err(refused)
    }

    fn claims(
        &self,
        claims: &Map<String, Value>,
        key: &Key,
        now: SystemTime,
    ) -> Result<Claims, RefusedToken> {
        let (issuer, audience) = self.demands(key);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = seconds(claims, "exp")?.ok_or(RefusedToken::Claim("exp"))?;
        if expires <= now {
            return Err(RefusedToken::Expired);
        }
        if seconds(claims, "nbf")?.is_some_and(|from| from > now + self.leeway) {
            return Err(RefusedToken::NotYet);
        }
        let issued = seconds(claims, "iat")?;
        if let Some(issuer) = issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(RefusedToken::Claim("iss"));
        }
        // What is meant for others is not meant for whoever does not say who it is (RFC 7519 4.1.3).
        if audience.is_none() && claims.contains_key("aud") {
            return Err(RefusedToken::Claim("aud"));
        }
        if let Some(audience) = audience {
            let named = match claims.get("aud") {
                Some(Value::String(one)) => one == audience,
                Some(Value::Array(many)) => {
                    many.iter().all(Value::is_string)
                        && many.iter().any(|one| one == audience.as_str())
                }
                _ => false,
            };
            if !named {
                return Err(RefusedToken::Claim("aud"));
            }
        }
        let user = claims
            .get("sub")
            .and_then(Value::as_str)
            .and_then(|sub| Name::parse(sub).ok());
        let groups = strings(claims, &self.groups_claim, "groups")?.unwrap_or_default();
        if groups.len() > MAX_GROUPS {
            return Err(RefusedToken::Claim("groups"));
        }
        let groups = groups
            .iter()
            .map(|group| Name::parse(group))
            .collect::<Result<_, _>>();
        Ok(Claims {
            user: user.ok_or(RefusedToken::Claim("sub"))?,
            groups: groups.map_err(|_| RefusedToken::Claim("groups"))?,
            topics: patterns(claims, "topics")?,
            publish: patterns(claims, "publish")?,
            expires,
            issued,
        })
    }

    /// What the keys here are, and what they demand: a line each, for people.
    pub fn described(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| {
            let (issuer, audience) = self.demands(key);
            let any =
                |demand: Option<&String>| demand.map_or("any", |text| text.as_str()).to_owned();
            let kid = key.kid.as_deref().unwrap_or("none");
            let audience = audience.map_or("none at all", |text| text.as_str());
            format!(
                "{:?}, kid {kid}, iss {}, aud {audience}",
                key.algorithm,
                any(issuer)
            )
        })
    }

    /// What `iss` and `aud` of a key's tokens must say.
    fn demands<'k>(&'k self, key: &'k Key) -> (Option<&'k String>, Option<&'k String>) {
        (
            key.issuer.as_ref().or(self.issuer.as_ref()),
            key.audience.as_ref().or(self.audience.as_ref()),
        )
    }

    /// The key that signs here: the first that can.
    fn signer(&self) -> Option<(&Key, &EncodingKey)> {
        let mut keys = self.keys.iter();
        keys.find_map(|key| Some((key, key.encoding.as_ref()?)))
    }

    /// What `iss` and `aud` of a token that is signed here must say.
    #[must_use]
    pub fn signers_demands(&self) -> [(&'static str, Option<&String>); 2] {
        let (issuer, audience) = self
            .signer()
            .map_or((None, None), |(key, _)| self.demands(key));
        [("iss", issuer), ("aud", audience)]
    }

    /// Signs claims with the first key that can: a secret.
    ///
    /// # Errors
    ///
    /// Why not, for a person to read.
    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        let (key, encoding) = self.signer().ok_or(
            "there is no key to sign with; `[[access.key]]` needs one with a secret (public keys can only check)",
        )?;
        let mut header = Header::new(key.algorithm);
        header.kid.clone_from(&key.kid);
        jsonwebtoken::encode(&header, claims, encoding).map_err(|error| error.to_string())
    }
}

impl Claims {
    /// When the token ends.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        // A time beyond the system's own is never reached.
        UNIX_EPOCH
            .checked_add(self.expires)
            .unwrap_or(UNIX_EPOCH + Duration::from_secs(u32::MAX.into()))
    }

    /// When the token was issued, if it says so.
    #[must_use]
    pub fn issued_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(self.issued?)
    }

    /// The identity that the token gives, if it has not ended.
    #[must_use]
    pub fn into_identity(self, now: Instant, wall: SystemTime) -> Option<Identity> {
        let left = self.expires_at().duration_since(wall).ok()?;
        // So far away that no stream will see it: none at all, as far as timers go.
        let expires = now.checked_add(left.min(Duration::from_secs(10 * 365 * 24 * 3600)));
        let issued = self.issued_at();
        let identity = Identity::authenticated(self.user, self.groups, self.topics, expires);
        Some(identity.issued_at(issued))
    }
}

/// A NumericDate (RFC 7519 2).
fn seconds(
    claims: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<Duration>, RefusedToken> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value.as_f64().filter(|_| value.is_number());
    match seconds {
        Some(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => {
            Ok(Some(Duration::from_secs_f64(seconds)))
        }
        _ => Err(RefusedToken::Claim(name)),
    }
}

fn strings<'a>(
    claims: &'a Map<String, Value>,
    name: &str,
    what: &'static str,
) -> Result<Option<Vec<&'a str>>, RefusedToken> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Array(values)) => {
            let strings: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
            strings.map(Some).ok_or(RefusedToken::Claim(what))
        }
        Some(_) => Err(RefusedToken::Claim(what)),
    }
}

fn patterns(
    claims: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<Vec<Pattern>>, RefusedToken> {
    let Some(texts) = strings(claims, name, name)? else {
        return Ok(None);
    };
    let patterns: Option<Vec<Pattern>> = texts.into_iter().map(Pattern::parse).collect();
    patterns.map(Some).ok_or(RefusedToken::Claim(name))
}
