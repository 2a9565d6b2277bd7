//! What the lists have in common: pages, and names in paths.

use std::borrow::Cow;

use super::routes::decode;
use crate::{access::Name, exchange::Problem};

/// The most entries on one page of a list.
pub(super) const MAX_PAGE: usize = 1000;
const DEFAULT_PAGE: usize = 100;

/// Which page of a list is asked for.
#[derive(Debug)]
pub(super) struct Paged<'q> {
    /// After what it begins.
    pub(super) after: Option<Cow<'q, str>>,
    /// How many entries it has at most.
    pub(super) limit: usize,
}

impl<'q> Paged<'q> {
    /// Reads a query of these two and no more.
    pub(super) fn parse(query: &'q str) -> Result<Self, Problem> {
        Self::parse_with(query, "", |_, _| Ok(false))
    }

    /// Reads one that has others too: `take` says whether it knows a name, `others` names those, each with a comma.
    pub(super) fn parse_with(
        query: &'q str,
        others: &str,
        mut take: impl FnMut(&str, &str) -> Result<bool, Problem>,
    ) -> Result<Self, Problem> {
        let (mut after, mut limit) = (None, DEFAULT_PAGE);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "after" => after = Some(value),
                "limit" => limit = page_limit(&value)?,
                name if take(name, &value)? => {}
                other => {
                    let detail =
                        format!("`{other}` is not known here; {others}after and limit are");
                    return Err(Problem::field("query", other, detail));
                }
            }
        }
        Ok(Self { after, limit })
    }
}

fn page_limit(value: &str) -> Result<usize, Problem> {
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
