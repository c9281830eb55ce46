//! A snapshot in the text formats of Prometheus: OpenMetrics, and the older one for those that
//! do not ask for it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as WrittenUnit};

use super::{Family, Histogram, Snapshot, Unit, Value};

/// How a snapshot is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own, version 0.0.4.
    Classic,
}

/// A written snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposition {
    /// For the `Content-Type` header.
    pub content_type: &'static str,
    /// The text.
    pub text: String,
}

/// Writes all families that have series.
pub(super) fn write(snapshot: &Snapshot, format: TextFormat) -> Result<Exposition, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Written { snapshot: snapshot.clone(), format }));
    let mut text = String::new();
    let content_type = match format {
        TextFormat::OpenMetrics => {
            encode(&mut text, &registry)?;
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        }
        TextFormat::Classic => {
            encode_registry(&mut text, &registry)?;
            "text/plain; version=0.0.4; charset=utf-8"
        }
    };
    Ok(Exposition { content_type, text })
}

/// The library asks a collector that is its own.
#[derive(Debug)]
struct Written {
    snapshot: Snapshot,
    format: TextFormat,
}

impl Collector for Written {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.snapshot.counters {
            match self.format {
                TextFormat::OpenMetrics => {
                    write_family(family, "", MetricType::Counter, &mut to, |count, to| {
                        to.encode_counter::<NoLabelSet, _, f64>(count, None)
                    })?;
                }
                // There the suffix is part of the family's name, and nothing else is added to it.
                TextFormat::Classic => {
                    write_family(family, "_total", MetricType::Counter, &mut to, |count, to| {
                        to.encode_gauge(count)
                    })?;
                }
            }
        }
        for family in &self.snapshot.gauges {
            write_family(family, "", MetricType::Gauge, &mut to, |value, to| {
                to.encode_gauge(value)
            })?;
        }
        for family in &self.snapshot.histograms {
            write_family(family, "", MetricType::Histogram, &mut to, |histogram, to| {
                let buckets: Vec<(f64, u64)> = buckets(histogram).collect();
                to.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count(), &buckets, None)
            })?;
        }
        Ok(())
    }
}

/// One family; one without series has nothing to say.
fn write_family<V: Value>(
    family: &Family<V>,
    suffix: &str,
    kind: MetricType,
    to: &mut DescriptorEncoder<'_>,
    write: impl Fn(&V, &mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if family.series.is_empty() {
        return Ok(());
    }
    let unit = match family.unit {
        Unit::None => None,
        Unit::Seconds => Some(WrittenUnit::Seconds),
        Unit::Bytes => Some(WrittenUnit::Bytes),
    };
    let name = format!("{}{suffix}", family.name);
    let mut metric = to.encode_descriptor(&name, family.help, unit.as_ref(), kind)?;
    for (labels, value) in &family.series {
        if labels.is_empty() {
            write(value, &mut metric)?;
        } else {
            write(value, &mut metric.encode_family(labels)?)?;
        }
    }
    Ok(())
}

/// Each bound with its count, infinity last.
fn buckets(histogram: &Histogram) -> impl Iterator<Item = (f64, u64)> {
    let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
    bounds.zip(histogram.counts.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let calls = Family::new("tollgate_calls", "Calls.")
            .with([("plugin", "a\"b\\c\nd"), ("kind", "")], 3);
        let memory =
            Family::new("tollgate_memory", "Memory.").unit(Unit::Bytes).with([], 1_048_576.0);
        let histogram = Histogram { bounds: vec![0.25e-6, 1.0], counts: vec![1, 2, 3], sum: 9.5 };
        let took = Family::new("tollgate_call_duration", "Time of a call.")
            .unit(Unit::Seconds)
            .with([("plugin", "a")], histogram);
        Snapshot {
            counters: vec![calls, Family::new("tollgate_nothing", "Nothing.")],
            gauges: vec![memory],
            histograms: vec![took],
        }
    }

    #[test]
    fn open_metrics() {
        let written = snapshot().text(TextFormat::OpenMetrics).unwrap();
        assert!(written.content_type.starts_with("application/openmetrics-text"));
        let wanted = "\
# HELP tollgate_calls Calls.
# TYPE tollgate_calls counter
tollgate_calls_total{plugin=\"a\\\"b\\\\c\\nd\",kind=\"\"} 3
# HELP tollgate_memory_bytes Memory.
# TYPE tollgate_memory_bytes gauge
# UNIT tollgate_memory_bytes bytes
tollgate_memory_bytes 1048576.0
# HELP tollgate_call_duration_seconds Time of a call.
# TYPE tollgate_call_duration_seconds histogram
# UNIT tollgate_call_duration_seconds seconds
tollgate_call_duration_seconds_sum{plugin=\"a\"} 9.5
tollgate_call_duration_seconds_count{plugin=\"a\"} 6
tollgate_call_duration_seconds_bucket{le=\"2.5e-7\",plugin=\"a\"} 1
tollgate_call_duration_seconds_bucket{le=\"1.0\",plugin=\"a\"} 3
tollgate_call_duration_seconds_bucket{le=\"+Inf\",plugin=\"a\"} 6
# EOF
";
        assert_eq!(written.text, wanted);
    }

    #[test]
    fn classic_names_its_counters_whole() {
        let written = snapshot().text(TextFormat::Classic).unwrap();
        assert!(written.content_type.starts_with("text/plain; version=0.0.4"));
        assert!(written.text.starts_with(
            "# HELP tollgate_calls_total Calls.\n# TYPE tollgate_calls_total counter\n\
             tollgate_calls_total{plugin=\"a\\\"b\\\\c\\nd\",kind=\"\"} 3\n"
        ));
        assert!(!written.text.contains("EOF"));
    }
}
