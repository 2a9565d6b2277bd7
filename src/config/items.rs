//! Lists whose items are read one by one, such as `[[route]]` and `[[access.key]]`.

use serde::de::DeserializeOwned;
use toml::Table;

use super::reader::Reader;

/// The items of a list as `parse` reads them; what is wrong with one is told with its number.
pub(super) fn each<T, P>(
    reader: &mut Reader,
    key: &str,
    items: Vec<T>,
    parse: impl Fn(T) -> Result<P, String>,
) -> Vec<P> {
    let mut parsed = Vec::new();
    for (n, item) in items.into_iter().enumerate() {
        match parse(item) {
            Ok(item) => parsed.push(item),
            Err(what) => reader.mistake(format!("{key}, number {}", n + 1), what),
        }
    }
    parsed
}

/// Reads a table into its type.
pub(super) fn of_table<T: DeserializeOwned>(table: Table) -> Result<T, String> {
    table.try_into().map_err(|error| error.message().to_owned())
}
