//! `[cluster]`

use std::path::PathBuf;

use super::{history::KeptHistory, reader::Reader};
use crate::history::ClusterSettings;

/// The longest name, in characters.
const NAME: usize = 32;
/// The most copies that a server keeps.
const REPLICAS: usize = 5;

/// The order that this edge has in common with others.
pub(super) fn take(reader: &mut Reader, kept: &KeptHistory) -> Option<ClusterSettings> {
    let name: Option<String> = reader.take_if(
        "cluster.name",
        None,
        "Edges with one name and the same NATS servers have one order: whatever is published at one reaches the readers \
         of all, and clients move between them without a gap. Unset: this edge is on its own.",
        |name: &Option<String>| name.as_deref().map_or(Ok(()), word),
    );
    let servers: Vec<String> = reader.take_if(
        "cluster.nats",
        Vec::new(),
        "The NATS servers that keep the order, with JetStream, such as `nats://10.0.0.1:4222`.",
        |servers: &Vec<String>| {
            let bad = servers.iter().filter_map(|server| is_server(server).err());
            let bad: Vec<String> = bad.collect();
            if bad.is_empty() {
                Ok(())
            } else {
                Err(bad.join("; "))
            }
        },
    );
    let replicas = reader.take_if(
        "cluster.replicas",
        3,
        "How many of the servers have each event: 3 survives the loss of one, 1 of none.",
        |replicas: &usize| {
            if replicas % 2 == 1 && *replicas <= REPLICAS {
                Ok(())
            } else {
                Err(format!("{replicas} is not 1, 3 or 5"))
            }
        },
    );
    let node: Option<String> = reader.take_if(
        "cluster.node",
        None,
        "What this edge is called among the others. Unset: the name of the machine and four random digits.",
        |node: &Option<String>| node.as_deref().map_or(Ok(()), word),
    );
    let credentials: Option<PathBuf> = reader.take(
        "cluster.credentials",
        None,
        "A file with the credentials of a NATS user (`nsc generate creds`).",
    );
    let ca: Option<PathBuf> = reader.take(
        "cluster.ca",
        None,
        "A file with the certificate of whoever signs those of the NATS servers, in PEM. TLS is insisted on then, as it \
         is with `tls://`; those that the system trusts are trusted too.",
    );
    let Some(name) = name else {
        if !servers.is_empty() && !reader.is_mistaken("cluster.name") {
            let what = "is set, and cluster.name is not: name the cluster, or leave both out";
            reader.mistake("cluster.nats", what.to_owned());
        }
        return None;
    };
    if servers.is_empty() && !reader.is_mistaken("cluster.nats") {
        let what = "is not set, and cluster.name is: name a NATS server, or leave both out";
        reader.mistake("cluster.nats", what.to_owned());
    }
    Some(ClusterSettings {
        name,
        servers,
        replicas: u8::try_from(replicas).unwrap_or(1),
        node: node.unwrap_or_else(own_name),
        credentials,
        ca,
        bytes: kept.bytes,
        age: kept.age,
        cache: kept.log(),
    })
}

/// Whether a name can be part of a subject.
fn word(name: &str) -> Result<(), String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=NAME).contains(&name.len()) && name.chars().all(is_word) {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not 1 to {NAME} letters, digits, `_` and `-`"
    ))
}

fn is_server(server: &str) -> Result<(), String> {
    let rest = ["nats://", "tls://"]
        .iter()
        .find_map(|scheme| server.strip_prefix(scheme));
    match rest {
        // It is logged and told.
        Some(rest) if rest.contains('@') => Err(
            "there is a user or a password in it, which would be logged; put them into cluster.credentials".into(),
        ),
        Some(rest) if !rest.is_empty() => Ok(()),
        _ => Err(format!(
            "`{server}` is not nats:// or tls:// and an address, such as nats://10.0.0.1:4222"
        )),
    }
}

/// The name of the machine, and what makes it unlike that of another edge there.
fn own_name() -> String {
    let host = sysinfo::System::host_name().unwrap_or_default();
    let host = host.split('.').next().unwrap_or_default();
    let host: String = host
        .chars()
        .map(|c| {
            if word(c.encode_utf8(&mut [0; 4])).is_ok() {
                c
            } else {
                '-'
            }
        })
        .take(NAME - 5)
        .collect();
    format!("{host}-{:04x}", fastrand::u16(..))
}
