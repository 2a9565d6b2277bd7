//! Takes settings one by one from flags, environment and file, and collects every mistake.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use thiserror::Error;

use super::value::{Raw, Setting};

/// Where values come from, the strongest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// By configuration key.
    pub flags: BTreeMap<String, Raw>,
    /// By configuration key.
    pub environment: BTreeMap<String, Raw>,
    /// By configuration key.
    pub file: BTreeMap<String, Raw>,
    /// What could not be read at all.
    pub mistakes: Vec<Mistake>,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key, or the file.
    pub key: String,
    /// What is wrong, with the remedy.
    pub what: String,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 {
            "a mistake"
        } else {
            "mistakes"
        };
        write!(f, "the configuration has {plural}:")?;
        self.0
            .iter()
            .try_for_each(|mistake| write!(f, "\n  {}: {}", mistake.key, mistake.what))
    }
}

/// One line of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceLine {
    /// The key, such as `history.events`.
    pub key: &'static str,
    /// The kind of value.
    pub kind: &'static str,
    /// The default, as a file would have it.
    pub default: String,
    /// What it does.
    pub doc: &'static str,
}

impl ReferenceLine {
    /// The section that the key is in.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.key.split('.').next().unwrap_or_default()
    }
}

/// The name of the environment variable of a key.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("SEVENTH_{}", key.replace('.', "_").to_uppercase())
}

/// Takes settings from the sources.
#[derive(Debug)]
pub struct Reader {
    sources: Sources,
    entries: Vec<ReferenceLine>,
    /// The keys that some source had.
    given: Vec<String>,
}

impl Reader {
    /// A reader of these sources.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        Self {
            sources,
            entries: Vec::new(),
            given: Vec::new(),
        }
    }

    /// Whether anything was taken that is below `prefix` and that some source had.
    #[must_use]
    pub fn is_given(&self, prefix: &str) -> bool {
        self.given.iter().any(|key| key.starts_with(prefix))
    }

    /// How strong the source is that has `key`: 0 is the strongest.
    #[must_use]
    pub fn strength(&self, key: &str) -> Option<usize> {
        let Sources {
            flags,
            environment,
            file,
            ..
        } = &self.sources;
        let variable = variable(key);
        let has = [
            flags.contains_key(key),
            environment.contains_key(&variable),
            file.contains_key(key),
        ];
        has.iter().position(|has| *has)
    }

    /// Takes the setting `key`, from the strongest source that has it.
    pub fn take<T: Setting>(&mut self, key: &'static str, default: T, doc: &'static str) -> T {
        self.take_if(key, default, doc, |_| Ok(()))
    }

    /// Takes the setting `key` and has it checked; what `check` returns says what is wrong.
    pub fn take_if<T: Setting>(
        &mut self,
        key: &'static str,
        default: T,
        doc: &'static str,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> T {
        self.entries.push(ReferenceLine {
            key,
            kind: T::KIND,
            default: default.show(),
            doc,
        });
        let Sources {
            flags,
            environment,
            file,
            ..
        } = &mut self.sources;
        let variable = variable(key);
        let raw = [
            flags.remove(key),
            environment.remove(&variable),
            file.remove(key),
        ];
        let Some(raw) = raw.into_iter().flatten().next() else {
            return default;
        };
        self.given.push(key.to_owned());
        match T::read(&raw).and_then(|value| check(&value).map(|()| value)) {
            Ok(value) => value,
            Err(what) => {
                self.mistake(key, what);
                default
            }
        }
    }

    /// Takes every key below `section`, whose names the operator chooses; they come with what they
    /// are below it.
    pub fn take_section(
        &mut self,
        section: &'static str,
        doc: &'static str,
    ) -> Vec<(String, Vec<String>)> {
        self.entries.push(ReferenceLine {
            key: section,
            kind: "list",
            default: "none".into(),
            doc,
        });
        let prefix = section.trim_end_matches('*');
        let keys: Vec<String> = self
            .sources
            .file
            .keys()
            .filter(|key| key.starts_with(prefix))
            .cloned()
            .collect();
        let mut taken = Vec::new();
        for key in keys {
            let raw = self.sources.file.remove(&key).expect("it is there");
            self.given.push(key.clone());
            match Vec::<String>::read(&raw) {
                Ok(values) => taken.push((key[prefix.len()..].to_owned(), values)),
                Err(what) => self.mistake(key, what),
            }
        }
        taken
    }

    /// Notes a mistake that concerns more than one setting.
    pub fn mistake(&mut self, key: impl Into<String>, what: impl Into<String>) {
        self.sources.mistakes.push(Mistake {
            key: key.into(),
            what: what.into(),
        });
    }

    /// Whether a mistake was found in a setting, which is as by default then.
    pub fn is_mistaken(&self, key: &str) -> bool {
        self.sources
            .mistakes
            .iter()
            .any(|mistake| mistake.key == key)
    }

    /// Every setting that was taken, in order.
    #[must_use]
    pub fn entries(&self) -> &[ReferenceLine] {
        &self.entries
    }

    /// Ends the reading: what nobody took is unknown. That is a mistake in a file; in the environment it is
    /// something to say, as others set variables of such names too: Kubernetes does for a service `seventh`.
    ///
    /// # Errors
    ///
    /// All mistakes at once.
    pub fn finish(mut self) -> Result<Vec<String>, Mistakes> {
        let known: Vec<&str> = self.entries.iter().map(|entry| entry.key).collect();
        let variables: Vec<String> = known.iter().map(|key| variable(key)).collect();
        for key in self.sources.file.keys().chain(self.sources.flags.keys()) {
            let what = unknown("unknown key", key, known.iter().copied());
            self.sources.mistakes.push(Mistake {
                key: key.clone(),
                what,
            });
        }
        let warnings = self.sources.environment.keys().map(|key| {
            let names = variables.iter().map(String::as_str);
            let what = unknown("unknown environment variable", key, names);
            format!("{key}: {what}")
        });
        match self.sources.mistakes {
            mistakes if mistakes.is_empty() => Ok(warnings.collect()),
            mistakes => Err(Mistakes(mistakes)),
        }
    }
}

fn unknown<'a>(what: &str, key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut message = format!("{what}; remove it");
    let near = known
        .map(|known| (strsim::damerau_levenshtein(known, key), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3);
    if let Some((_, near)) = near {
        write!(message, ", or did you mean `{near}`?").expect("writing to a String cannot fail");
    }
    message
}
