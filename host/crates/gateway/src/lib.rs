//! The life of a request: the only place where engine, plugins and telemetry meet.
//!
//! [`Gateway::serve`] is what happens while the client waits, `deliver` what happens afterwards.
//! A request finishes in a task of its own: a client that goes away changes the outcome, never
//! the accounting.

mod admin;
mod call;
mod deliver;
mod metrics;
mod models;
mod request;
mod serve;
mod shadow;
mod tap;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tollgate_domain::Resource;
use tollgate_engine::Engine;
use tollgate_plugin_host::PluginHost;
use tollgate_telemetry::ExporterHandle;

pub use admin::Admin;
pub use call::{Answer, AnswerEvent, Arrival, Call, ChatMessage, Ending, Moment, Prompt, Refusal};
pub use metrics::{ExporterCounts, FileState, LedgerCounts};
pub use models::ModelCard;
pub use shadow::{ShadowAmounts, ShadowGroup, ShadowResult, ShadowSeries};
pub use tollgate_plugin_host::{BreakerState, PluginMeter, PluginStatus};
pub use tollgate_telemetry::metrics::Exposition;

use deliver::Finished;
use metrics::RequestMeters;
use models::Models;
use shadow::Shadow;

/// Records that may wait to be delivered. Policy when it is full: the request that ends waits.
const FINISHED_WAITING: usize = 1024;

/// What a gateway is made of.
pub struct Parts {
    /// Where models run.
    pub engine: Engine,
    /// Who prices, enriches and filters.
    pub plugins: PluginHost,
    /// Where spans go.
    pub exporters: Vec<ExporterHandle>,
    /// What all our spans share.
    pub resource: Resource,
    /// Other names the served model answers to.
    pub aliases: Vec<String>,
    /// The address we serve on, for spans.
    pub address: SocketAddr,
    /// How long a client may stop reading before it counts as gone.
    pub stall: Duration,
}

/// Handle to the running gateway.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    engine: Engine,
    plugins: PluginHost,
    models: Models,
    stall: Duration,
    /// Requests whose accounting is not done yet.
    running: TaskTracker,
    finished: mpsc::Sender<Finished>,
    requests: Arc<RequestMeters>,
    shadow: Arc<Shadow>,
}

/// The part that outlives the last request: waits until every record is delivered.
pub struct Delivery(tokio::task::JoinHandle<Vec<ExporterHandle>>);

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
    /// Starts delivering; serving happens in the callers' tasks.
    #[must_use]
    pub fn start(parts: Parts) -> (Self, Delivery) {
        let (finished, queue) = mpsc::channel(FINISHED_WAITING);
        let shadow = Arc::new(Shadow::default());
        let delivery = Delivery(tokio::spawn(deliver::run(
            queue,
            parts.exporters,
            parts.resource,
            parts.address,
            Arc::clone(&shadow),
        )));
        let models = Models::new(parts.engine.info(), parts.aliases);
        let gateway = Self(Arc::new(Inner {
            engine: parts.engine,
            plugins: parts.plugins,
            models,
            stall: parts.stall,
            running: TaskTracker::new(),
            finished,
            requests: Arc::default(),
            shadow,
        }));
        (gateway, delivery)
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
        Readiness::Ready
    }

    /// Refuses new requests and waits until those in flight are accounted for.
    pub async fn drain(&self) {
        self.0.running.close();
        self.0.running.wait().await;
    }
}

impl Delivery {
    /// Waits until everything handed in has reached its exporters' queues, and hands those back
    /// to be closed. Ends once every [`Gateway`] handle is dropped.
    pub async fn finish(self) -> Vec<ExporterHandle> {
        match self.0.await {
            Ok(exporters) => exporters,
            Err(error) => {
                tracing::error!(%error, "delivery ended early; spans not yet exported are lost");
                Vec::new()
            }
        }
    }
}
