//! A body cut into lines, however it arrives.
//!
//! No clock, no lock, no task.

use bytes::{Buf as _, BytesMut};

/// What came and was not taken as a line yet.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    bytes: BytesMut,
    /// `bytes` holds no line end before this. Invariant: at most its length.
    searched: usize,
}

impl LineBuffer {
    /// How much has come that is not a line yet.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without its end.
    pub(super) fn line(&mut self) -> Option<BytesMut> {
        let rest = &self.bytes[self.searched..];
        let Some(end) = rest.iter().position(|&b| b == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let line = self.bytes.split_to(self.searched + end);
        self.bytes.advance(1);
        self.searched = 0;
        Some(line)
    }

    /// What is left is the last line: it need not end in a line end.
    pub(super) fn finish(&mut self) {
        if !self.bytes.is_empty() {
            self.bytes.extend_from_slice(b"\n");
        }
    }

    /// What is left is of no use.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(buffer: &mut LineBuffer) -> Vec<String> {
        std::iter::from_fn(|| buffer.line())
            .map(|line| String::from_utf8(line.to_vec()).expect("text"))
            .collect()
    }

    proptest! {
        /// Any chunking gives the same lines, whether the last one ends or not, and what is cleared
        /// in the middle of one is gone.
        #[test]
        fn any_cut_gives_the_same_lines(
            text in "[a\n]{0,40}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
            broken in any::<bool>(),
        ) {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let mut buffer = LineBuffer::default();
            let mut got = Vec::new();
            for cut in at.windows(2) {
                buffer.push(&text.as_bytes()[cut[0]..cut[1]]);
                got.extend(lines(&mut buffer));
                prop_assert!(buffer.line().is_none());
            }
            let mut expected: Vec<&str> = text.split('\n').collect();
            let rest = expected.pop().expect("split gives one at least");
            prop_assert_eq!(buffer.len(), rest.len());
            if broken {
                buffer.clear();
                prop_assert!(buffer.is_empty());
            } else if !rest.is_empty() {
                expected.push(rest);
            }
            buffer.finish();
            got.extend(lines(&mut buffer));
            prop_assert_eq!(got, expected);
        }
    }
}
