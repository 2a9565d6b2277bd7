//! Lists of what each edge knows alone, over all edges of a cluster: every edge is asked for its part, and those that
//! do not answer are named.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Context;

/// The most bytes of a part that another edge is told, about: a server takes no larger messages than 1 MiB.
const PART: usize = 256 << 10;

/// What an edge asks the others; lists by their queries.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    Streams(String),
    EndStream(u64),
    User(String),
    Topics(String),
    Topic(String),
    Readers(String),
}

/// What one edge has of a list.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Part {
    /// In their order.
    pub(super) entries: Vec<Value>,
    /// There are more behind them.
    pub(super) more: bool,
    /// How many readers nobody knows, of a list of readers.
    #[serde(default)]
    pub(super) anonymous: usize,
}

impl Part {
    /// A page of at most so many entries.
    pub(super) fn page(entries: impl Iterator<Item = Value>, limit: usize) -> Self {
        let entries: Vec<Value> = entries.collect();
        Self {
            more: entries.len() == limit,
            entries,
            anonymous: 0,
        }
    }

    /// As much of it as fits into a message, at least one.
    pub(super) fn cut(mut self) -> Self {
        let mut bytes = 0;
        let fits = self.entries.iter().take_while(|entry| {
            let is_first = bytes == 0;
            bytes += entry.to_string().len();
            is_first || bytes <= PART
        });
        let fits = fits.count();
        self.more |= fits < self.entries.len();
        self.entries.truncate(fits);
        self
    }
}

/// How the entries of a list are put together.
pub(super) struct List<K> {
    /// What they are called.
    pub(super) name: &'static str,
    /// By what a page is gone on with.
    pub(super) key: &'static str,
    /// In what order they are.
    pub(super) order: fn(&Value) -> K,
    /// What becomes of two with one place.
    pub(super) join: fn(&mut Value, Value),
    /// How many there are at most on a page.
    pub(super) limit: usize,
}

impl<K: Ord> List<K> {
    /// A page of it: of this edge's part, and of those of the others. How many readers nobody knows, too.
    pub(super) async fn of(
        &self,
        context: &Context,
        question: Question,
        own: Part,
    ) -> (Value, usize) {
        let Some(Others { mut parts, missing }) = ask(context, &question).await else {
            return self.alone(own);
        };
        parts.push(own);
        let (mut page, anonymous) = self.page(parts);
        page["missing"] = json!(missing);
        (page, anonymous)
    }

    /// A page of this edge's part.
    pub(super) fn alone(&self, own: Part) -> (Value, usize) {
        self.page(vec![own])
    }

    fn page(&self, parts: Vec<Part>) -> (Value, usize) {
        let Part {
            entries,
            more,
            anonymous,
        } = self.merge(parts);
        let last = entries.last().filter(|_| more);
        let next = last.map_or(Value::Null, |last| last[self.key].clone());
        (json!({ self.name: entries, "next": next }), anonymous)
    }

    /// What is known to be on the page: nothing behind the last of a part of which there is more.
    fn merge(&self, parts: Vec<Part>) -> Part {
        let anonymous = parts.iter().map(|part| part.anonymous).sum();
        let (order, mut all) = (self.order, BTreeMap::new());
        let ends = parts.iter().filter(|part| part.more);
        let end = ends.filter_map(|part| part.entries.last().map(order)).min();
        for entry in parts.into_iter().flat_map(|part| part.entries) {
            match all.entry(order(&entry)) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(entry);
                }
                std::collections::btree_map::Entry::Occupied(mut known) => {
                    (self.join)(known.get_mut(), entry);
                }
            }
        }
        let found = all.len();
        let known = all.into_iter();
        let known = known.take_while(|(key, _)| end.as_ref().is_none_or(|end| key <= end));
        let entries: Vec<Value> = known.take(self.limit).map(|(_, entry)| entry).collect();
        Part {
            more: end.is_some() || entries.len() < found,
            entries,
            anonymous,
        }
    }
}

/// Adds what another edge counted.
pub(super) fn add(to: &mut Value, from: &Value, field: &str) {
    let count = |of: &Value| of[field].as_u64().unwrap_or_default();
    to[field] = count(to).saturating_add(count(from)).into();
}

/// What the other edges have, and which of them did not answer.
pub(super) struct Others {
    pub(super) parts: Vec<Part>,
    pub(super) missing: Vec<String>,
}

/// Asks the other edges; `None` of an edge on its own.
pub(super) async fn ask(context: &Context, question: &Question) -> Option<Others> {
    let question = serde_json::to_value(question).expect("text and numbers");
    let gathered = context.order.gather(&question).await?;
    let mut others = Others {
        parts: Vec::new(),
        missing: gathered.missing,
    };
    for (node, said) in gathered.answers {
        match serde_json::from_value::<Part>(said) {
            Ok(part) if part.entries.iter().all(Value::is_object) => others.parts.push(part),
            _ => others.missing.push(node),
        }
    }
    Some(others)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn list(limit: usize) -> List<u64> {
        List {
            name: "all",
            key: "n",
            order: |entry| entry["n"].as_u64().expect("a number"),
            join: |to, from| add(to, &from, "count"),
            limit,
        }
    }

    /// A page of what an edge has behind a number.
    fn page(has: &BTreeSet<u64>, after: u64, limit: usize) -> Part {
        let later = has.iter().filter(|n| **n > after).take(limit);
        Part::page(later.map(|n| json!({ "n": n, "count": 1 })), limit)
    }

    proptest! {
        #[test]
        fn page_by_page_all_that_any_edge_has_is_told_once(
            edges in proptest::collection::vec(proptest::collection::btree_set(1u64..60, 0..20), 1..4),
            limit in 1usize..9, cut in 1usize..9,
        ) {
            let (mut after, mut told) = (0, Vec::new());
            loop {
                // Some say less than they are asked for.
                let parts = edges.iter().enumerate().map(|(n, has)| {
                    page(has, after, if n == 0 { limit } else { limit.min(cut) })
                });
                let list = list(limit);
                let Part { entries, more, .. } = list.merge(parts.collect());
                prop_assert!(entries.len() <= limit);
                told.extend(entries.iter().map(|one| (one["n"].as_u64(), one["count"].as_u64())));
                match entries.last().filter(|_| more) {
                    Some(last) => after = last["n"].as_u64().expect("a number"),
                    None => break,
                }
            }
            let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
            for n in edges.iter().flatten() {
                *expected.entry(*n).or_default() += 1;
            }
            let expected: Vec<_> = expected.into_iter().map(|(n, count)| (Some(n), Some(count))).collect();
            prop_assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_part_is_cut_to_what_fits_and_says_so() {
        let large = "x".repeat(100 << 10);
        let part = Part::page((0..5).map(|n| json!({ "n": n, "text": large })), 9);
        assert!(!part.more);
        let cut = part.cut();
        assert_eq!((cut.entries.len(), cut.more), (2, true));
        let huge = Part::page(std::iter::once(json!("x".repeat(PART + 1))), 9).cut();
        assert_eq!((huge.entries.len(), huge.more), (1, false));
    }
}
