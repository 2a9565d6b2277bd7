//! `[limits]`, and limits of other sections: the rows of the table.

use std::time::Duration;

use super::{proxy::take_networks, range, reader::Reader, value::Bytes};
use crate::{
    limits::{LimitRow, LimitSource, Limits},
    networks::Networks,
};

pub(super) fn take(reader: &mut Reader) -> Limits {
    Limits::take(reader)
}

/// Whoever is on this machine is its operator, or comes through a proxy that tells of nobody else.
pub(super) fn take_exempt(reader: &mut Reader) -> Networks {
    take_networks(
        reader,
        "limits.exempt",
        &["127.0.0.0/8", "::1/128"],
        "The networks whose addresses may take any number of connections and event streams that are left, such as \
         those of a balancer; `trusted.networks` are exempt too.",
    )
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

    fn budget(&mut self, row: LimitRow<usize>) -> usize {
        let bytes = self.take_if(
            row.key,
            None,
            row.doc,
            |bytes: &Option<Bytes>| match bytes {
                Some(bytes) => range::count(bytes.0, &row.range),
                None => Ok(()),
            },
        );
        bytes.map_or(row.default, |bytes| bytes.0)
    }

    fn time(&mut self, row: LimitRow<Duration>) -> Duration {
        self.take_if(row.key, row.default, row.doc, |time| {
            range::time(*time, &row.range)
        })
    }
}
