//! The life of a request: the only place where engine, plugins and telemetry meet.
//!
//! [`Gateway::serve`] is what happens while the client waits, `deliver` what happens afterwards.
//! A request finishes in a task of its own: a client that goes away changes the outcome, never
//! the accounting.

mod admin;
mod admission;
mod admit;
mod call;
mod content;
mod deliver;
mod embed;
mod exporters;
mod forward;
mod ingest;
mod inspect;
mod local;
mod locals;
mod log;
mod metrics;
mod models;
mod needs;
mod piece;
mod pricing;
mod progress;
mod prompt;
mod recover;
mod request;
mod serve;
mod shadow;
mod tap;
mod tokens;
mod tracer;
mod traces;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tollgate_domain::{Resource, UnixNanos};
use tollgate_engine::Engine;
use tollgate_ledger::{Ledger, LedgerError, Opened};
use tollgate_plugin_host::PluginHost;
use tollgate_telemetry::Exporter;
use tollgate_upstream::Upstreams;
pub use tollgate_upstream::{BackendStatus, Form as ForwardedForm, HealthState, form_field};

pub use admin::Admin;
pub use admission::Tenancy;
pub use call::{
    Answer, AnswerEvent, Arrival, Call, Caller, ChatMessage, Ending, Form, Forward, ForwardedHead,
    Input, Moment, Places, Prompt, Refusal, Tuning,
};
pub use content::CaptureSettings;
pub use exporters::ExporterStatus;
pub use ingest::Receipt;
pub use inspect::{LedgerStanding, LimitsStanding, Seen, Totals, TotalsAsk};
pub use metrics::{ExporterCounts, FileState, LedgerCounts};
pub use models::ModelCard;
pub use piece::{Piece, TokenLikely, TokenTold};
pub use shadow::{ShadowAmounts, ShadowGroup, ShadowResult, ShadowSeries};
pub use tokens::{ToTokens, Tokens};
pub use tollgate_ledger::{Durability, LedgerState, Page, Query, Stored, UnderWay};
pub use tollgate_plugin_host::{PluginMeter, PluginStatus};
pub use tollgate_summary::{Dimension, Period, TypedTime, ago, shown};
pub use tollgate_telemetry::metrics::Exposition;
pub use tollgate_telemetry::receive::{Encoding, GrpcCode, accepted, refused};
pub use tollgate_tenancy::{BudgetStanding, KeyStanding, Limits, Standing, Used};
pub use traces::TraceCounts;

use content::Capture;
use deliver::Courier;
use exporters::ExporterMeter;
use ingest::Ingest;
use local::Local;
use locals::Locals;
use metrics::RequestMeters;
use models::Models;
use shadow::Shadow;
use tracer::Tracer;

/// What a gateway is made of.
pub struct Parts {
    /// The models in this process.
    pub models: Vec<ModelHere>,
    /// Other servers, if there are any.
    pub upstreams: Option<Upstreams>,
    /// Who may ask, and how much.
    pub tenancy: Tenancy,
    /// Who prices, enriches and filters.
    pub plugins: PluginHost,
    /// Where records are kept, and what its last process left behind.
    pub ledger: Opened,
    /// Where spans go.
    pub exporters: Vec<Exporter>,
    /// What all our spans share.
    pub resource: Resource,
    /// The address we serve on, for spans.
    pub address: SocketAddr,
    /// How long a client may stop reading before it counts as gone.
    pub stall: Duration,
    /// Whose prompts and answers go on record, and how much of them.
    pub capture: CaptureSettings,
    /// Whether it takes spans of other programs.
    pub receives: bool,
    /// Most bytes that each of their senders may send in a minute, spans, metrics and logs together;
    /// none: any number.
    pub received_bytes_per_minute: Option<u64>,
}

/// A model in this process.
pub struct ModelHere {
    /// What runs it.
    pub engine: Engine,
    /// Other names it answers to.
    pub aliases: Vec<String>,
}

