//! A file of span lines that is written, locked, repaired and rotated.
//!
//! What was acknowledged is with the operating system: `kill -9` does not lose it. A batch is one
//! write. A line is whole or not there: what a crash tore off at the end is cut off at the next
//! start, what a failed write left behind is cut off before the next write. After a crash between
//! a write and the move of the ledger's cursor the batch is written again: lines may be doubled
//! then, with the same ids, and never lost. The file is locked, since two writers would cut each
//! other's lines.

mod current;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use self::current::Current;
use crate::error::TelemetryError;
use crate::exporter::SendError;
use crate::rotation::Shelf;
use crate::settings::{FileSettings, Rotation};
use crate::worker::Worker;

/// The file's handle.
#[derive(Debug)]
pub(crate) struct SpanFile {
    worker: Worker,
    path: PathBuf,
    /// Ends with the thread that looks after the files that were put aside.
    tidied: Option<oneshot::Receiver<()>>,
}

impl SpanFile {
    /// Opens or makes the file and its folders, and begins to finish what an earlier process left
    /// half done.
    pub(crate) fn open(exporter: &str, settings: FileSettings) -> Result<Self, TelemetryError> {
        let path = settings.path.clone();
        let mut current = Current::open(settings.path, settings.rotation, settings.private)?;
        let mut tidied = None;
        if settings.rotation.is_on() {
            // *Coalesce*: one wake-up that waits stands for any number.
            let (wake, woken) = sync_channel(1);
            let _ = wake.try_send(());
            current.wakes(wake);
            let (done, ended) = oneshot::channel::<()>();
            let shelf = Shelf::of(&path);
            let tidy = move || {
                let _done = done;
                for () in woken {
                    tidy(&shelf, &settings.rotation);
                }
            };
            let thread = thread::Builder::new().name(format!("tidy-{exporter}")).spawn(tidy);
            if let Err(source) = thread {
                return Err(TelemetryError::Thread { exporter: exporter.to_owned(), source });
            }
            tidied = Some(ended);
        }
        let worker = Worker::start(exporter, move |lines| current.append(lines))?;
        Ok(Self { worker, path, tidied })
    }

    /// Appends whole lines: all of them or, after an error, none.
    pub(crate) async fn append(&self, lines: Vec<u8>) -> Result<(), SendError> {
        if lines.is_empty() {
            return Ok(());
        }
        self.worker.write(lines).await.map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &io::Error) -> SendError {
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some disk space",
            io::ErrorKind::FileTooLarge => "move the file away, or let it rotate",
            io::ErrorKind::ResourceBusy => "give each gateway a file of its own",
            _ => "check the disk and the file's permissions",
        };
        let path = self.path.display();
        let message = format!("cannot write spans to {path}: {error}; {advice}");
        SendError::Later { message, after: None }
    }

    /// Waits until the files that were put aside are compressed.
    pub(crate) async fn close(self, name: &str, deadline: Duration) -> Result<(), TelemetryError> {
        // Its thread ends, and with it the other one's work.
        drop(self.worker);
        let Some(tidied) = self.tidied else { return Ok(()) };
        match tokio::time::timeout(deadline, tidied).await {
            Ok(_) => Ok(()),
            Err(_) => Err(TelemetryError::Unfinished {
                exporter: name.to_owned(),
                left: "compressing files that were put aside",
            }),
        }
    }
}

fn tidy(shelf: &Shelf, rotation: &Rotation) {
    if let Err(error) = shelf.tidy(rotation) {
        let folder = shelf.folder().display();
        tracing::warn!(%folder, %error, "cannot compress or delete old span files; check the disk");
    }
}
