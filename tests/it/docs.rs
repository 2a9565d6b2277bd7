//! What the documentation says is what the code does.

use std::{fmt::Write as _, fs, path::Path};

use seventh::config::{Config, variable};

/// The reference as the settings themselves have it.
fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         `seventh.toml` in the current folder is read when it is there, or the file that `--config` names. Flags\n\
         win over the environment, the environment over the file, the file over the defaults. Unknown keys are\n\
         refused, and all mistakes are reported at once. This page is generated from the code: `make docs`.\n",
    );
    let mut section = "";
    for entry in Config::reference() {
        let this = entry.section();
        if this != section {
            section = this;
            write!(
                text,
                "\n## `[{section}]`\n\n| key | kind | default | what it does |\n|---|---|---|---|\n"
            )
            .expect("text");
        }
        let key = entry.key.split_once('.').map_or(entry.key, |(_, key)| key);
        writeln!(
            text,
            "| `{key}` | {} | `{}` | {} |",
            entry.kind, entry.default, entry.doc
        )
        .expect("text");
    }
    let example = variable("history.topic_bytes");
    write!(
        text,
        "\nEvery key but tables (`[[...]]`) and `[groups]` can be set in the environment: `history.topic_bytes` is `{example}`. Lists are written with\n\
         commas there. Durations are written with a unit (`500ms`, `15s`, `1h`), sizes too (`256 KiB`).\n"
    )
    .expect("text");
    text.push_str(
        "\n## Limits that are fixed\n\nCounted in `seventh_limit_hits_total` as those of `[limits]` are, and not configured.\n\n\
         | name | what it is |\n|---|---|\n",
    );
    for (name, what) in Config::fixed_limits() {
        writeln!(text, "| `{name}` | {what} |").expect("text");
    }
    text
}

#[test]
fn the_configuration_reference_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let expected = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).expect("it can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/configuration.md is out of date; run `make docs`"
    );
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![
        root.join("README.md"),
        root.join("certs/README.md"),
        root.join("CHANGELOG.md"),
        root.join("CONTRIBUTING.md"),
    ];
    for entry in fs::read_dir(root.join("docs")).expect("a folder") {
        pages.push(entry.expect("an entry").path());
    }
    for page in pages
        .iter()
        .filter(|page| page.extension().is_some_and(|e| e == "md"))
    {
        let text =
            fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().expect("a target");
            if !target.is_empty() && !target.contains("://") {
                let path = page.parent().expect("a folder").join(target);
                assert!(path.exists(), "{} links to {link}", page.display());
            }
        }
    }
}

/// Every limit that is configured has its row in docs/limits.md with its default, and no other has.
#[test]
fn the_page_of_limits_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/limits.md");
    let page = fs::read_to_string(path).expect("it is there");
    let reference = Config::reference();
    let limits = reference.iter().filter(|entry| entry.section() == "limits");
    let limits = limits.filter(|entry| entry.key != "limits.exempt");
    let mut expected: Vec<String> = limits
        .map(|entry| format!("| `{}` | `{}` |", entry.key, entry.default))
        .collect();
    let rows = page.lines().filter(|line| line.starts_with("| `limits."));
    let mut found: Vec<String> = rows
        .map(|line| line.splitn(4, '|').take(3).collect::<Vec<_>>().join("|") + "|")
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}
