//! Asking the app who someone is, as nginx's `auth_request` and Traefik's `forwardAuth` do.
//!
//! A crowd that comes at once asks as often as there are credentials in it: one question is under way for each,
//! its answer is for all who wait for it, and it is remembered. Logins with open streams are asked about again
//! now and then.

mod answer;
mod turns;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, Once, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{HeaderMap, Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use moka::{Expiry, future::Cache};

use super::{
    Denied, Identity, Name,
    credential::{Credential, copy, path_and_query},
    login::{Asking, Login},
};
use crate::{backoff, clock, limits::source, outbound::Outbound};
use answer::Said;
use turns::Turns;

/// How much is remembered, in bytes.
const REMEMBERED: u64 = 16 << 20;
/// How long it is remembered at most that someone is nobody, or is not let in: they are about to log in.
const NOBODY: Duration = Duration::from_secs(1);
/// How long someone waits for a turn to ask: the app's own time is counted from then.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon the app is asked again that could not say whether a login is still good.
const AGAIN: Duration = Duration::from_secs(30);
/// How often it is looked at which logins are to be asked about.
const LOOK: Duration = Duration::from_secs(1);
/// What of an answer's body is read, so that its connection can be used again, and how long that may take.
const BODY: usize = 64 << 10;
const BODY_TIME: Duration = Duration::from_secs(1);

/// `access.session` and what is beside it.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// `access.session`
    pub url: Uri,
    /// `access.session_cache`: how long an answer is remembered.
    pub cache: Duration,
    /// `access.session_timeout`: how long an answer is waited for.
    pub timeout: Duration,
    /// `access.session_recheck`: how often the app is asked again about those who are there.
    pub recheck: Duration,
    /// `access.session_cookies`: which cookies say who someone is; all if none is named.
    pub cookies: Vec<String>,
    /// `access.session_by_uri`: whether the app decides by what is asked for, too.
    pub by_uri: bool,
}

/// The app's endpoint that says who someone is.
#[derive(Debug)]
pub(crate) struct Session {
    settings: SessionSettings,
    outbound: Outbound,
    remembered: Cache<Credential, Answer>,
    /// How often something was forgotten.
    generation: AtomicU64,
    turns: Turns,
    logins: Mutex<HashMap<Credential, Known>>,
    /// Those in whose place there are others.
    replaced: Mutex<Vec<Arc<Login>>>,
}

/// A login with open streams, or remembered.
#[derive(Debug)]
struct Known {
    login: Weak<Login>,
    /// Without its login.
    identity: Identity,
    /// When the app is to be asked again.
    due: Instant,
}

/// What came of a question.
#[derive(Clone, Debug)]
struct Answer {
    identity: Result<Identity, Denied>,
    good_for: Duration,
}

/// Each answer is remembered for as long as it is good.
struct GoodFor;

impl Expiry<Credential, Answer> for GoodFor {
    fn expire_after_create(&self, _: &Credential, answer: &Answer, _: Instant) -> Option<Duration> {
        Some(answer.good_for)
    }
}

impl Session {
    /// The endpoint of these settings.
    #[must_use]
    pub(crate) fn new(settings: SessionSettings, outbound: Outbound) -> Self {
        let weight = |credential: &Credential, _: &Answer| {
            // What the answer itself takes is about as much again.
            u32::try_from(2 * credential.bytes()).unwrap_or(u32::MAX)
        };
        Self {
            settings,
            outbound,
            remembered: Cache::builder()
                .max_capacity(REMEMBERED)
                .weigher(weight)
                .expire_after(GoodFor)
                .support_invalidation_closures()
                .build(),
            generation: AtomicU64::new(0),
            turns: Turns::default(),
            logins: Mutex::default(),
            replaced: Mutex::default(),
        }
    }

    /// Who asks. Whoever shows nothing is anonymous, and the app is not asked.
    ///
    /// # Errors
    ///
    /// [`Denied::BadCredential`] when the app says 401 or 403, [`Denied::Expired`] when a session is just over;
    /// [`Denied::Unavailable`] when it says nothing clear, or nothing in time: it fails closed.
    pub(super) async fn identify(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        client: IpAddr,
    ) -> Result<Identity, Denied> {
        let SessionSettings {
            cookies, by_uri, ..
        } = &self.settings;
        let Some(credential) = Credential::of(headers, uri, cookies, *by_uri) else {
            return Ok(Identity::anonymous());
        };
        let request = Asking {
            client,
            uri: path_and_query(uri).into(),
            user_agent: headers.get(header::USER_AGENT).and_then(copy),
        };
        let login = Login {
            credential: credential.clone(),
            request,
        };
        let answer = Box::pin(self.answer(login));
        self.remembered.get_with(credential, answer).await.identity
    }

