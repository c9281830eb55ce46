//! A snapshot as OTLP's messages: cumulative since the process began, with exemplars.
//!
//! Receivers take requests of a few megabytes, so a snapshot may become several. What a family has
//! more of than [`POINTS`] goes into a further request too, so that no request has a name twice.

use std::mem;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as OtlpExemplar, Gauge, Histogram as OtlpHistogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar,
    metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use prost::Message;
use tollgate_domain::UnixNanos;

use super::{Exemplar, Family, Histogram, Labels, Snapshot, Unit, Value};
use crate::names;
use crate::otlp::message::{own_scope, scope};

/// Most series of one family in one request; a histogram's takes up to two kilobytes.
const POINTS: usize = 500;

/// Size at which a request is full. With the last family in it, it is still far below the 4 MiB
/// that most receivers take at most.
const REQUEST_BYTES: usize = 1 << 20;

/// From when to when a snapshot counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) since: UnixNanos,
    pub(super) at: UnixNanos,
}

/// The requests that carry `snapshot`.
pub(super) fn requests(
    snapshot: &Snapshot,
    resource: &OtlpResource,
    counted: Counted,
) -> Vec<ExportMetricsServiceRequest> {
    let mut requests = Requests { resource, done: Vec::new(), metrics: Vec::new(), bytes: 0 };
    for family in &snapshot.counters {
        requests.add(family, |labels, value| counted.whole(labels, *value), sum);
    }
    for family in &snapshot.amounts {
        requests.add(family, |labels, value| counted.double(labels, *value), sum);
    }
    for family in &snapshot.gauges {
        let point = |labels: &_, value: &f64| NumberDataPoint {
            start_time_unix_nano: 0,
            ..counted.double(labels, *value)
        };
        requests.add(family, point, |data_points| metric::Data::Gauge(Gauge { data_points }));
    }
    for family in &snapshot.histograms {
        requests.add(
            family,
            |labels, value| counted.histogram(labels, value),
            |data_points| {
                let aggregation_temporality = AggregationTemporality::Cumulative.into();
                metric::Data::Histogram(OtlpHistogram { data_points, aggregation_temporality })
            },
        );
    }
    requests.end();
    requests.done
}

/// Those that are full, and the next.
struct Requests<'a> {
    resource: &'a OtlpResource,
    done: Vec<ExportMetricsServiceRequest>,
    metrics: Vec<Metric>,
    bytes: usize,
}

impl Requests<'_> {
    fn add<V: Value, P>(
        &mut self,
        family: &Family<V>,
        point: impl Fn(&Labels, &V) -> P,
        data: impl Fn(Vec<P>) -> metric::Data,
    ) {
        let mut points = family.series().map(|(labels, value)| point(labels, value)).peekable();
        while points.peek().is_some() {
            let metric = Metric {
                name: family.name().to_owned(),
                description: family.help.to_owned(),
                unit: unit(family.unit).to_owned(),
                metadata: Vec::new(),
                data: Some(data(points.by_ref().take(POINTS).collect())),
            };
            self.bytes += metric.encoded_len();
            self.metrics.push(metric);
            if self.bytes >= REQUEST_BYTES || points.peek().is_some() {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.bytes = 0;
        let metrics = mem::take(&mut self.metrics);
        if metrics.is_empty() {
            return;
        }
        let schema_url = names::SCHEMA_URL.to_owned();
        let scope_metrics = vec![ScopeMetrics {
            scope: Some(scope(&own_scope())),
            metrics,
            schema_url: schema_url.clone(),
        }];
        let resource = Some(self.resource.clone());
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, schema_url }];
        self.done.push(ExportMetricsServiceRequest { resource_metrics });
    }
}

impl Counted {
    fn whole(self, labels: &Labels, value: u64) -> NumberDataPoint {
        let value = number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX));
        self.number(labels, value)
    }

    fn double(self, labels: &Labels, value: f64) -> NumberDataPoint {
        self.number(labels, number_data_point::Value::AsDouble(value))
    }

    fn number(self, labels: &Labels, value: number_data_point::Value) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.since.0,
            time_unix_nano: self.at.0,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    fn histogram(self, labels: &Labels, histogram: &Histogram) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.since.0,
            time_unix_nano: self.at.0,
            count: histogram.count(),
            sum: Some(histogram.sum),
            bucket_counts: histogram.counts.clone(),
            explicit_bounds: histogram.bounds.clone(),
            exemplars: histogram.exemplars.values().map(otlp_exemplar).collect(),
            ..HistogramDataPoint::default()
        }
    }
}

fn sum(data_points: Vec<NumberDataPoint>) -> metric::Data {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    metric::Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
}

/// A label without a value is no attribute.
fn attributes(labels: &Labels) -> Vec<KeyValue> {
    let given = labels.iter().filter(|(_, value)| !value.is_empty());
    given
        .map(|(key, value)| KeyValue {
            key: (*key).to_owned(),
            value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.clone())) }),
            ..KeyValue::default()
        })
        .collect()
}

fn otlp_exemplar(exemplar: &Exemplar) -> OtlpExemplar {
    OtlpExemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: exemplar.at.0,
        span_id: exemplar.span_id.0.to_be_bytes().to_vec(),
        trace_id: exemplar.trace_id.0.to_be_bytes().to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
    }
}

