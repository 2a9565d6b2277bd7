//! Asking the app who someone is, as nginx's `auth_request` and Traefik's `forwardAuth` do.
//!
//! A crowd that comes at once asks as often as there are credentials in it: one question is under way for each,
//! in a task of its own; its answer is for all who wait for it, and it is remembered. Logins with open streams
//! are asked about again now and then.

mod answer;
mod turns;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, Once, Weak},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Shared},
    stream::FuturesUnordered,
};
use http::{HeaderMap, Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use moka::{Expiry, sync::Cache};

use super::{
    AccessMetrics, Denied, Identity, Name,
    credential::{Credential, copy, path_and_query},
    login::{Asking, Login},
};
use crate::{
    backoff, clock,
    limits::{count_out, source},
    outbound::Outbound,
};
use answer::Said;
use turns::Turns;

/// How much is remembered of those who are known, and of those who are not, in bytes.
const KNOWN: u64 = 16 << 20;
const UNKNOWN: u64 = 1 << 20;
/// How long it is remembered at most that someone is nobody, or is not let in: they are about to log in.
const NOBODY: Duration = Duration::from_secs(1);
/// How many questions there may be, under way and waiting, and how many of an address.
const QUESTIONS: usize = 16_384;
const OF_AN_ADDRESS: usize = QUESTIONS / 16;
/// How long someone waits for an answer at most, its turn included: the app's own time is counted from that.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon the app is asked again that could not say whether a login is still good.
const AGAIN: Duration = Duration::from_secs(30);
/// How often it is looked at which logins are to be asked about, and about how many at a time.
const LOOK: Duration = Duration::from_secs(1);
const LOOKED_AT: usize = 64;
/// How far apart two ends of the same session may seem, which are told in whole seconds from now.
const SLACK: Duration = Duration::from_secs(2);
/// How many users are remembered who were disconnected just now.
const FORGOTTEN: usize = 1024;
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
pub(crate) struct Session(Arc<Endpoint>);

struct Endpoint {
    settings: SessionSettings,
    outbound: Outbound,
    metrics: AccessMetrics,
    /// Those who are known.
    known: Cache<Credential, Answer>,
    /// Those who are nobody, or are not let in.
    unknown: Cache<Credential, Answer>,
    questions: Mutex<Questions>,
    turns: Turns,
    logins: Mutex<Logins>,
    /// When the log was told last that there is no answer.
    told: Mutex<Option<Instant>>,
}

/// A question that waits or is under way, for all who wait for its answer.
type Question = Shared<BoxFuture<'static, Answer>>;

#[derive(Default)]
struct Questions {
    all: HashMap<Credential, Question>,
    /// How many each address has caused. Invariant: none is 0.
    of: HashMap<IpAddr, usize>,
}

#[derive(Default)]
struct Logins {
    /// Those that the app is asked about again.
    known: HashMap<Credential, Known>,
    /// Some have ended since streams were looked at.
    have_ended: bool,
    /// Users who were disconnected, each with its number.
    forgotten: VecDeque<(u64, Name)>,
    next: u64,
}

/// A login with open streams, or remembered.
struct Known {
    login: Weak<Login>,
    /// Without its login.
    identity: Identity,
    /// When the app is to be asked again.
    due: Instant,
    /// It is being asked.
    asking: bool,
}

/// What came of a question.
#[derive(Clone, Debug)]
struct Answer {
    identity: Result<Identity, Denied>,
    good_for: Duration,
}

impl Answer {
    fn has_ended(&self) -> bool {
        let login = self.identity.as_ref().ok().and_then(Identity::login);
        login.is_some_and(|login| login.is_ended())
    }
}

/// Each answer is remembered for as long as it is good.
struct GoodFor;

impl Expiry<Credential, Answer> for GoodFor {
    fn expire_after_create(&self, _: &Credential, answer: &Answer, _: Instant) -> Option<Duration> {
        Some(answer.good_for)
    }

    fn expire_after_update(
        &self,
        _: &Credential,
        answer: &Answer,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(answer.good_for)
    }
}

fn remembered(bytes: u64) -> Cache<Credential, Answer> {
    let weight = |credential: &Credential, answer: &Answer| {
        let identity = answer.identity.as_ref();
        let login = identity.ok().and_then(Identity::login);
        let login = login.map_or(0, |login| login.bytes());
        // Who it is is kept twice: for whoever comes, and to be compared with what is said later.
        let identity = identity.map_or(0, |identity| 2 * identity.bytes());
        u32::try_from(2 * credential.bytes() + login + identity).unwrap_or(u32::MAX)
    };
    let cache = Cache::builder().max_capacity(bytes).weigher(weight);
    cache.expire_after(GoodFor).build()
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The endpoint of these settings.
    #[must_use]
    pub(crate) fn new(
        settings: SessionSettings,
        outbound: Outbound,
        metrics: AccessMetrics,
    ) -> Self {
        Self(Arc::new(Endpoint {
            settings,
            outbound,
            metrics,
            known: remembered(KNOWN),
            unknown: remembered(UNKNOWN),
            questions: Mutex::default(),
            turns: Turns::default(),
            logins: Mutex::default(),
            told: Mutex::default(),
        }))
    }

    /// Who asks. Whoever shows nothing is anonymous, and the app is not asked. In a runtime.
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
        } = &self.0.settings;
        let Some(credential) = Credential::of(headers, uri, cookies, *by_uri) else {
            return Ok(Identity::anonymous());
        };
        if let Some(answer) = self.0.remembered(&credential) {
            return answer.identity;
        }
        let request = Asking {
            client,
            uri: path_and_query(uri).into(),
            user_agent: headers.get(header::USER_AGENT).and_then(copy),
        };
        let question = self.0.question(Login::new(credential, request), false);
        let question = question.ok_or(Denied::Unavailable)?;
        match tokio::time::timeout(PATIENCE, question).await {
            Ok(answer) => answer.identity,
            Err(_) => Err(Denied::Unavailable),
        }
    }

    /// Forgets what is remembered of a user, and what is being asked.
    pub(super) fn forget(&self, user: &Name) {
        let mut logins = self.0.logins();
        logins.next += 1;
        let number = logins.next;
        logins.forgotten.push_back((number, user.clone()));
        if logins.forgotten.len() > FORGOTTEN {
            logins.forgotten.pop_front();
        }
        logins.known.retain(|_, known| {
            let is_theirs = known.identity.user() == Some(user);
            if is_theirs && let Some(login) = known.login.upgrade() {
                login.end();
            }
            !is_theirs
        });
    }

    /// Asks the app again about those who are there; `ended` is called when some of their logins have ended.
    /// Never ends.
    pub(super) async fn keep_asking(&self, mut ended: impl FnMut()) {
        let mut asking = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Each branch is cancel-safe: a tick that is not taken comes again, and questions are kept.
            tokio::select! {
                _ = ticks.tick() => {
                    // What is not good any more is let go of, with its login.
                    self.0.known.run_pending_tasks();
                    self.0.unknown.run_pending_tasks();
                    for login in self.0.due(clock::now(), LOOKED_AT - asking.len()) {
                        asking.push(self.0.clone().ask_again(login));
                    }
                    if std::mem::take(&mut self.0.logins().have_ended) {
                        ended();
                    }
                }
                Some(()) = asking.next() => {}
            }
        }
    }
}

