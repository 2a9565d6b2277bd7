//! What may be written in `seventh.toml`, the environment and on the command line.
//!
//! A module owns the type of its own settings; this one fills them in, each with the line that the
//! reference shows, and reports every mistake at once.

mod access;
mod cluster;
mod control;
mod drain;
mod events;
mod file;
mod history;
mod items;
mod limits;
mod log;
mod proxy;
mod range;
mod reader;
mod secret;
mod tls;
mod topics;
mod value;

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use crate::{
    access::{AccessSettings, Rule},
    drain::DrainSettings,
    history::{ClusterSettings, LogSettings},
    hub::{Retention, TopicRules},
    limits::Limits,
    net::{Advertise, Http3Settings},
    networks::Networks,
    proxy::{RelaySettings, RouteSettings, covers},
    service::{EventSettings, public_paths},
    tls::CertificateFiles,
    topic::STATS,
};

pub use control::{Control, ControlAt};
pub use log::{Log, LogFormat};
pub use reader::{Mistake, Mistakes, Reader, ReferenceLine, Sources, variable};
pub use value::Raw;

/// The file that is read when it is there and no other is named.
pub const FILE: &str = "seventh.toml";

/// Everything that is configured, checked whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https.listen`
    pub https: Vec<SocketAddr>,
    /// `https.http3` and `https.advertise`
    pub http3: Http3Settings,
    /// `https.hsts`
    pub hsts: Option<Duration>,
    /// `http.listen`
    pub http: Vec<SocketAddr>,
    /// `[control]`
    pub control: Control,
    /// `[tls]`
    pub tls: CertificateFiles,
    /// `[events]`
    pub events: EventSettings,
    /// `[access]` and `[groups]`
    pub access: AccessSettings,
    /// `[history]`
    pub history: Retention,
    /// `history.directory`, if history outlives the process.
    pub history_log: Option<LogSettings>,
    /// `[cluster]`
    pub cluster: Option<ClusterSettings>,
    /// `[[topic]]`
    pub topics: TopicRules,
    /// `[[route]]` and `proxy.upstream`
    pub routes: Vec<RouteSettings>,
    /// `[relay]`
    pub relay: RelaySettings,
    /// `access.prefix`, without its last slash, if a route covers what would else be the hub's.
    pub prefix: Option<String>,
    /// `access.prefix`, without its last slash.
    pub own: String,
    /// `trusted.networks`
    pub trusted: Networks,
    /// `trusted.proxy_protocol`
    pub balancers: Networks,
    /// `[limits]`
    pub limits: Limits,
    /// `limits.exempt`: whose addresses may take any number of places.
    pub exempt: Networks,
    /// `[drain]`
    pub drain: DrainSettings,
    /// `[log]`
    pub log: Log,
    /// `demo.enabled`, or whether nothing else is configured.
    pub demo: bool,
    /// What may be meant otherwise.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the file, if there is one, and the environment, and takes `flags` over both.
    ///
    /// # Errors
    ///
    /// All [`Mistakes`] at once.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: BTreeMap<String, Raw>,
    ) -> Result<Self, Mistakes> {
        let mut sources = Sources {
            flags,
            ..Sources::default()
        };
        let (path, named) = match file {
            Some(path) => (path, true),
            None => (Path::new(FILE), false),
        };
        match std::fs::read_to_string(path) {
            Ok(text) => file::read(&path.display().to_string(), &text, &mut sources),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {}
            Err(error) => sources.mistakes.push(Mistake {
                key: path.display().to_string(),
                what: format!("cannot be read: {error}"),
            }),
        }
        sources.environment = environment
            .filter(|(name, _)| name.starts_with("SEVENTH_"))
            .map(|(name, value)| (name, Raw::One(value)))
            .collect();
        Self::from_sources(sources)
    }

    /// Reads one configuration file's text alone.
    ///
    /// # Errors
    ///
    /// All [`Mistakes`] at once.
    pub fn from_text(text: &str) -> Result<Self, Mistakes> {
        let mut sources = Sources::default();
        file::read("the text", text, &mut sources);
        Self::from_sources(sources)
    }

    /// Takes every setting from `sources`.
    ///
    /// # Errors
    ///
    /// All [`Mistakes`] at once.
    pub fn from_sources(sources: Sources) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(sources);
        let config = take(&mut reader);
        let warnings = reader.finish()?;
        Ok(Self { warnings, ..config })
    }

    /// The limits that nobody configures: the name of each, and what it is.
    pub fn fixed_limits() -> impl Iterator<Item = (&'static str, &'static str)> {
        let fixed = crate::limits::Limit::FIXED.iter();
        fixed.map(|(limit, what)| (limit.key(), *what))
    }

    /// Every setting there is.
    #[must_use]
    pub fn reference() -> Vec<ReferenceLine> {
        let mut reader = Reader::new(Sources::default());
        take(&mut reader);
        let mut entries = reader.entries().to_vec();
        // Each section in one piece, wherever its settings were taken; the first stays first.
        let mut sections: Vec<&str> = entries.iter().map(ReferenceLine::section).collect();
        let mut seen = HashSet::new();
        sections.retain(|section| seen.insert(*section));
        entries.sort_by_key(|entry| {
            sections
                .iter()
                .position(|section| *section == entry.section())
        });
        entries
    }
}

