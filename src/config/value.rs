//! How a value is written: durations, sizes, addresses, yes and no. Pure.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// A value as a file, the environment or a flag gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A string, number or boolean, as text.
    One(String),
    /// A list of them.
    Many(Vec<String>),
    /// A list of tables; only a file has these.
    Tables(Vec<toml::Table>),
}

/// A type a setting can have.
pub trait Setting: Sized {
    /// What it is called in the reference.
    const KIND: &'static str;

    /// Reads it.
    ///
    /// # Errors
    ///
    /// What is wrong, with the remedy.
    fn read(raw: &Raw) -> Result<Self, String>;

    /// Writes it as the file would have it.
    fn show(&self) -> String;
}

/// A size in bytes, written with a unit: `256 KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) usize);

const UNITS: [(&str, usize); 5] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("bytes", 1),
    ("B", 1),
];

pub(super) fn one(raw: &Raw) -> Result<&str, String> {
    match raw {
        Raw::One(text) => Ok(text),
        Raw::Many(_) | Raw::Tables(_) => Err("is a list; give one value".into()),
    }
}

impl Setting for Duration {
    const KIND: &'static str = "duration";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = one(raw)?;
        humantime::parse_duration(text).map_err(|_| {
            format!(
                "`{text}` is not a duration; write a number and a unit, such as 15s, 500ms or 1h"
            )
        })
    }

    fn show(&self) -> String {
        format!("\"{}\"", humantime::format_duration(*self))
    }
}

impl Setting for Bytes {
    const KIND: &'static str = "size";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = one(raw)?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        let factor = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor);
        let bytes = number.parse::<usize>().ok().zip(factor);
        bytes
            .and_then(|(number, factor)| number.checked_mul(factor))
            .map(Bytes)
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a size; write a number and B, KiB, MiB or GiB, such as 256 KiB"
                )
            })
    }

    fn show(&self) -> String {
        let (unit, factor) = UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        format!("\"{} {unit}\"", self.0 / factor)
    }
}

impl Setting for bool {
    const KIND: &'static str = "true or false";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = one(raw)?;
        text.parse()
            .map_err(|_| format!("`{text}` is neither true nor false"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for usize {
    const KIND: &'static str = "number";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = one(raw)?;
        text.parse()
            .map_err(|_| format!("`{text}` is not a whole number"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    const KIND: &'static str = "text";

    fn read(raw: &Raw) -> Result<Self, String> {
        one(raw).map(Into::into)
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path";

    fn read(raw: &Raw) -> Result<Self, String> {
        match one(raw)? {
            "" => Err("is empty; give a path".into()),
            path => Ok(path.into()),
        }
    }

    fn show(&self) -> String {
        format!("\"{}\"", self.display())
    }
}

impl Setting for SocketAddr {
    const KIND: &'static str = "address";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = one(raw)?;
        text.parse().map_err(|_| {
            format!("`{text}` is not an address; write IP:PORT, such as 127.0.0.1:8443, [::1]:8443 or 0.0.0.0:443")
        })
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

/// The values of a list, which may be written with commas.
fn many(raw: &Raw) -> Result<Vec<String>, String> {
    match raw {
        Raw::Many(texts) => Ok(texts.clone()),
        Raw::One(text) => Ok(text.split(',').map(|part| part.trim().to_owned()).collect()),
        Raw::Tables(_) => Err("is a list of tables; give a list of values".into()),
    }
}

impl Setting for Vec<String> {
    const KIND: &'static str = "list";

    fn read(raw: &Raw) -> Result<Self, String> {
        many(raw)
    }

    fn show(&self) -> String {
        let shown: Vec<_> = self.iter().map(Setting::show).collect();
        format!("[{}]", shown.join(", "))
    }
}

impl Setting for Vec<toml::Table> {
    const KIND: &'static str = "tables";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Tables(tables) => Ok(tables.clone()),
            Raw::One(_) | Raw::Many(_) => {
                Err("is not a list of tables; write [[...]] in the file".into())
            }
        }
    }

    fn show(&self) -> String {
        "none".into()
    }
}

impl Setting for http::Uri {
    const KIND: &'static str = "URL";

    fn read(raw: &Raw) -> Result<Self, String> {
        let text = one(raw)?;
        let url: Option<Self> = text.parse().ok();
        url.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some())
            .ok_or_else(|| format!("`{text}` is not a URL; write http://host[:port]/path"))
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for Vec<SocketAddr> {
    const KIND: &'static str = "addresses";

    fn read(raw: &Raw) -> Result<Self, String> {
        let texts = many(raw)?;
        if texts.is_empty() {
            return Err("is an empty list; give at least one address".into());
        }
        texts
            .into_iter()
            .map(|text| SocketAddr::read(&Raw::One(text)))
            .collect()
    }

    fn show(&self) -> String {
        let shown: Vec<_> = self.iter().map(Setting::show).collect();
        format!("[{}]", shown.join(", "))
    }
}

/// A setting that may be left out.
impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;

    fn read(raw: &Raw) -> Result<Self, String> {
        T::read(raw).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "unset".into(), Setting::show)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<T: Setting>(text: &str) -> Result<T, String> {
        T::read(&Raw::One(text.into()))
    }

    #[test]
    fn sizes_need_a_unit_and_are_shown_in_the_largest_that_fits() {
        assert_eq!(read("256 KiB"), Ok(Bytes(256 << 10)));
        assert_eq!(read("1GiB"), Ok(Bytes(1 << 30)));
        assert_eq!(Bytes(1536).show(), "\"1536 bytes\"");
        for wrong in [
            "",
            "5",
            "KiB",
            "5 KB",
            "-1 B",
            "99999999999999999999 B",
            "99999999999 GiB",
        ] {
            assert!(read::<Bytes>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(read("15s"), Ok(Duration::from_secs(15)));
        assert!(read::<Duration>("15").is_err());
    }

    #[test]
    fn lists_may_be_written_with_commas() {
        let both: Vec<SocketAddr> = read("127.0.0.1:1, [::1]:2").expect("two addresses");
        assert_eq!(both.show(), "[\"127.0.0.1:1\", \"[::1]:2\"]");
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read(bytes: usize, seconds in 0u64..1 << 40) {
            let shown = Bytes(bytes).show();
            prop_assert_eq!(read(shown.trim_matches('"')), Ok(Bytes(bytes)));
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(read(duration.show().trim_matches('"')), Ok(duration));
        }
    }
}
