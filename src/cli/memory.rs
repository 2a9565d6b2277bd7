//! The memory of the process, and what is configured that must fit into it.

use anyhow::ensure;

use crate::{
    config::Config,
    hub::Retention,
    limits::{CONNECTION_BYTES, Limits},
    memory::OwnMemory,
    proxy::RelaySettings,
};

/// What the edge leaves of the memory there is to the kernel, which holds what sockets have not sent yet,
/// and to what is not counted: a quarter.
const LEFT: usize = 4;
/// What there must be for clients at least.
const LEAST: usize = 8 << 20;

/// Sets the budget if it is not configured, and lowers to it what would be more, and says so.
///
/// # Errors
///
/// When the process itself has no room in it.
pub(super) fn fit(config: &mut Config) -> anyhow::Result<()> {
    let mut own = OwnMemory::new();
    let granted = own.granted();
    let budget = &mut config.limits.memory.value;
    if *budget == usize::MAX {
        let Some(granted) = granted else {
            return Ok(());
        };
        *budget = granted - granted / LEFT;
    } else if let Some(granted) = granted.filter(|granted| *granted < *budget) {
        tracing::warn!(
            "limits.memory = {} is more than there is for this process, {}; the system may end it before",
            mebibytes(*budget),
            mebibytes(granted)
        );
    }
    let (budget, taken) = (*budget, own.resident());
    ensure!(
        budget - budget / 8 >= taken + LEAST,
        "limits.memory = {} leaves no room for clients: the process itself takes {}; give it {} at least",
        mebibytes(budget),
        mebibytes(taken),
        mebibytes((taken + LEAST) * 8 / 7 + (1 << 20))
    );
    let limits = &mut config.limits;
    let (usual, history, relay) = (
        Limits::default(),
        Retention::default(),
        RelaySettings::default(),
    );
    let rows = [
        (
            "limits.connections",
            &mut limits.connections.value,
            usual.connections.value,
            budget / CONNECTION_BYTES,
        ),
        (
            "limits.unread_bytes",
            &mut limits.unread_bytes.value,
            usual.unread_bytes.value,
            budget / 6,
        ),
        (
            "history.total_bytes",
            &mut config.history.total_bytes,
            history.total_bytes,
            budget / 3,
        ),
        (
            "what is kept of event streams of apps",
            &mut config.relay.total_bytes,
            relay.total_bytes,
            budget / 6,
        ),
    ];
    for (key, value, default, most) in rows {
        let before = std::mem::replace(value, most.min(*value));
        let budget = mebibytes(budget);
        // What nobody has asked for is nothing to warn of.
        if before > most && before == default {
            tracing::debug!("{key} is {most}, as limits.memory is {budget}");
        } else if before > most {
            tracing::warn!("{key} = {before} is lowered to {most}, as limits.memory is {budget}");
        }
    }
    Ok(())
}

fn mebibytes(bytes: usize) -> String {
    format!("{} MiB", bytes >> 20)
}
