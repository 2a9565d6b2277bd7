//! What an event has besides its data, in the commands that publish.

use clap::Args;
use serde_json::{Value, json};

/// What an event has besides its data.
#[derive(Debug, Args)]
pub(super) struct Fields {
    /// The event's type
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// The event's id, instead of one that is made
    #[arg(long)]
    pub(super) id: Option<String>,
    /// How long it is given to anyone, such as 30s
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
    /// Only for those who read now: it is not kept
    #[arg(long)]
    no_history: bool,
}

impl Fields {
    /// Those that are given, but for the id.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, Value)> + use<> {
        let fields = [
            ("event", json!(self.event)),
            ("ttl", json!(self.ttl)),
            ("history", json!(self.no_history.then_some(false))),
        ];
        fields.into_iter().filter(|(_, value)| !value.is_null())
    }
}
