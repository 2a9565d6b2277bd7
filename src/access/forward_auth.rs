//! Asking the app who someone is, as nginx's `auth_request` and Traefik's `forwardAuth` do.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use tokio::sync::Semaphore;

use super::{Denied, Identity, Name, identity::MAX_GROUPS};
use crate::outbound::Outbound;

/// The most answers that are remembered.
const MAX_CACHED: usize = 4096;
/// The most questions that are asked at a time.
const MAX_ASKING: usize = 64;

/// The app's endpoint that says who someone is.
#[derive(Debug)]
pub(crate) struct ForwardAuth {
    url: Uri,
    outbound: Outbound,
    cache_for: Duration,
    timeout: Duration,
    cache: Mutex<HashMap<Credential, Answer>>,
    /// How often something was forgotten.
    generation: AtomicU64,
    /// Whose turn it is to ask: strangers must not become a flood for the app.
    asking: Semaphore,
}

/// What a request has to show for itself, exactly: all of its cookies, its `Authorization`, and
/// what it asks for, as the app may decide by that too.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Credential(Vec<HeaderValue>, Vec<HeaderValue>, String);

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

#[derive(Clone, Debug)]
struct Answer {
    at: Instant,
    identity: Result<Identity, Denied>,
}

impl ForwardAuth {
    /// The endpoint at `url`; answers are remembered for `cache_for`, and waited for no longer
    /// than `timeout`.
    #[must_use]
    pub(crate) fn new(
        url: Uri,
        outbound: Outbound,
        cache_for: Duration,
        timeout: Duration,
    ) -> Self {
        Self {
            url,
            outbound,
            cache_for,
            timeout,
            cache: Mutex::default(),
            generation: AtomicU64::new(0),
            asking: Semaphore::new(MAX_ASKING),
        }
    }

    /// Who asks. Whoever shows nothing is anonymous, and the app is not asked.
    ///
    /// # Errors
    ///
    /// [`Denied::Unauthorized`] when the app says 401 or 403; [`Denied::Unavailable`] when it says
    /// anything but that and 200, or nothing in time: it fails closed.
    pub(super) async fn identify(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        now: Instant,
    ) -> Result<Identity, Denied> {
        // Copies: a remembered field must not keep the buffer that it came in.
        let copy = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
        let all = |name| {
            headers
                .get_all(name)
                .iter()
                .filter_map(copy)
                .collect::<Vec<_>>()
        };
        let asked = format!("{:?} {uri}", headers.get(header::HOST));
        let credential = Credential(all(header::COOKIE), all(header::AUTHORIZATION), asked);
        if credential.0.is_empty() && credential.1.is_empty() {
            return Ok(Identity::anonymous());
        }
        if let Some(identity) = self.remembered(&credential, now) {
            return identity;
        }
        let generation = self.generation();
        let ask = async {
            let _turn = self
                .asking
                .acquire()
                .await
                .map_err(|_| Denied::Unavailable)?;
            self.ask(&credential, headers, uri).await
        };
        let asked = tokio::time::timeout(self.timeout, ask).await;
        let identity = asked.unwrap_or_else(|_| {
            tracing::warn!(
                "access.session: no answer in {} ms",
                self.timeout.as_millis()
            );
            Err(Denied::Unavailable)
        });
        if identity != Err(Denied::Unavailable) && generation == self.generation() {
            self.remember(credential, now, identity.clone());
        }
        identity
    }

    /// Forgets what is remembered of a user, and what is being asked.
    pub(super) fn forget(&self, user: &Name) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let mut cache = self.cache.lock().expect("no holder of this lock panics");
        cache.retain(|_, answer| {
            let own = answer.identity.as_ref().ok().and_then(Identity::user);
            own != Some(user)
        });
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn remembered(
        &self,
        credential: &Credential,
        now: Instant,
    ) -> Option<Result<Identity, Denied>> {
        let cache = self.cache.lock().expect("no holder of this lock panics");
        let answer = cache.get(credential)?;
        let fresh = now.saturating_duration_since(answer.at) < self.cache_for;
        fresh.then(|| answer.identity.clone())
    }

    fn remember(&self, credential: Credential, at: Instant, identity: Result<Identity, Denied>) {
        if self.cache_for.is_zero() {
            return;
        }
        let mut cache = self.cache.lock().expect("no holder of this lock panics");
        if cache.len() >= MAX_CACHED {
            cache.retain(|_, answer| at.saturating_duration_since(answer.at) < self.cache_for);
            // All of them fresh: whoever comes is asked for again.
            if cache.len() >= MAX_CACHED {
                cache.clear();
            }
        }
        cache.insert(credential, Answer { at, identity });
    }

    async fn ask(
        &self,
        credential: &Credential,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Identity, Denied> {
        let down = |error: &(dyn std::error::Error + 'static)| {
            tracing::warn!(error, "access.session cannot be asked");
            Denied::Unavailable
        };
        let unclear = |what: &dyn std::fmt::Display| {
            tracing::warn!("access.session: {what}");
            Denied::Unavailable
        };
        let original = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(&self.url)
            .header("x-forwarded-uri", original)
            .header("x-forwarded-method", "GET")
            .header("x-forwarded-proto", "https");
        let host = uri
            .authority()
            .map(|authority| authority.as_str().to_owned());
        let host = host.or_else(|| Some(headers.get(header::HOST)?.to_str().ok()?.to_owned()));
        if let Some(host) = host {
            request = request.header("x-forwarded-host", host);
        }
        for cookie in &credential.0 {
            request = request.header(header::COOKIE, cookie);
        }
        for authorization in &credential.1 {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::default())
            .map_err(|error| down(&error))?;
        // Only its head matters.
        let answer = self.outbound.ask(request).await;
        let answer = answer.map_err(|error| down(&error))?;
        match answer.status() {
            StatusCode::OK => read(answer.headers()).ok_or_else(|| {
                unclear(&"Remote-User or Remote-Groups is not a name, or there is more than one")
            }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Denied::Unauthorized("the session is not good here"))
            }
            status => Err(unclear(&format!("the answer is {status}"))),
        }
    }
}

/// The identity that an answer gives; `None` when it is not clear.
fn read(headers: &HeaderMap) -> Option<Identity> {
    let mut users = headers.get_all("remote-user").iter();
    let user = match (users.next(), users.next()) {
        (None, _) => return Some(Identity::anonymous()),
        (Some(user), None) => std::str::from_utf8(user.as_bytes()).ok()?,
        (Some(_), Some(_)) => return None,
    };
    if user.is_empty() {
        return Some(Identity::anonymous());
    }
    let mut groups = Vec::new();
    for value in headers.get_all("remote-groups") {
        let names = std::str::from_utf8(value.as_bytes())
            .ok()?
            .split(',')
            .map(str::trim);
        for name in names.filter(|name| !name.is_empty()) {
            groups.push(Name::parse(name).ok()?);
        }
    }
    let user = Name::parse(user).ok()?;
    (groups.len() <= MAX_GROUPS).then(|| Identity::authenticated(user, groups, None, None))
}
