//! Keys from a JWK set (RFC 7517) behind a URL: cached, fetched seldom, kept when it is down.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use jsonwebtoken::jwk::Jwk;
use thiserror::Error;

use super::{Key, jwt};
use crate::outbound::{Outbound, OutboundError};

/// How long a set is good.
const FRESH: Duration = Duration::from_secs(300);
/// How long to wait between fetches: tokens with made-up key ids must not become a flood of them.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a fetch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest set.
const MAX_BYTES: usize = 256 << 10;

/// A JWK set.
#[derive(Debug)]
pub(crate) struct Jwks {
    url: Uri,
    outbound: Outbound,
    state: Arc<Mutex<Fetched>>,
}

#[derive(Debug, Default)]
struct Fetched {
    keys: Option<Vec<Key>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl Fetched {
    /// The keys, if they may have signed a token that names `kid`.
    fn known(&self, kid: Option<&str>) -> Option<Vec<Key>> {
        let keys = self.keys.as_ref()?;
        let known = kid.is_none() || keys.iter().any(|key| key.is(kid));
        known.then(|| keys.clone())
    }
}

impl Jwks {
    /// The set behind `url`, fetched when it is first needed.
    #[must_use]
    pub(crate) fn new(url: Uri, outbound: Outbound) -> Self {
        Self {
            url,
            outbound,
            state: Arc::default(),
        }
    }

    /// The keys that may have signed `token`; `None` when that cannot be said just now.
    pub(super) async fn keys(&self, token: &str, now: Instant) -> Option<Vec<Key>> {
        let recent = |at: Option<Instant>, span| {
            at.is_some_and(|at| now.saturating_duration_since(at) < span)
        };
        let kid = jwt::kid(token);
        let fetching = {
            let mut state = self.lock();
            let known = state.known(kid.as_deref());
            if known.is_some() && recent(state.fetched, FRESH) {
                return known;
            }
            if recent(state.tried, PAUSE) {
                return known;
            }
            state.tried = Some(now);
            // In a task of its own: whoever asked for it may leave.
            tokio::spawn(fetch_into(
                self.outbound.clone(),
                self.url.clone(),
                self.state.clone(),
                now,
            ))
        };
        // A panic in there is a bug that its task reports; there are no new keys then.
        let _: Result<(), _> = fetching.await;
        let state = self.lock();
        match state.known(kid.as_deref()) {
            Some(keys) => Some(keys),
            // The set is there, and has no such key.
            None if state.fetched == Some(now) => state.keys.clone(),
            None => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fetched> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

async fn fetch_into(outbound: Outbound, url: Uri, state: Arc<Mutex<Fetched>>, now: Instant) {
    match tokio::time::timeout(TIMEOUT, fetch(&outbound, &url)).await {
        Ok(Ok(keys)) => {
            let mut state = state.lock().expect("no holder of this lock panics");
            state.keys = Some(keys);
            state.fetched = Some(now);
        }
        Ok(Err(why)) => {
            let error: &(dyn std::error::Error + 'static) = &why;
            tracing::warn!(error, "access.jwks cannot be fetched");
        }
        Err(_) => {
            let seconds = TIMEOUT.as_secs();
            tracing::warn!("access.jwks cannot be fetched: no answer in {seconds} s");
        }
    }
}

/// Why there is no set.
#[derive(Debug, Error)]
enum FetchError {
    #[error("it cannot be asked for")]
    Request(#[from] http::Error),
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("it is not JSON")]
    Json(#[from] serde_json::Error),
    #[error("it is not a JWK set")]
    NoSet,
}

async fn fetch(outbound: &Outbound, url: &Uri) -> Result<Vec<Key>, FetchError> {
    let request = Request::get(url).body(Full::default())?;
    let answer = outbound.read(request, MAX_BYTES).await?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    let set: serde_json::Value = serde_json::from_slice(answer.body())?;
    let keys = set["keys"].as_array().ok_or(FetchError::NoSet)?;
    // Keys of kinds that are not known here do not spoil the others (RFC 7517 5).
    let keys = keys
        .iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
    Ok(keys.filter_map(|key| Key::of_jwk(&key)).collect())
}
