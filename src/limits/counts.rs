//! How many of each there are, as long as there are any.

use std::{collections::HashMap, hash::Hash};

/// One less, which must be there; none is left at 0.
pub(crate) fn count_out<K: Eq + Hash>(of: &mut HashMap<K, usize>, key: &K) {
    if let Some(own) = of.get_mut(key) {
        *own -= 1;
        if *own == 0 {
            of.remove(key);
        }
    }
}