impl Endpoint {
    /// What is remembered of a credential, and still holds.
    fn remembered(&self, credential: &Credential) -> Option<Answer> {
        let known = self.known.get(credential);
        let known = known.filter(|answer| !answer.has_ended());
        known.or_else(|| self.unknown.get(credential))
    }

    /// The question about a login: the one that is under way, or a new one, in a task of its own, so that it
    /// goes on whoever leaves. `None` when there are too many.
    fn question(self: &Arc<Self>, login: Login, is_again: bool) -> Option<Question> {
        let from = source(login.request.client);
        let mut questions = self.questions.lock().expect(UNPOISONED);
        if let Some(question) = questions.all.get(&login.credential) {
            return Some(question.clone());
        }
        // One that was under way may have been answered since it was looked for.
        if !is_again && let Some(answer) = self.remembered(&login.credential) {
            return Some(std::future::ready(answer).boxed().shared());
        }
        let own = questions.of.get(&from).copied().unwrap_or(0);
        if !is_again && (own >= OF_AN_ADDRESS || questions.all.len() >= QUESTIONS) {
            drop(questions);
            self.warn("too many wait to be asked about");
            return None;
        }
        *questions.of.entry(from).or_default() += 1;
        let credential = login.credential.clone();
        let asked = tokio::spawn(self.clone().ask_and_remember(login, is_again));
        // A panic in there is a bug that its task reports.
        let asked = asked.map(|answer| {
            answer.unwrap_or(Answer {
                identity: Err(Denied::Unavailable),
                good_for: Duration::ZERO,
            })
        });
        let question = asked.boxed().shared();
        questions.all.insert(credential, question.clone());
        Some(question)
    }

