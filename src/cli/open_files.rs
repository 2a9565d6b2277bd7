//! The open files of the process: each TCP connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::Limits;

/// Files that the connections of browsers leave to the rest: listeners, the control listener's
/// connections, what is asked of the app.
const RESERVED: usize = 64;

/// Raises the soft limit to the hard one (setrlimit(2)): what the system grants is to be used.
pub(super) fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Where it cannot be raised it is as it was: `fit` goes by what there is.
    let _: rustix::io::Result<()> = setrlimit(Resource::Nofile, raised);
}

/// Lowers `connections`, of which so many were asked for, to what the open files leave room for, and says so.
pub(super) fn fit(asked: usize, connections: &mut usize) {
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return;
    };
    let room = room(usize::try_from(files).unwrap_or(usize::MAX));
    if room >= *connections {
        return;
    }
    // What nobody has asked for is nothing to warn of.
    if asked == Limits::default().connections.value {
        tracing::debug!("limits.connections is {room}, as this process may open {files} files");
    } else {
        tracing::warn!(
            "limits.connections = {asked} is lowered to {room}: the system lets this process open {files} \
             files; raise the hard limit (ulimit -Hn, LimitNOFILE of systemd)"
        );
    }
    *connections = room;
}

fn room(files: usize) -> usize {
    files.saturating_sub(RESERVED).max(1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_room_for_one_connection_at_least() {
        assert_eq!(super::room(20_000), 19_936);
        assert_eq!(super::room(10), 1);
    }
}
