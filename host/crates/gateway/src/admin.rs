//! What an operator may ask of a running gateway: which plugins there are, to load, stop and roll
//! them back, to try one, and what is counted.
//!
//! An [`Admin`] holds up nothing: requests go on being served and accounted for while it works,
//! and the gateway can drain while one is held. What waits for the plugin host's thread, calls a
//! plugin or writes much text runs on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;
use tollgate_domain::{CostOutcome, ErrorKind, Usage};
use tollgate_engine::Engine;
use tollgate_ledger::Ledger;
use tollgate_plugin_host::{ControlError, PluginHost, PluginMeter, PluginStatus, chain};
use tollgate_telemetry::metrics::{Exposition, Snapshot, TextFormat};
use tollgate_upstream::{BackendStatus, Upstreams};

use crate::Gateway;
use crate::admission::Tenancy;
use crate::call::Refusal;
use crate::exporters::ExporterMeter;
use crate::metrics::{
    self, EngineLoad, ExporterCounts, File, LedgerCounts, RequestMeters, Sources,
};
use crate::shadow::{Shadow, ShadowSeries};
use crate::tracer::Tracer;

/// Handle for the operator's side of a gateway.
#[derive(Clone)]
pub struct Admin {
    plugins: PluginHost,
    engines: Vec<Engine>,
    running: TaskTracker,
    requests: Arc<RequestMeters>,
    shadow: Arc<Shadow>,
    pub(crate) ledger: Ledger,
    pub(crate) exporters: Vec<Arc<ExporterMeter>>,
    upstreams: Option<Upstreams>,
    pub(crate) tenancy: Tenancy,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) adding_up: Arc<Semaphore>,
}

impl Gateway {
    /// The operator's side of this gateway. It may outlive all handles on the gateway itself.
    #[must_use]
    pub fn admin(&self) -> Admin {
        let inner = &self.0;
        Admin {
            plugins: inner.plugins.clone(),
            engines: inner.locals.iter().map(|local| local.engine.clone()).collect(),
            running: inner.running.clone(),
            requests: Arc::clone(&inner.requests),
            shadow: Arc::clone(&inner.shadow),
            ledger: inner.ledger.clone(),
            exporters: inner.exporters.clone(),
            upstreams: inner.upstreams.clone(),
            tenancy: inner.tenancy.clone(),
            tracer: Arc::clone(&inner.tracer),
            adding_up: Arc::clone(&inner.adding_up),
        }
    }
}

impl Admin {
    /// Every file of the plugin folder and what became of it.
    #[must_use]
    pub fn plugins(&self) -> Vec<PluginStatus> {
        self.plugins.status()
    }

    /// One file.
    ///
    /// # Errors
    /// `not_found`.
    pub fn plugin(&self, file: &str) -> Result<PluginStatus, Refusal> {
        let unknown = || {
            let message = format!("There is no file {file:?} in the plugin folder.");
            Refusal::new(ErrorKind::NotFound, message)
        };
        self.plugins().into_iter().find(|status| status.file == file).ok_or_else(unknown)
    }

    /// What every plugin did so far.
    #[must_use]
    pub fn meters(&self) -> Vec<PluginMeter> {
        self.plugins.meters()
    }

