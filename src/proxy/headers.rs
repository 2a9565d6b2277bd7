//! What becomes of header fields on their way to an app and back: hop-by-hop fields stay here, and what
//! says who asks is the edge's to say. Pure.

use std::{fmt::Write as _, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use smallvec::SmallVec;

use crate::access::{Identity, Name};

/// Fields of one connection, whether `Connection` names them or not (RFC 9110 7.6.1).
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Fields that `Connection` cannot take away: the request would be another.
const END_TO_END: [HeaderName; 4] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::AUTHORIZATION,
    header::COOKIE,
];
/// Who asks, as apps behind an authenticating proxy know it. Clients say nothing of the sort.
fn is_identity(name: &str) -> bool {
    matches!(
        name,
        "remote-user"
            | "remote-groups"
            | "remote-topics"
            | "remote-name"
            | "remote-email"
            | "remote-expires"
    )
}

const REMOTE_USER: HeaderName = HeaderName::from_static("remote-user");
const REMOTE_GROUPS: HeaderName = HeaderName::from_static("remote-groups");
/// With which an app hands a response to the hub.
const SUBSCRIBE: &str = "seventh-subscribe";

/// What says who forwarded a request, the fields included that nobody writes here.
fn is_forwarded(name: &str) -> bool {
    matches!(
        name,
        "forwarded"
            | "x-forwarded-for"
            | "x-forwarded-proto"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-prefix"
            | "x-forwarded-server"
            | "x-real-ip"
    )
}

const FORWARDED: HeaderName = header::FORWARDED;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What a trailer has no business to say: it says how a message is read, or who sends it (RFC 9110 6.5.1).
const NO_TRAILERS: [HeaderName; 10] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::ALT_SVC,
    header::EXPECT,
    REQUEST_ID,
];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest `X-Request-Id` that is kept.
const MAX_REQUEST_ID: usize = 128;

/// What the edge knows of a request that an app is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// Whoever is at the other end of the connection.
    pub peer: IpAddr,
    /// It is a proxy whose word counts.
    pub trusted: bool,
    /// The host that the client asked for.
    pub host: &'a str,
    /// The `Host` that the app sees.
    pub send_host: &'a str,
    /// What the request is known by, unless a trusted proxy has said so already.
    pub request_id: &'a str,
    /// Who asks, if the app is told.
    pub identity: Option<&'a Identity>,
    /// The request has a body.
    pub body: bool,
    /// Whether the app speaks HTTP/2, which has no `Connection`.
    pub http2: bool,
}

/// Makes the fields of a client's request those of the request to the app. Returns how many were dropped
/// because of an underscore in their names.
pub(crate) fn to_app(headers: &mut HeaderMap, facts: &Facts<'_>) -> usize {
    let trailers = headers.get(header::TE).is_some_and(|te| te == "trailers");
    let trailer = headers.get(header::TRAILER).cloned();
    // The edge says 100 itself, when it begins to read.
    let dropped = remove_not_theirs(headers, |name| {
        name == header::EXPECT || !facts.trusted && is_forwarded(name.as_str())
    });
    if !facts.body {
        // Without a body there is no length, whatever a client says it would be.
        headers.remove(header::CONTENT_LENGTH);
    } else {
        headers.extend(trailer.map(|names| (header::TRAILER, names)));
    }
    if accepts_event_stream(headers) {
        // Compressed on the way, events would be held back.
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
    }
    if trailers {
        // The edge reads them, and passes them on.
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if !facts.http2 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
    }
    forwarded(headers, facts);
    request_id(headers, facts);
    if let Some(identity) = facts.identity {
        tell_identity(headers, identity);
    }
    if let Ok(host) = HeaderValue::try_from(facts.send_host) {
        headers.insert(header::HOST, host);
    }
    dropped
}

/// Makes the fields of an app's answer those of the reply.
pub(crate) fn from_app(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112 6.3: whoever says both means the former.
        headers.remove(header::CONTENT_LENGTH);
    }
    let trailer = headers.get(header::TRAILER).cloned();
    let named = named_by_connection(headers);
    remove_where(headers, |name| {
        is_of_connection(name, &named) || name == header::ALT_SVC || name == SUBSCRIBE
    });
    headers.extend(trailer.map(|names| (header::TRAILER, names)));
}