fn take(reader: &mut Reader) -> Config {
    let https = reader.take(
        "https.listen",
        loopback(8443),
        "Where browsers connect, over TCP (HTTP/1.1, HTTP/2) and UDP (HTTP/3) on the same port.",
    );
    let hsts = reader.take(
        "https.hsts",
        None,
        "How long browsers are told to come over HTTPS alone (`Strict-Transport-Security`), such as `365d`. Unset: \
         they are not told.",
    );
    let http3 = take_http3(reader);
    let http: Option<Vec<SocketAddr>> = reader.take(
        "http.listen",
        None,
        "Where browsers are sent on to HTTPS that come without it, such as `0.0.0.0:80`.",
    );
    let control = control::take(reader);
    let tls = tls::take(reader);
    let routes = proxy::take_routes(reader);
    let mut own = proxy::take_prefix(reader);
    own.pop();
    let (events_path, prefix) = hub_paths(&routes, &own);
    let history = history::take(reader);
    let kept = history::take_kept(reader, &history);
    let cluster = cluster::take(reader, &kept);
    let history_log = kept.log().filter(|_| cluster.is_none());
    let config = Config {
        https,
        http3,
        hsts,
        http: http.unwrap_or_default(),
        control,
        tls,
        events: events::take(reader, events_path),
        access: access::take(reader),
        history,
        history_log,
        cluster,
        topics: topics::take(reader),
        relay: proxy::take_relay(reader),
        trusted: proxy::take_trusted(reader),
        balancers: proxy::take_balancers(reader),
        limits: limits::take(reader),
        exempt: limits::take_exempt(reader),
        drain: drain::take(reader),
        log: log::take(reader),
        demo: false,
        warnings: Vec::new(),
        prefix,
        own,
        routes,
    };
    let demo = take_demo(reader, &config);
    let mut access = config.access;
    if demo {
        // The page shows what the edge says of itself, unless a rule before this one says otherwise.
        let all = ["authenticated", "anonymous"].map(str::to_owned);
        access.rules.extend(Rule::parse(STATS, &all));
    }
    Config {
        demo,
        access,
        ..config
    }
}

fn take_http3(reader: &mut Reader) -> Http3Settings {
    let enabled = reader.take(
        "https.http3",
        true,
        "Whether HTTP/3 is spoken. `false`: no UDP is opened, and browsers forget what they were told (`Alt-Svc: \
         clear`).",
    );
    let advertise: Option<String> = reader.take_if(
        "https.advertise",
        None,
        "The port that browsers are told for HTTP/3 and sent on to from plain HTTP, where it is mapped to another \
         one here, such as 443; or the whole value of `Alt-Svc`. Unset: the port of `https.listen`.",
        |text: &Option<String>| match text {
            Some(text) => text.parse::<Advertise>().map(drop),
            None => Ok(()),
        },
    );
    Http3Settings {
        enabled,
        advertise: advertise.and_then(|text| text.parse().ok()),
    }
}

/// Where the event streams are unless their path is written, and below what the hub's public paths are,
/// if a route covers what would else be theirs.
fn hub_paths(routes: &[RouteSettings], own: &str) -> (String, Option<String>) {
    let plain = EventSettings::default().path;
    if !covers(routes, &plain) && !public_paths().any(|path| covers(routes, path)) {
        return (plain, None);
    }
    (format!("{own}{plain}"), Some(own.into()))
}

fn take_demo(reader: &mut Reader, config: &Config) -> bool {
    let demo: Option<bool> = reader.take(
        "demo.enabled",
        None,
        "Whether `/` is the demo page, with an endpoint that lets visitors publish to topics below \
         `demo/`. Unset: while the development certificate is in use, no route covers `/`, and nothing is said of \
         access, groups, or who may publish.",
    );
    let covered = ["/", "/demo/publish"]
        .iter()
        .any(|path| covers(&config.routes, path));
    if demo == Some(true) && covered {
        let what = "is true, but a route covers the demo page; leave one of them out";
        reader.mistake("demo.enabled", what);
    }
    let is_plain = !reader.is_given("access.") && !reader.is_given("groups.");
    demo.unwrap_or(config.tls.pair.is_none() && config.events.enabled && !covered && is_plain)
}

