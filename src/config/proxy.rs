//! `[[route]]`, `[proxy]` and `[trusted]`: what stands behind the edge, and before it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::uri::PathAndQuery;
use serde::Deserialize;
use toml::Table;

use super::{
    items::{each, of_table},
    range::{self, MAX_TIME},
    reader::Reader,
    value::Bytes,
};
use crate::{
    networks::Networks,
    outbound::Address,
    proxy::{HostPattern, PathPattern, RelaySettings, RouteSettings, SendHost, Target},
};

/// `[[route]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    host: Option<String>,
    #[serde(default = "everything")]
    path: String,
    upstream: Option<OneOrMany>,
    files: Option<PathBuf>,
    #[serde(default = "client")]
    send_host: String,
    #[serde(default)]
    identity: bool,
    #[serde(default = "yes")]
    gentle: bool,
    #[serde(default)]
    share: bool,
    #[serde(default)]
    hub: bool,
    health: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn everything() -> String {
    "/**".into()
}

fn client() -> String {
    "client".into()
}

fn yes() -> bool {
    true
}

pub(super) fn take_routes(reader: &mut Reader) -> Vec<RouteSettings> {
    let upstream: Vec<String> = reader.take(
        "proxy.upstream",
        Vec::new(),
        "The app that gets whatever is not the hub's and has no route of its own: `http://host:port`, \
         `https://host:port`, `h2c://host:port` or `unix:/path/of/the.sock`; several are taken as alike.",
    );
    let tables: Vec<Table> = reader.take(
        "route",
        Vec::new(),
        "`[[route]]`: the requests for `host` (all, `app.example.com`, `*.example.com`) and `path` (`/**`, \
         `/api/**`, `/exactly`) go to `upstream`, one app or a list of apps that are alike, or to `files`, a \
         directory. `send_host = \"upstream\"`: the app sees its own host, not the client's. `identity = true`: it is \
         told who asks, by `Remote-User` and `Remote-Groups`. `gentle = false`: an `EventSource` sees its failures \
         as they are, and gives up. `share = true`: all who ask for the same event stream get one stream of the \
         app's, which is asked without cookies and authorization. `hub = true`: an answer with \
         `Seventh-Subscribe: topic, topic` becomes an event stream of these topics. `health = \"/path\"`: it is asked for that now and then. The most specific route \
         is taken, by host, then by path.",
    );
    let files: Option<PathBuf> = reader.take_if(
        "proxy.files",
        None,
        "The directory whose files answer whatever is not the hub's and has no route of its own.",
        |files: &Option<PathBuf>| files.as_deref().map_or(Ok(()), is_directory),
    );
    let mut routes = each(reader, "route", tables, |table| route(of_table(table)?));
    if files.is_some() && !upstream.is_empty() {
        reader.mistake(
            "proxy.files",
            "is set beside proxy.upstream; write a [[route]] for one of them",
        );
    }
    if let Some(directory) = files {
        routes.push(for_all(Target::Files(directory)));
    } else if !upstream.is_empty() {
        let addresses = each(reader, "proxy.upstream", upstream, |text| {
            Address::parse(&text).map_err(|error| error.to_string())
        });
        routes.push(for_all(Target::Upstreams(addresses)));
    }
    routes
}

/// A route for whatever has no other.
fn for_all(target: Target) -> RouteSettings {
    RouteSettings {
        host: HostPattern::Any,
        path: PathPattern::parse("/**").expect("it is one"),
        target,
        send_host: SendHost::Client,
        identity: false,
        gentle: true,
        share: false,
        hub: false,
        health: None,
    }
}

fn is_directory(path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Ok(());
    }
    Err(format!(
        "`{}` is not a directory that can be read; name one",
        path.display()
    ))
}

