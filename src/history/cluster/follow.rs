//! Taking what a consumer brings until something is odd.

use std::{ops::Range, time::Duration};

use tokio::sync::watch;

use super::broker::{Consumer, Delivered, Pulled};

/// How long neither a message nor a heartbeat may come, on a wire that takes no time.
const SILENCE: Duration = Duration::from_millis(1500);
/// How long is waited between two tries to begin, at first and at most.
pub(super) const PAUSE: Range<Duration> = Duration::from_millis(100)..Duration::from_secs(1);
/// Why a consumer is made anew whose server has not all that the leader had; another may be asked next time.
pub(super) const BEHIND: &str = "the server that is to bring it is behind";
/// After how many messages others have their turn.
const TURN: u64 = 16;

/// Has each message taken until something is odd, or whoever takes it says so: what. `None` is taken when a pull is over
/// for which nothing came.
pub(super) async fn follow(
    mut consumer: Consumer,
    connected: &mut watch::Receiver<bool>,
    mut take: impl FnMut(Option<Delivered>) -> Result<(), String>,
) -> String {
    if let Err(error) = consumer.pull().await {
        return error.to_string();
    }
    // Between two pulls nothing comes for a round trip.
    let silence = SILENCE + 2 * consumer.round_trip;
    let (mut nth, mut before) = (0, 0);
    loop {
        let pulled = tokio::select! {
            biased;
            pulled = tokio::time::timeout(silence, consumer.next()) => pulled,
            lost = connected.wait_for(|connected| !connected) => {
                drop(lost);
                return "the connection is lost".into();
            }
        };
        let is_over = match pulled {
            Err(_) => return "neither a message nor a heartbeat".into(),
            Ok(Pulled::Gone(why)) => return why,
            Ok(Pulled::Heartbeat) => false,
            Ok(Pulled::Over) => true,
            Ok(Pulled::Message(message)) => {
                nth += 1;
                if message.nth != nth {
                    return format!("message {} of the consumer instead of {nth}", message.nth);
                }
                if let Err(why) = take(Some(message)) {
                    return why;
                }
                if nth.is_multiple_of(TURN) {
                    tokio::task::yield_now().await;
                }
                consumer.is_over()
            }
        };
        if !is_over {
            continue;
        }
        if std::mem::replace(&mut before, nth) == nth
            && let Err(why) = take(None)
        {
            return why;
        }
        if let Err(error) = consumer.pull().await {
            return error.to_string();
        }
    }
}
