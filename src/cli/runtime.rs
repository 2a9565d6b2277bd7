//! What the commands run on.

/// A runtime for a command that is a client.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(future);
    // Standard input may still be read by a thread of its own.
    runtime.shutdown_background();
    result
}
