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

/// A folder with what the documents name on a machine of their own, and their text with its paths.
fn on_this_machine(text: &str, folder: &Path) -> String {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let secrets = folder.join("run/secrets");
    let etc = folder.join("etc/seventh");
    fs::create_dir_all(&secrets).expect("a folder");
    fs::create_dir_all(&etc).expect("a folder");
    fs::create_dir_all(folder.join("srv/static")).expect("a folder");
    fs::write(etc.join("app.pem"), pair.public_key_pem()).expect("it is written");
    for (n, name) in ["seventh-jwt", "seventh-newsroom", "newsroom", "app"]
        .iter()
        .enumerate()
    {
        let secret = format!("{n} of forty-eight or more bytes that nobody else knows\n");
        let secret = secret.replace(' ', "-");
        fs::write(secrets.join(name), secret).expect("it is written");
    }
    let here = folder.display();
    text.replace("\"/run/secrets/", &format!("\"{here}/run/secrets/"))
        .replace("\"/srv/", &format!("\"{here}/srv/"))
        .replace("\"/etc/seventh/", &format!("\"{here}/etc/seventh/"))
        // Which is refused, as everybody knows it.
        .replace(
            "at least thirty-two random bytes",
            "one-that-is-known-to-nobody-but-this-test",
        )
}

#[test]
fn the_example_is_taken_as_it_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("seventh.example.toml")).expect("it is there");
    let config = Config::from_text(&on_this_machine(&text, folder.path())).expect("it is right");
    assert_eq!(config.warnings, [""; 0]);
    assert!(!config.demo);
}

#[test]
fn every_configuration_in_the_documentation_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages: Vec<_> = fs::read_dir(root.join("docs"))
        .expect("it is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.push(root.join("README.md"));
    let mut snippets = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("text");
        for part in text.split("```toml\n").skip(1) {
            let snippet = part.split("```").next().unwrap_or_default();
            let told = Config::from_text(&on_this_machine(snippet, folder.path()));
            assert!(
                told.is_ok(),
                "{}: {snippet}\n{}",
                page.display(),
                told.expect_err("wrong")
            );
            snippets += 1;
        }
    }
    assert!(snippets >= 10, "{snippets}");
}
