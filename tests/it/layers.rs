//! Who may import whom, and that what is pure stays so. It is what a workspace of many crates
//! buys, at the price of one file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What each module may import of this crate beside itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("backoff", &[]),
    ("clock", &[]),
    ("drain", &[]),
    ("topic", &[]),
    ("sse", &[]),
    ("protocol", &[]),
    ("metrics", &["protocol"]),
    ("hub", &["sse", "topic"]),
    ("history", &[LEAVES, "hub"]),
    // The client knows the wire and no server code; the session and the key set are asked by it.
    ("access", &[LEAVES, "hub", "client"]),
    ("limits", &["protocol"]),
    ("service", &[LEAVES, "hub", "history", "access", "limits"]),
    ("tls", &[LEAVES]),
    (
        "net",
        &[
            LEAVES, "hub", "history", "access", "limits", "tls", "service",
        ],
    ),
    (
        "config",
        &[
            LEAVES, "hub", "history", "access", "limits", "tls", "service", "net",
        ],
    ),
    (
        "edge",
        &[
            LEAVES, "hub", "history", "access", "limits", "tls", "service", "net", "config",
        ],
    ),
    // Beside the server: they see the wire and not its code.
    ("client", &[LEAVES]),
    ("load", &[LEAVES, "client"]),
    (
        "cli",
        &[
            LEAVES, "hub", "history", "access", "limits", "tls", "service", "net", "config",
            "edge", "client", "load",
        ],
    ),
];

/// Stands for the modules that everything may import.
const LEAVES: &str = "leaves";
const LEAF_MODULES: &[&str] = &[
    "backoff", "clock", "drain", "protocol", "topic", "sse", "metrics",
];

/// Files without clock, lock, task or socket.
const PURE: &[&str] = &[
    "backoff.rs",
    "protocol.rs",
    "topic.rs",
    "sse/",
    "hub/entry.rs",
    "hub/gap.rs",
    "hub/resume.rs",
    "hub/ring.rs",
    "limits/",
    "access/groups.rs",
    "access/origins.rs",
    "access/pattern.rs",
    "access/rules.rs",
    "config/units.rs",
    "service/validate.rs",
    "net/h3/guard.rs",
    "net/h3/field_section.rs",
];
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "quinn",
    "std::net",
    "std::fs",
    "Mutex",
    "Instant::now",
    "clock::now",
];

fn sources() -> BTreeMap<PathBuf, String> {
    fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path.clone(), fs::read_to_string(&path).expect("text"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    found
}

/// The part of a source before its tests, which may import what they like.
fn code(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or(source)
}

fn name(path: &Path) -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    path.strip_prefix(src)
        .expect("it is below src")
        .display()
        .to_string()
}

/// The modules of this crate that a source names, in `crate::x` and in `use crate::{x, y::z}`.
fn imports(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        if !rest.starts_with('{') {
            found.push(
                rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            );
            continue;
        }
        let (mut depth, mut word, mut fresh) = (0, String::new(), true);
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 1 && (c.is_alphanumeric() || c == '_') && fresh {
                word.push(c);
            } else if depth <= 1 {
                if !word.is_empty() {
                    found.push(std::mem::take(&mut word));
                    fresh = false;
                }
                if c == ',' || c == '{' {
                    fresh = true;
                }
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

#[test]
fn imports_go_one_way() {
    let known: Vec<&str> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for (path, source) in sources() {
        let name = name(&path);
        if matches!(name.as_str(), "lib.rs" | "main.rs") || name.ends_with("tests.rs") {
            continue;
        }
        let module = name.split(['/', '.']).next().expect("a name");
        let Some((_, may)) = MAY_IMPORT.iter().find(|(known, _)| *known == module) else {
            wrong.push(format!(
                "{name}: the module {module} has no place in the order"
            ));
            continue;
        };
        for import in imports(code(&source)) {
            let allowed = import == module
                || may.contains(&import.as_str())
                || (may.contains(&LEAVES) && LEAF_MODULES.contains(&import.as_str()));
            if known.contains(&import.as_str()) && !allowed {
                wrong.push(format!("{name} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_pure_stays_pure() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, source) in sources() {
        let name = name(&path);
        if !PURE.iter().any(|pure| name.starts_with(pure)) {
            continue;
        }
        seen += 1;
        let lines = code(&source)
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            if let Some(word) = IMPURE.iter().find(|word| line.contains(**word)) {
                wrong.push(format!("{name} names {word}: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen >= PURE.len());
}

#[test]
fn the_reader_of_imports_reads() {
    let source = "use crate::{a::B, c::{d, e}, f};\ncrate::g::h(); use crate::i;";
    assert_eq!(imports(source), ["a", "c", "f", "g", "i"]);
}
