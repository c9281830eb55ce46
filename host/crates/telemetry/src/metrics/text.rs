//! A snapshot in the text formats of Prometheus: OpenMetrics, and the older one for those that
//! do not ask for it. The formats differ in three things: the older one names its counters whole
//! (`_total`) in the description too, has no units, and has no exemplars.

use std::fmt::{self, Write};

use super::{Exemplar, Family, Histogram, Labels, Snapshot, Unit, Value};

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
    let mut page = Page { text: String::new(), format };
    for family in &snapshot.counters {
        page.family(family, Kind::Counter, |page, name, labels, value| {
            page.sample(name, "_total", labels, None, format_args!("{value}"))
        })?;
    }
    for family in &snapshot.amounts {
        page.family(family, Kind::Counter, |page, name, labels, value| {
            page.sample(name, "_total", labels, None, Number(*value))
        })?;
    }
    for family in &snapshot.gauges {
        page.family(family, Kind::Gauge, |page, name, labels, value| {
            page.sample(name, "", labels, None, Number(*value))
        })?;
    }
    for family in &snapshot.histograms {
        page.family(family, Kind::Histogram, Page::histogram)?;
    }
    let content_type = match format {
        TextFormat::OpenMetrics => {
            page.text.push_str("# EOF\n");
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        }
        TextFormat::Classic => "text/plain; version=0.0.4; charset=utf-8",
    };
    Ok(Exposition { content_type, text: page.text })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What is written so far.
struct Page {
    text: String,
    format: TextFormat,
}

impl Page {
    /// One family; one without series has nothing to say.
    fn family<V: Value>(
        &mut self,
        family: &Family<V>,
        kind: Kind,
        write: impl Fn(&mut Self, &str, &Labels, &V) -> fmt::Result,
    ) -> fmt::Result {
        if family.series.is_empty() {
            return Ok(());
        }
        let unit = match family.unit {
            Unit::None | Unit::Tokens => None,
            Unit::Seconds => Some("seconds"),
            Unit::Bytes => Some("bytes"),
        };
        let mut name = plain_name(family.name);
        if let Some(unit) = unit {
            write!(name, "_{unit}")?;
        }
        self.description(&name, family.help, kind, unit)?;
        family.series.iter().try_for_each(|(labels, value)| write(self, &name, labels, value))
    }

    fn description(
        &mut self,
        name: &str,
        help: &str,
        kind: Kind,
        unit: Option<&str>,
    ) -> fmt::Result {
        let (kind, suffix) = match (kind, self.format) {
            (Kind::Counter, TextFormat::OpenMetrics) => ("counter", ""),
            (Kind::Counter, TextFormat::Classic) => ("counter", "_total"),
            (Kind::Gauge, _) => ("gauge", ""),
            (Kind::Histogram, _) => ("histogram", ""),
        };
        let text = &mut self.text;
        writeln!(text, "# HELP {name}{suffix} {help}")?;
        writeln!(text, "# TYPE {name}{suffix} {kind}")?;
        match (unit, self.format) {
            (Some(unit), TextFormat::OpenMetrics) => writeln!(text, "# UNIT {name} {unit}"),
            _ => Ok(()),
        }
    }

    fn histogram(&mut self, name: &str, labels: &Labels, histogram: &Histogram) -> fmt::Result {
        let mut up_to = 0_u64;
        let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
        for (bucket, (bound, count)) in bounds.zip(&histogram.counts).enumerate() {
            up_to = up_to.saturating_add(*count);
            let exemplar = histogram.exemplars.get(&bucket);
            let sample = Sample { value: up_to, exemplar: self.exemplar(exemplar) };
            self.sample(name, "_bucket", labels, Some(bound), sample)?;
        }
        self.sample(name, "_sum", labels, None, Number(histogram.sum))?;
        self.sample(name, "_count", labels, None, format_args!("{up_to}"))
    }

    /// Where the format has exemplars.
    fn exemplar<'a>(&self, exemplar: Option<&'a Exemplar>) -> Option<&'a Exemplar> {
        exemplar.filter(|_| self.format == TextFormat::OpenMetrics)
    }

    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &Labels,
        bound: Option<f64>,
        value: impl fmt::Display,
    ) -> fmt::Result {
        let text = &mut self.text;
        write!(text, "{name}{suffix}")?;
        if bound.is_some() || !labels.is_empty() {
            let mut separator = '{';
            for (label, value) in labels {
                write!(text, "{separator}{}=\"{}\"", Plain(label), Escaped(value))?;
                separator = ',';
            }
            if let Some(bound) = bound {
                write!(text, "{separator}le=\"{}\"", Number(bound))?;
            }
            text.push('}');
        }
        writeln!(text, " {value}")
    }
}

