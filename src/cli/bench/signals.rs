//! A run that is told to end shows what it has.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Turns `stop` true as soon as somebody wants this process to end.
pub(super) async fn stop_on_signals(stop: watch::Sender<bool>) {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let signals: Result<Vec<_>, _> = kinds.into_iter().map(signal).collect();
    let Ok(mut signals) = signals else {
        // They end the process then, as they do without this.
        return std::future::pending().await;
    };
    let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures_util::future::select_all(any).await;
    stop.send_replace(true);
}
