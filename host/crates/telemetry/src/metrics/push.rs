//! Metrics to an OTLP receiver, every so often and once more at the end.
//!
//! Nothing is queued and nothing tried again: what is sent is cumulative, so the next push says
//! all that a lost one did. A receiver that is down is warned of once, until it is back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tollgate_domain::UnixNanos;
use tollgate_domain::span::Resource;

use super::Snapshot;
use super::otlp::{Counted, requests};
use crate::error::TelemetryError;
use crate::otlp::{OtlpClient, Refusal, message};
use crate::settings::OtlpSettings;

/// Where metrics are pushed to, and when.
#[derive(Clone, Debug)]
pub struct PushSettings {
    /// The receiver; over HTTP with the path of metrics.
    pub receiver: OtlpSettings,
    /// Time between two pushes: `OTEL_METRIC_EXPORT_INTERVAL`.
    pub every: Duration,
    /// How long one push may take: `OTEL_METRIC_EXPORT_TIMEOUT`.
    pub timeout: Duration,
}

impl PushSettings {
    /// To `receiver`, when the environment says; `env` looks a variable up.
    pub fn from_environment(receiver: OtlpSettings, env: impl Fn(&str) -> Option<String>) -> Self {
        let milliseconds = |name: &str, default| {
            let value = env(name).map(|value| value.trim().to_owned());
            let Some(value) = value.filter(|value| !value.is_empty()) else { return default };
            match value.parse().ok().filter(|milliseconds| *milliseconds > 0) {
                Some(milliseconds) => Duration::from_millis(milliseconds),
                None => {
                    ignored(name, &value, "it must be a number of milliseconds");
                    default
                }
            }
        };
        let every = milliseconds("OTEL_METRIC_EXPORT_INTERVAL", Duration::from_secs(60));
        let timeout = milliseconds("OTEL_METRIC_EXPORT_TIMEOUT", Duration::from_secs(30));
        let temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        if let Some(value) = env(temporality)
            && !["", "cumulative"].contains(&value.trim().to_ascii_lowercase().as_str())
        {
            ignored(temporality, &value, "metrics are always sent cumulative");
        }
        Self { receiver, every, timeout }
    }
}

/// A task that pushes until it is closed.
#[derive(Debug)]
pub struct MetricsPush {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl MetricsPush {
    /// Starts the task. `source` is asked for what is counted, on a thread that may block. Needs a
    /// Tokio runtime around it.
    ///
    /// # Errors
    /// [`TelemetryError`] if the client cannot be built; a receiver that is down is no error.
    pub fn start(
        settings: PushSettings,
        resource: &Resource,
        source: impl Fn() -> Snapshot + Send + Sync + 'static,
    ) -> Result<Self, TelemetryError> {
        let PushSettings { receiver, every, timeout } = settings;
        let (stop, stopped) = oneshot::channel();
        let pusher = Pusher {
            client: OtlpClient::new(&receiver)?,
            resource: message::resource(resource),
            source: Arc::new(source),
            since: SystemTime::now().into(),
            timeout,
            failing: false,
        };
        let task = tokio::spawn(pusher.run(every, stopped));
        Ok(Self { stop, task })
    }