/// A name with everything replaced that Prometheus has not in names.
fn plain_name(name: &str) -> String {
    Plain(name).to_string()
}

struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        self.0.chars().try_for_each(|c| f.write_char(if kept(c) { c } else { '_' }))
    }
}

/// A label's value.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

/// A double, which always has a point or an exponent, and infinity as both formats spell it.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            number => write!(f, "{number:?}"),
        }
    }
}

/// A bucket's count, and the exemplar after it.
struct Sample<'a> {
    value: u64,
    exemplar: Option<&'a Exemplar>,
}

impl fmt::Display for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)?;
        let Some(Exemplar { value, trace_id, span_id, at }) = self.exemplar else { return Ok(()) };
        let (seconds, milliseconds) = (at.seconds(), at.0 / 1_000_000 % 1000);
        let value = Number(*value);
        write!(
            f,
            " # {{trace_id=\"{trace_id}\",span_id=\"{span_id}\"}} {value} {seconds}.{milliseconds:03}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tollgate_domain::{SpanId, TraceId, UnixNanos};

    use super::*;

    fn snapshot() -> Snapshot {
        let calls = Family::new("tollgate.calls", "Calls.")
            .with([("plugin.name", "a\"b\\c\nd"), ("kind", "")], 3);
        let cost = Family::new("llm.cost_usd", "Cost.").with([("llm.user", "ü")], 0.000_003_6);
        let memory =
            Family::new("tollgate.memory", "Memory.").unit(Unit::Bytes).with([], 1_048_576.0);
        let running = Family::new("vllm:running", "Running.").with([], f64::NEG_INFINITY);
        let exemplar = Exemplar {
            value: 7.25,
            trace_id: TraceId(0x4bf9),
            span_id: SpanId(0xb7),
            at: UnixNanos(1_700_000_000_012_345_678),
        };
        let histogram = Histogram {
            bounds: vec![0.25e-6, 1.0],
            counts: vec![1, 2, 3],
            sum: 9.5,
            exemplars: BTreeMap::from([(2, exemplar)]),
        };
        let took = Family::new("gen_ai.call.duration", "Time of a call.")
            .unit(Unit::Seconds)
            .with([("gen_ai.model", "a")], histogram);
        Snapshot {
            counters: vec![calls, Family::new("tollgate.nothing", "Nothing.")],
            amounts: vec![cost],
            gauges: vec![memory, running],
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
tollgate_calls_total{plugin_name=\"a\\\"b\\\\c\\nd\",kind=\"\"} 3
# HELP llm_cost_usd Cost.
# TYPE llm_cost_usd counter
llm_cost_usd_total{llm_user=\"ü\"} 3.6e-6
# HELP tollgate_memory_bytes Memory.
# TYPE tollgate_memory_bytes gauge
# UNIT tollgate_memory_bytes bytes
tollgate_memory_bytes 1048576.0
# HELP vllm:running Running.
# TYPE vllm:running gauge
vllm:running -Inf
# HELP gen_ai_call_duration_seconds Time of a call.
# TYPE gen_ai_call_duration_seconds histogram
# UNIT gen_ai_call_duration_seconds seconds
gen_ai_call_duration_seconds_bucket{gen_ai_model=\"a\",le=\"2.5e-7\"} 1
gen_ai_call_duration_seconds_bucket{gen_ai_model=\"a\",le=\"1.0\"} 3
gen_ai_call_duration_seconds_bucket{gen_ai_model=\"a\",le=\"+Inf\"} 6 \
# {trace_id=\"00000000000000000000000000004bf9\",span_id=\"00000000000000b7\"} 7.25 1700000000.012
gen_ai_call_duration_seconds_sum{gen_ai_model=\"a\"} 9.5
gen_ai_call_duration_seconds_count{gen_ai_model=\"a\"} 6
# EOF
";
        assert_eq!(written.text, wanted);
    }

    #[test]
    fn classic_names_its_counters_whole_and_has_no_exemplars() {
        let written = snapshot().text(TextFormat::Classic).unwrap();
        assert!(written.content_type.starts_with("text/plain; version=0.0.4"));
        assert!(written.text.starts_with(
            "# HELP tollgate_calls_total Calls.\n# TYPE tollgate_calls_total counter\n\
             tollgate_calls_total{plugin_name=\"a\\\"b\\\\c\\nd\",kind=\"\"} 3\n"
        ));
        for absent in ["EOF", "UNIT", "trace_id"] {
            assert!(!written.text.contains(absent), "{absent}");
        }
    }
}
