//! What becomes of the process should a thread of history panic.

/// The process ends rather than that publishers wait for ever, should the thread panic that has it: that of what it names.
pub(super) struct Alarm(pub(super) &'static str);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seventh: {} panicked, which is a bug; the process ends",
                self.0
            );
            std::process::abort();
        }
    }
}
