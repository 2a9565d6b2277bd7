//! The table: one row a limit. Its enum is the metric's label; its key, default, range and line of
//! the reference are what the configuration reads. A new limit is a row here and whoever minds it.

use std::{ops::RangeInclusive, time::Duration};

/// The value of a limit, which knows the limit's name: whoever it refuses is told which it was, and
/// it is counted under that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<T> {
    pub limit: Limit,
    /// What it is set to.
    pub value: T,
}

/// What may be written for a limit.
#[derive(Clone, Debug)]
pub struct LimitRow<T> {
    /// The key in the configuration.
    pub key: &'static str,
    /// The line of the reference.
    pub doc: &'static str,
    /// What holds when nothing is written.
    pub default: T,
    /// What may be written.
    pub range: RangeInclusive<T>,
}

/// Whoever sets the limits, by their rows.
pub trait LimitSource {
    /// How many.
    fn count(&mut self, row: LimitRow<usize>) -> usize;
    /// A size in bytes.
    fn bytes(&mut self, row: LimitRow<usize>) -> usize;
    /// A size in bytes, or, where none is written, the default, which is settled at start.
    fn budget(&mut self, row: LimitRow<usize>) -> usize;
    /// How long.
    fn time(&mut self, row: LimitRow<Duration>) -> Duration;
}