/// Leaves of the trailers of a request or an answer what is for whoever reads the body.
pub(super) fn of_trailers(trailers: &mut HeaderMap) {
    remove_not_theirs(trailers, |name| {
        is_forwarded(name.as_str()) || NO_TRAILERS.contains(name)
    });
}

/// The topics of the event stream that an app wants the hub to go on with, if it does.
pub(super) fn handed_over(headers: &HeaderMap) -> Option<Box<str>> {
    let topics: Vec<&str> = tokens(headers, &HeaderName::from_static(SUBSCRIBE)).collect();
    (!topics.is_empty()).then(|| topics.join(",").into())
}

/// The protocol that a request changes to, if the edge takes part in it: WebSocket over HTTP/1.1, without
/// a body.
pub(super) fn upgrade(parts: &Parts, body: bool) -> Option<HeaderValue> {
    let asked = parts.version == http::Version::HTTP_11 && parts.method == Method::GET && !body;
    let names_upgrade = tokens(&parts.headers, &header::CONNECTION)
        .any(|token| token.eq_ignore_ascii_case("upgrade"));
    let mut protocols = parts.headers.get_all(header::UPGRADE).iter();
    let protocol = protocols.next()?;
    let websocket =
        protocols.next().is_none() && protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    (asked && names_upgrade && websocket).then(|| HeaderValue::from_static("websocket"))
}

/// Asks for, or agrees to, another protocol.
pub(super) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Whether a request is an `EventSource`'s: a GET that accepts an event stream and nothing else.
pub(super) fn is_event_source(parts: &Parts) -> bool {
    let mut accepts = parts.headers.get_all(header::ACCEPT).iter();
    let one = accepts.next().is_some_and(|accept| {
        let accept = accept.as_bytes().trim_ascii();
        accept.eq_ignore_ascii_case(b"text/event-stream")
    });
    parts.method == Method::GET && one && accepts.next().is_none()
}

/// Whether an answer is an event stream: by its essence, whatever its parameters.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| names_event_stream(value.as_bytes()))
}

fn accepts_event_stream(headers: &HeaderMap) -> bool {
    tokens(headers, &header::ACCEPT).any(|range| names_event_stream(range.as_bytes()))
}

/// Whether a media type or range is that of event streams, parameters aside.
fn names_event_stream(media: &[u8]) -> bool {
    let essence = media.split(|&b| b == b';').next().unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"text/event-stream")
}

/// The members of a list field (RFC 9110 5.6.1).
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// The fields that `Connection` takes away.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::try_from(token).ok())
        .filter(|name| !END_TO_END.contains(name))
        .collect()
}

fn is_of_connection(name: &HeaderName, named: &[HeaderName]) -> bool {
    is_hop_by_hop(name.as_str()) || named.contains(name)
}

/// Removes what is of one connection, what only the edge says, and what else `is` out of place. Returns how
/// many were dropped because of an underscore in their names: many apps take `Remote_User` for `Remote-User`.
fn remove_not_theirs(headers: &mut HeaderMap, is: impl Fn(&HeaderName) -> bool) -> usize {
    let has_underscore = |name: &HeaderName| name.as_str().contains('_');
    let named = named_by_connection(headers);
    let dropped = headers.iter().filter(|(name, _)| has_underscore(name));
    let dropped = dropped
        .filter(|(name, _)| !is_of_connection(name, &named))
        .count();
    remove_where(headers, |name| {
        is_of_connection(name, &named)
            || is_identity(name.as_str())
            || name == SUBSCRIBE
            || has_underscore(name)
            || is(name)
    });
    dropped
}

