//! The memory of the process, and what is configured that must fit into it.

use crate::{config::Config, memory::OwnMemory};

/// What the edge leaves of the memory there is to the kernel, which holds what sockets have not sent yet,
/// and to what is not counted: a quarter.
const LEFT: usize = 4;
/// What a connection costs, with TLS and some streams.
const CONNECTION: usize = 48 << 10;

/// Sets the budget if it is not configured, and lowers to it what would be more, and says so.
pub(super) fn fit(config: &mut Config) {
    let granted = OwnMemory::new().granted();
    let budget = &mut config.limits.memory.value;
    if *budget == usize::MAX {
        let Some(granted) = granted else { return };
        *budget = granted - granted / LEFT;
    } else if granted.is_some_and(|granted| granted < *budget) {
        tracing::warn!(
            "limits.memory = {} is more than there is for this process, {}; the system may end it before",
            mebibytes(*budget),
            mebibytes(granted.unwrap_or_default())
        );
    }
    let budget = *budget;
    let limits = &mut config.limits;
    let connections = budget / CONNECTION;
    if limits.connections.value > connections {
        lowered("limits.connections", &connections.to_string(), budget);
        limits.connections.value = connections;
    }
    let sizes = [
        ("limits.unread_bytes", &mut limits.unread_bytes.value, 6),
        ("history.total_bytes", &mut config.history.total_bytes, 3),
    ];
    for (key, value, part) in sizes {
        if *value > budget / part {
            *value = budget / part;
            lowered(key, &mebibytes(*value), budget);
        }
    }
}

fn lowered(key: &str, to: &str, budget: usize) {
    tracing::warn!(
        "{key} is lowered to {to}, as there is {} of memory; give the process more, or set limits.memory",
        mebibytes(budget)
    );
}

fn mebibytes(bytes: usize) -> String {
    format!("{} MiB", bytes >> 20)
}
