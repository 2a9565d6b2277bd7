//! What replies say of HTTP/3: `Alt-Svc` (RFC 7838).

use std::{
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::HeaderValue;

/// How long browsers are to remember it until it is known that they get through, and after that.
const TRIAL: Duration = Duration::from_secs(60);
const PROVEN: Duration = Duration::from_secs(24 * 3600);

/// `https.http3` and `https.advertise`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http3Settings {
    /// Whether HTTP/3 is spoken.
    pub enabled: bool,
    /// What is said of it; the port that is bound, if nothing else.
    pub advertise: Option<Advertise>,
}

impl Default for Http3Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            advertise: None,
        }
    }
}

/// What replies are to say of HTTP/3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advertise {
    /// The port as browsers see it.
    Port(u16),
    /// The whole value.
    Value(HeaderValue),
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse() {
            return match port {
                0 => Err("is 0, which is no port".into()),
                port => Ok(Self::Port(port)),
            };
        }
        let is_value = text == "clear" || text.contains("=\"");
        match HeaderValue::from_str(text) {
            Ok(value) if is_value && text.is_ascii() => Ok(Self::Value(value)),
            _ => Err(format!(
                "`{text}` is neither a port nor a value of Alt-Svc; write `443`, `h3=\":443\"; ma=3600`, or `clear`"
            )),
        }
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "{port}"),
            Self::Value(value) => f.write_str(value.to_str().unwrap_or_default()),
        }
    }
}

impl Http3Settings {
    /// The port as browsers see it, where `bound` is what it is here.
    pub(crate) fn port(&self, bound: u16) -> u16 {
        match self.advertise {
            Some(Advertise::Port(port)) => port,
            _ => bound,
        }
    }
}

/// What the replies of a listener say.
#[derive(Debug)]
pub(super) struct AltSvc {
    trial: HeaderValue,
    proven: HeaderValue,
    /// A client has come over HTTP/3 from somewhere else.
    is_proven: AtomicBool,
}

impl AltSvc {
    /// That of a listener on this port.
    pub(super) fn new(settings: &Http3Settings, bound: u16) -> Self {
        let of = |age: Duration| match &settings.advertise {
            _ if !settings.enabled => HeaderValue::from_static("clear"),
            Some(Advertise::Value(value)) => value.clone(),
            _ => {
                let (port, age) = (settings.port(bound), age.as_secs());
                HeaderValue::try_from(format!("h3=\":{port}\"; ma={age}")).expect("it is text")
            }
        };
        Self {
            trial: of(TRIAL),
            proven: of(PROVEN),
            is_proven: AtomicBool::new(false),
        }
    }

    /// The value for a reply. A browser that is told where nothing gets through tries each time, and
    /// may wait: it is told for a short time until someone has come.
    pub(super) fn value(&self) -> HeaderValue {
        if self.is_proven.load(Ordering::Relaxed) {
            self.proven.clone()
        } else {
            self.trial.clone()
        }
    }

    /// A client has come over HTTP/3. From this machine that says nothing of the way.
    pub(super) fn reached_from(&self, client: IpAddr) {
        if !client.to_canonical().is_loopback() {
            self.is_proven.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(enabled: bool, advertise: &str) -> Http3Settings {
        let advertise = (!advertise.is_empty()).then(|| advertise.parse().expect("it is right"));
        Http3Settings { enabled, advertise }
    }

    #[test]
    fn it_is_told_for_long_once_someone_has_come() {
        let alt_svc = AltSvc::new(&settings(true, ""), 8443);
        assert_eq!(alt_svc.value(), "h3=\":8443\"; ma=60");
        for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            alt_svc.reached_from(here.parse().expect("an address"));
        }
        assert_eq!(alt_svc.value(), "h3=\":8443\"; ma=60");
        alt_svc.reached_from("192.0.2.1".parse().expect("an address"));
        assert_eq!(alt_svc.value(), "h3=\":8443\"; ma=86400");
    }

    #[test]
    fn it_is_what_the_operator_says() {
        for (enabled, advertise, value) in [
            (true, "443", "h3=\":443\"; ma=60"),
            (true, "h3=\":443\"; ma=5", "h3=\":443\"; ma=5"),
            (true, "clear", "clear"),
            (false, "", "clear"),
            (false, "443", "clear"),
        ] {
            let alt_svc = AltSvc::new(&settings(enabled, advertise), 8443);
            assert_eq!(alt_svc.value(), value, "{enabled} {advertise}");
        }
        for wrong in ["0", "65536", "", "h3", "h3=\":443\"\n", "443 "] {
            wrong.parse::<Advertise>().expect_err(wrong);
        }
    }
}
