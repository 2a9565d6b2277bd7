//! Keys from a JWK set (RFC 7517) behind a URL: cached, fetched seldom, kept when it is down.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use jsonwebtoken::jwk::Jwk;
use thiserror::Error;

use super::{Key, jwt};
use crate::outbound::{Outbound, OutboundError};

/// How long a set is good.
const FRESH: Duration = Duration::from_secs(300);
/// When it is fetched again ahead of that, while nobody waits for it.
const REFRESH: Duration = Duration::from_secs(240);
/// How long to wait between fetches: tokens with made-up key ids must not become a flood of them.
const PAUSE: Duration = Duration::from_secs(10);
/// The same while there is no set at all.
const RETRY: Duration = Duration::from_secs(1);
/// How long a fetch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest set.
const MAX_BYTES: usize = 256 << 10;

/// A JWK set.
#[derive(Debug)]
pub(crate) struct Jwks {
    url: Uri,
    outbound: Outbound,
    /// How old it may get while it cannot be fetched.
    max_stale: Duration,
    state: Arc<Mutex<Fetched>>,
}

#[derive(Debug, Default)]
struct Fetched {
    keys: Option<Vec<Key>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
    /// Whether the last fetch has failed.
    failed: bool,
    /// The fetch that is on its way; whoever needs what it brings waits for it.
    fetching: Option<Fetching>,
}

/// A fetch: whether it brought a set.
type Fetching = Shared<BoxFuture<'static, bool>>;

impl Fetched {
    /// The keys, if they may have signed a token that names `kid`.
    fn known(&self, kid: Option<&str>) -> Option<Vec<Key>> {
        let keys = self.keys.as_ref()?;
        let known = kid.is_none() || keys.iter().any(|key| key.is(kid));
        known.then(|| keys.clone())
    }

    /// Whether another fetch may begin.
    fn due(&self, now: Instant) -> bool {
        let under_way = |fetching: &Fetching| fetching.peek().is_none();
        let pause = if self.keys.is_some() { PAUSE } else { RETRY };
        !self.fetching.as_ref().is_some_and(under_way) && !recent(self.tried, pause, now)
    }
}

fn recent(at: Option<Instant>, span: Duration, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < span)
}

impl Jwks {
    /// The set behind `url`, which may get so old while it cannot be fetched.
    #[must_use]
    pub(crate) fn new(url: Uri, outbound: Outbound, max_stale: Duration) -> Self {
        Self {
            url,
            outbound,
            max_stale,
            state: Arc::default(),
        }
    }

    /// Fetches it in the background, so that it is there for whoever comes first. In a runtime.
    pub(super) fn prepare(&self, now: Instant) {
        self.refresh(&mut self.lock(), now);
    }

    /// The keys that may have signed `token`; `None` when that cannot be said just now.
    pub(super) async fn keys(&self, token: &str, now: Instant) -> Option<Vec<Key>> {
        let kid = jwt::kid(token);
        let fetching = {
            let mut state = self.lock();
            if state.keys.is_some() && !recent(state.fetched, self.max_stale, now) {
                tracing::warn!("access.jwks is too old to be relied on, and cannot be fetched");
                state.keys = None;
            }
            let known = state.known(kid.as_deref());
            let good = recent(state.fetched, FRESH, now) || state.failed;
            if known.is_none() || !recent(state.fetched, REFRESH, now) {
                self.refresh(&mut state, now);
            }
            match state.fetching.clone() {
                Some(fetching) if known.is_none() || !good => fetching,
                _ => return known,
            }
        };
        let fetched = fetching.await;
        let state = self.lock();
        let known = state.known(kid.as_deref());
        // The set is there, and has no such key.
        known.or_else(|| state.keys.clone().filter(|_| fetched))
    }

    /// How old it is; `None` while there is none.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let fetched = state.fetched.filter(|_| state.keys.is_some())?;
        Some(now.saturating_duration_since(fetched))
    }

    /// Begins a fetch, if one is due, in a task of its own: whoever asked for it may leave.
    fn refresh(&self, state: &mut Fetched, now: Instant) {
        if !state.due(now) {
            return;
        }
        state.tried = Some(now);
        let fetching = tokio::spawn(fetch_into(
            self.outbound.clone(),
            self.url.clone(),
            self.state.clone(),
            now,
        ));
        // A panic in there is a bug that its task reports; there are no new keys then.
        let fetching = fetching.map(|fetched| fetched.unwrap_or(false));
        state.fetching = Some(fetching.boxed().shared());
    }

    fn lock(&self) -> MutexGuard<'_, Fetched> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// Fetches the set into `state`; whether it came.
