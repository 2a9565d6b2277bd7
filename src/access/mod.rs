//! Who is asking, what they may do, and who is meant.
//!
//! - [`Access`] settles the identity of a request, by [`Keys`] (a JWT) or by asking the app
//!   ([`Session`]), and says which topics it may read.
//! - [`Rule`] is what operators write; [`Groups`] nests groups in one another.
//! - [`Origins`] says which other sites' pages may open event streams.

mod credential;
mod denied;
mod groups;
mod identity;
mod jwks;
mod jwt;
mod key;
mod login;
mod metrics;
mod origins;
mod publisher;
mod revoked;
mod rules;
mod session;
mod ticket;
mod token;

use std::{
    net::IpAddr,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderValue, Uri, header};

pub(crate) use denied::Denied;
pub(crate) use groups::{Groups, InvalidMember, Member};
pub(crate) use identity::{Identity, InvalidName, Name, Standing};
pub(crate) use jwks::Jwks;
pub(crate) use jwt::{Claims, Keys, RefusedToken, unverified};
pub(crate) use key::Key;
pub(crate) use metrics::AccessMetrics;
pub(crate) use origins::Origins;
pub(crate) use publisher::{KeyHolder, Publisher, TokenLife};
pub(crate) use revoked::MOST as MOST_REVOKED;
pub(crate) use rules::{Rule, Who};
pub(crate) use session::{Session, SessionSettings};
pub(crate) use ticket::{Bearer, MAX_BYTES as MAX_TICKET, Redeemed};
pub(crate) use token::Token;

use crate::{outbound::Outbound, topic::Topic};
use revoked::Revoked;
use ticket::Tickets;

/// `[access]` and `[groups]`
#[derive(Clone, Debug)]
pub struct AccessSettings {
    /// `access.subscribe`: who may open event streams at all.
    pub subscribe: Vec<Standing>,
    /// `access.cookie`: the cookie that may carry a token.
    pub cookie: String,
    /// `[[access.key]]`
    pub keys: Keys,
    /// `access.jwks`
    pub jwks: Option<Uri>,
    /// `access.jwks_max_stale`: how old it may get while it cannot be fetched.
    pub jwks_max_stale: Duration,
    /// `access.session` and what is beside it.
    pub session: Option<SessionSettings>,
    /// `access.expiry_notice`: how long before its token's end a stream is told.
    pub expiry_notice: Duration,
    /// `access.origins`
    pub origins: Origins,
    /// `access.revoked_for`: how long a revocation is remembered.
    pub revoked_for: Duration,
    /// `access.ticket_opens`: how long a ticket opens streams by itself.
    pub ticket_opens: Duration,
    /// `access.settling`: how long after its start the edge takes those who come for what they were before.
    pub settling: Duration,
    /// `[[access.rule]]`
    pub rules: Vec<Rule>,
    /// `access.default`
    pub default: Otherwise,
    /// `access.publish`: static keys of publishers outside.
    pub publish: Vec<Token>,
    /// `[[access.publisher]]`
    pub publishers: Vec<KeyHolder>,
    /// `access.publish_claim`: whether a token's `publish` claim lets its bearer publish.
    pub publish_claim: bool,
    /// `[groups]`
    pub groups: Groups,
}

/// What becomes of topics that no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// Whoever may open event streams may read them.
    Allow,
    /// Nobody may.
    Deny,
}

/// Settles who asks and what they may do.
#[derive(Debug)]
pub struct Access {
    settings: AccessSettings,
    jwks: Option<Jwks>,
    session: Option<Session>,
    groups: Mutex<Groups>,
    /// How often somebody was taken out of a group.
    removals: AtomicU64,
    revoked: Mutex<Revoked>,
    tickets: Tickets,
}

impl Access {
    /// With these settings.
    #[must_use]
    pub fn new(settings: AccessSettings, outbound: &Outbound, metrics: &AccessMetrics) -> Self {
        let jwks = settings.jwks.clone();
        Self {
            jwks: jwks.map(|url| Jwks::new(url, outbound.clone(), settings.jwks_max_stale)),
            session: settings
                .session
                .clone()
                .map(|session| Session::new(session, outbound.clone(), metrics.clone())),
            groups: Mutex::new(settings.groups.clone()),
            removals: AtomicU64::new(0),
            revoked: Mutex::new(Revoked::new(settings.revoked_for)),
            tickets: Tickets::new(settings.ticket_opens),
            settings,
        }
    }

