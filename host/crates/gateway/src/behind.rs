//! Threads of delivery's own, which step back behind those that serve.
//!
//! What leaves is enriched, filtered, written and packed some hundred records at a time, which takes milliseconds. On a
//! thread that serves, or beside one with the same right to the processor, a request that comes meanwhile waits for them.

use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

/// How far they step back: where there is more to do than a processor can, a quarter of it is left to each of them, which is
/// about what delivery takes of a request. So what leaves falls behind little, and a request is never far from its turn.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// A runtime whose threads they are; none where none could be had.
pub(crate) struct Behind(Option<Runtime>);

impl Behind {
    /// For so many tasks.
    pub fn new(tasks: usize) -> Self {
        if tasks == 0 {
            return Self(None);
        }
        let processors = available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(tasks.min(processors))
            .thread_name("delivery")
            .on_thread_start(step_back())
            .enable_all()
            .build();
        let told = |error| tracing::warn!(%error, "delivery has no threads of its own, and shares those that serve");
        Self(runtime.map_err(told).ok())
    }

    /// Where its tasks run.
    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        // A runtime may not be waited for where tasks run.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What each does first. On Linux alone a priority is a thread's, and not the process's; a thread begins with that of the one
/// that starts it, which may have stepped back already.
fn step_back() -> impl Fn() + Send + Sync + 'static {
    #[cfg(target_os = "linux")]
    let own = rustix::process::getpriority_process(None);
    move || {
        #[cfg(target_os = "linux")]
        if let Err(error) =
            own.and_then(|own| rustix::process::setpriority_process(None, own + NICE))
        {
            tracing::debug!(%error, "a thread of delivery does not step back");
        }
    }
}