    /// Pushes once more and ends, at `deadline` at the latest.
    pub async fn close(mut self, deadline: Duration) {
        let _ = self.stop.send(());
        if timeout(deadline, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the last metrics were not pushed in time");
        }
    }
}

struct Pusher<S> {
    client: OtlpClient,
    resource: OtlpResource,
    source: Arc<S>,
    /// When counting began.
    since: UnixNanos,
    timeout: Duration,
    /// Whether the last push failed.
    failing: bool,
}

impl<S: Fn() -> Snapshot + Send + Sync + 'static> Pusher<S> {
    async fn run(mut self, every: Duration, mut stopped: oneshot::Receiver<()>) {
        let mut due = interval_at(Instant::now() + every, every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                _ = due.tick() => false,
                _ = &mut stopped => true,
            };
            let pushed = timeout(self.timeout, self.push()).await;
            self.report(pushed.unwrap_or_else(|_| Err(format!("no end in {:?}", self.timeout))));
            if last {
                return;
            }
        }
    }

    async fn push(&mut self) -> Result<(), String> {
        let source = Arc::clone(&self.source);
        let (resource, since) = (self.resource.clone(), self.since);
        let requests = spawn_blocking(move || {
            let snapshot = source();
            let now = UnixNanos::from(SystemTime::now());
            // The clock may have been set back.
            requests(&snapshot, &resource, Counted { since, at: now.max(since) })
        });
        for request in requests.await.map_err(|error| error.to_string())? {
            match self.client.export(request).await {
                Ok(None) => {}
                Ok(Some(partial)) if partial.rejected == 0 && partial.message.is_empty() => {}
                Ok(Some(partial)) => {
                    return Err(format!(
                        "{} points refused: {}",
                        partial.rejected, partial.message
                    ));
                }
                Err(
                    Refusal::Later { problem, .. }
                    | Refusal::Setup { problem }
                    | Refusal::Missing { problem }
                    | Refusal::TooLarge { problem }
                    | Refusal::Never { problem },
                ) => return Err(problem),
            }
        }
        Ok(())
    }

    fn report(&mut self, pushed: Result<(), String>) {
        let receiver = self.client.endpoint();
        let failed = pushed.is_err();
        match pushed {
            Ok(()) if self.failing => tracing::info!(receiver, "metrics are pushed again"),
            Err(problem) if !self.failing => tracing::warn!(
                receiver,
                problem,
                "metrics cannot be pushed; the next push says it all again. Is the receiver up, \
                 and does it take metrics? OTEL_METRICS_EXPORTER=none pushes none"
            ),
            Ok(()) | Err(_) => {}
        }
        self.failing = failed;
    }
}

fn ignored(name: &str, value: &str, problem: &str) {
    tracing::warn!(name, value, "environment variable ignored: {problem}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Protocol;

    type Variables = &'static [(&'static str, &'static str)];

    #[test]
    fn the_environment_says_when() {
        const EVERY: &str = "OTEL_METRIC_EXPORT_INTERVAL";
        const TIMEOUT: &str = "OTEL_METRIC_EXPORT_TIMEOUT";
        let cases: [(Variables, u64, u64); 4] = [
            (&[], 60_000, 30_000),
            (&[(EVERY, " 250 "), (TIMEOUT, "100")], 250, 100),
            (&[(EVERY, "0"), (TIMEOUT, "-1")], 60_000, 30_000),
            (&[(EVERY, ""), (TIMEOUT, "soon")], 60_000, 30_000),
        ];
        for (variables, every, timeout) in cases {
            let env = |name: &str| {
                variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            };
            let receiver = OtlpSettings::new(Protocol::Grpc);
            let settings = PushSettings::from_environment(receiver, env);
            let found = (settings.every, settings.timeout);
            let wanted = (Duration::from_millis(every), Duration::from_millis(timeout));
            assert_eq!(found, wanted, "{variables:?}");
        }
    }

    #[tokio::test]
    async fn closing_does_not_wait_for_a_receiver_that_hangs() {
        let hangs = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut receiver = OtlpSettings::new(Protocol::HttpProtobuf);
        receiver.endpoint = format!("http://{}/v1/metrics", hangs.local_addr().unwrap());
        let (every, timeout) = (Duration::from_secs(3600), Duration::from_secs(3600));
        let settings = PushSettings { receiver, every, timeout };
        let source = || {
            let family = super::super::Family::new("a", "A.").with([], 1);
            Snapshot { counters: vec![family], ..Snapshot::default() }
        };
        let push = MetricsPush::start(settings, &Resource::default(), source).unwrap();
        let began = Instant::now();
        push.close(Duration::from_millis(100)).await;
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
