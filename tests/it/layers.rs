//! Who may import whom, that no circle stands inside a folder, and that what is pure stays so. It
//! is what a workspace of many crates buys, at the price of one file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The floors of the server, from the ground up: a module may import those of the floors below.
const FLOORS: &[&[&str]] = &[
    &[
        "backoff", "clock", "drain", "networks", "process", "protocol", "sync",
    ],
    &["limits"],
    &["metrics"],
    &["pattern", "sse", "topic"],
    &["hub"],
    &["history"],
    &["outbound", "tls"],
    &["access"],
    &["exchange"],
    &["proxy"],
    // Doors for the benches.
    &["measured"],
    &["service"],
    &["net"],
    &["config"],
    &["edge"],
    &["cli"],
];

/// Modules that may import these and no others, whatever their floor.
const ONLY: &[(&str, &[&str])] = &[
    ("hub", &["clock", "pattern", "sse", "sync", "topic"]),
    // Tools: they see the wire and not the server's code, and nothing of the server imports them.
    ("client", &["backoff", "clock", "protocol", "sse"]),
    (
        "load",
        &["backoff", "client", "clock", "process", "protocol", "sse"],
    ),
];

/// What may import the tools.
const TOOLS: (&[&str], &[&str]) = (&["cli"], &["client", "load"]);

/// Files without clock, lock, task or socket.
const PURE: &[&str] = &[
    "backoff.rs",
    "networks.rs",
    "pattern.rs",
    "protocol.rs",
    "topic.rs",
    "sse/",
    "limits/abuse.rs",
    "limits/bucket.rs",
    "limits/counts.rs",
    "limits/limit.rs",
    "limits/memory.rs",
    "limits/rates.rs",
    "limits/refusals.rs",
    "limits/slots.rs",
    "hub/entry.rs",
    "hub/evicted.rs",
    "hub/fleeting.rs",
    "hub/gap.rs",
    "hub/pace.rs",
    "hub/resume.rs",
    "hub/ring.rs",
    "hub/stored.rs",
    "hub/timeline.rs",
    "hub/topic_rules.rs",
    "history/cluster/frame.rs",
    "history/cluster/settings.rs",
    "history/log/format.rs",
    "history/log/index.rs",
    "history/log/noted.rs",
    "history/record.rs",
    "history/log/sync_policy.rs",
    "history/wall.rs",
    "access/credential.rs",
    "access/groups.rs",
    "access/origins.rs",
    "access/publisher.rs",
    "access/revoked.rs",
    "access/rules.rs",
    "access/session/answer.rs",
    "exchange/code.rs",
    "exchange/validate.rs",
    "service/members.rs",
    "service/presence.rs",
    "service/routes.rs",
    "service/stream_request.rs",
    "net/turns.rs",
    "net/h3/guard.rs",
    "net/h3/field_section.rs",
    "load/frames.rs",
    "load/scan.rs",
    "load/stamp.rs",
    "load/tally.rs",
    "load/zipf.rs",
    "config/range.rs",
    "config/value.rs",
];
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "quinn",
    "Mutex",
    "RwLock",
    "Instant::now",
    "SystemTime::now",
    "clock::now",
    "clock::wall",
];
/// Parts of std that files which are pure do not name; addresses are values.
const IMPURE_STD: &[&str] = &["fs", "net", "process", "thread"];
const VALUES: &[&str] = &["SocketAddr", "IpAddr", "Ipv4Addr", "Ipv6Addr"];

/// A source file: the module that it is, and its text before its tests.
struct Source {
    /// Its path below `src`, to name it by.
    file: String,
    /// The module, such as `net::h2::sink`; a folder's `mod.rs` is the folder.
    module: Vec<String>,
    is_face: bool,
    code: String,
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, below: &str, found: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() && name != "tests" {
                walk(&path, &format!("{below}{name}/"), found);
            } else if name.ends_with(".rs") && name != "main.rs" {
                let file = format!("{below}{name}");
                let text = fs::read_to_string(&path).expect("text");
                let mut module: Vec<String> = file[..file.len() - 3]
                    .split('/')
                    .map(str::to_owned)
                    .collect();
                let is_face = matches!(&*name, "mod.rs" | "lib.rs");
                if is_face {
                    module.pop();
                }
                found.push(Source {
                    code: code(&text),
                    file,
                    module,
                    is_face,
                });
            }
        }
    }
    let mut found = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    walk(&src, "", &mut found);
    assert!(found.len() > 50, "the sources are there");
    found
}

