//! Events that a reader should have and that are not there any more.

/// Why a stream was told of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// History no longer holds all that came after the id.
    Trimmed,
    /// The id is from another life of the edge.
    Restart,
    /// The reader fell off the ring.
    Slow,
    /// History never knew the id, or no longer does.
    Unknown,
    /// The topic was deleted.
    Deleted,
}

impl GapReason {
    /// The word that stands in the `edge-gap` event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Restart => "restart",
            Self::Slow => "slow",
            Self::Unknown => "unknown",
            Self::Deleted => "deleted",
        }
    }
}