    /// Fetches in the background what the first visitors need. In a runtime.
    pub fn prepare(&self, now: Instant) {
        if let Some(jwks) = &self.jwks {
            jwks.prepare(now);
        }
    }

    /// How old the set of `access.jwks` is, if there is one.
    #[must_use]
    pub fn jwks_age(&self, now: Instant) -> Option<Duration> {
        self.jwks.as_ref()?.age(now)
    }

    /// Asks the app again about those who are there; `ended` is called when some of their logins have ended.
    /// Never ends.
    pub(crate) async fn keep_asking(&self, ended: impl FnMut()) {
        match &self.session {
            Some(session) => session.keep_asking(ended).await,
            None => std::future::pending().await,
        }
    }

    /// Settles who asks, from this address.
    ///
    /// # Errors
    ///
    /// [`Denied`] says how a bad credential is to be answered; it is never treated as none.
    pub async fn identify(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        client: IpAddr,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Identity, Denied> {
        if let Some(token) = self.token(headers)? {
            let claims = self.verify(&token, now, wall).await?;
            return claims.into_identity(now, wall).ok_or(Denied::Expired);
        }
        match &self.session {
            Some(session) => session.identify(headers, uri, client).await,
            None => Ok(Identity::anonymous()),
        }
    }

    /// The token of a request, if tokens are a thing here and it has one.
    fn token(&self, headers: &HeaderMap) -> Result<Option<String>, Denied> {
        if self.settings.keys.is_empty() && self.jwks.is_none() {
            return Ok(None);
        }
        match bearer(headers) {
            Ok(None) => {}
            Ok(Some(bearer)) => return Ok(Some(bearer)),
            // Another scheme is for the app, if it is asked.
            Err(_) if self.session.is_some() => return Ok(None),
            Err(denied) => return Err(denied),
        }
        // Other cookies may hold what they like.
        let mut found: Option<&[u8]> = None;
        for value in headers.get_all(header::COOKIE) {
            for pair in value.as_bytes().split(|&b| b == b';') {
                let pair = pair.trim_ascii();
                let value = pair
                    .strip_prefix(self.settings.cookie.as_bytes())
                    .and_then(|rest| rest.strip_prefix(b"="));
                let Some(token) = value else {
                    continue;
                };
                // One of them is of another path or host, which a page there could have set.
                if found.is_some_and(|found| found != token) {
                    const TWO: &str = "there are two cookies with tokens, which differ";
                    return Err(Denied::BadCredential(TWO));
                }
                found = Some(token);
            }
        }
        let text = found.map(std::str::from_utf8).transpose();
        let text = text.map_err(|_| Denied::BadCredential("the token is not text"))?;
        Ok(text.map(str::to_owned))
    }

    async fn verify(&self, token: &str, now: Instant, wall: SystemTime) -> Result<Claims, Denied> {
        let claims = self.verify_signature(token, now, wall).await?;
        if self.is_revoked(&claims.user, claims.issued_at()) {
            return Err(Denied::Revoked);
        }
        Ok(claims)
    }

    async fn verify_signature(
        &self,
        token: &str,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Claims, Denied> {
        let refused = match self.settings.keys.verify(token, wall) {
            Ok(claims) => return Ok(claims),
            Err(refused) => refused,
        };
        // Only a token that no key here has signed may be one of the set's.
        let unknown = matches!(refused, RefusedToken::NoKey | RefusedToken::Signature);
        let Some(jwks) = self.jwks.as_ref().filter(|_| unknown) else {
            return Err(refused.into());
        };
        let keys = jwks.keys(token, now).await.ok_or(Denied::Unavailable)?;
        let keys = self.settings.keys.with_keys(keys);
        keys.verify(token, wall).map_err(Into::into)
    }

    /// From now on tokens of this user that were issued before the moment which is returned are no good; `None` when
    /// so many users' are revoked that there is no room for another.
    #[must_use]
    pub fn revoke(&self, user: &Name, wall: SystemTime) -> Option<SystemTime> {
        self.revoked_users().revoke(user, wall)
    }

    /// How long it is remembered whose tokens were revoked.
    #[must_use]
    pub fn revoked_for(&self) -> Duration {
        self.settings.revoked_for
    }

    /// Whether a token of this user that was issued at some moment was taken back.
    #[must_use]
    pub fn is_revoked(&self, user: &Name, issued: Option<SystemTime>) -> bool {
        self.revoked_users().is_revoked(user, issued)
    }

    /// Whether somebody is no longer who they were settled to be: the app says so, or an operator has.
    #[must_use]
    pub(crate) fn is_over(&self, identity: &Identity) -> bool {
        let was_revoked = |user| identity.is_by_token() && self.is_revoked(user, identity.issued());
        identity.is_over() || identity.user().is_some_and(was_revoked)
    }

    /// Whether a publisher's token is good still.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check_publisher(&self, publisher: &Publisher, wall: SystemTime) -> Result<(), Denied> {
        let Some(token) = publisher.token() else {
            return Ok(());
        };
        if token.until <= wall {
            return Err(Denied::Expired);
        }
        if self.is_revoked(&token.user, token.issued) {
            return Err(Denied::Revoked);
        }
        Ok(())
    }

    /// For whom the token of a request is, who may have a ticket.
    ///
    /// # Errors
    ///
    /// [`Denied`] when there is none, or it is no good.
    pub async fn bearer(
        &self,
        headers: &HeaderMap,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Bearer, Denied> {
        const TAKES: &str = "a ticket takes `Authorization: Bearer` with a token";
        let token = bearer(headers)?.ok_or(Denied::Unauthorized(TAKES))?;
        let claims = self.verify(&token, now, wall).await?;
        Ok(Bearer {
            until: claims.expires_at(),
            issued: claims.issued_at(),
            user: claims.user,
            groups: claims.groups,
            topics: claims.topics,
        })
    }

    /// A ticket for somebody, given out at this place of the order; `None` when it would be over [`MAX_TICKET`].
    #[must_use]
    pub fn ticket(&self, bearer: &Bearer, place: u64, wall: SystemTime) -> Option<String> {
        self.tickets.make(bearer, place, wall)
    }

    /// How long a ticket opens streams by itself.
    #[must_use]
    pub fn ticket_opens(&self) -> Duration {
        self.settings.ticket_opens
    }

    /// Whose a ticket is.
    ///
    /// # Errors
    ///
    /// [`Denied`], gently all of it.
    pub fn redeem(&self, ticket: &str, now: Instant, wall: SystemTime) -> Result<Redeemed, Denied> {
        let redeemed = self.tickets.redeem(ticket, now, wall)?;
        if self.is_over(&redeemed.identity) {
            return Err(Denied::Ticket);
        }
        Ok(redeemed)
    }

    fn revoked_users(&self) -> MutexGuard<'_, Revoked> {
        self.revoked.lock().expect("no holder of this lock panics")
    }

    /// Whether the anonymous may open event streams at all.
    #[must_use]
    pub fn takes_anonymous(&self) -> bool {
        self.settings.subscribe.contains(&Standing::Anonymous)
    }

    /// Whether `identity` may read `topics`.
    ///
    /// # Errors
    ///
    /// [`Denied::Unauthorized`] for the anonymous where only others may come,
    /// [`Denied::Topic`] names the topic.
    pub fn may_subscribe<'a>(
        &self,
        identity: &Identity,
        topics: impl Iterator<Item = &'a Topic>,
    ) -> Result<(), Denied> {
        if !self.settings.subscribe.contains(&identity.standing()) {
            return Err(match identity.standing() {
                Standing::Anonymous => {
                    Denied::Unauthorized("event streams take a token or a session here")
                }
                Standing::Authenticated => {
                    Denied::Forbidden("event streams are for anonymous visitors here".into())
                }
            });
        }
        for topic in topics {
            if !self.may_read(identity, topic) {
                return Err(match identity.standing() {
                    Standing::Anonymous => {
                        Denied::Unauthorized("this topic takes a token or a session")
                    }
                    Standing::Authenticated => Denied::Topic(topic.clone()),
                });
            }
        }
        Ok(())
    }

