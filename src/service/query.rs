//! What the lists have in common: pages, and names in paths.

use super::routes::decode;
use crate::{access::Name, exchange::Problem};

/// The most entries on one page of a list.
pub(super) const MAX_PAGE: usize = 1000;
pub(super) const DEFAULT_PAGE: usize = 100;

pub(super) fn page_limit(value: &str) -> Result<usize, Problem> {
    let limit = value.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n));
    limit.ok_or_else(|| {
        let detail = format!("limit must be 1 to {MAX_PAGE}");
        Problem::field("limit", value, detail).with_limit(MAX_PAGE)
    })
}

/// The last entry of a full page, after which the next one begins.
pub(super) fn next<T>(page: &[T], limit: usize) -> Option<&T> {
    page.last().filter(|_| page.len() == limit)
}

/// The name of a user or a group in a path.
pub(super) fn name(field: &'static str, part: &str) -> Result<Name, Problem> {
    let text = decode(part)?;
    Name::parse(&text).map_err(|error| Problem::field(field, &text, error.to_string()))
}