/// Removes fields, looking at each once: most of those that are looked for are not there.
fn remove_where(headers: &mut HeaderMap, is: impl Fn(&HeaderName) -> bool) {
    let names: SmallVec<[HeaderName; 8]> =
        headers.keys().filter(|name| is(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn forwarded(headers: &mut HeaderMap, facts: &Facts<'_>) {
    let peer = facts.peer.to_canonical();
    append(headers, &FORWARDED_FOR, &peer.to_string());
    let mut element = String::new();
    let _infallible = match peer {
        IpAddr::V4(v4) => write!(element, "for={v4}"),
        IpAddr::V6(v6) => write!(element, "for=\"[{v6}]\""),
    };
    // Quoted whatever it holds: a host has no quotes.
    let _infallible = write!(element, ";host=\"{}\";proto=https", facts.host);
    append(headers, &FORWARDED, &element);
    for (name, value) in [(FORWARDED_PROTO, "https"), (FORWARDED_HOST, facts.host)] {
        if !headers.contains_key(&name)
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(name, value);
        }
    }
}

/// Adds a member to a list field, which becomes one field.
fn append(headers: &mut HeaderMap, name: &HeaderName, member: &str) {
    let mut list: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    list.push(member.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list.join(&b", "[..])) {
        headers.insert(name, value);
    }
}

fn request_id(headers: &mut HeaderMap, facts: &Facts<'_>) {
    let plain = |value: &HeaderValue| {
        value.len() <= MAX_REQUEST_ID
            && value.as_bytes().iter().all(u8::is_ascii_graphic)
            && !value.is_empty()
    };
    let kept = facts.trusted && headers.get(REQUEST_ID).is_some_and(plain);
    if !kept && let Ok(id) = HeaderValue::try_from(facts.request_id) {
        headers.insert(REQUEST_ID, id);
    }
}

fn tell_identity(headers: &mut HeaderMap, identity: &Identity) {
    let Some(user) = identity.user().and_then(|user| value(user.as_str())) else {
        return;
    };
    headers.insert(REMOTE_USER, user);
    let groups: Vec<&str> = identity.groups().iter().map(Name::as_str).collect();
    if let Some(groups) = value(&groups.join(",")).filter(|groups| !groups.is_empty()) {
        headers.insert(REMOTE_GROUPS, groups);
    }
}

/// Names are UTF-8, and so are the fields.
fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'_> = Facts {
        peer: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        trusted: false,
        host: "app.example",
        send_host: "app.example",
        request_id: "made-here",
        identity: None,
        body: false,
        http2: false,
    };

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).expect("a name");
            map.append(name, HeaderValue::try_from(*value).expect("a value"));
        }
        map
    }

    /// What the app sees of these fields, with `facts`.
    fn seen(fields: &[(&str, &str)], facts: &Facts<'_>) -> HeaderMap {
        let mut headers = map(fields);
        to_app(&mut headers, facts);
        headers
    }

    fn all<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
        let values = headers.get_all(name).iter();
        values.map(|value| value.to_str().expect("text")).collect()
    }

    #[test]
    fn hop_by_hop_fields_stay_here() {
        let fields = [
            ("connection", "close, X-Private"),
            ("connection", "x-other"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("keep-alive", "5"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "close"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("x-mine", "kept"),
        ];
        let request = seen(&fields, &FACTS);
        let mut answer = map(&fields);
        from_app(&mut answer);
        for (name, _) in &fields[..fields.len() - 2] {
            assert!(!request.contains_key(*name), "{name}");
            assert!(!answer.contains_key(*name), "{name}");
        }
        assert!(!request.contains_key("expect"));
        assert_eq!(all(&request, "x-mine"), ["kept"]);
    }

    #[test]
    fn connection_takes_away_nothing_that_makes_the_request() {
        let fields = [
            ("connection", "host, cookie, authorization, content-length"),
            ("cookie", "a=b"),
            ("authorization", "Basic x"),
            ("content-length", "5"),
        ];
        let facts = Facts {
            body: true,
            ..FACTS
        };
        let request = seen(&fields, &facts);
        for name in ["host", "cookie", "authorization", "content-length"] {
            assert!(request.contains_key(name), "{name}");
        }
    }

    #[test]
    fn trailers_are_asked_for_by_those_who_want_them() {
        let request = seen(&[("te", "trailers")], &FACTS);
        assert_eq!(all(&request, "te"), ["trailers"]);
        assert_eq!(all(&request, "connection"), ["te"]);
        let facts = Facts {
            http2: true,
            ..FACTS
        };
        let request = seen(&[("te", "trailers")], &facts);
        assert_eq!(all(&request, "te"), ["trailers"]);
        assert!(!request.contains_key("connection"));
    }

    #[test]
    fn a_length_needs_a_body() {
        let fields = [("content-length", "5")];
        assert!(!seen(&fields, &FACTS).contains_key("content-length"));
    }

    #[test]
    fn who_asks_is_not_the_clients_to_say() {
        let fields = [
            ("remote-user", "admin"),
            ("Remote-Groups", "staff"),
            ("remote-name", "x"),
            ("remote-email", "x"),
            ("remote_user", "admin"),
            ("seventh-subscribe", "orders"),
            ("x_y", "1"),
            ("x_y", "2"),
        ];
        let mut request = map(&fields);
        assert_eq!(to_app(&mut request, &FACTS), 3);
        for (name, _) in fields {
            assert!(!request.contains_key(name), "{name}");
        }
    }

    #[test]
    fn who_asks_is_told_where_it_is_known() {
        let anonymous = Identity::anonymous();
        let facts = Facts {
            identity: Some(&anonymous),
            ..FACTS
        };
        assert!(!seen(&[("remote-user", "x")], &facts).contains_key("remote-user"));
        let name = |name: &str| Name::parse(name).expect("a name");
        let bob = Identity::authenticated(name("bob"), vec![name("b"), name("a")], None, None);
        let facts = Facts {
            identity: Some(&bob),
            ..FACTS
        };
        let request = seen(&[("remote-user", "admin")], &facts);
        assert_eq!(all(&request, "remote-user"), ["bob"]);
        assert_eq!(all(&request, "remote-groups"), ["a,b"]);
    }

    #[test]
    fn a_strangers_word_on_who_forwarded_is_dropped() {
        let fields = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-request-id", "theirs"),
        ];
        let request = seen(&fields, &FACTS);
        assert_eq!(all(&request, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(all(&request, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&request, "x-forwarded-host"), ["app.example"]);
        assert_eq!(
            all(&request, "forwarded"),
            ["for=192.0.2.1;host=\"app.example\";proto=https"]
        );
        assert_eq!(all(&request, "x-request-id"), ["made-here"]);
        assert!(!request.contains_key("x-forwarded-port") && !request.contains_key("x-real-ip"));
    }

    #[test]
    fn a_trusted_proxys_word_is_kept_and_added_to() {
        let fields = [
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "shop.example"),
            ("forwarded", "for=198.51.100.1"),
            ("x-request-id", "theirs"),
        ];
        let peer = "2001:db8::1".parse().expect("an address");
        let facts = Facts {
            trusted: true,
            peer,
            ..FACTS
        };
        let request = seen(&fields, &facts);
        assert_eq!(
            all(&request, "x-forwarded-for"),
            ["203.0.113.7, 198.51.100.1, 2001:db8::1"]
        );
        assert_eq!(all(&request, "x-forwarded-proto"), ["http"]);
        assert_eq!(all(&request, "x-forwarded-host"), ["shop.example"]);
        let added = "for=198.51.100.1, for=\"[2001:db8::1]\";host=\"app.example\";proto=https";
        assert_eq!(all(&request, "forwarded"), [added]);
        assert_eq!(all(&request, "x-request-id"), ["theirs"]);
        let request = seen(&[("x-request-id", "two words")], &facts);
        assert_eq!(all(&request, "x-request-id"), ["made-here"]);
    }

    #[test]
    fn the_host_is_the_one_that_is_to_be_seen() {
        let facts = Facts {
            send_host: "127.0.0.1:3000",
            ..FACTS
        };
        let request = seen(&[("host", "app.example")], &facts);
        assert_eq!(all(&request, "host"), ["127.0.0.1:3000"]);
        assert_eq!(all(&request, "x-forwarded-host"), ["app.example"]);
    }

    #[test]
    fn event_streams_are_not_compressed_on_the_way() {
        let encoding = |accept: &str| {
            let fields = [("accept", accept), ("accept-encoding", "gzip, br")];
            all(&seen(&fields, &FACTS), "accept-encoding").join("")
        };
        assert_eq!(encoding("text/event-stream"), "identity");
        assert_eq!(
            encoding("application/json, Text/Event-Stream;q=0.9"),
            "identity"
        );
        assert_eq!(encoding("text/html, */*"), "gzip, br");
    }

    #[test]
    fn traces_pass() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let request = seen(&[("traceparent", trace), ("tracestate", "a=1")], &FACTS);
        assert_eq!(all(&request, "traceparent"), [trace]);
        assert_eq!(all(&request, "tracestate"), ["a=1"]);
    }

    #[test]
    fn of_an_answer_our_own_part_is_ours() {
        let mut answer = map(&[
            ("alt-svc", "h3=\":1\""),
            ("seventh-subscribe", "a"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
        ]);
        from_app(&mut answer);
        assert_eq!(all(&answer, "set-cookie"), ["a=b", "c=d"]);
        assert_eq!(all(&answer, "trailer"), ["x-sum"]);
        assert_eq!(answer.len(), 3);
    }

    #[test]
    fn a_trailer_says_nothing_of_who_asks_or_how_to_read() {
        let mut trailers = map(&[
            ("x-sum", "7"),
            ("grpc-status", "0"),
            ("remote-user", "admin"),
            ("remote_user", "admin"),
            ("x-forwarded-for", "10.0.0.1"),
            ("host", "x"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("connection", "x-named"),
            ("x-named", "1"),
            ("set-cookie", "a=b"),
            ("seventh-subscribe", "a"),
        ]);
        of_trailers(&mut trailers);
        assert_eq!(all(&trailers, "x-sum"), ["7"]);
        assert_eq!(all(&trailers, "grpc-status"), ["0"]);
        assert_eq!(trailers.len(), 2);
        let facts = Facts {
            body: true,
            ..FACTS
        };
        let announced = [("trailer", "x-sum")];
        assert_eq!(all(&seen(&announced, &facts), "trailer"), ["x-sum"]);
        assert!(!seen(&announced, &FACTS).contains_key("trailer"));
    }

    #[test]
    fn only_websockets_change_the_protocol() {
        let upgrades = |version, method: Method, fields: &[(&str, &str)], body| {
            let mut request = http::Request::builder().version(version).method(method);
            *request.headers_mut().expect("it is right") = map(fields);
            upgrade(&request.body(()).expect("a request").into_parts().0, body).is_some()
        };
        use http::Version;
        let asked = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
        ];
        assert!(upgrades(Version::HTTP_11, Method::GET, &asked, false));
        assert!(!upgrades(Version::HTTP_10, Method::GET, &asked, false));
        assert!(!upgrades(Version::HTTP_11, Method::POST, &asked, false));
        assert!(!upgrades(Version::HTTP_11, Method::GET, &asked, true));
        assert!(!upgrades(Version::HTTP_11, Method::GET, &asked[1..], false));
        for protocol in ["h2c", "websocket, h2c", ""] {
            let asked = [asked[0], ("upgrade", protocol)];
            assert!(
                !upgrades(Version::HTTP_11, Method::GET, &asked, false),
                "{protocol}"
            );
        }
    }

    #[test]
    fn an_event_source_accepts_nothing_else() {
        let is = |method: Method, fields: &[(&str, &str)]| {
            let mut request = http::Request::builder().method(method);
            *request.headers_mut().expect("it is right") = map(fields);
            is_event_source(&request.body(()).expect("a request").into_parts().0)
        };
        assert!(is(Method::GET, &[("accept", "Text/Event-Stream")]));
        assert!(!is(Method::POST, &[("accept", "text/event-stream")]));
        for accept in ["text/event-stream, */*", "text/event-stream;q=1", "*/*", ""] {
            assert!(!is(Method::GET, &[("accept", accept)]), "{accept}");
        }
        let stream = |content_type| is_event_stream(&map(&[("content-type", content_type)]));
        assert!(stream("text/event-stream") && stream("TEXT/Event-Stream ; charset=utf-8"));
        assert!(!stream("text/event-streams") && !stream("text/plain; text/event-stream"));
    }
}
