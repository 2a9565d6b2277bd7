//! Keys from a JWK set (RFC 7517) behind a URL: cached, fetched seldom, kept when it is down.

use std::time::{Duration, Instant};

use http::Uri;
use jsonwebtoken::jwk::Jwk;
use tokio::sync::Mutex;

use super::{Key, jwt};
use crate::client::{Connection, Protocol, Target, Trust};

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
pub struct Jwks {
    url: Uri,
    /// Held while the set is fetched, so that many who wait for it ask once.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<Vec<Key>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl Jwks {
    /// The set behind `url`, fetched when it is first needed.
    #[must_use]
    pub fn new(url: Uri) -> Self {
        Self {
            url,
            state: Mutex::default(),
        }
    }

    /// The keys that may have signed `token`; `None` when the set was never had.
    pub(super) async fn keys(&self, token: &str, now: Instant) -> Option<Vec<Key>> {
        let mut state = self.state.lock().await;
        let recent = |at: Option<Instant>, span| {
            at.is_some_and(|at| now.saturating_duration_since(at) < span)
        };
        let kid = jwt::kid(token);
        let known =
            |keys: &Vec<Key>| kid.is_none() || keys.iter().any(|key| key.is(kid.as_deref()));
        let good = recent(state.fetched, FRESH) && state.keys.as_ref().is_some_and(known);
        if !good && !recent(state.tried, PAUSE) {
            state.tried = Some(now);
            match tokio::time::timeout(TIMEOUT, self.fetch()).await {
                Ok(Ok(keys)) => {
                    state.keys = Some(keys);
                    state.fetched = Some(now);
                }
                Ok(Err(why)) => tracing::warn!("access.jwks cannot be fetched: {why}"),
                Err(_) => tracing::warn!(
                    "access.jwks cannot be fetched: no answer in {} s",
                    TIMEOUT.as_secs()
                ),
            }
        }
        state.keys.clone()
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let text = |error: crate::client::ClientError| error.to_string();
        let target = Target::of(&self.url, Trust::System).map_err(text)?;
        let mut connection = Connection::open(&target, Protocol::Http1)
            .await
            .map_err(text)?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let mut response = connection.get(path).await.map_err(text)?;
        if response.status != http::StatusCode::OK {
            return Err(format!("the answer is {}", response.status));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err(format!("the set is over {MAX_BYTES} bytes long"));
            }
        }
        let set: serde_json::Value =
            serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let keys = set["keys"].as_array().ok_or("it is not a JWK set")?;
        // Keys of kinds that are not known here do not spoil the others (RFC 7517 5).
        let keys = keys
            .iter()
            .filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
        Ok(keys.filter_map(|key| Key::of_jwk(&key)).collect())
    }
}