fn route(table: RouteTable) -> Result<RouteSettings, String> {
    let target = match (table.upstream, table.files) {
        (Some(upstream), None) => {
            let texts = match upstream {
                OneOrMany::One(text) => vec![text],
                OneOrMany::Many(texts) => texts,
            };
            if texts.is_empty() {
                return Err("upstream is an empty list; name an app".into());
            }
            let addresses = texts.iter().map(|text| Address::parse(text));
            let addresses: Result<_, _> = addresses.collect();
            Target::Upstreams(addresses.map_err(|error| error.to_string())?)
        }
        (None, Some(directory)) => {
            is_directory(&directory)?;
            Target::Files(directory)
        }
        _ => return Err("says not where to; write upstream or files, one of them".into()),
    };
    let host = table.host.as_deref().map(HostPattern::parse).transpose();
    let send_host = match table.send_host.as_str() {
        "client" => SendHost::Client,
        "upstream" => SendHost::Upstream,
        other => {
            return Err(format!(
                "send_host is `{other}`; write \"client\" or \"upstream\""
            ));
        }
    };
    let is_path = |path: &&String| path.starts_with('/') && path.parse::<PathAndQuery>().is_ok();
    if let Some(path) = table.health.as_ref().filter(|path| !is_path(path)) {
        return Err(format!("health is `{path}`; write a path"));
    }
    Ok(RouteSettings {
        host: host
            .map_err(|error| error.to_string())?
            .unwrap_or(HostPattern::Any),
        path: PathPattern::parse(&table.path).map_err(|error| error.to_string())?,
        target,
        send_host,
        identity: table.identity,
        gentle: table.gentle,
        share: table.share,
        hub: table.hub,
        health: table.health.map(Into::into),
    })
}

pub(super) fn take_relay(reader: &mut Reader) -> RelaySettings {
    let default = RelaySettings::default();
    RelaySettings {
        linger: reader.take_if(
            "relay.linger",
            default.linger,
            "How long the app's event stream is read on for a browser that has left and may come back.",
            |time| range::time(*time, &(Duration::ZERO..=MAX_TIME)),
        ),
        patience: reader.take_if(
            "relay.patience",
            default.patience,
            "How long an app may be gone before the browsers' event streams end.",
            |time| range::time(*time, &(Duration::ZERO..=MAX_TIME)),
        ),
        bytes: reader
            .take(
                "relay.bytes",
                Bytes(default.bytes),
                "The most bytes of an app's event stream that are kept for browsers that come back.",
            )
            .0,
        total_bytes: default.total_bytes,
    }
}

pub(super) fn take_trusted(reader: &mut Reader) -> Networks {
    take_networks(
        reader,
        "trusted.networks",
        &[],
        "The networks of proxies in front of the edge, such as `10.0.0.0/8` or `192.0.2.7`: only what these say \
         of a client (`X-Forwarded-For` and its kin, `Forwarded`, `X-Request-Id`) is kept.",
    )
}

pub(super) fn take_balancers(reader: &mut Reader) -> Networks {
    take_networks(
        reader,
        "trusted.proxy_protocol",
        &[],
        "The networks of balancers that say who the client is by the PROXY protocol, version 1 or 2: each TCP connection \
         from there to `https.listen` and `http.listen` must begin with its header. From elsewhere none is taken.",
    )
}

pub(super) fn take_networks(
    reader: &mut Reader,
    key: &'static str,
    default: &[&str],
    doc: &'static str,
) -> Networks {
    let default = default.iter().map(|&network| network.to_owned());
    let networks: Vec<String> = reader.take(key, default.collect(), doc);
    Networks(each(reader, key, networks, |text| {
        let address = || text.parse::<std::net::IpAddr>().map(Into::into);
        text.parse().or_else(|_| address()).map_err(|_| {
            format!("`{text}` is not a network; write ADDRESS/BITS, such as 10.0.0.0/8")
        })
    }))
}

/// Where the hub's public paths live once a route covers them.
pub(super) fn take_prefix(reader: &mut Reader) -> String {
    reader.take_if(
        "access.prefix",
        "/.seventh/".to_owned(),
        "Below what path the hub's own are (`events`, `publish` and so on) as soon as a route covers one of \
         theirs.",
        |prefix| {
            let inner = prefix.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
            match inner {
                Some(inner) if !inner.is_empty() && PathPattern::parse(&prefix[..prefix.len() - 1]).is_ok() => {
                    Ok(())
                }
                _ => Err(format!("`{prefix}` is not a prefix; write one that begins and ends with /")),
            }
        },
    )
}