async fn fetch_into(
    outbound: Outbound,
    url: Uri,
    state: Arc<Mutex<Fetched>>,
    now: Instant,
) -> bool {
    let keys = match tokio::time::timeout(TIMEOUT, fetch(&outbound, &url)).await {
        Ok(Ok(keys)) => Some(keys),
        Ok(Err(why)) => {
            let error: &(dyn std::error::Error + 'static) = &why;
            tracing::warn!(error, "access.jwks cannot be fetched");
            None
        }
        Err(_) => {
            let seconds = TIMEOUT.as_secs();
            tracing::warn!("access.jwks cannot be fetched: no answer in {seconds} s");
            None
        }
    };
    let mut state = state.lock().expect("no holder of this lock panics");
    state.fetching = None;
    state.failed = keys.is_none();
    if state.failed {
        return false;
    }
    (state.keys, state.fetched) = (keys, Some(now));
    true
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use base64::Engine as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::clock;

    #[tokio::test]
    async fn a_set_that_is_too_old_is_not_relied_on() {
        let now = clock::now();
        // Nobody is there.
        let nowhere = Uri::from_static("http://127.0.0.1:1/keys");
        let stale = Duration::from_secs(600);
        let jwks = Jwks::new(nowhere, Outbound::default(), stale);
        let secret = "0123456789abcdef0123456789abcdef";
        let key = Key::parse("HS256", None, Some(secret), None).expect("a key");
        {
            let mut state = jwks.lock();
            (state.keys, state.fetched) = (Some(vec![key]), Some(now));
        }
        let before = now + stale - Duration::from_secs(1);
        assert_eq!(jwks.keys("x", before).await.map(|keys| keys.len()), Some(1));
        assert_eq!(jwks.age(before), Some(stale - Duration::from_secs(1)));
        assert!(jwks.keys("x", now + stale).await.is_none());
        assert_eq!(jwks.age(now + stale), None);
    }

    /// An issuer of sets, whose answers are set here; how often it was asked.
    struct Issuer {
        url: Uri,
        answer: Arc<Mutex<Option<String>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Issuer {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let issuer = Self {
                url: format!("http://{address}/keys").parse().expect("a URL"),
                answer: Arc::default(),
                asked: Arc::default(),
            };
            let (answer, asked) = (issuer.answer.clone(), issuer.asked.clone());
            tokio::spawn(async move {
                let mut kept = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let mut head = [0; 4096];
                    let _: std::io::Result<usize> = stream.read(&mut head).await;
                    let answer = answer.lock().expect("no panic").clone();
                    if let Some(answer) = answer {
                        let _: std::io::Result<()> = stream.write_all(answer.as_bytes()).await;
                    } else {
                        // It never says anything.
                        kept.push(stream);
                    }
                }
            });
            issuer
        }

        /// From now on the set is of an Ed25519 key with this id.
        fn gives(&self, kid: &str) {
            let key = format!(
                "{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"{kid}\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}}]}}"
            );
            let len = key.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{key}"
            );
            *self.answer.lock().expect("no panic") = Some(answer);
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    /// A token that names a key, as far as that is looked at.
    fn naming(kid: &str) -> String {
        let header = format!("{{\"alg\":\"EdDSA\",\"kid\":\"{kid}\"}}");
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header);
        format!("{encoded}.e30.x")
    }

    async fn ids(jwks: &Jwks, token: &str, now: Instant) -> Vec<String> {
        let keys = jwks.keys(token, now).await.unwrap_or_default();
        keys.into_iter().filter_map(|key| key.kid).collect()
    }

    #[tokio::test]
    async fn a_key_that_is_new_is_fetched_and_one_that_is_made_up_is_no_flood() {
        let issuer = Issuer::start().await;
        issuer.gives("old");
        let jwks = Jwks::new(
            issuer.url.clone(),
            Outbound::default(),
            Duration::from_secs(3600),
        );
        let now = clock::now();
        assert_eq!(ids(&jwks, &naming("old"), now).await, ["old"]);
        issuer.gives("new");
        // The issuer has turned to another key: until the pause is over nobody can have it.
        for n in 0..200 {
            assert_eq!(
                ids(&jwks, &naming(&format!("made-up-{n}")), now).await,
                [""; 0]
            );
        }
        assert_eq!(
            (ids(&jwks, &naming("old"), now).await, issuer.asked()),
            (vec!["old".to_owned()], 1)
        );
        let later = now + PAUSE;
        assert_eq!(ids(&jwks, &naming("new"), later).await, ["new"]);
        for n in 0..200 {
            ids(&jwks, &naming(&format!("made-up-{n}")), later).await;
        }
        assert_eq!(issuer.asked(), 2);
        // The one before is not among them any more: whoever signs with it is refused, not put off.
        assert_eq!(ids(&jwks, &naming("old"), later + PAUSE).await, ["new"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_says_nothing_is_not_waited_for() {
        let issuer = Issuer::start().await;
        let jwks = Jwks::new(
            issuer.url.clone(),
            Outbound::default(),
            Duration::from_secs(3600),
        );
        let (now, begun) = (clock::now(), tokio::time::Instant::now());
        assert!(jwks.keys(&naming("a"), now).await.is_none());
        assert!(begun.elapsed() >= TIMEOUT && begun.elapsed() < 2 * TIMEOUT);
        // What is known is good meanwhile.
        issuer.gives("a");
        assert_eq!(ids(&jwks, &naming("a"), now + RETRY).await, ["a"]);
        *issuer.answer.lock().expect("no panic") = None;
        let later = now + FRESH + RETRY;
        assert_eq!(ids(&jwks, &naming("a"), later).await, ["a"]);
        assert_eq!(jwks.age(later), Some(FRESH));
    }
}