    fn may_read(&self, identity: &Identity, topic: &Topic) -> bool {
        // Who reads a topic is for those whom its rule lets see that.
        let (name, is_presence) = match topic.presence_of() {
            Some(of) => (of, true),
            None => (topic.as_str(), false),
        };
        let named = identity
            .topics()
            .is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(name)));
        // What is the edge's own is for those whom a rule allows it.
        let ruled = match self.rule(name) {
            Some(rule) => {
                (rule.presence || !is_presence)
                    && rule.is_own(name, identity.user())
                    && self.allows(rule, identity)
            }
            None => !topic.is_reserved() && self.settings.default == Otherwise::Allow,
        };
        named && ruled
    }

    /// The rule that decides about a topic.
    fn rule(&self, topic: &str) -> Option<&Rule> {
        let mut rules = self.settings.rules.iter();
        rules.find(|rule| rule.matches(topic))
    }

    /// Whether it is told who comes to a topic and leaves it.
    #[must_use]
    pub fn tells_presence(&self, topic: &Topic) -> bool {
        !topic.is_reserved() && self.rule(topic.as_str()).is_some_and(|rule| rule.presence)
    }

    /// Whether it is told of any topic.
    #[must_use]
    pub fn tells_any_presence(&self) -> bool {
        self.settings.rules.iter().any(|rule| rule.presence)
    }

    /// A rule that names a group means the groups nested in it too.
    fn allows(&self, rule: &Rule, identity: &Identity) -> bool {
        rule.allow.iter().any(|who| match who {
            Who::Standing(standing) => *standing == identity.standing(),
            Who::User(user) => identity.user() == Some(user),
            Who::Group(group) => self
                .groups()
                .holds(group, identity.groups(), identity.user()),
        })
    }

    /// Settles what a publisher outside may do. Cookies do not count: a page could be made to send
    /// them.
    ///
    /// # Errors
    ///
    /// [`Denied`] when it may do nothing.
    pub async fn publisher(
        &self,
        headers: &HeaderMap,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Publisher, Denied> {
        const TAKES: &str = "publishing takes `Authorization: Bearer` with a publisher's key";
        let bearer = bearer(headers)?.ok_or(Denied::Unauthorized(TAKES))?;
        let keys = self.settings.publish.iter();
        if keys.fold(false, |found, key| found | key.is(&bearer)) {
            return Ok(Publisher::of_everything());
        }
        let named = self.settings.publishers.iter();
        let holder = named.fold(None, |found, holder| {
            let is_it = holder.key.is(&bearer);
            if is_it { Some(holder) } else { found }
        });
        if let Some(holder) = holder {
            return Ok(holder.publisher.clone());
        }
        if !self.settings.publish_claim {
            return Err(Denied::BadCredential(
                "the key is not one that publishes here",
            ));
        }
        let claims = self.verify(&bearer, now, wall).await?;
        if claims.expires_at() <= wall {
            return Err(Denied::Expired);
        }
        let token = TokenLife {
            user: claims.user.clone(),
            issued: claims.issued_at(),
            until: claims.expires_at(),
        };
        match claims.publish {
            Some(patterns) => Ok(Publisher::of_claim(patterns, token)),
            None => Err(Denied::Forbidden("the token has no `publish` claim".into())),
        }
    }

    /// Forgets what the app said of a user, who is to be asked about anew.
    pub fn forget(&self, user: &Name) {
        if let Some(session) = &self.session {
            session.forget(user);
        }
    }

    /// Whether publishers outside are let in at all.
    #[must_use]
    pub fn publishes(&self) -> bool {
        let settings = &self.settings;
        settings.publish_claim || !settings.publish.is_empty() || !settings.publishers.is_empty()
    }

    /// How long before its token's end a stream is told.
    #[must_use]
    pub fn expiry_notice(&self) -> Duration {
        self.settings.expiry_notice
    }

    /// How long after its start the edge takes those who come for what they were before.
    #[must_use]
    pub fn settling(&self) -> Duration {
        self.settings.settling
    }

    /// Which other sites' pages may open event streams.
    #[must_use]
    pub fn origins(&self) -> &Origins {
        &self.settings.origins
    }

    /// Takes a member out of a group; whether it was there. Whoever was let in by the group before is to be looked at
    /// from then on.
    pub fn leave(&self, group: &Name, member: &Member) -> bool {
        let removed = self.groups().remove(group, member);
        // After it: whoever sees the number from before may have seen the member.
        self.removals
            .fetch_add(u64::from(removed), Ordering::AcqRel);
        removed
    }

    /// How often somebody was taken out of a group so far: who was let in at another number has to be looked at
    /// again.
    #[must_use]
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    /// Whether a group has a member, itself, by the configuration.
    #[must_use]
    pub fn is_configured(&self, group: &Name, member: &Member) -> bool {
        self.settings.groups.has(group, member)
    }

    /// The nesting of groups, to read or to change for the length of a statement.
    pub fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().expect("no holder of this lock panics")
    }
}

/// The token of an `Authorization: Bearer`, which there may be one of.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<String>, Denied> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Denied::BadCredential(
            "there is more than one Authorization",
        ));
    }
    let value: Result<&str, _> = HeaderValue::to_str(value);
    let value = value.map_err(|_| Denied::BadCredential("the token is not text"))?;
    match value.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => {
            Ok(Some(token.to_owned()))
        }
        _ => Err(Denied::BadCredential("Authorization is not a Bearer token")),
    }
}
