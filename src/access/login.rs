//! What the app knows someone by.

use std::net::IpAddr;

use http::HeaderValue;

use super::credential::Credential;

/// What the app has known someone by: a credential, and the request that it came with first. The streams that
/// were opened with it end when the app does not know it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(super) credential: Credential,
    pub(super) request: Asking,
}

/// The request about whose sender the app is asked, as far as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    /// Its sender.
    pub(super) client: IpAddr,
    /// What it asks for.
    pub(super) uri: Box<str>,
    pub(super) user_agent: Option<HeaderValue>,
}
