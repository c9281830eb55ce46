//! `--check`: each price again by its own plugin, to the last digit.

use std::collections::BTreeMap;

use serde_json::json;
use tollgate_domain::{CostOutcome, PluginIdentity, Record};
use tollgate_ledger::{Query, Seq};

use super::super::Found;
use super::super::error::AuditError;
use super::super::output::{Format, counts, json as pretty};
use super::super::records::records;
use super::builds::Builds;
use super::difference::status;
use super::{Reprice, config, priced_by};
use tollgate_summary::Period;
use tollgate_summary::count;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Checked {
    /// Prices that came out the same.
    same: u64,
    /// Records with no plugin's price to compute again, by their status.
    without_price: BTreeMap<String, u64>,
    /// Records of builds that are not at hand: `name version digest: why`.
    missing: BTreeMap<String, u64>,
    /// The first that came out different.
    differs: Option<Box<Differs>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Differs {
    entry: Seq,
    request: String,
    plugin: PluginIdentity,
    old: CostOutcome,
    new: CostOutcome,
}

/// Computes the prices again.
pub(super) fn run(arguments: &Reprice, period: Period) -> Result<Found, AuditError> {
    let reader = arguments.place.open()?;
    let settings = arguments.gate.settings().map_err(AuditError::Arguments)?;
    let (files, config) = (&arguments.plugin, config(arguments)?);
    let mut builds = Builds::new(&settings, files, config, &arguments.place.data_dir)?;
    let mut checked = Checked::default();
    let quiet = arguments.quiet;
    for stored in records(&reader, Query::default(), period, "pricing again", quiet) {
        let stored = stored?;
        checked.check(stored.seq, &stored.record, &mut builds);
        if checked.differs.is_some() {
            break;
        }
    }
    let text = match arguments.format {
        Format::Json => checked.json()?,
        Format::Table | Format::Csv => checked.text(),
    };
    let good = checked.differs.is_none() && checked.missing.is_empty();
    Ok(if good { Found::Good(text) } else { Found::Amiss(text) })
}

impl Checked {
    fn check(&mut self, entry: Seq, record: &Record, builds: &mut Builds<'_>) {
        let Some(cost) = record.cost.cost() else {
            return add(&mut self.without_price, status(&record.cost));
        };
        let PluginIdentity { name, version, digest } = &*cost.plugin;
        let model = match builds.of(cost) {
            Ok(model) => model,
            Err(why) => {
                return add(&mut self.missing, format!("{name} {version} {digest}: {why}"));
            }
        };
        let mut new = priced_by(model, record);
        if matches!(new, CostOutcome::PluginFailed(_)) {
            // A deadline on a busy machine says nothing about digits.
            new = priced_by(model, record);
        }
        if new == record.cost {
            count(&mut self.same);
        } else {
            let (request, old) = (record.id.0.clone(), record.cost.clone());
            let plugin = model.identity().clone();
            self.differs = Some(Box::new(Differs { entry, request, plugin, old, new }));
        }
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        if let Some(differs) = &self.differs {
            let Differs { entry, request, plugin, old, new } = &**differs;
            lines.push(format!("differs: entry {}, request {request}", entry.0));
            lines.push(format!("  on record  {}", told(old)));
            lines.push(format!("  now        {}", told(new)));
            lines
                .push(format!("  by         {} {} {}", plugin.name, plugin.version, plugin.digest));
        }
        let end = if self.differs.is_some() { " before it" } else { "" };
        lines.push(format!("same: {} prices{end}", self.same));
        if !self.without_price.is_empty() {
            lines.push(format!("no price to compute again: {}", counts(&self.without_price)));
        }
        for (build, records) in &self.missing {
            lines.push(format!("cannot price {records} again by {build}"));
        }
        lines.join("\n")
    }

    fn json(&self) -> Result<String, AuditError> {
        let differs = self.differs.as_ref().map(|differs| {
            json!({
                "entry": differs.entry,
                "request": differs.request,
                "plugin": differs.plugin,
                "old": differs.old,
                "new": differs.new,
            })
        });
        pretty(&json!({
            "ok": self.differs.is_none() && self.missing.is_empty(),
            "same": self.same,
            "without_price": self.without_price,
            "missing": self.missing,
            "differs": differs,
        }))
    }
}

/// All of a price in one line.
fn told(outcome: &CostOutcome) -> String {
    match outcome {
        CostOutcome::PluginFailed(fault) => format!("{}: {}", status(outcome), fault.message),
        CostOutcome::Unpriced { .. } => status(outcome),
        CostOutcome::Priced(cost) | CostOutcome::Estimated(cost) => {
            let lines = cost.lines.iter().map(|line| {
                let amount = i128::from(line.amount_pico);
                let amount = tollgate_domain::Money::new(amount, cost.total.currency).decimal();
                format!("{:?} {} for {amount}", line.kind, line.quantity)
            });
            let lines = lines.collect::<Vec<_>>().join(", ");
            format!("{}: {} ({lines})", status(outcome), cost.total)
        }
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: String) {
    count(counts.entry(name).or_default());
}
