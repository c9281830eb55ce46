//! `tollgate reprice`: past usage through a cost plugin. Usage is on record whole, so a price can be computed for it at any
//! time: by a candidate, into a second ledger beside the first, or again by the very plugin that computed it.

mod again;
mod builds;
mod difference;
mod print;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tollgate_domain::{CostOutcome, Record};
use tollgate_ledger::{LedgerWriter, Query, Stored};
use tollgate_plugin_host::{OfflineCostModel, config_text};

use super::Found;
use super::error::AuditError;
use super::output::Format;
use super::period::Typed;
use super::place::{Place, overlap};
use super::progress::Quiet;
use super::records::records;
use crate::plugin::Gate;
use crate::table::short;
use difference::Differences;
use tollgate_summary::Period;

/// Price past requests with another plugin, or with their own again
///
/// Runs the usage of past requests through a cost plugin, as a gateway would have while it served them, and writes the
/// records with their new prices into a second ledger. The ledger that is read is never changed. What `report`, `audit
/// verify` and `reconcile` do to a ledger they do to the second one with --ledger FOLDER.
///
/// With --check nothing is written: each price is computed again by the build that computed it, configured as it was. Both
/// are found by the digests on record, among what --plugin and --config name and what the gateway keeps in its data folder
/// of what served. The digits must be the same.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 it is done, and with --check every price came out the same; 1 it could not be done, or a \
                  price came out different or could not be computed again; 2 the arguments are wrong."
)]
pub struct Reprice {
    #[command(flatten)]
    place: Place,

    /// Plugin file to price with; with --check any number of them
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "check")]
    plugin: Vec<PathBuf>,

    #[command(flatten)]
    gate: Gate,

    #[command(flatten)]
    period: Typed,

    /// Folder for the second ledger; it must not exist, or be empty [default: repriced-DIGEST in the data folder, after the
    /// plugin]
    #[arg(long, value_name = "FOLDER", conflicts_with = "check")]
    into: Option<PathBuf>,

    /// Compute each price again with its own plugin, and fail with the first that differs
    #[arg(long)]
    check: bool,

    /// How the difference is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    quiet: Quiet,
}

/// Prices again.
pub(super) fn run(arguments: &Reprice) -> Result<Found, AuditError> {
    let period =
        arguments.period.period(SystemTime::now().into()).map_err(AuditError::Arguments)?;
    match (arguments.check, arguments.plugin.as_slice()) {
        (true, _) if arguments.format == Format::Csv => Err(AuditError::Arguments(
            "--check has no table: leave out --format, or use --format json".to_owned(),
        )),
        (true, _) => again::run(arguments, period),
        (false, [plugin]) => into_second(arguments, period, plugin),
        (false, _) => Err(AuditError::Arguments(
            "a request has one price: name one --plugin (several are for --check)".to_owned(),
        )),
    }
}

/// Prices everything with one plugin and writes it into a second ledger.
fn into_second(arguments: &Reprice, period: Period, plugin: &Path) -> Result<Found, AuditError> {
    let first = arguments.place.folder();
    let reader = arguments.place.open()?;
    let model = open(arguments, plugin)?;
    let into = &arguments.into.clone().unwrap_or_else(|| {
        let digest = short(&model.identity().digest);
        arguments.place.data_dir.join(format!("repriced-{digest}"))
    });
    if overlap(&first, into) {
        return Err(AuditError::Arguments(format!(
            "--into {} is in the ledger that is read; a second ledger needs a folder of its own",
            into.display()
        )));
    }
    let place = SecondPlace::new(into)?;
    let mut writer = LedgerWriter::create(&place.partial)?;
    let mut differences = Differences::default();
    for stored in records(&reader, Query::default(), period, "pricing", arguments.quiet) {
        let Stored { seq, number, record } = stored?;
        let cost = priced_by(&model, &record);
        differences.add(&record, &cost)?;
        writer.append(&Stored { seq, number, record: Record { cost, ..record } })?;
    }
    let head = writer.finish()?;
    place.keep()?;
    print::written(&differences, model.identity(), into, head, arguments.format).map(Found::Good)
}

/// What a plugin says of a request that is on record; what used nothing keeps what it has.
fn priced_by(model: &OfflineCostModel, record: &Record) -> CostOutcome {
    match &record.usage {
        Some(usage) => model.price(record.tenant.as_deref(), usage),
        None => record.cost.clone(),
    }
}

/// Takes the plugin file that was named through the gate.
fn open(arguments: &Reprice, file: &Path) -> Result<OfflineCostModel, AuditError> {
    let settings = arguments.gate.settings().map_err(AuditError::Arguments)?;
    let config = config(arguments)?.unwrap_or_else(|| "{}".to_owned());
    OfflineCostModel::open(&settings, file, &config)
        .map_err(|error| AuditError::Plugin { file: file.to_owned(), why: error.to_string() })
}

/// The configuration that was given, as plugins are handed it.
fn config(arguments: &Reprice) -> Result<Option<String>, AuditError> {
    let config = arguments.gate.config().map_err(AuditError::Arguments)?;
    Ok(config.map(config_text))
}

/// The second ledger's folder: it gets its name when it is whole, so that half of one is never taken for it.
struct SecondPlace<'a> {
    into: &'a Path,
    partial: PathBuf,
    kept: bool,
}

impl<'a> SecondPlace<'a> {
    fn new(into: &'a Path) -> Result<Self, AuditError> {
        let failed = |what, source: io::Error| AuditError::file(what, into)(source);
        let taken = |why: &str| {
            AuditError::Arguments(format!(
                "{} {why}; name another folder with --into",
                into.display()
            ))
        };
        match fs::read_dir(into).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(taken("is not empty")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(taken("is no folder"));
            }
            Err(error) => return Err(failed("read", error)),
        }
        let mut name = into.file_name().map(OsString::from).ok_or_else(|| taken("has no name"))?;
        name.push(".partial");
        let partial = into.with_file_name(name);
        if let Some(parent) = into.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(AuditError::file("make", parent))?;
        }
        match fs::create_dir(&partial) {
            Ok(()) => Ok(Self { into, partial, kept: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(AuditError::Arguments(format!(
                    "{} is there, left by a run that was ended or still goes on; delete it if none does",
                    partial.display()
                )))
            }
            Err(error) => Err(AuditError::file("make", &partial)(error)),
        }
    }

    fn keep(mut self) -> Result<(), AuditError> {
        self.kept = true;
        fs::rename(&self.partial, self.into).map_err(AuditError::file("make", self.into))
    }
}

impl Drop for SecondPlace<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // It is ours alone, and of no use.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_ledger_has_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("a/second");
        let place = SecondPlace::new(&into).unwrap();
        fs::write(place.partial.join("half"), "x").unwrap();
        let error = SecondPlace::new(&into).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("second.partial"), "{error}");
        drop(place);
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 0);
        fs::create_dir(&into).unwrap();
        let place = SecondPlace::new(&into).unwrap();
        fs::write(place.partial.join("whole"), "x").unwrap();
        place.keep().unwrap();
        assert!(into.join("whole").exists());
        let error = SecondPlace::new(&into).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
        let error = SecondPlace::new(&into.join("whole")).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("no folder"), "{error}");
    }
}
