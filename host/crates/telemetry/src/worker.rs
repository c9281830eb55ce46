//! A thread that writes bytes, for files and standard output, which block.
//!
//! A thread of its own and not the runtime's blocking pool: a write that hangs (a paused
//! terminal, a dead disk) must not keep the process from ending.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::sync::oneshot;

struct Job {
    bytes: Vec<u8>,
    done: oneshot::Sender<io::Result<()>>,
}

/// Handle of the thread, which ends with it.
#[derive(Debug)]
pub(crate) struct Worker {
    jobs: SyncSender<Job>,
}

impl Worker {
    /// Starts a thread that calls `write` for each batch of bytes, one at a time.
    pub(crate) fn start(
        name: &str,
        mut write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        // One job at most: the exporter's queue is the queue.
        let (jobs, received) = sync_channel::<Job>(1);
        thread::Builder::new().name(format!("export-{name}")).spawn(move || {
            for job in received {
                // Nobody listens any more after an exporter was stopped at its deadline.
                let _ = job.done.send(write(&job.bytes));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write(&self, bytes: Vec<u8>) -> io::Result<()> {
        let gone = || io::Error::other("the thread that writes is gone");
        let (done, written) = oneshot::channel();
        self.jobs.try_send(Job { bytes, done }).map_err(|_| gone())?;
        written.await.unwrap_or_else(|_| Err(gone()))
    }
}
