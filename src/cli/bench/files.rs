//! Reports and what is made of them, as files.

use std::path::Path;

use anyhow::Context as _;

use crate::load::Report;

/// The file that is standard output.
pub(super) const STDOUT: &str = "-";

/// A report that `--json` wrote.
///
/// # Errors
///
/// When the file cannot be read, or is none.
pub(super) fn read(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of `seventh bench --json`", path.display()))
}

/// Writes a file.
///
/// # Errors
///
/// When it cannot be written.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path == Path::new(STDOUT) {
        println!("{text}");
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