    async fn ask_and_remember(self: Arc<Self>, login: Login, is_again: bool) -> Answer {
        let began = self.logins().next;
        let credential = login.credential.clone();
        let _asking = Asked(&self, &credential, source(login.request.client));
        let identity = self.ask_in_turn(&login, is_again).await;
        let answer = self.settle(login, identity, began, clock::now());
        if !answer.good_for.is_zero() {
            let is_known = matches!(&answer.identity, Ok(identity) if identity.user().is_some());
            let (cache, other) = if is_known {
                (&self.known, &self.unknown)
            } else {
                (&self.unknown, &self.known)
            };
            other.invalidate(&credential);
            cache.insert(credential.clone(), answer.clone());
        }
        answer
    }

    /// What an answer to a question means that was asked when so many had been forgotten.
    fn settle(
        &self,
        login: Login,
        identity: Result<Identity, Denied>,
        began: u64,
        now: Instant,
    ) -> Answer {
        let cache = self.settings.cache;
        let mut logins = self.logins();
        match identity {
            Ok(identity) if identity.user().is_some() => {
                let is_forgotten = logins.is_forgotten(&identity, began);
                let ends = identity.expires();
                let ends = ends.map(|ends| ends.saturating_duration_since(now));
                let good_for = ends.map_or(cache, |left| cache.min(left));
                let due = self.next_look(now);
                let identity = logins.known_by(login, identity, due, is_forgotten);
                Answer {
                    identity: Ok(identity),
                    good_for: if is_forgotten {
                        Duration::ZERO
                    } else {
                        good_for
                    },
                }
            }
            Err(Denied::Unavailable) => {
                let again = now + backoff::last_fifth(AGAIN, fastrand::f64());
                if let Some(known) = logins.known.get_mut(&login.credential) {
                    (known.due, known.asking) = (known.due.min(again), false);
                }
                Answer {
                    identity: Err(Denied::Unavailable),
                    good_for: Duration::ZERO,
                }
            }
            identity => {
                // Whoever it was, they are not any more.
                logins.end(&login.credential);
                Answer {
                    identity,
                    good_for: cache.min(NOBODY),
                }
            }
        }
    }

