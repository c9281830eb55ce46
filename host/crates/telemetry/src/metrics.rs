//! Metrics as they are at one moment, in a form that belongs to no protocol: whoever counts makes
//! a [`Snapshot`], and whoever sends reads one. `text` writes it for Prometheus, `otlp` for OTLP.
//!
//! Names of families and labels are OpenTelemetry's, with dots and without unit and suffix; OTLP
//! sends them as they are. Prometheus gets them by the specification's own rules: what is no
//! letter, digit or colon becomes `_`, then comes the unit, then `_total` if it is a counter. So
//! `gen_ai.server.request.duration` is also `gen_ai_server_request_duration_seconds`, and
//! `tollgate.plugin.calls` is `tollgate_plugin_calls_total`. A label without a value is no label.
//!
//! Invariants: a family has one value for each set of labels, however often it is given one, so
//! that no receiver refuses the whole for a doubled series; and no family has more than
//! [`SERIES_PER_FAMILY`] of them, whatever a client or a plugin puts into a label.

mod histogram;
pub mod names;
mod otlp;
mod push;
mod text;

use std::collections::BTreeMap;

pub use histogram::{Distribution, Exemplar, Histogram};
pub use push::{MetricsPush, PushSettings};
pub use text::{Exposition, TextFormat};

/// Most series of one family. Policy beyond it: a further series is left out, and counted in
/// [`Family::left_out`].
pub const SERIES_PER_FAMILY: usize = 16_384;

/// Longest value of a label, in bytes; a longer one is cut.
const LABEL_BYTES: usize = 256;

/// Names and values, in the order they were given.
pub type Labels = Vec<(&'static str, String)>;

/// What a value is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things, or of what the name says.
    None,
    /// `s` in OTLP, `_seconds` in Prometheus.
    Seconds,
    /// `By`, `_bytes`.
    Bytes,
    /// `{token}`, and nothing in Prometheus.
    Tokens,
}

/// All families at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Numbers that only grow while the process lives.
    pub counters: Vec<Family<u64>>,
    /// Numbers that only grow and are not whole: money.
    pub amounts: Vec<Family<f64>>,
    /// Numbers that go up and down.
    pub gauges: Vec<Family<f64>>,
    /// Distributions.
    pub histograms: Vec<Family<Histogram>>,
}

/// The series of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family<V> {
    name: &'static str,
    help: &'static str,
    unit: Unit,
    series: BTreeMap<Labels, V>,
    left_out: u64,
}

/// A value that two series of the same labels can be made one of.
pub trait Value {
    /// Adds the other to this one.
    fn add(&mut self, other: Self);
}

impl<V: Value> Family<V> {
    /// One without series yet. `name` as in this module's description, `help` one line.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, unit: Unit::None, series: BTreeMap::new(), left_out: 0 }
    }

    /// One of those in [`names`].
    #[must_use]
    pub fn of(name: &names::Name) -> Self {
        Self::new(name.name, name.help).unit(name.unit)
    }

    /// Measured in `unit`.
    #[must_use]
    pub fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Adds a series, or adds to the one of the same labels.
    pub fn add<const N: usize>(&mut self, labels: [(&'static str, &str); N], value: V) {
        let labels: Labels =
            labels.into_iter().map(|(name, value)| (name, bounded(value).to_owned())).collect();
        if let Some(present) = self.series.get_mut(&labels) {
            present.add(value);
        } else if self.series.len() < SERIES_PER_FAMILY {
            self.series.insert(labels, value);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// This family with one more series.
    #[must_use]
    pub fn with<const N: usize>(mut self, labels: [(&'static str, &str); N], value: V) -> Self {
        self.add(labels, value);
        self
    }

    /// Its name, without unit and suffix.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Labels and value of each series, ordered by labels.
    pub fn series(&self) -> impl ExactSizeIterator<Item = (&Labels, &V)> {
        self.series.iter()
    }

    /// Series that did not fit.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl Snapshot {
    /// As text for Prometheus and whoever reads its formats.
    ///
    /// # Errors
    /// None that is known: writing to memory does not fail.
    pub fn text(&self, format: TextFormat) -> Result<Exposition, std::fmt::Error> {
        text::write(self, format)
    }

    /// Series that did not fit into their families.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        let counters = self.counters.iter().map(Family::left_out);
        let amounts = self.amounts.iter().map(Family::left_out);
        let gauges = self.gauges.iter().map(Family::left_out);
        let histograms = self.histograms.iter().map(Family::left_out);
        counters.chain(amounts).chain(gauges).chain(histograms).fold(0, u64::saturating_add)
    }
}

impl Value for u64 {
    fn add(&mut self, other: Self) {
        *self = self.saturating_add(other);
    }
}

impl Value for f64 {
    fn add(&mut self, other: Self) {
        *self += other;
    }
}

/// As much of `text` as fits into a label.
#[must_use]
pub fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LABEL_BYTES)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_series_is_one_series() {
        let mut family = Family::new("calls", "Calls.");
        family.add([("plugin", "a")], 1_u64);
        family.add([("plugin", "a")], 2);
        family.add([("plugin", "b")], 5);
        let values: Vec<u64> = family.series().map(|(_, value)| *value).collect();
        assert_eq!(values, [3, 5]);
    }

    #[test]
    fn labels_cannot_make_series_without_end() {
        let mut family = Family::new("calls", "Calls.");
        for number in 0..SERIES_PER_FAMILY + 10 {
            family.add([("tenant", &number.to_string())], 1_u64);
        }
        family.add([("tenant", "0")], 1);
        assert_eq!((family.series().len(), family.left_out()), (SERIES_PER_FAMILY, 10));
        let long = "é".repeat(LABEL_BYTES);
        let mut family = Family::new("calls", "Calls.");
        family.add([("tenant", &long)], 1_u64);
        assert!(family.series().all(|(labels, _)| labels.iter().all(|(_, v)| v.len() <= 256)));
    }
}