    /// Forgets what is remembered of a user, and what is being asked.
    pub(super) fn forget(&self, user: &Name) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let user = user.clone();
        let is_theirs = move |_: &Credential, answer: &Answer| {
            let own = answer.identity.as_ref().ok().and_then(Identity::user);
            own == Some(&user)
        };
        let forgotten = self.remembered.invalidate_entries_if(is_theirs);
        forgotten.expect("closures are supported");
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks the app again about those who are there, and says whom it does not know any more. Never ends.
    pub(super) async fn keep_asking(&self, mut ended: impl FnMut(&Arc<Login>)) {
        let mut asking = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Each branch is cancel-safe: a tick that is not taken comes again, and questions are kept.
            tokio::select! {
                _ = ticks.tick() => {
                    let replaced = std::mem::take(&mut *self.replaced.lock().expect(UNPOISONED));
                    for login in &replaced {
                        self.end(login, &mut ended).await;
                    }
                    // What is not good any more is let go of, with its login.
                    self.remembered.run_pending_tasks().await;
                    for login in self.due(clock::now()) {
                        asking.push(async move {
                            let answer = self.ask_in_turn(&login).await;
                            (login, answer)
                        });
                    }
                }
                Some((login, answer)) = asking.next() => {
                    if !self.is_still_good(&login, &answer) {
                        self.end(&login, &mut ended).await;
                    }
                }
            }
        }
    }

    /// Those that are to be asked about now.
    fn due(&self, now: Instant) -> Vec<Arc<Login>> {
        let mut due = Vec::new();
        self.lock().retain(|_, known| {
            let Some(login) = known.login.upgrade() else {
                return false;
            };
            if known.due <= now {
                known.due = self.next_look(now);
                due.push(login);
            }
            true
        });
        due
    }

    /// When a login is asked about again: spread, as many come at once.
    fn next_look(&self, now: Instant) -> Instant {
        now + backoff::last_fifth(self.settings.recheck, fastrand::f64())
    }

    /// Whether the app still says of a login what it said, as far as that is clear.
    fn is_still_good(&self, login: &Arc<Login>, answer: &Result<Identity, Denied>) -> bool {
        let mut logins = self.lock();
        let known = logins.get_mut(&login.credential);
        let Some(known) = known.filter(|known| known.login.as_ptr() == Arc::as_ptr(login)) else {
            // Another is in its place, or it has ended.
            return true;
        };
        match answer {
            Ok(identity) => identity.is_as(&known.identity),
            Err(Denied::Unavailable) => {
                known.due = known.due.min(clock::now() + AGAIN);
                true
            }
            Err(_) => false,
        }
    }

    /// Ends a login: what was settled by it does not hold any more.
    async fn end(&self, login: &Arc<Login>, ended: &mut impl FnMut(&Arc<Login>)) {
        {
            let mut logins = self.lock();
            let known = logins.get(&login.credential);
            if known.is_some_and(|known| known.login.as_ptr() == Arc::as_ptr(login)) {
                logins.remove(&login.credential);
            }
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.remembered.invalidate(&login.credential).await;
        ended(login);
    }

    /// Asks about a login, and says for how long the answer is good.
    async fn answer(&self, login: Login) -> Answer {
        let generation = self.generation();
        let identity = self.ask_in_turn(&login).await;
        let now = clock::now();
        let cache = self.settings.cache;
        let good_for = match &identity {
            _ if generation != self.generation() => Duration::ZERO,
            Err(Denied::Unavailable) => Duration::ZERO,
            Ok(identity) if identity.user().is_some() => {
                let ends = identity.expires();
                ends.map_or(cache, |ends| cache.min(ends.saturating_duration_since(now)))
            }
            Ok(_) | Err(_) => cache.min(NOBODY),
        };
        let identity = identity.map(|identity| match identity.user() {
            Some(_) => self.known_by(login, identity, now),
            None => identity,
        });
        Answer { identity, good_for }
    }

    /// The identity with its login, which is one for all streams that are opened with it.
    fn known_by(&self, login: Login, identity: Identity, now: Instant) -> Identity {
        let mut logins = self.lock();
        if let Some(known) = logins.get_mut(&login.credential)
            && let Some(there) = known.login.upgrade()
        {
            if known.identity.is_as(&identity) {
                known.due = self.next_look(now);
                return identity.with_login(there);
            }
            // It is another's now, or they may do other things.
            self.replaced.lock().expect(UNPOISONED).push(there);
        }
        let credential = login.credential.clone();
        let login = Arc::new(login);
        let known = Known {
            login: Arc::downgrade(&login),
            identity: identity.clone(),
            due: self.next_look(now),
        };
        logins.insert(credential, known);
        identity.with_login(login)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Credential, Known>> {
        self.logins.lock().expect(UNPOISONED)
    }

    /// Waits for a turn, then for the answer.
    async fn ask_in_turn(&self, login: &Login) -> Result<Identity, Denied> {
        let turn = self.turns.take(source(login.request.client));
        let Ok(_turn) = tokio::time::timeout(PATIENCE, turn).await else {
            let seconds = PATIENCE.as_secs();
            tracing::warn!("access.session: too many wait to be asked about, one for {seconds} s");
            return Err(Denied::Unavailable);
        };
        let answer = tokio::time::timeout(self.settings.timeout, self.ask(login)).await;
        answer.unwrap_or_else(|_| {
            let millis = self.settings.timeout.as_millis();
            tracing::warn!("access.session: no answer in {millis} ms");
            Err(Denied::Unavailable)
        })
    }

    async fn ask(&self, login: &Login) -> Result<Identity, Denied> {
        let down = |error: &(dyn std::error::Error + 'static)| {
            tracing::warn!(error, "access.session cannot be asked");
            Denied::Unavailable
        };
        let unclear = |what: &str| {
            tracing::warn!("access.session: {what}");
            Err(Denied::Unavailable)
        };
        let request = self.question(login).map_err(|error| down(&error))?;
        let answer = self.outbound.ask(request).await;
        let (head, body) = answer.map_err(|error| down(&error))?.into_parts();
        let said = answer::read(head.status, &head.headers, &self.settings.url, clock::now());
        if said == Said::NobodyIfEmpty {
            return if is_empty(body).await {
                Ok(Identity::anonymous())
            } else {
                unclear("the answer is a page, and has no Remote-User")
            };
        }
        if !body.is_end_stream() {
            tokio::spawn(tokio::time::timeout(BODY_TIME, read_to_end(body)));
        }
        match said {
            Said::Someone(identity) => Ok(identity),
            Said::Nobody | Said::NobodyIfEmpty => Ok(Identity::anonymous()),
            Said::Redirected => {
                tell_of_redirects(head.headers.get(header::LOCATION));
                Ok(Identity::anonymous())
            }
            Said::Refused => Err(Denied::BadCredential("the session is not good here")),
            Said::Over => Err(Denied::Expired),
            Said::Unclear(what) => unclear(&what),
        }
    }

    /// The question: the credential, and what is known of the request that it came with.
    fn question(&self, login: &Login) -> Result<Request<Full<bytes::Bytes>>, http::Error> {
        let Login {
            credential,
            request,
        } = login;
        let mut question = Request::get(&self.settings.url)
            .header("x-forwarded-uri", &*request.uri)
            .header("x-forwarded-method", "GET")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-for", request.client.to_canonical().to_string());
        if !credential.host().is_empty() {
            question = question.header("x-forwarded-host", credential.host());
        }
        if let Some(user_agent) = &request.user_agent {
            question = question.header(header::USER_AGENT, user_agent);
        }
        for (name, value) in credential.fields() {
            question = question.header(name, value);
        }
        question.body(Full::default())
    }
}

const UNPOISONED: &str = "no holder of this lock panics";

/// Whether nothing follows the head of an answer.
async fn is_empty(mut body: Incoming) -> bool {
    while let Some(frame) = body.frame().await {
        let is_empty = |frame: http_body::Frame<bytes::Bytes>| {
            frame.data_ref().is_none_or(bytes::Bytes::is_empty)
        };
        if !frame.is_ok_and(is_empty) {
            return false;
        }
    }
    true
}

/// Reads what of an answer nobody needs: its connection can be used again then.
async fn read_to_end(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > BODY {
            return;
        }
    }
}

/// Says once that those are taken for nobody whom the app sends elsewhere.
fn tell_of_redirects(location: Option<&header::HeaderValue>) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        // What its query says may be a secret.
        let to = location.and_then(|to| to.to_str().ok()).unwrap_or_default();
        let to = to.split(['?', '#']).next().unwrap_or_default();
        tracing::info!(
            "access.session answers with a redirect to {to}: such visitors are anonymous, as those are who have \
             not logged in"
        );
    });
}
