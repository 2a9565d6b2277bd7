//! What the harness writes into an event, to know it again. Pure.

/// What stands around a stamp: no JSON string, form, URL or event stream escapes it.
const MARK: u8 = b'~';
/// What an event is filled up with.
const FILLER: char = 'x';

/// Which event it is, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Which run it is of.
    pub(super) run: u32,
    /// Who published it.
    pub(super) publisher: u32,
    /// The how manyeth of this publisher to its topic, from 0.
    pub(super) sequence: u64,
    /// When it was due, in microseconds of the run.
    pub(super) due: u64,
}

impl Stamp {
    /// An event's data: the stamp, filled up to `size` bytes.
    pub(super) fn data(self, size: usize) -> String {
        let Self {
            run,
            publisher,
            sequence,
            due,
        } = self;
        let mut data = format!("~{run}.{publisher}.{sequence}.{due}~");
        let missing = size.saturating_sub(data.len());
        data.extend(std::iter::repeat_n(FILLER, missing));
        data
    }

    /// The stamp in a line, wherever the server has put the data.
    pub(super) fn find(line: &[u8]) -> Option<Self> {
        let begin = memchr::memchr(MARK, line)? + 1;
        let end = begin + memchr::memchr(MARK, &line[begin..])?;
        let text = std::str::from_utf8(&line[begin..end]).ok()?;
        let mut numbers = text.split('.');
        let stamp = Self {
            run: numbers.next()?.parse().ok()?,
            publisher: numbers.next()?.parse().ok()?,
            sequence: numbers.next()?.parse().ok()?,
            due: numbers.next()?.parse().ok()?,
        };
        numbers.next().is_none().then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_found(run: u32, publisher: u32, sequence: u64, due: u64, size in 0usize..300) {
            let stamp = Stamp { run, publisher, sequence, due };
            let data = stamp.data(size);
            prop_assert!(data.len() >= size);
            prop_assert_eq!(Stamp::find(data.as_bytes()), Some(stamp));
            let wrapped = format!("data: {{\"channel\":\"bench\",\"pub\":{{\"data\":\"{data}\"}}}}");
            prop_assert_eq!(Stamp::find(wrapped.as_bytes()), Some(stamp));
        }

        #[test]
        fn nothing_else_is_one(line in ".{0,60}") {
            let _: Option<Stamp> = Stamp::find(line.as_bytes());
        }
    }

    #[test]
    fn half_of_one_is_none() {
        for line in ["", "~", "~1.2.3.4", "~1.2.3~", "~1.2.3.4.5~", "~a.b.c.d~"] {
            assert_eq!(Stamp::find(line.as_bytes()), None, "{line}");
        }
    }
}