macro_rules! limits {
    (
        configured {
            $(
                $(#[doc = $reason:literal])+
                $limit:ident, $key:literal: $field:ident: $type:ty = $kind:ident($default:expr, $range:expr),
                $doc:literal;
            )+
        }
        fixed {
            $( $fixed:ident, $fixed_key:literal: $fixed_doc:literal; )+
        }
    ) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Limit {
            $( $(#[doc = $reason])+ $limit, )+
            $( #[doc = $fixed_doc] $fixed, )+
        }

        impl Limit {
            /// Every limit.
            pub const ALL: &[Self] = &[$( Self::$limit, )+ $( Self::$fixed, )+];

            /// The limits that nobody configures, with what they are.
            pub const FIXED: &[(Self, &'static str)] = &[$( (Self::$fixed, $fixed_doc), )+];

            /// Its name: the configuration's key, if it has one.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self {
                    $( Self::$limit => $key, )+
                    $( Self::$fixed => $fixed_key, )+
                }
            }
        }

        /// Every limit that is configured, with its value.
        #[derive(Clone, Copy, Debug)]
        pub struct Limits {
            $( $(#[doc = $reason])+ pub $field: Bound<$type>, )+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $( $field: Bound { limit: Limit::$limit, value: $default }, )+ }
            }
        }

        impl Limits {
            /// Takes each from `source`.
            pub fn take(source: &mut impl LimitSource) -> Self {
                Self {
                    $(
                        $field: Bound {
                            limit: Limit::$limit,
                            value: source.$kind(LimitRow {
                                key: $key,
                                doc: $doc,
                                default: $default,
                                range: $range,
                            }),
                        },
                    )+
                }
            }
        }
    };
}

/// The shortest and the longest time that a limit may be.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

limits! {
    configured {
        /// The streams of one HTTP/2 connection. Browsers use 100 to 1,000.
        Http2Streams, "limits.http2_streams": http2_streams: usize = count(512, 32..=100_000),
            "The streams granted to one HTTP/2 connection. All but 16 may be event streams, so that ordinary requests find room.";
        /// Chromium opens 256 streams of a connection and queues what is over, whatever is granted:
        /// calls behind 256 event streams would hang.
        Http2EventStreams, "limits.event_streams_http2": event_streams_http2: usize = count(240, 1..=100_000),
            "The most event streams on one HTTP/2 connection of Chromium and its kin (they send `Sec-CH-UA`), which open 256 streams at most and need some for ordinary requests.";
        /// A page with more has lost count.
        Http3EventStreams, "limits.event_streams_http3": event_streams_http3: usize = count(1000, 1..=100_000),
            "The most event streams on one HTTP/3 connection. The streams granted follow from it, with room for ordinary requests.";
        /// The data of an event. A page that needs more fetches it.
        EventBytes, "limits.event_bytes": event_bytes: usize = bytes(256 << 10, 1..=16 << 20),
            "The most data one event may carry.";
        /// The header of a request. Browsers send under 4 KiB, cookies aside.
        HeaderBytes, "limits.header_bytes": header_bytes: usize = bytes(16 << 10, 1 << 10..=16 << 10),
            "The most bytes the header of a request may have.";
        /// The fields of a request. One-byte references to a field make bytes alone a weak bound.
        HeaderCount, "limits.header_count": header_count: usize = count(64, 16..=256),
            "The most fields the header of a request may have.";
        /// All the memory of the process: histories, what waits to be sent, headers, connections. What is not
        /// counted is the kernel's own.
        Memory, "limits.memory": memory: usize = budget(usize::MAX, 32 << 20..=usize::MAX),
            "The memory that the process may have. From seven eighths of it on, new connections and event streams are refused; above it connections end, first those that take nothing of what waits for them, and publishers are asked to wait. Unset: three quarters of what the machine or the control group has.";
        /// The connections of all public listeners. A TCP connection takes an open file, of which
        /// systems commonly give 20,000 or more to a server; containers report a million.
        Connections, "limits.connections": connections: usize = count(100_000, 1..=usize::MAX),
            "The most connections of all public listeners together; more are turned away. Lowered at start to what the open files, and the memory at 48 KiB each, leave room for.";
        /// The connections of one address, which may be an office or a mobile carrier: beside its share,
        /// which holds once connections are scarce.
        AddressConnections, "limits.address_connections": address_connections: usize = count(100_000, 1..=usize::MAX),
            "The most connections of one address (of IPv6 a /64). Once three quarters of all are taken, an address that has some gets no more than its share, and the last sixteenth is for addresses that have none; beyond it the bound is this.";
        /// New connections cost a signature each, about 0.2 ms; behind one address an office comes back
        /// after a cut.
        ConnectionRate, "limits.connection_rate": connection_rate: usize = count(100, 1..=1_000_000),
            "The most connections that one address (of IPv6 a /64) begins a second, with ten times as many at once.";
        /// Who only begins handshakes holds 20 KB each for as long as `limits.handshake`.
        Handshakes, "limits.handshakes": handshakes: usize = count(2000, 1..=usize::MAX),
            "The most TLS and QUIC handshakes under way; more are turned away.";
        /// The handshakes of one address that are under way.
        AddressHandshakes, "limits.address_handshakes": address_handshakes: usize = count(500, 1..=usize::MAX),
            "The most of them of one address, which shares them with others as it does connections.";
        /// The event streams of all connections: 2 to 3 KB each.
        EventStreams, "limits.event_streams": event_streams: usize = count(250_000, 1..=usize::MAX),
            "The most event streams of all clients together.";
        /// The event streams of one address, as its connections.
        AddressEventStreams, "limits.address_event_streams": address_event_streams: usize = count(100_000, 1..=usize::MAX),
            "The most event streams of one address (of IPv6 a /64), which shares them with others as it does connections.";
        /// Five tabs with a thousand streams each.
        UserEventStreams, "limits.user_event_streams": user_event_streams: usize = count(5000, 1..=usize::MAX),
            "The most event streams of one user, wherever they come from.";
        /// A task that waits a second for its turn: events are that late too.
        Lag, "limits.lag": lag: Duration = time(Duration::from_secs(1), TIMES),
            "How late the edge may be with what it has to do before new event streams are refused, so that those that are open do not suffer.";
        /// The event streams that read one topic; a public one is read by everybody.
        TopicEventStreams, "limits.topic_event_streams": topic_event_streams: usize = count(1_000_000, 1..=usize::MAX),
            "The most event streams that read one topic.";
        /// A page asks for some hundred things at once, and then now and then.
        RequestRate, "limits.request_rate": request_rate: usize = count(1000, 1..=1_000_000),
            "The most requests of one connection a second, with ten times as many at once; those of networks that are exempt do not count.";
        /// What one who publishes from outside may cost everybody else.
        PublishRate, "limits.publish_rate": publish_rate: usize = count(1000, 1..=1_000_000),
            "The most events a second that one publisher's key or token publishes on the public listeners, with ten times as many at once.";
        /// From connecting to the first request. Slow networks take seconds; who takes more holds a
        /// place for nothing.
        Handshake, "limits.handshake": handshake: Duration = time(Duration::from_secs(10), TIMES),
            "How long a client may take from connecting to its first request.";
        /// A connection on which nothing is asked. As long as proxies keep theirs.
        Idle, "limits.idle": idle: Duration = time(Duration::from_secs(60), TIMES),
            "How long a connection is kept on which nothing is asked for.";
        /// A pause in a request's body. Who sends nothing for so long is gone.
        RequestBody, "limits.request_body": request_body: Duration = time(Duration::from_secs(20), TIMES),
            "How long a request's body may pause.";
        /// A client that takes nothing of what waits for it. Nothing else in HTTP ends a connection
        /// whose peer stops reading.
        Stall, "limits.stall": stall: Duration = time(Duration::from_secs(20), TIMES),
            "How long a client may take nothing of what waits for it before its connection is cut.";
        /// Connecting to an app is a matter of milliseconds; one that is gone is not to hold a visitor up.
        UpstreamConnect, "limits.upstream_connect": upstream_connect: Duration = time(Duration::from_secs(2), TIMES),
            "How long connecting to an app may take.";
        /// Long polls and reports take their time.
        UpstreamHead, "limits.upstream_head": upstream_head: Duration = time(Duration::from_secs(60), TIMES),
            "How long an app may take from the end of a request to the head of its answer.";
        /// A pause in an answer. Who says nothing for so long is stuck.
        UpstreamIdle, "limits.upstream_idle": upstream_idle: Duration = time(Duration::from_secs(60), TIMES),
            "How long an app's answer may pause. Event streams and WebSockets may be quiet for longer.";
        /// Event streams of apps that visitors share, by URL. Strangers make up URLs.
        RelayShared, "relay.shared": relay_shared: usize = count(1000, 1..=usize::MAX),
            "The most URLs whose event streams visitors share (`share = true`) at a time.";
        /// What waits for readers beside history: what was put together for one of them, and what they have
        /// not taken of events that history has let go of.
        UnreadBytes, "limits.unread_bytes": unread_bytes: usize = bytes(128 << 20, 1 << 20..=usize::MAX),
            "The most memory that what readers have not taken may cost, beside history. Above it they get one event at a time, and whoever is slow with one for a quarter of `limits.stall` is cut.";
        /// The topics of one event stream. Each is looked at when a reader falls behind.
        StreamTopics, "events.topics": stream_topics: usize = count(100, 1..=usize::MAX),
            "The most topics one stream may read.";
        /// Topics that are read and hold nothing: strangers make up their names, about 1 KiB each. Enough
        /// for 100,000 visitors who each read a topic of their own.
        Topics, "limits.topics": topics: usize = count(250_000, 1..=usize::MAX),
            "The most topics that are read and have no history, all together. At the bound the address that reads most of them is refused first, the others at twice the bound.";
        /// A page that opens every stream it may, each with a topic of its own, has 1,000.
        ConnectionTopics, "limits.connection_topics": connection_topics: usize = count(5000, 1..=usize::MAX),
            "The most topics that one connection may read and that have no history.";
    }
    fixed {
        Http1Streams, "http1_streams":
            "One event stream on an HTTP/1.1 connection, which can carry no more.";
        DemoTopics, "demo_topics":
            "900 topics of one event from a visitor of the demo page: as many as the page opens.";
        DemoBytes, "demo_bytes":
            "64 KiB from a visitor of the demo page.";
        Http3FrameBytes, "http3_frame_bytes":
            "An HTTP/3 frame that announces over 18 KiB of header, or over 4 KiB of anything else but data.";
        PendingHandshakes, "pending_handshakes":
            "64 QUIC handshakes under way; whoever comes then must first show that its address is its own.";
        CancelledRequests, "cancelled_requests":
            "Half of a connection's last 200 requests cancelled before they were answered.";
        StreamOpens, "stream_opens":
            "Event streams opened on a connection, closed ones included: four times as many as it may have, and a quarter as many more a second.";
        Http2Settings, "http2_settings":
            "SETTINGS frames of an HTTP/2 connection: 32, and one more a second.";
        Http2Pings, "http2_pings":
            "PING frames of an HTTP/2 connection: 1,000, and 200 more a second.";
        Http2Frames, "http2_frames":
            "Frames of an HTTP/2 connection that lead to nothing, as h2 counts them: streams that had to be reset or were before they began, empty DATA frames, more CONTINUATION frames than a header takes, headers of many times what they may have.";
        Http3Frames, "http3_frames":
            "HTTP/3 frames that are no part of a request, of a connection: 8,192, and 256 more a second.";
        Http3UniStreams, "http3_unidirectional_streams":
            "Unidirectional streams that an HTTP/3 connection opens: 32, and one more a second.";
        Http3HalfSent, "http3_half_sent":
            "256 KiB of request headers on an HTTP/3 connection of which only a part has come.";
        UselessBytes, "useless_bytes":
            "A connection's bytes that lead to nothing: an eighth of all it sends, over what is useful by 1 MiB, and by 256 bytes more a second.";
    }
}

impl Limit {
    /// Whether it is one that the client's own connection has reached.
    #[must_use]
    pub(crate) const fn is_of_a_connection(self) -> bool {
        matches!(
            self,
            Self::Http1Streams
                | Self::Http2Streams
                | Self::Http2EventStreams
                | Self::Http3EventStreams
                | Self::ConnectionTopics
        )
    }
}

/// One event stream at a time is all that HTTP/1.1 can carry.
pub(crate) const HTTP1_STREAMS: Bound<usize> = Bound {
    limit: Limit::Http1Streams,
    value: 1,
};

/// As many topics as the demo page opens.
pub(crate) const DEMO_TOPICS_AT_ONCE: Bound<usize> = Bound {
    limit: Limit::DemoTopics,
    value: 900,
};

/// What a visitor of the demo page may send at once.
pub(crate) const DEMO_BYTES: Bound<usize> = Bound {
    limit: Limit::DemoBytes,
    value: 64 << 10,
};

/// How many QUIC handshakes may be under way before clients must first show that they are where
/// they say they are (RFC 9000 8.1): each costs a signature.
pub(crate) const PENDING_HANDSHAKES: Bound<usize> = Bound {
    limit: Limit::PendingHandshakes,
    value: 64,
};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Takes what the rows say.
    struct Defaults;

    impl LimitSource for Defaults {
        fn count(&mut self, row: LimitRow<usize>) -> usize {
            assert!(row.range.contains(&row.default), "{}", row.key);
            row.default
        }

        fn bytes(&mut self, row: LimitRow<usize>) -> usize {
            self.count(row)
        }

        fn budget(&mut self, row: LimitRow<usize>) -> usize {
            self.count(row)
        }

        fn time(&mut self, row: LimitRow<Duration>) -> Duration {
            assert!(row.range.contains(&row.default), "{}", row.key);
            row.default
        }
    }

    #[test]
    fn every_default_is_in_its_range_and_every_key_stands_once() {
        let limits = Limits::take(&mut Defaults);
        assert_eq!(format!("{limits:?}"), format!("{:?}", Limits::default()));
        let keys: HashSet<_> = Limit::ALL.iter().map(|limit| limit.key()).collect();
        assert_eq!(keys.len(), Limit::ALL.len());
    }
}
