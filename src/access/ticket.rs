//! Tickets: what a page of another site has in the URL of its event streams, where no cookie comes along.
//!
//! A ticket is a token (RFC 7519) of the edge's own, signed with a key that nobody else has and that ends with the
//! process: nothing need be kept of those that were given out.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{Denied, Identity, Name};
use crate::pattern::Pattern;

/// The longest ticket: it has to stand in a URL.
pub(crate) const MAX_BYTES: usize = 4 << 10;

/// What signs tickets.
pub(super) struct Tickets {
    /// How long a ticket opens streams by itself.
    opens: Duration,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// For whom a ticket is.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The user.
    pub user: Name,
    /// Their groups.
    pub groups: Vec<Name>,
    /// All that they may read, if given.
    pub topics: Option<Vec<Pattern>>,
    /// When their identity ends.
    pub until: SystemTime,
    /// When it was issued, as far as that is known.
    pub issued: Option<SystemTime>,
}

/// What a ticket says.
#[derive(Deserialize, Serialize)]
struct Claims {
    sub: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<String>>,
    /// When the identity ends, in seconds since the epoch.
    exp: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<f64>,
    /// Until when it opens streams by itself.
    opens: f64,
    /// The last entry of the order before it was given out.
    place: u64,
}

/// A ticket that is good.
#[derive(Debug)]
pub struct Redeemed {
    /// Whose it is.
    pub identity: Identity,
    /// If it does not open streams by itself any more: after this number must be what it comes with, of a stream
    /// that it opened.
    pub after: Option<u64>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// With a key that is made now; each opens streams by itself for so long.
    pub(super) fn new(opens: Duration) -> Self {
        let mut key = [0; 32];
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let filled = provider.secure_random.fill(&mut key);
        filled.expect("the system has random numbers");
        Self {
            opens,
            encoding: EncodingKey::from_secret(&key),
            decoding: DecodingKey::from_secret(&key),
        }
    }

    /// A ticket for somebody, given out at this place of the order; `None` when it would be over [`MAX_BYTES`].
    pub(super) fn make(&self, bearer: &Bearer, place: u64, now: SystemTime) -> Option<String> {
        let texts = |names: &[Name]| names.iter().map(|name| name.as_str().to_owned()).collect();
        let claims = Claims {
            sub: bearer.user.as_str().to_owned(),
            groups: texts(&bearer.groups),
            topics: bearer
                .topics
                .as_ref()
                .map(|topics| topics.iter().map(ToString::to_string).collect()),
            exp: seconds(bearer.until),
            iat: bearer.issued.map(seconds),
            opens: seconds(now + self.opens),
            place,
        };
        let ticket = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding);
        ticket.ok().filter(|ticket| ticket.len() <= MAX_BYTES)
    }

    /// Whose a ticket is.
    ///
    /// # Errors
    ///
    /// [`Denied::Expired`] when the identity has ended, [`Denied::Ticket`] for one that is not of this life.
    pub(super) fn redeem(
        &self,
        ticket: &str,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Redeemed, Denied> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let read = if ticket.len() > MAX_BYTES {
            None
        } else {
            jsonwebtoken::decode::<Claims>(ticket, &self.decoding, &validation).ok()
        };
        let claims = read.ok_or(Denied::Ticket)?.claims;
        let until = moment(claims.exp).ok_or(Denied::Ticket)?;
        let left = until.duration_since(wall).map_err(|_| Denied::Expired)?;
        let user = Name::parse(&claims.sub).map_err(|_| Denied::Ticket)?;
        let groups = claims.groups.iter().map(|group| Name::parse(group));
        let groups: Result<Vec<Name>, _> = groups.collect();
        let topics = claims.topics.map(|topics| {
            let patterns = topics.iter().map(|text| Pattern::parse(text));
            patterns.collect::<Option<Vec<_>>>().ok_or(Denied::Ticket)
        });
        let identity = Identity::authenticated(
            user,
            groups.map_err(|_| Denied::Ticket)?,
            topics.transpose()?,
            now.checked_add(left),
        );
        Ok(Redeemed {
            identity: identity.issued_at(claims.iat.and_then(moment)),
            after: (seconds(wall) > claims.opens).then_some(claims.place),
        })
    }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn moment(seconds: f64) -> Option<SystemTime> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_ticket_says_whose_it_is_and_what_it_is_good_for() {
        let (now, wall) = (clock::now(), clock::wall());
        let tickets = Tickets::new(Duration::from_secs(30));
        let name = |text: &str| Name::parse(text).expect("a name");
        let bearer = Bearer {
            user: name("bob"),
            groups: vec![name("a"), name("b")],
            topics: Some(vec![Pattern::parse("news/*").expect("a pattern")]),
            until: wall + Duration::from_secs(600),
            issued: None,
        };
        let ticket = tickets.make(&bearer, 7, wall).expect("it is short");
        let redeemed = tickets.redeem(&ticket, now, wall).expect("it is good");
        assert_eq!(redeemed.identity.user(), Some(&name("bob")));
        assert_eq!(redeemed.identity.groups(), bearer.groups);
        assert_eq!(redeemed.identity.topics(), bearer.topics.as_deref());
        assert_eq!(redeemed.after, None);
        let later = |seconds| tickets.redeem(&ticket, now, wall + Duration::from_secs(seconds));
        assert_eq!(later(29).expect("it is good").after, None);
        assert_eq!(later(31).expect("it is good").after, Some(7));
        assert_eq!(later(601).expect_err("it is over"), Denied::Expired);
        // Those of another life, and what is none.
        let other = Tickets::new(Duration::from_secs(30));
        for wrong in [
            other.make(&bearer, 7, wall).expect("it is short"),
            "x".into(),
            ticket[1..].into(),
            String::new(),
        ] {
            assert_eq!(
                tickets.redeem(&wrong, now, wall).expect_err("it is none"),
                Denied::Ticket
            );
        }
        let many = (0..200)
            .map(|n| name(&format!("a group with a long name {n}")))
            .collect();
        let long = Bearer {
            groups: many,
            ..bearer
        };
        assert_eq!(tickets.make(&long, 7, wall), None);
    }
}