    /// Number of the plugin set that serves.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.plugins.pin().generation()
    }

    /// Looks at the plugin folder now. That some file of it is refused is no error.
    ///
    /// # Errors
    /// `internal_error`: the folder cannot be read.
    pub async fn reload(&self) -> Result<(), Refusal> {
        let done = self.command(|plugins| plugins.rescan()).await?;
        done.map_err(|error| Refusal::new(ErrorKind::Internal, chain(&error)))
    }

    /// Turns a file off, also after a restart.
    ///
    /// # Errors
    /// `not_found`; `overloaded` if the plugin host has no time, as with all commands;
    /// `internal_error` if it is done, but could not be written down for the next start.
    pub async fn disable(&self, file: String) -> Result<PluginStatus, Refusal> {
        let file = self.plugins.file_of(&file).map_err(|error| refused(&error))?;
        let named = file.clone();
        self.command(move |plugins| plugins.disable(&named)).await?.map_err(|e| refused(&e))?;
        self.plugin(&file)
    }

    /// Turns a file on that was turned off, or whose present content was rolled back from.
    ///
    /// # Errors
    /// As [`Admin::disable`].
    pub async fn enable(&self, file: String) -> Result<PluginStatus, Refusal> {
        let file = self.plugins.file_of(&file).map_err(|error| refused(&error))?;
        let named = file.clone();
        self.command(move |plugins| plugins.enable(&named)).await?.map_err(|e| refused(&e))?;
        self.plugin(&file)
    }

    /// Goes back to the last good content of a file before the present one, which is not used
    /// again until other bytes are dropped.
    ///
    /// # Errors
    /// As [`Admin::disable`], and `conflict` where there is nothing to go back to.
    pub async fn roll_back(&self, file: String) -> Result<PluginStatus, Refusal> {
        self.command(move |plugins| plugins.roll_back(&file)).await?.map_err(|e| refused(&e))
    }

    /// What a plugin, named by its file or by itself, would say of this usage. Nothing is
    /// recorded or billed.
    ///
    /// # Errors
    /// `not_found`, or `conflict` if it is no cost model.
    pub async fn try_price(
        &self,
        plugin: String,
        tenant: Option<String>,
        usage: Usage,
    ) -> Result<CostOutcome, Refusal> {
        let tried =
            move |plugins: &PluginHost| plugins.try_price(&plugin, tenant.as_deref(), &usage);
        self.command(tried).await?.map_err(|error| refused(&error))
    }

    /// How all other servers do, in the order of their file.
    #[must_use]
    pub fn backends(&self) -> Vec<BackendStatus> {
        self.upstreams.as_ref().map(Upstreams::status).unwrap_or_default()
    }

    /// What shadow plugins would have billed, since the gateway began.
    #[must_use]
    pub fn shadow(&self) -> Vec<ShadowSeries> {
        self.shadow.series()
    }

    /// Everything that is counted, as it is now.
    #[must_use]
    pub fn metrics(&self) -> Snapshot {
        let status = self.plugins();
        let limits = self.limits();
        let files: Vec<File<'_>> = status.iter().map(File::from).collect();
        let loads: Vec<EngineLoad<'_>> = self.engines.iter().map(EngineLoad::of).collect();
        let exporters: Vec<ExporterCounts> =
            self.exporters.iter().map(|meter| meter.counts(&self.ledger)).collect();
        metrics::snapshot(&Sources {
            requests: &self.requests,
            in_flight: self.running.len(),
            engines: &loads,
            meters: &self.meters(),
            files: &files,
            generation: self.generation(),
            shadow: &self.shadow(),
            ledger: Some(&LedgerCounts::from(self.ledger.state())),
            exporters: &exporters,
            backends: &self.backends(),
            limits: limits.limiter,
            standings: &limits.standings,
        })
    }

    /// The same as text: OpenMetrics, or Prometheus' older format.
    ///
    /// # Errors
    /// `internal_error`, which is a fault of ours.
    pub async fn metrics_text(&self, open_metrics: bool) -> Result<Exposition, Refusal> {
        let format = if open_metrics { TextFormat::OpenMetrics } else { TextFormat::Classic };
        let admin = self.clone();
        let written = self.command(move |_| admin.metrics().text(format)).await?;
        written.map_err(|error| {
            tracing::error!(%error, "metrics could not be written");
            Refusal::new(ErrorKind::Internal, "The metrics could not be written.")
        })
    }

    async fn command<T: Send + 'static>(
        &self,
        command: impl FnOnce(&PluginHost) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let plugins = self.plugins.clone();
        spawn_blocking(move || command(&plugins)).await.map_err(|error| {
            tracing::error!(%error, "a command to the plugin host failed");
            Refusal::new(ErrorKind::Internal, "The command failed; the log says how.")
        })
    }
}

fn refused(error: &ControlError) -> Refusal {
    let message = chain(error);
    match error {
        ControlError::Unknown { .. } => Refusal::new(ErrorKind::NotFound, message),
        ControlError::Busy | ControlError::UnderWay => {
            Refusal::new(ErrorKind::Overloaded, message).retry_after(Duration::from_secs(1))
        }
        ControlError::NotKept(_) => Refusal::new(ErrorKind::Internal, message),
        // The file is there, but as it is now it cannot be done.
        _ => Refusal::new(ErrorKind::Conflict, message),
    }
}
