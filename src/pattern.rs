//! Patterns of topics: `*` within a segment, `**` across segments. Pure.

use std::fmt;

/// A pattern such as `orders/*` or `team/**`.
///
/// Matching takes time in proportion to pattern and topic, whatever they are: it follows all
/// possibilities side by side instead of trying one after the other. Most topics are told apart by what
/// stands before the first star, which is looked at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    /// What stands before the first star, and after the last.
    head: Box<str>,
    tail: Box<str>,
    /// From the first star to the last.
    middle: Box<[Part]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Char(char),
    /// Any characters but `/`.
    Within,
    /// Any characters.
    Across,
}

/// The longest pattern, in characters.
const MAX_CHARS: usize = 1024;

impl Pattern {
    /// Reads a pattern; `None` when it is empty or over 1,024 characters long.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.chars().count() > MAX_CHARS {
            return None;
        }
        let mut parts: Vec<Part> = Vec::new();
        for c in text.chars() {
            match (c, parts.last()) {
                ('*', Some(Part::Within)) => *parts.last_mut().expect("it is there") = Part::Across,
                ('*', Some(Part::Across)) => {}
                ('*', _) => parts.push(Part::Within),
                (c, _) => parts.push(Part::Char(c)),
            }
        }
        let char = |part: &Part| match part {
            Part::Char(c) => Some(*c),
            Part::Within | Part::Across => None,
        };
        let head: String = parts.iter().map_while(char).collect();
        let mut middle = parts.split_off(head.chars().count());
        let tail: Vec<char> = middle.iter().rev().map_while(char).collect();
        middle.truncate(middle.len() - tail.len());
        Some(Self {
            text: text.into(),
            head: head.into(),
            tail: tail.into_iter().rev().collect(),
            middle: middle.into(),
        })
    }

    /// How much it takes beside itself, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len() + self.head.len() + self.tail.len() + size_of_val(&*self.middle)
    }

    /// Whether it matches the whole of `topic`.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        let between = topic.strip_prefix(&*self.head);
        let Some(between) = between.and_then(|rest| rest.strip_suffix(&*self.tail)) else {
            return false;
        };
        match *self.middle {
            [] => between.is_empty(),
            [Part::Within] => !between.contains('/'),
            [Part::Across] => true,
            _ => self.middle_matches(between),
        }
    }

    fn middle_matches(&self, text: &str) -> bool {
        // at[i]: what was read so far can stand before part i.
        let mut at = vec![false; self.middle.len() + 1];
        at[0] = true;
        self.skip_stars(&mut at);
        let mut next = vec![false; at.len()];
        for c in text.chars() {
            next.fill(false);
            for (i, part) in self.middle.iter().enumerate().filter(|(i, _)| at[*i]) {
                match part {
                    Part::Char(own) => next[i + 1] |= *own == c,
                    Part::Within => next[i] |= c != '/',
                    Part::Across => next[i] = true,
                }
            }
            if !next.contains(&true) {
                return false;
            }
            self.skip_stars(&mut next);
            std::mem::swap(&mut at, &mut next);
        }
        at[self.middle.len()]
    }

    /// Stars match nothing, too.
    fn skip_stars(&self, at: &mut [bool]) {
        for (i, part) in self.middle.iter().enumerate() {
            if at[i] && !matches!(part, Part::Char(_)) {
                at[i + 1] = true;
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        Pattern::parse(pattern).expect("a pattern").matches(topic)
    }

    #[test]
    fn one_star_stays_within_a_segment_and_two_do_not() {
        for (pattern, yes, no) in [
            (
                "orders",
                vec!["orders"],
                vec!["order", "orders/eu", "Orders"],
            ),
            (
                "orders/*",
                vec!["orders/eu", "orders/"],
                vec!["orders", "orders/eu/1", "x/orders/eu"],
            ),
            (
                "orders/**",
                vec!["orders/eu", "orders/eu/1", "orders/"],
                vec!["orders", "order"],
            ),
            ("*/eu", vec!["orders/eu", "/eu"], vec!["a/b/eu"]),
            ("a*c", vec!["ac", "abc", "abcbc"], vec!["ab/c", "abcd"]),
            ("**", vec!["", "a", "a/b"], vec![]),
            ("a/**/z", vec!["a/b/z", "a/b/c/z", "a//z"], vec!["a/z"]),
        ] {
            for topic in yes {
                assert!(matches(pattern, topic), "{pattern} {topic}");
            }
            for topic in no {
                assert!(!matches(pattern, topic), "{pattern} {topic}");
            }
        }
    }

    /// The plainest matcher: it tries everything.
    fn naive(pattern: &[char], topic: &[char]) -> bool {
        match pattern {
            [] => topic.is_empty(),
            ['*', '*', rest @ ..] => (0..=topic.len()).any(|n| naive(rest, &topic[n..])),
            ['*', rest @ ..] => (0..=topic.len())
                .take_while(|&n| !topic[..n].contains(&'/'))
                .any(|n| naive(rest, &topic[n..])),
            [c, rest @ ..] => topic
                .split_first()
                .is_some_and(|(t, topic)| t == c && naive(rest, topic)),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_matcher_that_tries_everything(pattern in "[ab/]{0,3}(\\*{1,2}[ab/]{1,2}){0,3}", topic in "[ab/]{0,8}") {
            let Some(parsed) = Pattern::parse(&pattern) else { return Ok(()) };
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(parsed.matches(&topic), naive(&chars(&pattern), &chars(&topic)));
        }
    }
}
