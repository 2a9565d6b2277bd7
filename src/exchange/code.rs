//! What programs know a problem by.
//!
//! Pure.

use std::fmt;

use crate::limits::Limit;

/// What the codes of problems stand below, as URIs (RFC 9457 3.1.1). It is nothing to be fetched.
const SPACE: &str = "urn:seventh:problem:";

/// What programs know a problem by: it stays what it is when its words change. `docs/problems.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// One with a name of its own.
    Of(Named),
    /// A limit of the edge was passed.
    Limit(Limit),
    /// A field of the request is wrong.
    Field(&'static str),
    /// The status says all there is to say.
    Status(&'static str),
}

/// The problems with names of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    TopicReserved,
    TopicForbidden,
    TokenMissing,
    TokenInvalid,
    TokenExpired,
    TokenRevoked,
    TicketSpent,
    NotAllowed,
    IdentityUnavailable,
    OriginForeign,
    HostUnknown,
    PublisherTopic,
    PublisherAudience,
    KeyReused,
    UpstreamFailed,
    UpstreamSlow,
    EdgeEnding,
    HistoryBusy,
    HistoryFull,
    HistoryFailed,
    HistoryUnknown,
    ClusterAway,
    ClusterTooLarge,
}

impl Named {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 23] = [
        Self::TopicReserved,
        Self::TopicForbidden,
        Self::TokenMissing,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::TokenRevoked,
        Self::TicketSpent,
        Self::NotAllowed,
        Self::IdentityUnavailable,
        Self::OriginForeign,
        Self::HostUnknown,
        Self::PublisherTopic,
        Self::PublisherAudience,
        Self::KeyReused,
        Self::UpstreamFailed,
        Self::UpstreamSlow,
        Self::EdgeEnding,
        Self::HistoryBusy,
        Self::HistoryFull,
        Self::HistoryFailed,
        Self::HistoryUnknown,
        Self::ClusterAway,
        Self::ClusterTooLarge,
    ];

    /// Whether it says something of who or what sent a request, and not of what was sent or of others.
    #[must_use]
    pub(crate) fn is_of_sender(self) -> bool {
        !matches!(
            self,
            Self::TopicReserved
                | Self::KeyReused
                | Self::UpstreamFailed
                | Self::UpstreamSlow
                | Self::EdgeEnding
                | Self::HistoryBusy
                | Self::HistoryFull
                | Self::HistoryFailed
                | Self::HistoryUnknown
                | Self::ClusterAway
                | Self::ClusterTooLarge
        )
    }

    /// The code.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TopicReserved => "topic-reserved",
            Self::TopicForbidden => "topic-forbidden",
            Self::TokenMissing => "token-missing",
            Self::TokenInvalid => "token-invalid",
            Self::TokenExpired => "token-expired",
            Self::TokenRevoked => "token-revoked",
            Self::TicketSpent => "ticket-spent",
            Self::NotAllowed => "not-allowed",
            Self::IdentityUnavailable => "identity-unavailable",
            Self::OriginForeign => "origin-foreign",
            Self::HostUnknown => "host-unknown",
            Self::PublisherTopic => "publisher-topic",
            Self::PublisherAudience => "publisher-audience",
            Self::KeyReused => "key-reused",
            Self::UpstreamFailed => "upstream-failed",
            Self::UpstreamSlow => "upstream-slow",
            Self::EdgeEnding => "edge-ending",
            Self::HistoryBusy => "history-busy",
            Self::HistoryFull => "history-full",
            Self::HistoryFailed => "history-failed",
            Self::HistoryUnknown => "history-unknown",
            Self::ClusterAway => "cluster-away",
            Self::ClusterTooLarge => "cluster-too-large",
        }
    }
}

impl Code {
    /// The same as a URI.
    #[must_use]
    pub(crate) fn uri(self) -> String {
        format!("{SPACE}{self}")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(named) => f.write_str(named.as_str()),
            Self::Limit(limit) => {
                let key = limit.key();
                let name = key.strip_prefix("limits.").unwrap_or(key);
                write!(f, "limit-{}", kebab(name))
            }
            Self::Field(field) => write!(f, "wrong-{}", kebab(field)),
            Self::Status(reason) => f.write_str(&kebab(reason)),
        }
    }
}

/// Lower case, with dashes between words.
fn kebab(words: &str) -> String {
    words.to_ascii_lowercase().replace([' ', '_', '.'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_words_with_dashes() {
        for (code, text) in [
            (Code::Of(Named::TopicReserved), "topic-reserved"),
            (Code::Limit(Limit::PublishRate), "limit-publish-rate"),
            (Code::Limit(Limit::Topics), "limit-topics"),
            (Code::Limit(Limit::StreamTopics), "limit-events-topics"),
            (Code::Field("max_age"), "wrong-max-age"),
            (Code::Field("Idempotency-Key"), "wrong-idempotency-key"),
            (Code::Status("Not Found"), "not-found"),
        ] {
            assert_eq!(code.to_string(), text);
            assert_eq!(code.uri(), format!("urn:seventh:problem:{text}"));
        }
    }

    /// The page that says what to do about each.
    #[test]
    fn all_are_documented() {
        let page = include_str!("../../docs/problems.md");
        for named in Named::ALL {
            let row = format!("| `{}` |", named.as_str());
            assert!(page.contains(&row), "{row}");
        }
    }
}