fn loopback(port: u16) -> Vec<SocketAddr> {
    let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    hosts.into_iter().map(|host| (host, port).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        let Err(Mistakes(mistakes)) = Config::from_text(text) else {
            panic!("there is a mistake");
        };
        mistakes
            .into_iter()
            .map(|m| format!("{}: {}", m.key, m.what))
            .collect()
    }

    #[test]
    fn each_mistake_of_a_cluster_is_told_and_none_that_is_none() {
        let said = mistakes("[cluster]\nname = \"a b\"\nnats = [\"http://x\", \"nats://u:p@x\"]\n");
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("cluster.name: `a b`"), "{said:?}");
        assert!(
            said[1].contains("`http://x`") && said[1].contains("password"),
            "{said:?}"
        );
        assert!(!said[1].contains("u:p"), "{said:?}");
    }

    #[test]
    fn nothing_written_is_the_defaults() {
        let config = Config::from_text("").expect("no mistake");
        assert_eq!(config.https, loopback(8443));
        assert_eq!(config.history.events, 1000);
        assert!(config.demo);
    }

    #[test]
    fn the_demo_is_for_who_has_said_nothing_of_access() {
        for (text, demo) in [
            ("history.events = 5", true),
            ("control.token = \"correct-horse-battery\"", true),
            ("access.publish = [\"a-key-for-publishers\"]", false),
            ("access.origins = [\"https://app.example\"]", false),
            ("access.subscribe = [\"anonymous\"]", false),
            (
                "[[access.rule]]\ntopic = \"a\"\nallow = [\"anonymous\"]",
                false,
            ),
            ("[groups]\nstaff = [\"editors\"]", false),
            (
                "access.subscribe = [\"anonymous\"]\ndemo.enabled = true",
                true,
            ),
        ] {
            let config = Config::from_text(text).expect("no mistake");
            assert_eq!(config.demo, demo, "{text}");
        }
    }

    #[test]
    fn every_mistake_is_reported_at_once_by_its_key() {
        let text = "
            [history]
            evnts = 5
            age = 60
            [control]
            listen = \"0.0.0.0:7070\"
            [tls]
            cert = \"a.pem\"
            [limits]
            http2_streams = 7
            [log]
            format = \"xml\"
        ";
        assert_eq!(
            mistakes(text),
            [
                "control.listen: 0.0.0.0:7070 is beyond loopback, where anyone could publish; bind 127.0.0.1, \
                 or set control.allow_remote = true and a control.token",
                "tls.key: is missing; tls.cert needs it",
                "history.age: `60` is not a duration; write a number and a unit, such as 15s, 500ms or 1h",
                "limits.http2_streams: 7 is too small, the least is 32",
                "log.format: `xml` is neither text nor json",
                "history.evnts: unknown key; remove it, or did you mean `history.events`?",
            ]
        );
    }

    #[test]
    fn tokens_that_nobody_could_rely_on_are_a_mistake() {
        for (text, key, says) in [
            (
                "access.jwks = \"https://a/keys\"",
                "access.jwks",
                "access.audience",
            ),
            (
                "access.jwks = \"http://a/keys\"\naccess.audience = \"x\"",
                "access.jwks",
                "access.insecure",
            ),
            ("access.issuer = \"app\"", "access.issuer", "access.key"),
            ("access.audience = \"x\"", "access.audience", "access.key"),
            ("access.cookie = \"sid\"", "access.cookie", "access.key"),
            ("access.subscribe = []", "access.subscribe", "authenticated"),
            (
                "[[access.key]]\nalgorithm = \"HS256\"\nsecret = \"at least thirty-two random bytes\"",
                "access.key, number 1",
                "openssl rand",
            ),
            (
                "[[access.rule]]\ntopic = \"x{user}\"\nallow = []",
                "access.rule, number 1",
                "users/{user}/**",
            ),
            ("access.default = \"no\"", "access.default", "deny"),
            (
                "access.session_cookies = [\"a b\"]",
                "access.session_cookies",
                "`a b`",
            ),
        ] {
            let [mistake] = &mistakes(text)[..] else {
                panic!("{text}: one mistake");
            };
            let rest = mistake.strip_prefix(key).expect("it names the key");
            assert!(rest.contains(says), "{mistake}");
        }
        for text in [
            "access.jwks = \"http://127.0.0.1:1/keys\"\naccess.audience = \"x\"",
            "access.jwks = \"http://[::1]/keys\"\naccess.audience = \"x\"",
            "access.jwks = \"http://a/keys\"\naccess.audience = \"x\"\naccess.insecure = true",
        ] {
            Config::from_text(text).expect("no mistake");
        }
    }

    #[test]
    fn routes_say_what_is_wrong_with_them() {
        let text = "
            proxy.upstream = [\"http://a\", \"a:3000\"]
            demo.enabled = true
            trusted.networks = [\"10.0.0.0/33\"]
            access.prefix = \"seventh\"
            [[route]]
            path = \"/a*\"
            upstream = \"http://a\"
            [[route]]
            path = \"/b\"
            [[route]]
            files = \"/none/such\"
            [[route]]
            upstream = \"http://a\"
            send_host = \"mine\"
            [[topic]]
            pattern = \"\"
            [[topic]]
            pattern = \"a\"
            replay = \"some\"
        ";
        let keys: Vec<String> = mistakes(text)
            .iter()
            .map(|mistake| mistake.split(": ").next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(
            keys,
            [
                "route, number 1",
                "route, number 2",
                "route, number 3",
                "route, number 4",
                "proxy.upstream, number 2",
                "access.prefix",
                "topic, number 1",
                "topic, number 2",
                "trusted.networks, number 1",
                "demo.enabled",
            ]
        );
    }

    #[test]
    fn the_hub_steps_aside_where_a_route_covers_its_paths() {
        let path = |text: &str| {
            let config = Config::from_text(text).expect("no mistake");
            (config.events.path, config.prefix)
        };
        let route = |path: &str| format!("[[route]]\npath = \"{path}\"\nupstream = \"http://a\"\n");
        let plain = ("/events".to_owned(), None);
        assert_eq!(path(&route("/api/**")), plain);
        let moved = Some("/.seventh".to_owned());
        assert_eq!(
            path(&route("/**")),
            ("/.seventh/events".into(), moved.clone())
        );
        assert_eq!(
            path(&route("/topics/**")),
            ("/.seventh/events".into(), moved.clone())
        );
        let claimed = format!("events.path = \"/live\"\n{}", route("/**"));
        assert_eq!(path(&claimed), ("/live".into(), moved));
    }

    #[test]
    fn a_file_that_is_not_toml_is_reported_with_its_line() {
        let [mistake] = &mistakes("[history]\nevents = \n")[..] else {
            panic!("one mistake");
        };
        assert!(mistake.starts_with("the text, line 2: "), "{mistake}");
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file() {
        let one = |text: &str| Raw::One(text.into());
        let mut sources = Sources::default();
        for key in [
            "history.events",
            "limits.http2_streams",
            "limits.event_streams_http3",
        ] {
            sources.file.insert(key.into(), one("100"));
        }
        sources
            .environment
            .insert("SEVENTH_HISTORY_EVENTS".into(), one("200"));
        sources
            .environment
            .insert("SEVENTH_LIMITS_HTTP2_STREAMS".into(), one("200"));
        sources.flags.insert("history.events".into(), one("300"));
        let config = Config::from_sources(sources).expect("no mistake");
        assert_eq!(
            (
                config.history.events,
                config.limits.http2_streams.value,
                config.limits.event_streams_http3.value
            ),
            (300, 200, 100)
        );
    }

    #[test]
    fn a_remote_control_listener_takes_a_token_and_never_shows_it() {
        let text = "control.listen = \"0.0.0.0:0\"\ncontrol.allow_remote = true\ncontrol.token = \"0123456789abcdef\"";
        let config = Config::from_text(text).expect("no mistake");
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
        assert_eq!(mistakes("control.token = \"short\"").len(), 1);
    }

    #[test]
    fn an_unknown_environment_variable_is_warned_of() {
        let mut sources = Sources::default();
        for key in ["SEVENTH_HISTORY_EVENT", "SEVENTH_SERVICE_HOST"] {
            let value = Raw::One("1".into());
            sources.environment.insert(key.into(), value);
        }
        let config = Config::from_sources(sources).expect("no mistake");
        let [near, other] = &config.warnings[..] else {
            panic!("{:?}", config.warnings);
        };
        assert!(near.ends_with("did you mean `SEVENTH_HISTORY_EVENTS`?"));
        assert!(other.starts_with("SEVENTH_SERVICE_HOST: "), "{other}");
    }
}
