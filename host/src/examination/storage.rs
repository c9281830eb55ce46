//! The folders that are written to, and the room on their disks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tollgate_settings::{Destination, Settings};

use super::Finding;

/// Less than this is little, beyond what has to be free: an hour or two of busy traffic.
const LITTLE: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// The data folder, folders of span files elsewhere, and the disk below the data.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let data = &settings.data_dir;
    let mut findings = vec![writable("data", data, "--data-dir")];
    findings.extend(readable(data));
    for exporter in &settings.exporters {
        if let Destination::Ndjson(file) | Destination::OtlpJson(file) = &exporter.destination
            && let Some(folder) = file.path.parent().filter(|folder| *folder != data)
        {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            findings.push(writable("data", folder, "path of the exporter"));
            // Spans without prompts may be for everybody.
            findings.extend(readable(folder).filter(|_| !settings.capture_content.is_empty()));
        }
    }
    findings.push(room(data, settings.ledger.min_free_bytes));
    findings
}

/// Whether files can be made in a folder, or the folder itself.
fn writable(check: &'static str, folder: &Path, setting: &str) -> Finding {
    let place = folder.display();
    let there = existing(folder);
    if let Err(error) = try_file(&there) {
        return Finding::failed(
            check,
            format!("{place} cannot be written: {error}"),
            format!(
                "give it to the user that the gateway runs as (chown), or choose another with {setting}"
            ),
        );
    }
    if there != folder {
        return Finding::ok(check, format!("{place} is not there yet and can be made"));
    }
    if others_may_write(folder) {
        return Finding::warning(
            check,
            format!("{place} can be written by every user of this machine"),
            format!("chmod o-w {place}: what is on record is worth no more than its folder"),
        );
    }
    Finding::ok(check, format!("{place} can be written"))
}

/// A folder that users may look into who have nothing to do with it.
fn readable(folder: &Path) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS_READ: u32 = 0o005;
    let mode = fs::metadata(folder).ok()?.permissions().mode();
    let place = folder.display();
    (mode & OTHERS_READ != 0).then(|| {
        Finding::warning(
            "data",
            format!("{place} can be read by every user of this machine: who asked for what, and prompts that are kept"),
            format!("chmod -R o-rwx {place}"),
        )
    })
}

/// The folder itself, or the nearest one above it that is there.
fn existing(folder: &Path) -> PathBuf {
    let mut above = folder.ancestors();
    let there = above.find(|folder| !folder.as_os_str().is_empty() && folder.exists());
    there.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Makes a file and takes it away again.
fn try_file(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".tollgate-doctor-{}", std::process::id()));
    fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(path)
}

/// Whether users that have nothing to do with it may change what is in a folder.
pub(super) fn others_may_write(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    fs::metadata(path).is_ok_and(|metadata| {
        let mode = metadata.permissions().mode();
        mode & OTHERS_WRITE != 0 && mode & STICKY == 0
    })
}

fn room(folder: &Path, least: u64) -> Finding {
    const CHECK: &str = "disk";
    let place = folder.display();
    let Some(free) = tollgate_ledger::free_bytes(&existing(folder)) else {
        let mend = "watch the disk by other means";
        return Finding::warning(
            CHECK,
            format!("{place}: the system does not tell its free room"),
            mend,
        );
    };
    let (free_mib, least_mib) = (free / MIB, least / MIB);
    let seen = format!("{place} has {free_mib} MiB free");
    if free < least {
        let seen = format!("{seen}; requests are refused below {least_mib}");
        let mend = "make room, choose another disk with --data-dir, or lower ledger-min-free-mib";
        return Finding::failed(CHECK, seen, mend);
    }
    if free < least.saturating_add(LITTLE) {
        let mend =
            "make room, or have old records deleted with ledger-retain-days or ledger-retain-mib";
        return Finding::warning(CHECK, seen, mend);
    }
    Finding::ok(CHECK, seen)
}
