//! `seventh token`

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{anyhow, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{exit::Refused, operator::printable};
use crate::{
    access::{Keys, unverified},
    clock,
};

/// Make a token with the configured key, or explain one.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// The configuration file [default: seventh.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "SEVENTH_CONFIG")]
    config: Option<PathBuf>,
    /// The user
    #[arg(long, value_name = "USER", required_unless_present = "check")]
    sub: Option<String>,
    /// A group of theirs; may be given several times
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// A pattern of topics they may read; may be given several times [default: all]
    #[arg(long, value_name = "PATTERN")]
    topic: Vec<String>,
    /// A pattern of topics they may publish to; may be given several times
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<String>,
    /// How long it is valid
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1h")]
    ttl: Duration,
    /// Explain this token instead, good or bad; `-` reads it from standard input, where no shell remembers it
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["sub", "group", "topic", "publish"])]
    check: Option<String>,
}

impl TokenArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = super::serve::load(self.config.as_deref(), BTreeMap::new())?;
        let keys = config.access.keys;
        if keys.is_empty() {
            bail!(
                "there is no key; write `[[access.key]]` with `algorithm` and `secret` into the configuration"
            );
        }
        match &self.check {
            Some(token) if token == "-" => {
                let mut token = String::new();
                std::io::stdin().read_line(&mut token)?;
                check(&keys, token.trim())
            }
            Some(token) => check(&keys, token),
            None => {
                println!("{}", self.mint(&keys)?);
                Ok(())
            }
        }
    }

    fn mint(&self, keys: &Keys) -> anyhow::Result<String> {
        let now = clock::wall().duration_since(UNIX_EPOCH)?;
        let mut claims = json!({
            "sub": self.sub,
            "iat": now.as_secs(),
            "exp": (now + self.ttl).as_secs(),
        });
        for (name, values) in [("topics", &self.topic), ("publish", &self.publish)] {
            if !values.is_empty() {
                claims[name] = json!(values);
            }
        }
        if !self.group.is_empty() {
            claims[&keys.groups_claim] = json!(self.group);
        }
        for (name, value) in keys.signers_demands() {
            if let Some(value) = value {
                claims[name] = json!(value);
            }
        }
        let token = keys.sign(&claims).map_err(|why| anyhow!(why))?;
        // What the edge would refuse is not handed out.
        keys.verify(&token, clock::wall())?;
        Ok(token)
    }
}

/// Says what a token holds that is refused, and what would be taken.
fn explain(keys: &Keys, token: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let Some([header, claims]) = unverified(token) else {
        writeln!(out, "it is not three parts of Base64url with JSON in them")?;
        return Ok(());
    };
    // It may be anybody's.
    let show = |value: &Value| printable(&value.to_string());
    writeln!(out, "header")?;
    for (name, value) in &header {
        writeln!(out, "  {} = {}", printable(name), show(value))?;
    }
    writeln!(out, "claims, which nobody has vouched for")?;
    for (name, value) in &claims {
        let is_time = ["exp", "nbf", "iat"].contains(&name.as_str());
        let at = value
            .as_f64()
            .filter(|at| is_time && (0.0..1e11).contains(at));
        let at = at.map(|at| {
            let at = UNIX_EPOCH + Duration::from_secs_f64(at);
            format!("  ({})", humantime::format_rfc3339_seconds(at))
        });
        writeln!(
            out,
            "  {} = {}{}",
            printable(name),
            show(value),
            at.unwrap_or_default()
        )?;
    }
    let now = humantime::format_rfc3339_seconds(clock::wall());
    writeln!(out, "now  {now}")?;
    writeln!(out, "the keys here")?;
    for key in keys.described() {
        writeln!(out, "  {key}")?;
    }
    Ok(())
}

fn check(keys: &Keys, token: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let claims = match keys.verify(token, clock::wall()) {
        Ok(claims) => claims,
        Err(refused) => {
            explain(keys, token)?;
            return Err(Refused(refused.to_string()).into());
        }
    };
    let names = |names: &[crate::access::Name]| {
        let names: Vec<&str> = names.iter().map(crate::access::Name::as_str).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let patterns = |patterns: &Option<Vec<crate::pattern::Pattern>>, none: &str| match patterns {
        None => none.to_owned(),
        Some(patterns) => {
            let texts: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            texts.join(", ")
        }
    };
    let left = claims
        .expires_at()
        .duration_since(clock::wall())
        .unwrap_or_default();
    writeln!(out, "user      {}", printable(claims.user.as_str()))?;
    writeln!(out, "groups    {}", names(&claims.groups))?;
    writeln!(
        out,
        "reads     {}",
        patterns(&claims.topics, "what the rules allow")
    )?;
    writeln!(out, "publishes {}", patterns(&claims.publish, "nothing"))?;
    writeln!(
        out,
        "ends      in {}",
        humantime::format_duration(Duration::from_secs(left.as_secs()))
    )?;
    Ok(())
}
