//! A thread that writes bytes, for files and standard output, which block.
//!
//! A thread of its own and not the runtime's blocking pool: a write that hangs (a paused
//! terminal, a dead disk) must not keep the process from ending.

use std::io;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::sync::oneshot;

use crate::error::TelemetryError;

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
        exporter: &str,
        mut write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, TelemetryError> {
        // *Refuse*: one batch waits at most, and only behind one whose sender gave up waiting.
        let (jobs, received) = sync_channel::<Job>(1);
        let started = thread::Builder::new().name(format!("export-{exporter}")).spawn(move || {
            for job in received {
                // Nobody listens any more after a sender gave up.
                let _ = job.done.send(write(&job.bytes));
            }
        });
        match started {
            Ok(_) => Ok(Self { jobs }),
            Err(source) => Err(TelemetryError::Thread { exporter: exporter.to_owned(), source }),
        }
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write(&self, bytes: Vec<u8>) -> io::Result<()> {
        let gone = || io::Error::other("the thread that writes is gone");
        let (done, written) = oneshot::channel();
        self.jobs.try_send(Job { bytes, done }).map_err(|error| match error {
            TrySendError::Full(_) => {
                io::Error::new(io::ErrorKind::WouldBlock, "earlier writes hang")
            }
            TrySendError::Disconnected(_) => gone(),
        })?;
        written.await.unwrap_or_else(|_| Err(gone()))
    }
}