/// The part of a source before its tests, which may import what they like, without comments.
fn code(source: &str) -> String {
    let tests = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\nmod tests;"];
    let end = tests.iter().filter_map(|tests| source.find(tests)).min();
    let code = &source[..end.unwrap_or(source.len())];
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths that follow `prefix` in a source, each to its end: `crate::{a, b::C}` after `crate::`
/// are `a` and `b::C`.
fn paths(code: &str, prefix: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
            expand(&code[at + prefix.len()..], &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Reads one tree of a `use`; returns how much of the text it took.
fn expand(text: &str, stem: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let mut at = 0;
    let depth = stem.len();
    loop {
        let rest = &text[at..];
        let word: String = rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        at += word.len();
        if word.is_empty() && text[at..].starts_with('{') {
            at += 1;
            while !text[at..].starts_with('}') && at < text.len() {
                let skip = text[at..].len() - text[at..].trim_start_matches([' ', '\n', ',']).len();
                at += skip;
                if !text[at..].starts_with('}') {
                    at += expand(&text[at..], stem, found).max(1);
                }
            }
            at += 1;
            break;
        }
        stem.push(word);
        if text[at..].starts_with("::") {
            at += 2;
            continue;
        }
        // `a as b`
        if let Some(alias) = text[at..].strip_prefix(" as ") {
            let name = alias.find(|c: char| !c.is_alphanumeric() && c != '_');
            at += 4 + name.unwrap_or(alias.len());
        }
        found.push(stem.clone());
        break;
    }
    stem.truncate(depth);
    at
}

impl Source {
    /// Everything of this crate that it names, as absolute paths.
    fn imports(&self) -> Vec<Vec<String>> {
        let mut all = paths(&self.code, "crate::");
        let parent = &self.module[..self.module.len().saturating_sub(1)];
        for path in paths(&self.code, "super::") {
            let ups = path.iter().take_while(|word| *word == "super").count();
            let base = &parent[..parent.len().saturating_sub(ups)];
            all.push([base, &path[ups..]].concat());
        }
        all
    }
}

#[test]
fn imports_go_one_way() {
    let floor = |module: &str| FLOORS.iter().position(|floor| floor.contains(&module));
    let known = |module: &str| floor(module).is_some() || ONLY.iter().any(|(m, _)| *m == module);
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(module) = source.module.first() else {
            // Names at the root would be a way around all floors.
            let passes_on = source.code.contains("use ");
            assert!(
                !passes_on,
                "{} uses what it should only declare",
                source.file
            );
            continue;
        };
        if !known(module) {
            wrong.push(format!(
                "{}: {module} has no place in the order",
                source.file
            ));
        }
        for import in source.imports() {
            let import = import[0].as_str();
            if import == module {
                continue;
            }
            if !known(import) {
                wrong.push(format!("{}: {import} is no module", source.file));
                continue;
            }
            let only = ONLY.iter().find(|(m, _)| m == module);
            let allowed = match only {
                Some((_, only)) => only.contains(&import),
                None if TOOLS.1.contains(&import) => TOOLS.0.contains(&module.as_str()),
                None => floor(import) < floor(module),
            };
            if !allowed {
                wrong.push(format!("{} imports {import}", source.file));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The files of a folder import each other one way too. Its face counts as one of them: what it
/// defines itself its files may use only if it does not use them; passing names on is not using.
#[test]
fn no_circle_stands_inside_a_folder() {
    let sources = sources();
    let mut wrong = Vec::new();
    for face in sources.iter().filter(|source| source.is_face) {
        let folder = &face.module;
        for hidden in ["use self::", "::*"] {
            let hides = face.code.contains(hidden);
            assert!(!hides, "{}: `{hidden}` hides who imports what", face.file);
        }
        let below = |module: &[String]| module.starts_with(folder) && module.len() > folder.len();
        let children: BTreeSet<&String> = sources
            .iter()
            .filter(|source| below(&source.module))
            .map(|source| &source.module[folder.len()])
            .collect();
        let is_child = |name: &String| children.contains(name);
        let (passed_on, used) = statements(&face.code);
        // Which child a name of the face comes from.
        let mut origin: BTreeMap<&str, &str> = BTreeMap::new();
        for path in passed_on
            .iter()
            .chain(&used)
            .filter(|path| is_child(&path[0]))
        {
            let name = path.last().expect("a path has an end");
            origin.insert(name, &path[0]);
        }
        const FACE: &str = "its face";
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for path in used.iter().filter(|path| is_child(&path[0])) {
            edges.entry(FACE).or_default().insert(&path[0]);
        }
        let imports: Vec<_> = sources
            .iter()
            .filter(|source| below(&source.module))
            .map(|source| (&source.module[folder.len()], source.imports()))
            .collect();
        for (from, imports) in &imports {
            for import in imports.iter().filter(|path| below(path)) {
                let name = &import[folder.len()];
                let to = match (is_child(name), origin.get(name.as_str())) {
                    (true, _) => name,
                    (false, Some(child)) => *child,
                    (false, None) => FACE,
                };
                if to != from.as_str() {
                    edges.entry(from).or_default().insert(to);
                }
            }
        }
        if !folder.is_empty()
            && let Some(circle) = circle(&edges)
        {
            wrong.push(format!("{}: {}", folder.join("::"), circle.join(" > ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The paths of a face that are passed on (`pub use child::Name`), and those that it uses itself:
/// in a `use`, or in place.
fn statements(code: &str) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let (mut passed_on, mut used) = (Vec::new(), Vec::new());
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        let trimmed = statement.trim_start();
        let public = trimmed.strip_prefix("pub use ").or_else(|| {
            let (_, rest) = trimmed.strip_prefix("pub(")?.split_once(") ")?;
            rest.strip_prefix("use ")
        });
        if let Some(tree) = public {
            expand(tree, &mut Vec::new(), &mut passed_on);
        } else if let Some(tree) = trimmed.strip_prefix("use ") {
            expand(tree, &mut Vec::new(), &mut used);
        } else {
            rest.push_str(statement);
        }
    }
    // What is passed on may be used here as well.
    let words: BTreeSet<&str> = rest
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    let both = |path: &&Vec<String>| {
        path.last()
            .is_some_and(|name| words.contains(name.as_str()))
    };
    used.extend(passed_on.iter().filter(both).cloned());
    // `child::name` in place.
    for (at, _) in rest.match_indices("::") {
        let head: String = rest[..at]
            .chars()
            .rev()
            .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
            .collect();
        let head: String = head.chars().rev().collect();
        let first = head.split("::").next().unwrap_or_default();
        if !first.is_empty() {
            used.push(vec![first.to_owned(), String::new()]);
        }
    }
    (passed_on, used)
}

/// A way from somewhere back to it.
fn circle<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    fn walk<'a>(
        at: &'a str,
        edges: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(begin) = way.iter().position(|known| *known == at) {
            return Some([&way[begin..], &[at]].concat());
        }
        if !done.insert(at) {
            return None;
        }
        way.push(at);
        let found = edges
            .get(at)
            .into_iter()
            .flatten()
            .find_map(|next| walk(next, edges, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    edges
        .keys()
        .find_map(|start| walk(start, edges, &mut Vec::new(), &mut done))
}

#[test]
fn what_is_pure_stays_pure() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources() {
        let Some(pure) = PURE.iter().find(|pure| source.file.starts_with(**pure)) else {
            continue;
        };
        seen.insert(pure);
        for line in source.code.lines() {
            if let Some(word) = IMPURE.iter().find(|word| line.contains(**word)) {
                wrong.push(format!("{} names {word}: {}", source.file, line.trim()));
            }
        }
        for path in paths(&source.code, "std::") {
            let is_value = path
                .last()
                .is_some_and(|name| VALUES.contains(&name.as_str()));
            if IMPURE_STD.contains(&path[0].as_str()) && !is_value {
                wrong.push(format!("{} names std::{}", source.file, path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let gone: Vec<_> = PURE.iter().filter(|pure| !seen.contains(pure)).collect();
    assert!(gone.is_empty(), "these are gone: {gone:?}");
}

#[test]
fn the_reader_of_imports_reads() {
    let read = |code| {
        let paths = paths(code, "crate::");
        paths.iter().map(|path| path.join("::")).collect::<Vec<_>>()
    };
    let source = "use crate::{a::B, c::{d, e::F as G}, f};\ncrate::g::h(); use crate::i;";
    assert_eq!(read(source), ["a::B", "c::d", "c::e::F", "f", "g::h", "i"]);

    let (passed_on, used) = statements("pub use a::{B, C};\nuse d::E;\nfn f() -> B { g::h() }");
    assert_eq!(passed_on, [["a", "B"], ["a", "C"]]);
    assert_eq!(used, [["d", "E"], ["a", "B"], ["g", ""]]);

    let edges = |pairs: &[(&'static str, &'static str)]| {
        let mut edges: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (from, to) in pairs {
            edges.entry(*from).or_default().insert(*to);
        }
        edges
    };
    assert_eq!(circle(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let found = circle(&edges(&[("a", "b"), ("b", "c"), ("c", "b")]));
    assert_eq!(found, Some(vec!["b", "c", "b"]));
}
