//! `seventh broadcast`, `send`, `streams`, `groups`, `disconnect`: people rather than topics.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{
    operator::{Operator, json_line, name_in_path, printable},
    runtime::block_on,
};

/// The most that the control listener puts on a page.
const PAGE: usize = 1000;

/// What an event has besides its data.
#[derive(Debug, Args)]
struct Fields {
    /// The event's type
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// The event's id, instead of one that is made
    #[arg(long)]
    id: Option<String>,
    /// How long it is given to anyone, such as 30s
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
    /// Only for those who read now: it is not kept
    #[arg(long)]
    no_history: bool,
}

impl Fields {
    fn with(&self, data: &str, whom: Value) -> Value {
        let mut event = whom;
        event["data"] = json!(data);
        for (name, value) in [
            ("event", json!(self.event)),
            ("id", json!(self.id)),
            ("ttl", json!(self.ttl)),
            ("history", json!(self.no_history.then_some(false))),
        ] {
            if !value.is_null() {
                event[name] = value;
            }
        }
        event
    }
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
        let event = self.fields.with(&self.data, whom);
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
        let event = self.fields.with(&self.data, whom);
        sent(&block_on(self.operator.send("/send", &event))?)
    }
}

fn sent(answer: &Value) -> anyhow::Result<()> {
    let id = printable(answer["id"].as_str().unwrap_or_default());
    print(answer, |out| {
        writeln!(out, "{id}  to {} streams", answer["receivers"])
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
        block_on(self.list())
    }

    async fn list(&self) -> anyhow::Result<()> {
        let mut after = Value::Null;
        loop {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &PAGE.to_string());
            for (name, value) in [
                ("user", &self.user),
                ("group", &self.group),
                ("topic", &self.topic),
            ] {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
            if let Some(after) = after.as_u64() {
                query.append_pair("after", &after.to_string());
            }
            let path = format!("/streams?{}", query.finish());
            let page = self.operator.ask(Method::GET, &path).await?;
            for stream in page["streams"].as_array().into_iter().flatten() {
                print(stream, |out| {
                    let user = stream["user"].as_str().unwrap_or("-");
                    let text =
                        |name: &str| stream[name].as_str().map(printable).unwrap_or_default();
                    let topics = stream["topics"].as_array().into_iter().flatten();
                    let topics: Vec<_> = topics.filter_map(Value::as_str).map(printable).collect();
                    writeln!(
                        out,
                        "{}  {}  {}  {}  {}  {}",
                        stream["id"],
                        printable(user),
                        text("protocol"),
                        text("address"),
                        text("since"),
                        topics.join(" ")
                    )
                })?;
            }
            after = page["next"].clone();
            if after.as_u64().is_none() {
                return Ok(());
            }
        }
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
        let mut after = String::new();
        loop {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &PAGE.to_string());
            if !after.is_empty() {
                query.append_pair("after", &after);
            }
            let path = format!("/groups?{}", query.finish());
            let page = self.operator.ask(Method::GET, &path).await?;
            for group in page["groups"].as_array().into_iter().flatten() {
                let name = group["group"].as_str().map(printable).unwrap_or_default();
                print(group, |out| {
                    writeln!(out, "{name}  {}", names(&group["members"]))
                })?;
            }
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => return Ok(()),
            }
        }
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
            writeln!(out, "{} streams end", answer["streams"])
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