/// Handle to the running gateway.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    /// When this gateway was started.
    began: UnixNanos,
    locals: Locals,
    upstreams: Option<Upstreams>,
    tenancy: Tenancy,
    plugins: PluginHost,
    stall: Duration,
    capture: Capture,
    /// Requests whose accounting is not done yet.
    running: TaskTracker,
    ledger: Ledger,
    requests: Arc<RequestMeters>,
    shadow: Arc<Shadow>,
    exporters: Vec<Arc<ExporterMeter>>,
    tracer: Arc<Tracer>,
    /// Held by whoever adds records up for an operator: one at a time.
    adding_up: Arc<tokio::sync::Semaphore>,
    /// None where no spans are taken.
    ingest: Option<Ingest>,
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
    /// If the ledger cannot record what was in flight, or be read where spans are taken.
    pub async fn start(parts: Parts) -> Result<(Self, Delivery), LedgerError> {
        let Opened { ledger, interrupted } = parts.ledger;
        recover::end_interrupted(&ledger, &parts.plugins, interrupted).await?;
        let keyed = !parts.tenancy.keys.is_open();
        let ingest = || Ingest::new(&ledger, keyed, parts.received_bytes_per_minute);
        let ingest = parts.receives.then(|| tokio::task::block_in_place(ingest)).transpose()?;
        let (plugins, exporters) = (parts.plugins.clone(), parts.exporters.len());
        let tracer = Tracer::new(plugins, parts.resource, parts.address, exporters);
        let tracer = Arc::new(tracer);
        let (delivery, exporters) = Delivery::start(parts.exporters, &ledger, &tracer);
        let local = |ModelHere { engine, aliases }| {
            let models = Models::new(engine.info(), aliases);
            Local { engine, models }
        };
        let locals = Locals::new(parts.models.into_iter().map(local).collect());
        let gateway = Self(Arc::new(Inner {
            began: SystemTime::now().into(),
            locals,
            upstreams: parts.upstreams,
            tenancy: parts.tenancy,
            plugins: parts.plugins,
            stall: parts.stall,
            capture: Capture::new(&parts.capture),
            running: TaskTracker::new(),
            ledger,
            requests: Arc::default(),
            shadow: Arc::default(),
            exporters,
            tracer,
            adding_up: Arc::new(tokio::sync::Semaphore::new(1)),
            ingest,
        }));
        Ok((gateway, delivery))
    }

    /// Who shows this key: the token of `Authorization`, without its scheme.
    ///
    /// # Errors
    /// `unauthorized`: there are keys, and this is none that holds.
    pub fn authenticate(&self, key: Option<&str>) -> Result<Caller, Refusal> {
        self.0.tenancy.authenticate(key, &self.0.requests)
    }

    /// The models that `caller` can ask for by name, each once.
    #[must_use]
    pub fn models(&self, caller: &Caller) -> Vec<ModelCard> {
        let upstreams = self.0.upstreams.as_ref();
        let tenant = caller.0.tenant.as_deref();
        let served = upstreams.map(|all| all.models(tenant)).unwrap_or_default();
        let mut cards: Vec<ModelCard> =
            served.into_iter().map(|model| ModelCard::of(model, self.0.began)).collect();
        let known: HashSet<String> = cards.iter().map(|card| card.id.clone()).collect();
        let here = self.0.locals.cards();
        cards.extend(here.filter(|card| !known.contains(&card.id)).cloned());
        cards.retain(|card| caller.0.allows(&card.id));
        cards
    }

    /// Whether requests may go to other servers at all.
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.0.upstreams.is_some()
    }

    /// Where the model of this name is served; without a name the only model there is.
    #[must_use]
    pub fn places(&self, model: &str, caller: &Caller, user: Option<&str>) -> Places {
        let name = if model.is_empty() { self.0.locals.default_name() } else { model };
        let tenant = caller.0.tenant.as_deref().or(user);
        let upstreams = self.0.upstreams.as_ref();
        let elsewhere = upstreams.is_some_and(|all| all.serves(model, tenant));
        Places { here: self.0.locals.find(name).is_some(), elsewhere }
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
