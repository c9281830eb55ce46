//! Where spans go: each receiver gets one real span, by the exporter's own code.

use std::time::{Duration, SystemTime};

use tollgate_domain::span::{Attributes, Span, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::{SpanContext, SpanId, TraceId, UnixNanos};
use tollgate_settings::Settings;
use tollgate_telemetry::{ExporterSettings, SendError, SinkSettings, build_exporters};

use super::Finding;
use crate::{exporters, start};

const CHECK: &str = "exporter";
/// What the probe is called at the receiver.
const NAME: &str = "tollgate.doctor";
/// What to do about a receiver that says nothing else.
const START_IT: &str = "start it, or correct the endpoint";

/// All exporters; files and the console are named only, since the folders are looked at elsewhere.
pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let told = match tollgate_telemetry::from_environment(start::environment) {
        Ok(told) => told,
        Err(error) => {
            return vec![Finding::failed(CHECK, error.to_string(), "correct that variable")];
        }
    };
    if told.disabled {
        let seen = "OTEL_SDK_DISABLED is set: no span goes anywhere";
        return vec![Finding::warning(CHECK, seen, "unset it, if spans are wanted")];
    }
    let mut findings = Vec::new();
    for exporter in exporters::of(settings, &told) {
        findings.push(match &exporter.sink {
            SinkSettings::Otlp(otlp) => {
                let place = format!("{}: {}", exporter.name, otlp.endpoint);
                let patience = otlp.timeout;
                send(&place, exporter, patience).await
            }
            SinkSettings::Ndjson(file) | SinkSettings::OtlpJson(file) => {
                Finding::ok(CHECK, format!("{}: {}", exporter.name, file.path.display()))
            }
            SinkSettings::Console { .. } => {
                Finding::ok(CHECK, format!("{}: standard output", exporter.name))
            }
        });
    }
    if findings.is_empty() {
        let mend = "name one by [[exporter]], or set OTEL_EXPORTER_OTLP_ENDPOINT";
        findings.push(Finding::warning(CHECK, "none: no span goes anywhere", mend));
    }
    findings
}

async fn send(place: &str, exporter: ExporterSettings, patience: Duration) -> Finding {
    let resource = tollgate_telemetry::resource(start::environment);
    let mut built = match build_exporters(vec![exporter], &resource) {
        Ok(built) => built,
        Err(error) => {
            let mend = "correct the exporter's settings";
            return Finding::failed(CHECK, format!("{place}: {error}"), mend);
        }
    };
    let Some(exporter) = built.first_mut() else {
        return Finding::failed(CHECK, format!("{place}: not built"), "report this");
    };
    let span = probe();
    let trace = span.context.trace_id;
    let sent = tokio::time::timeout(patience.saturating_mul(2), exporter.send(&[span])).await;
    match sent {
        Ok(Ok(accepted)) if accepted.rejected_spans == 0 => {
            Finding::ok(CHECK, format!("{place} took a probe span, {NAME} in trace {trace}"))
        }
        Ok(Ok(accepted)) => {
            let why = accepted.message.unwrap_or_else(|| "without a reason".to_owned());
            Finding::failed(
                CHECK,
                format!("{place} refused a probe span: {why}"),
                "look at its log",
            )
        }
        Ok(Err(SendError::Later { message, .. } | SendError::Never { message })) => {
            let (seen, mend) = message.rsplit_once("; ").unwrap_or((&message, START_IT));
            Finding::failed(CHECK, format!("{place}: {seen}"), mend)
        }
        Err(_) => Finding::failed(CHECK, format!("{place} does not answer in time"), START_IT),
    }
}

/// A span that says whose it is; its ids are those of no request.
fn probe() -> Span {
    let end = UnixNanos::from(SystemTime::now());
    let id = u128::from(end.0) << 32 | u128::from(std::process::id());
    let start = UnixNanos(end.0.saturating_sub(1_000_000));
    let mut attributes = Attributes::new();
    attributes.set("tollgate.probe", true);
    Span {
        context: SpanContext {
            trace_id: TraceId(id),
            span_id: SpanId(end.0.max(1)),
            sampled: true,
            trace_state: None,
        },
        parent: None,
        parent_is_remote: false,
        name: NAME.into(),
        kind: SpanKind::Internal,
        interval: Interval { start, end },
        status: SpanStatus::Ok,
        attributes,
        events: Vec::new(),
        received: None,
    }
}
