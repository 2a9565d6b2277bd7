//! The memory of the process, and what is configured that must fit into it.

use anyhow::ensure;

use crate::{
    config::Config,
    hub::Retention,
    limits::{CONNECTION_BYTES, Limits, for_newcomers},
    process::OwnMemory,
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
    fit_into(own.granted(), own.resident(), config)
}

/// The same, where so much is granted, if the system says how much, and so much taken already.
fn fit_into(granted: Option<usize>, taken: usize, config: &mut Config) -> anyhow::Result<()> {
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
    let budget = *budget;
    ensure!(
        for_newcomers(budget) >= taken + LEAST,
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn fitted(granted: usize, text: &str) -> anyhow::Result<Config> {
        let mut config = Config::from_text(text)?;
        fit_into(Some(granted), 12 * MIB, &mut config)?;
        Ok(config)
    }

    #[test]
    fn what_is_configured_fits_into_what_there_is() {
        let small = fitted(512 * MIB, "").expect("it is enough");
        let limits = &small.limits;
        assert_eq!(limits.memory.value, 384 * MIB);
        assert_eq!(limits.connections.value, 8192);
        assert_eq!(limits.unread_bytes.value, 64 * MIB);
        assert_eq!(small.history.total_bytes, 128 * MIB);
        assert_eq!(small.relay.total_bytes, 64 * MIB);
        // What is less than that stays as it is; and what is configured counts, whatever there is.
        let text = "limits.memory = \"64 MiB\"\nlimits.connections = 100";
        let configured = fitted(64 << 30, text).expect("it is enough");
        assert_eq!(configured.limits.memory.value, 64 * MIB);
        assert_eq!(configured.limits.connections.value, 100);
        let large = fitted(64 << 30, "").expect("it is enough");
        assert_eq!(large.limits.connections, Limits::default().connections);
        assert_eq!(large.history.total_bytes, Retention::default().total_bytes);
    }

    #[test]
    fn a_budget_without_room_for_clients_is_refused() {
        let refused = fitted(28 * MIB, "").expect_err("there is no room");
        assert_eq!(
            refused.to_string(),
            "limits.memory = 21 MiB leaves no room for clients: the process itself takes 12 MiB; give it 23 MiB at \
             least"
        );
        assert!(fitted(32 * MIB, "").is_ok());
    }
}