    /// At most so many of those that are to be asked about now.
    fn due(&self, now: Instant, most: usize) -> Vec<Arc<Login>> {
        let mut due = Vec::new();
        self.logins().known.retain(|_, known| {
            let Some(login) = known.login.upgrade() else {
                return false;
            };
            if known.due <= now && !known.asking && due.len() < most {
                known.due = self.next_look(now);
                known.asking = true;
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

    async fn ask_again(self: Arc<Self>, login: Arc<Login>) {
        let again = Login::new(login.credential.clone(), login.request.clone());
        if let Some(question) = self.question(again, true) {
            question.await;
        }
        if let Some(known) = self.logins().known.get_mut(&login.credential) {
            known.asking = false;
        }
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().expect(UNPOISONED)
    }

    /// Waits for a turn, then for the answer.
    async fn ask_in_turn(&self, login: &Login, is_again: bool) -> Result<Identity, Denied> {
        let _turn = if is_again {
            self.turns.take_again().await
        } else {
            self.turns.take(source(login.request.client)).await
        };
        let begun = clock::now();
        let answer = tokio::time::timeout(self.settings.timeout, self.ask(login)).await;
        let took = clock::now().saturating_duration_since(begun);
        self.metrics.session.observe(took.as_secs_f64());
        answer.unwrap_or_else(|_| {
            self.warn(&format!(
                "no answer in {} ms",
                self.settings.timeout.as_millis()
            ));
            Err(Denied::Unavailable)
        })
    }

    /// Says in the log why someone is not known, once a second.
    fn warn(&self, what: &str) {
        let (mut told, now) = (self.told.lock().expect(UNPOISONED), clock::now());
        let is_recent = |told: Instant| now.saturating_duration_since(told) < LOOK;
        if !told.is_some_and(is_recent) {
            *told = Some(now);
            tracing::warn!("access.session: {what}");
        }
    }

    async fn ask(&self, login: &Login) -> Result<Identity, Denied> {
        let down = |error: &dyn std::error::Error| {
            let cause = error.source().map(|cause| format!(": {cause}"));
            self.warn(&format!(
                "it cannot be asked: {error}{}",
                cause.unwrap_or_default()
            ));
            Denied::Unavailable
        };
        let unclear = |what: &str| {
            self.warn(what);
            Err(Denied::Unavailable)
        };
        let request = self.asked(login).map_err(|error| down(&error))?;
        let answer = self.outbound.ask(request).await;
        let (head, body) = answer.map_err(|error| down(&error))?.into_parts();
        let said = answer::read(head.status, &head.headers, &self.settings.url, clock::now());
        if matches!(said, Said::NobodyIfEmpty) {
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
    fn asked(&self, login: &Login) -> Result<Request<Full<bytes::Bytes>>, http::Error> {
        let (credential, request) = (&login.credential, &login.request);
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

impl Logins {
    /// Whether whoever it is was disconnected since so many had been.
    fn is_forgotten(&self, identity: &Identity, began: u64) -> bool {
        let oldest = self
            .forgotten
            .front()
            .map_or(u64::MAX, |(number, _)| *number);
        // More than are remembered have been meanwhile.
        let unsure = self.next > began && oldest > began + 1;
        let since = self.forgotten.iter().rev();
        let mut since = since.take_while(|(number, _)| *number > began);
        unsure || since.any(|(_, user)| identity.user() == Some(user))
    }

    /// The identity with its login, which is one for all streams that are opened with it. If it does not hold any
    /// more already, nor does the login.
    fn known_by(
        &mut self,
        login: Login,
        identity: Identity,
        due: Instant,
        is_over: bool,
    ) -> Identity {
        if let Some(known) = self.known.get_mut(&login.credential)
            && let Some(there) = known.login.upgrade()
            && !is_over
            && known.identity.is_as(&identity)
            && !ends_earlier(&identity, &known.identity)
        {
            (known.due, known.asking) = (due, false);
            return identity.with_login(there);
        }
        // It is another's now, or they may do other things.
        self.end(&login.credential);
        let credential = login.credential.clone();
        let login = Arc::new(login);
        if is_over {
            login.end();
            return identity.with_login(login);
        }
        let known = Known {
            login: Arc::downgrade(&login),
            identity: identity.clone(),
            due,
            asking: false,
        };
        self.known.insert(credential, known);
        identity.with_login(login)
    }

    /// Ends the login of a credential, if there is one: what was settled by it does not hold any more.
    fn end(&mut self, credential: &Credential) {
        let known = self.known.remove(credential);
        if let Some(login) = known.and_then(|known| known.login.upgrade()) {
            login.end();
            self.have_ended = true;
        }
    }
}

/// Whether a session ends before it was said to.
fn ends_earlier(now: &Identity, before: &Identity) -> bool {
    match (now.expires(), before.expires()) {
        (Some(now), Some(before)) => now + SLACK < before,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// A question that is under way; dropping it lets another be asked.
struct Asked<'a>(&'a Endpoint, &'a Credential, IpAddr);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut questions = self.0.questions.lock().expect(UNPOISONED);
        questions.all.remove(self.1);
        count_out(&mut questions.of, &self.2);
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
