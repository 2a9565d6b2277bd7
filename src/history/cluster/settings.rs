//! `[cluster]`

use std::{path::PathBuf, time::Duration};

use crate::history::LogSettings;

/// `[cluster]` and what belongs to it.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// `cluster.name`: edges with one name have one order.
    pub name: String,
    /// `cluster.nats`: the servers.
    pub servers: Vec<String>,
    /// `cluster.replicas`: how many of the servers have each entry.
    pub replicas: u8,
    /// `cluster.node`: what this edge is called.
    pub node: String,
    /// `cluster.credentials`: a file with a user's JWT and seed.
    pub credentials: Option<PathBuf>,
    /// `cluster.ca`: whose certificates the servers have, if not one that the system trusts.
    pub ca: Option<PathBuf>,
    /// `history.disk.bytes`: the most bytes that the servers keep.
    pub bytes: u64,
    /// `history.disk.age`: how long they keep it.
    pub age: Duration,
    /// `history.directory` and what belongs to it: what this edge keeps of it itself.
    pub cache: Option<LogSettings>,
}

impl ClusterSettings {
    /// The stream that has the order.
    pub(super) fn stream(&self) -> String {
        format!("seventh_{}", self.name)
    }

    /// The one subject of its frames.
    pub(super) fn subject(&self) -> String {
        format!("seventh.{}.e", self.name)
    }

    /// The bucket of what is to be known of the order.
    pub(super) fn bucket(&self) -> String {
        format!("seventh_{}_meta", self.name)
    }

    /// The bucket of what all edges are to know beside the order.
    pub(super) fn facts(&self) -> String {
        format!("seventh_{}_facts", self.name)
    }

    /// Where edges ask one another.
    pub(super) fn questions(&self) -> String {
        format!("seventh.{}.ask", self.name)
    }

    /// What an edge says of itself each second.
    pub(super) fn beats(&self, node: &str) -> String {
        format!("seventh.{}.hb.{node}", self.name)
    }
}
