//! Files that were put aside: their names, their compression, and how many are kept.
//!
//! `spans.ndjson` becomes `spans-000001-20260722T101530Z.ndjson`, then `....ndjson.gz` or `.zst`.
//! The number orders them, whatever the clock does. Each change is one rename or one deletion, so
//! a crash leaves one of few states, and [`Shelf::tidy`] goes on from each: a `.partial` is
//! begun anew, and a plain file beside its whole compressed copy is deleted.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::write::GzEncoder;

use crate::settings::{Compression, Rotation};

/// Added to the name of a compressed file that is not whole yet.
const PARTIAL: &str = ".partial";

/// Digits of a time such as `20260722T101530Z`.
const TIME: usize = 16;

impl Rotation {
    /// Whether files are ever put aside.
    pub(crate) fn is_on(&self) -> bool {
        self.max_bytes.is_some() || self.max_age.is_some()
    }
}

/// Where the files of one exporter lie that were put aside.
#[derive(Debug)]
pub(crate) struct Shelf {
    folder: PathBuf,
    /// `spans-`
    before: String,
    /// `.ndjson`
    after: String,
}

/// What lies there under one number.
#[derive(Debug, Default)]
struct Aside {
    plain: Option<PathBuf>,
    compressed: Option<PathBuf>,
    partial: Option<PathBuf>,
}

impl Shelf {
    /// The shelf of the file at `path`.
    pub(crate) fn of(path: &Path) -> Self {
        let text = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let extension = path.extension().map(|extension| text(Some(extension)));
        Self {
            folder: folder.unwrap_or(Path::new(".")).to_owned(),
            before: format!("{}-", text(path.file_stem())),
            after: extension.map(|extension| format!(".{extension}")).unwrap_or_default(),
        }
    }

    /// The folder it is in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name for the next file.
    pub(crate) fn next(&self, now: SystemTime) -> io::Result<PathBuf> {
        let last = self.files()?.last_key_value().map_or(0, |(number, _)| *number);
        // The time is for people only.
        let time = humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':'], "");
        let number = last.saturating_add(1);
        let name = format!("{}{number:06}-{time}{}", self.before, self.after);
        Ok(self.folder.join(name))
    }

    /// Deletes what is more than is kept, and compresses the rest.
    pub(crate) fn tidy(&self, rotation: &Rotation) -> io::Result<()> {
        let mut files = self.files()?;
        while rotation.keep.is_some_and(|keep| files.len() > keep) {
            let Some((_, oldest)) = files.pop_first() else { break };
            for path in [oldest.partial, oldest.plain, oldest.compressed].into_iter().flatten() {
                remove(&path)?;
            }
        }
        for aside in files.into_values() {
            if let Some(partial) = aside.partial {
                remove(&partial)?;
            }
            match (aside.plain, aside.compressed, rotation.compress) {
                (Some(plain), Some(_), _) => remove(&plain)?,
                (Some(plain), None, Some(compression)) => compress(&plain, compression)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// All files that were put aside, by number. A name that is not exactly like ours is none.
    fn files(&self) -> io::Result<BTreeMap<u64, Aside>> {
        let mut files = BTreeMap::<u64, Aside>::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let Some((number, ending)) = name.to_str().and_then(|name| self.parse(name)) else {
                continue;
            };
            let aside = files.entry(number).or_default();
            let path = Some(self.folder.join(&name));
            match ending {
                "" => aside.plain = path,
                ".gz" | ".zst" => aside.compressed = path,
                _ => aside.partial = path,
            }
        }
        Ok(files)
    }

    /// The number and what follows the name of the plain file.
    fn parse<'a>(&self, name: &'a str) -> Option<(u64, &'a str)> {
        let (number, rest) = name.strip_prefix(&self.before)?.split_once('-')?;
        let (time, rest) = rest.split_at_checked(TIME)?;
        let ending = rest.strip_prefix(&self.after)?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_time = time.strip_suffix('Z').and_then(|time| time.split_once('T'));
        let is_ours = number.len() >= 6
            && digits(number)
            && is_time.is_some_and(|(day, time)| day.len() == 8 && digits(day) && digits(time))
            && ["", ".gz", ".zst", ".gz.partial", ".zst.partial"].contains(&ending);
        number.parse().ok().filter(|_| is_ours).map(|number| (number, ending))
    }
}

/// Puts the compressed copy in the place of `plain`. The copy is whole, and on disk, before it
/// gets its name, and has its name on disk before `plain` is deleted.
fn compress(plain: &Path, compression: Compression) -> io::Result<()> {
    let ending = match compression {
        Compression::Gzip => ".gz",
        Compression::Zstd => ".zst",
    };
    let whole = with_ending(plain, ending);
    let partial = with_ending(&whole, PARTIAL);
    let copied = copy(plain, &partial, compression);
    if let Err(error) = copied {
        // Where the disk is full it must not stay so.
        let _ = remove(&partial);
        return Err(error);
    }
    step()?;
    fs::rename(&partial, &whole)?;
    if let Some(folder) = whole.parent() {
        File::open(folder)?.sync_all()?;
    }
    remove(plain)
}

fn copy(plain: &Path, partial: &Path, compression: Compression) -> io::Result<()> {
    let mut from = BufReader::with_capacity(1 << 16, File::open(plain)?);
    step()?;
    let made = File::create(partial)?;
    // For nobody who could not read the original.
    made.set_permissions(fs::metadata(plain)?.permissions())?;
    let to = BufWriter::with_capacity(1 << 16, made);
    let written = match compression {
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(to, flate2::Compression::default());
            io::copy(&mut from, &mut encoder)?;
            encoder.finish()?
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(to, 0)?;
            io::copy(&mut from, &mut encoder)?;
            encoder.finish()?
        }
    };
    let file = written.into_inner().map_err(io::IntoInnerError::into_error)?;
    // The copy tells when its spans were written, as the original did.
    file.set_modified(fs::metadata(plain)?.modified()?)?;
    step()?;
    file.sync_all()
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    step()?;
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Called before each change to the folder, which is where tests let the process end.
#[cfg(not(test))]
pub(crate) fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use crash::step;

/// Ends of the process at every step.
#[cfg(test)]
mod crash {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static STEPS_LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// The process of this thread ends before its `steps`th change from now; `None`: never.
    pub(super) fn after(steps: Option<usize>) {
        STEPS_LEFT.set(steps);
    }

    /// Nothing changes any more once the process has ended.
    pub(crate) fn step() -> io::Result<()> {
        match STEPS_LEFT.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the process ended")),
            Some(left) => {
                STEPS_LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
