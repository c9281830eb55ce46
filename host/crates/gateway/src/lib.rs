//! The life of a request: the only place where engine, plugins and telemetry meet.
//!
//! [`Gateway::serve`] is what happens while the client waits, `deliver` what happens afterwards.
//! A request finishes in a task of its own: a client that goes away changes the outcome, never
//! the accounting.

mod admin;
mod call;
mod content;
mod deliver;
mod exporters;
mod log;
mod metrics;
mod models;
mod recover;
mod request;
mod serve;
mod shadow;
mod tap;
mod tracer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tollgate_domain::Resource;
use tollgate_engine::Engine;
use tollgate_ledger::{Ledger, LedgerError, Opened};
use tollgate_plugin_host::PluginHost;
use tollgate_telemetry::Exporter;

pub use admin::Admin;
pub use call::{Answer, AnswerEvent, Arrival, Call, ChatMessage, Ending, Moment, Prompt, Refusal};
pub use content::CaptureSettings;
pub use metrics::{ExporterCounts, FileState, LedgerCounts};
pub use models::ModelCard;
pub use shadow::{ShadowAmounts, ShadowGroup, ShadowResult, ShadowSeries};
pub use tollgate_plugin_host::{BreakerState, PluginMeter, PluginStatus};
pub use tollgate_telemetry::metrics::Exposition;

use content::Capture;
use deliver::Courier;
use exporters::ExporterMeter;
use metrics::RequestMeters;
use models::Models;
use shadow::Shadow;
use tracer::Tracer;

/// What a gateway is made of.
pub struct Parts {
    /// Where models run.
    pub engine: Engine,
    /// Who prices, enriches and filters.
    pub plugins: PluginHost,
    /// Where records are kept, and what its last process left behind.
    pub ledger: Opened,
    /// Where spans go.
    pub exporters: Vec<Exporter>,
    /// What all our spans share.
    pub resource: Resource,
    /// Other names the served model answers to.
    pub aliases: Vec<String>,
    /// The address we serve on, for spans.
    pub address: SocketAddr,
    /// How long a client may stop reading before it counts as gone.
    pub stall: Duration,
    /// Whose prompts and answers go on record, and how much of them.
    pub capture: CaptureSettings,
}

/// Handle to the running gateway.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    engine: Engine,
    plugins: PluginHost,
    models: Models,
    stall: Duration,
    capture: Capture,
    /// Requests whose accounting is not done yet.
    running: TaskTracker,
    ledger: Ledger,
    requests: Arc<RequestMeters>,
    shadow: Arc<Shadow>,
    exporters: Vec<Arc<ExporterMeter>>,
}

/// The part that outlives the last request: carries records to their exporters.
pub struct Delivery {
    couriers: JoinSet<Exporter>,
    closing: watch::Sender<bool>,
}

/// Whether requests can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// They can.
    Ready,
    /// They cannot.
    NotReady {
        /// Why, and what to do.
        reason: String,
    },
}

impl Gateway {
    /// Ends what the last process left in flight and starts delivering; serving happens in tasks
    /// of the requests.
    ///
    /// # Errors
    /// If the ledger cannot record what was in flight.
    pub async fn start(parts: Parts) -> Result<(Self, Delivery), LedgerError> {
        let Opened { ledger, interrupted } = parts.ledger;
        recover::end_interrupted(&ledger, &parts.plugins, interrupted).await?;
        let tracer = Tracer::new(parts.plugins.clone(), parts.resource, parts.address);
        let (delivery, exporters) = Delivery::start(parts.exporters, &ledger, &Arc::new(tracer));
        let models = Models::new(parts.engine.info(), parts.aliases);
        let gateway = Self(Arc::new(Inner {
            engine: parts.engine,
            plugins: parts.plugins,
            models,
            stall: parts.stall,
            capture: Capture::new(&parts.capture),
            running: TaskTracker::new(),
            ledger,
            requests: Arc::default(),
            shadow: Arc::default(),
            exporters,
        }));
        Ok((gateway, delivery))
    }

    /// The models that can be asked for.
    #[must_use]
    pub fn models(&self) -> &[ModelCard] {
        self.0.models.cards()
    }

    /// Whether requests can be served.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        if self.0.running.is_closed() {
            return Readiness::NotReady { reason: "shutting down".to_owned() };
        }
        if let Err(error) = self.0.ledger.admits() {
            return Readiness::NotReady { reason: error.to_string() };
        }
        Readiness::Ready
    }

    /// Refuses new requests and waits until those in flight are accounted for.
    pub async fn drain(&self) {
        self.0.running.close();
        self.0.running.wait().await;
    }
}

impl Delivery {
    fn start(
        exporters: Vec<Exporter>,
        ledger: &Ledger,
        tracer: &Arc<Tracer>,
    ) -> (Self, Vec<Arc<ExporterMeter>>) {
        let names: Vec<&str> = exporters.iter().map(Exporter::name).collect();
        ledger.delivers_to(&names);
        let (closing, is_closing) = watch::channel(false);
        let mut couriers = JoinSet::new();
        let mut meters = Vec::with_capacity(exporters.len());
        for exporter in exporters {
            let meter = Arc::new(ExporterMeter::new(exporter.name()));
            meters.push(Arc::clone(&meter));
            let courier = Courier {
                exporter,
                ledger: ledger.clone(),
                tracer: Arc::clone(tracer),
                meter,
                closing: is_closing.clone(),
            };
            couriers.spawn(courier.run());
        }
        (Self { couriers, closing }, meters)
    }

    /// Delivers what is on record by now, as far as receivers take it, and hands the exporters back
    /// to be closed. What is left waits in the ledger for the next start.
    pub async fn finish(mut self) -> Vec<Exporter> {
        self.closing.send_replace(true);
        let mut exporters = Vec::new();
        while let Some(ended) = self.couriers.join_next().await {
            match ended {
                Ok(exporter) => exporters.push(exporter),
                Err(error) => {
                    tracing::error!(%error, "an exporter's task failed; its records wait in the ledger");
                }
            }
        }
        exporters
    }
}