/// In UCUM. `1` is not for counts of things: receivers make ratios of it.
fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::None => "",
        Unit::Seconds => "s",
        Unit::Bytes => "By",
        Unit::Tokens => "{token}",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use tollgate_domain::{SpanId, TraceId};

    use super::*;
    use crate::metrics::{SERIES_PER_FAMILY, bounded};

    const COUNTED: Counted = Counted { since: UnixNanos(5), at: UnixNanos(9) };

    fn metrics(requests: &[ExportMetricsServiceRequest]) -> Vec<&Metric> {
        let resources = requests.iter().flat_map(|request| &request.resource_metrics);
        resources.flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics).collect()
    }

    #[test]
    fn each_kind_keeps_its_meaning() {
        let exemplar = Exemplar {
            value: 0.75,
            trace_id: TraceId(0xabc),
            span_id: SpanId(0xdef),
            at: UnixNanos(7),
        };
        let histogram = Histogram {
            bounds: vec![0.5, 1.0],
            counts: vec![1, 2, 0],
            sum: 2.0,
            exemplars: BTreeMap::from([(1, exemplar)]),
        };
        let snapshot = Snapshot {
            counters: vec![
                Family::new("tokens", "T.").unit(Unit::Tokens).with([("a.b", "x"), ("c", "")], 3),
                Family::new("nothing", "N."),
            ],
            amounts: vec![Family::new("cost", "C.").with([], 0.25)],
            gauges: vec![Family::new("size", "S.").unit(Unit::Bytes).with([], 1.5)],
            histograms: vec![Family::new("took", "D.").unit(Unit::Seconds).with([], histogram)],
        };
        let requests = requests(&snapshot, &OtlpResource::default(), COUNTED);
        assert_eq!(requests.len(), 1);
        let [tokens, cost, size, took] = metrics(&requests)[..] else { panic!("not four") };
        let heads = [tokens, cost, size, took].map(|m| (m.name.as_str(), m.unit.as_str()));
        assert_eq!(heads, [("tokens", "{token}"), ("cost", ""), ("size", "By"), ("took", "s")]);

        let Some(metric::Data::Sum(tokens)) = &tokens.data else { panic!("no sum") };
        assert!(tokens.is_monotonic);
        assert_eq!(tokens.aggregation_temporality, 2, "cumulative");
        let point = &tokens.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (5, 9));
        assert_eq!(point.value, Some(number_data_point::Value::AsInt(3)));
        let keys: Vec<&str> = point.attributes.iter().map(|a| a.key.as_str()).collect();
        assert_eq!(keys, ["a.b"], "what is empty is left out");

        let Some(metric::Data::Sum(cost)) = &cost.data else { panic!("no sum") };
        assert_eq!(cost.data_points[0].value, Some(number_data_point::Value::AsDouble(0.25)));
        let Some(metric::Data::Gauge(size)) = &size.data else { panic!("no gauge") };
        assert_eq!(size.data_points[0].start_time_unix_nano, 0);

        let Some(metric::Data::Histogram(took)) = &took.data else { panic!("no histogram") };
        assert_eq!(took.aggregation_temporality, 2);
        let point = &took.data_points[0];
        assert_eq!((point.count, point.sum), (3, Some(2.0)));
        assert_eq!(
            (&*point.bucket_counts, &*point.explicit_bounds),
            (&[1, 2, 0][..], &[0.5, 1.0][..])
        );
        let seen = &point.exemplars[0];
        assert_eq!(seen.value, Some(exemplar::Value::AsDouble(0.75)));
        assert_eq!((seen.trace_id.len(), seen.span_id.len(), seen.time_unix_nano), (16, 8, 7));
    }

    #[test]
    fn a_flood_is_sent_in_pieces() {
        let bounds: Vec<f64> = (0..22).map(f64::from).collect();
        let counts = vec![u64::MAX >> 8; 23];
        let exemplar = Exemplar {
            value: 0.75,
            trace_id: TraceId(u128::MAX),
            span_id: SpanId(u64::MAX),
            at: UnixNanos(u64::MAX),
        };
        let exemplars = (0..23).map(|bucket| (bucket, exemplar)).collect();
        let histogram = Histogram { bounds, counts, sum: 2.0, exemplars };
        let (mut many, mut took) = (Family::new("many", "M."), Family::new("took", "T."));
        for tenant in 0..SERIES_PER_FAMILY {
            let name = format!("{tenant}-{}", "x".repeat(300));
            many.add([("tenant", bounded(&name)), ("model", bounded(&name))], 1_u64);
            if tenant < 2000 {
                took.add([("tenant", bounded(&name))], histogram.clone());
            }
        }
        let few = Family::new("few", "F.").with([], 1.0);
        let snapshot = Snapshot {
            counters: vec![many],
            gauges: vec![few],
            histograms: vec![took],
            ..Snapshot::default()
        };
        let requests = requests(&snapshot, &OtlpResource::default(), COUNTED);
        let mut points = 0;
        for request in &requests {
            assert!(request.encoded_len() < 3 << 20, "{} bytes", request.encoded_len());
            let metrics = metrics(std::slice::from_ref(request));
            let names: HashSet<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
            assert_eq!(names.len(), metrics.len(), "a name stands twice in a request");
            for metric in metrics {
                points += match metric.data.as_ref().unwrap() {
                    metric::Data::Sum(sum) => sum.data_points.len(),
                    metric::Data::Gauge(gauge) => gauge.data_points.len(),
                    metric::Data::Histogram(histogram) => histogram.data_points.len(),
                    other => panic!("{other:?}"),
                };
            }
        }
        assert_eq!(points, SERIES_PER_FAMILY + 1 + 2000);
    }
}
