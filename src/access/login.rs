//! What the app knows someone by.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use http::HeaderValue;

use super::credential::Credential;

/// What the app has known someone by: a credential, and the request that it came with first. The streams that
/// were opened with it end when the app does not know it any more.
#[derive(Debug)]
pub(crate) struct Login {
    pub(super) credential: Credential,
    pub(super) request: Asking,
    ended: AtomicBool,
}

/// The request about whose sender the app is asked, as far as it is told.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    /// Its sender.
    pub(super) client: IpAddr,
    /// What it asks for.
    pub(super) uri: Box<str>,
    pub(super) user_agent: Option<HeaderValue>,
}

impl Login {
    pub(super) fn new(credential: Credential, request: Asking) -> Self {
        Self {
            credential,
            request,
            ended: AtomicBool::new(false),
        }
    }

    /// Whether what was settled by it does not hold any more.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// How much it takes to keep, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let user_agent = self.request.user_agent.as_ref().map_or(0, HeaderValue::len);
        self.credential.bytes() + self.request.uri.len() + user_agent
    }
}
