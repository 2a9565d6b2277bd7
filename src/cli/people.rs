//! `seventh broadcast`, `send`, `streams`, `groups`, `disconnect`: people rather than topics.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal as _, Write as _},
};

use anyhow::bail;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{
    fields::Fields,
    operator::{Operator, json_line, name_in_path, printable, streams},
    runtime::block_on,
};

/// The most that the control listener puts on a page.
const PAGE: usize = 1000;

/// An event with this data.
fn event(fields: &Fields, data: &str, whom: Value) -> Value {
    let mut event = whom;
    event["data"] = json!(data);
    for (name, value) in fields.given() {
        event[name] = value;
    }
    if let Some(id) = &fields.id {
        event["id"] = json!(id);
    }
    event
}

/// Each entry of a list of the control listener, page by page.
async fn each(
    operator: &Operator,
    list: &str,
    filters: &[(&str, &Option<String>)],
    mut show: impl FnMut(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut after: Option<String> = None;
    let mut missing = BTreeSet::new();
    loop {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &PAGE.to_string());
        for (name, value) in filters.iter().chain([&("after", &after)]) {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let path = format!("/{list}?{}", query.finish());
        let page = operator.ask(Method::GET, &path).await?;
        for entry in page[list].as_array().into_iter().flatten() {
            show(entry)?;
        }
        let silent = page["missing"].as_array().into_iter().flatten();
        missing.extend(silent.filter_map(Value::as_str).map(printable));
        after = match &page["next"] {
            Value::String(next) => Some(next.clone()),
            Value::Number(next) => Some(next.to_string()),
            _ => break,
        };
    }
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = missing.into_iter().collect();
    bail!(
        "these edges did not answer, and what they have is not in the list: {}",
        missing.join(", ")
    );
}

/// Send an event to everyone who is logged in, or who is not.
#[derive(Debug, Args)]
pub(super) struct Broadcast {
    /// The data
    data: String,
    /// To the anonymous too
    #[arg(long)]
    all: bool,
    /// To the anonymous alone
    #[arg(long, conflicts_with = "all")]
    anonymous: bool,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    operator: Operator,
}

impl Broadcast {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let whom =
            json!({ "authenticated": !self.anonymous, "anonymous": self.all || self.anonymous });
        let event = event(&self.fields, &self.data, whom);
        sent(&block_on(self.operator.send("/broadcast", &event))?)
    }
}

/// Send an event to users and groups.
#[derive(Debug, Args)]
pub(super) struct Send {
    /// The data
    data: String,
    /// A user; may be given several times
    #[arg(long, value_name = "USER", required_unless_present = "group")]
    user: Vec<String>,
    /// A group, with those nested in it; may be given several times
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    operator: Operator,
}

impl Send {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let whom = json!({ "users": self.user, "groups": self.group });
        let event = event(&self.fields, &self.data, whom);
        sent(&block_on(self.operator.send("/send", &event))?)
    }
}

fn sent(answer: &Value) -> anyhow::Result<()> {
    let id = printable(answer["id"].as_str().unwrap_or_default());
    print(answer, |out| {
        writeln!(out, "{id}  to {}", streams(&answer["receivers"]))
    })
}

/// List the open event streams.
#[derive(Debug, Args)]
pub(super) struct Streams {
    /// Of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Of members of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    #[command(flatten)]
    operator: Operator,
}

impl Streams {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let filters = [
            ("user", &self.user),
            ("group", &self.group),
            ("topic", &self.topic),
        ];
        block_on(each(&self.operator, "streams", &filters, |stream| {
            print(stream, |out| {
                let text = |name: &str| stream[name].as_str().map(printable);
                let topics = stream["topics"].as_array().into_iter().flatten();
                let topics: Vec<_> = topics.filter_map(Value::as_str).map(printable).collect();
                writeln!(
                    out,
                    "{}  {}  {}  {}  {}  {}",
                    stream["id"],
                    text("user").unwrap_or_else(|| "-".into()),
                    text("protocol").unwrap_or_default(),
                    text("address").unwrap_or_default(),
                    text("since").unwrap_or_default(),
                    topics.join(" ")
                )
            })
        }))
    }
}

/// List the groups, show one, or change who is in it.
#[derive(Debug, Args)]
pub(super) struct Groups {
    /// The group to show
    group: Option<String>,
    /// Take this member in: `user:NAME` or `group:NAME`
    #[arg(long, value_name = "MEMBER", requires = "group")]
    add: Option<String>,
    /// Take this member out
    #[arg(
        long,
        value_name = "MEMBER",
        requires = "group",
        conflicts_with = "add"
    )]
    remove: Option<String>,
    #[command(flatten)]
    operator: Operator,
}

impl Groups {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        block_on(self.answer())
    }

    async fn answer(&self) -> anyhow::Result<()> {
        let Some(group) = &self.group else {
            return self.list().await;
        };
        let path = format!("/groups/{}", name_in_path(group));
        let change = [(Method::PUT, &self.add), (Method::DELETE, &self.remove)];
        let change = change
            .into_iter()
            .find_map(|(method, member)| Some((method, member.as_ref()?)));
        let answer = match change {
            Some((method, member)) => {
                let path = format!("{path}/members/{}", name_in_path(member));
                self.operator.ask(method, &path).await?
            }
            None => self.operator.ask(Method::GET, &path).await?,
        };
        print(&answer, |out| match answer["effective"].as_object() {
            Some(effective) => {
                writeln!(out, "members  {}", names(&answer["members"]))?;
                writeln!(out, "groups   {}", names(&effective["groups"]))?;
                writeln!(out, "users    {}", names(&effective["users"]))
            }
            None => writeln!(out, "{}", json_line(&answer)),
        })
    }

    async fn list(&self) -> anyhow::Result<()> {
        let show = |group: &Value| {
            let name = group["group"].as_str().map(printable).unwrap_or_default();
            let members = names(&group["members"]);
            print(group, |out| writeln!(out, "{name}  {members}"))
        };
        each(&self.operator, "groups", &[], show).await
    }
}

fn names(list: &Value) -> String {
    let names = list.as_array().into_iter().flatten();
    let names: Vec<_> = names.filter_map(Value::as_str).map(printable).collect();
    if names.is_empty() {
        return "none".into();
    }
    names.join(" ")
}

/// End the streams of a user, whose client comes back and is asked anew who it is.
#[derive(Debug, Args)]
pub(super) struct Disconnect {
    /// The user
    user: String,
    #[command(flatten)]
    operator: Operator,
}

impl Disconnect {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let path = format!("/users/{}/disconnect", name_in_path(&self.user));
        let answer = block_on(self.operator.ask(Method::POST, &path))?;
        print(&answer, |out| {
            writeln!(out, "{} end", streams(&answer["streams"]))
        })
    }
}

/// Prints an answer: in words for people, else a line of JSON. Whoever does not read on any more ends it.
fn print(
    answer: &Value,
    in_words: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let out = io::stdout();
    let mut lock = out.lock();
    if out.is_terminal() {
        in_words(&mut lock)?;
    } else {
        writeln!(lock, "{}", json_line(answer))?;
    }
    Ok(())
}
