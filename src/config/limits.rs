//! `[limits]`, and limits of other sections: the rows of the table.

use std::time::Duration;

use super::{range, reader::Reader, value::Bytes};
use crate::limits::{LimitRow, LimitSource, Limits};

pub(super) fn take(reader: &mut Reader) -> Limits {
    Limits::take(reader)
}

impl LimitSource for Reader {
    fn count(&mut self, row: LimitRow<usize>) -> usize {
        self.take_if(row.key, row.default, row.doc, |n| {
            range::count(*n, &row.range)
        })
    }

    fn bytes(&mut self, row: LimitRow<usize>) -> usize {
        let bytes = self.take_if(row.key, Bytes(row.default), row.doc, |bytes| {
            range::count(bytes.0, &row.range)
        });
        bytes.0
    }

    fn time(&mut self, row: LimitRow<Duration>) -> Duration {
        self.take_if(row.key, row.default, row.doc, |time| {
            range::time(*time, &row.range)
        })
    }
}
