//! Assembly and ordered drain.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tollgate_engine::{Engine, EngineOptions};
use tollgate_gateway::{CaptureSettings, Delivery, Gateway, ModelHere, Parts};
use tollgate_http_api::{
    AdminServer, AdminSettings, HttpError, HttpServer, HttpSettings, TlsFiles,
};
use tollgate_ledger::{Durability, Ledger, LedgerError, LedgerSettings};
use tollgate_model::{ComputeDevice, Model, ModelError, ModelSource};
use tollgate_plugin_host::{Compiler, KeyError, PluginHost, PluginHostError, PluginHostSettings};
use tollgate_settings::{self as given, Settings};
use tollgate_telemetry::metrics::{MetricsPush, PushSettings};
use tollgate_telemetry::{FromEnvironment, TelemetryError};
use tollgate_tenancy::{Limiter, TenancyError};
use tollgate_upstream::{UpstreamError, Upstreams};

use crate::banner::{Banner, Parts as BannerParts};
use crate::{exporters, tenancy};

/// Names that the demo model answers to besides its own, so that requests written for the models
/// of the tutorial run unchanged and are priced by the name they ask for.
const DEMO_ALIASES: [&str; 4] = ["mistral-7b", "llama-3-8b", "gpt-4o-mini", "gpt-3.5-turbo"];

/// How long records may take to leave once the last request has ended.
const FLUSH: Duration = Duration::from_secs(10);

/// How long Redis may take to be told of the last requests.
const LAST_SETTLEMENT: Duration = Duration::from_secs(2);

/// How long metrics may take to be pushed once more: what is missing of them is on record.
const LAST_PUSH: Duration = Duration::from_secs(3);

/// How long the admin API may take to end: nothing that it does is lost with it.
const ADMIN_STOP: Duration = Duration::from_secs(2);

/// A gateway that serves.
pub struct Running {
    gateway: Gateway,
    delivery: Delivery,
    /// None if no receiver is told.
    push: Option<MetricsPush>,
    ledger: Ledger,
    engines: Vec<Engine>,
    limiter: Limiter,
    /// What looks after the backends and the budgets.
    watches: Vec<tokio::task::JoinHandle<()>>,
    /// None once it has ended.
    server: Option<tokio::task::JoinHandle<Result<(), HttpError>>>,
    /// What takes spans.
    otlp: Option<tokio::task::JoinHandle<()>>,
    stop: CancellationToken,
    admin: Option<tokio::task::JoinHandle<()>>,
    stop_admin: CancellationToken,
    drain: Duration,
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made.
    #[error("cannot make the data folder {}: {source}; choose another with --data-dir", path.display())]
    DataDir {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The model cannot be loaded.
    #[error("cannot load the model: {0}")]
    Model(#[from] ModelError),
    /// Two models go by one name.
    #[error("two models go by the name {0}; give each one of its own with --model NAME=SOURCE")]
    SameName(String),
    /// The engine's thread cannot be started.
    #[error("cannot start the engine's thread: {0}")]
    Engine(#[source] std::io::Error),
    /// The system does not tell which program this is, to compile plugins with.
    #[error("cannot find this program's own file, which compiles plugins: {0}")]
    Program(#[source] std::io::Error),
    /// A key that plugins must be signed with is none.
    #[error("plugin-keys: {0}")]
    PluginKey(#[source] KeyError),
    /// The plugin folder cannot be used.
    #[error("cannot start the plugin host: {0}")]
    Plugins(#[from] PluginHostError),
    /// The ledger cannot be opened, or not take what the last process left behind.
    #[error("cannot open the ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// An exporter cannot be built.
    #[error("cannot start telemetry: {0}")]
    Telemetry(#[from] TelemetryError),
    /// The backends cannot be used.
    #[error("backends: {0}")]
    Backends(#[from] UpstreamError),
    /// Keys or limits cannot be used.
    #[error("keys: {0}")]
    Tenancy(#[from] TenancyError),
    /// Others could use the gateway without a key.
    #[error("{0}")]
    Unguarded(String),
    /// The address cannot be served on.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// Starts everything, in order, and serves.
///
/// # Errors
/// Says which part did not start, why, and what to do.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    // Prompts may be on record, and who asked for what always is.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&settings.data_dir)
        .map_err(|source| StartError::DataDir { path: settings.data_dir.clone(), source })?;
    // First what fails fast: a port in use should not be found out after a model was loaded.
    let tenancy = tenancy::open(&settings)?;
    let upstreams = settings.backends.as_ref().map(Upstreams::load).transpose()?;
    let server = tollgate_http_api::bind(http_settings(&settings)).await?;
    let otlp = tollgate_http_api::bind_otlp(&settings.otlp_listen, otlp_tls(&settings)).await?;
    let admin = bind_admin(&settings).await?;
    let opened = tokio::task::block_in_place(|| Ledger::open(ledger_settings(&settings)))?;
    let ledger = opened.ledger.clone();
    let folder = ledger_settings(&settings).folder;
    tokio::task::block_in_place(|| tenancy::restore(&tenancy, &folder))?;
    let resource = tollgate_telemetry::resource(environment);
    let told = tollgate_telemetry::from_environment(environment)?;
    let named = exporters::of(&settings, &told);
    let exporters = tollgate_telemetry::build_exporters(named.clone(), &resource)?;
    let plugins = PluginHost::start(plugin_settings(&settings)?)?;
    warn_without_plugins(&plugins, &settings);

    let models = start_models(&settings)?;
    let engines = models.iter().map(|model| model.engine.clone()).collect();

    let address = server.local_addr();
    let banner = Banner::of(&BannerParts {
        settings: &settings,
        address,
        admin: admin.as_ref().map(AdminServer::local_addr),
        otlp: &otlp.local_addrs(),
        models: &models,
        upstreams: upstreams.as_ref(),
        plugins: &plugins,
        tenancy: &tenancy,
        exporters: &named,
        metrics: told.metrics.as_ref().filter(|_| !told.disabled).map(|to| to.endpoint.as_str()),
    });
    let (gateway, delivery) = Gateway::start(Parts {
        models,
        upstreams: upstreams.clone(),
        tenancy: tenancy.clone(),
        plugins,
        ledger: opened,
        exporters,
        resource: resource.clone(),
        address,
        stall: settings.stall,
        capture: CaptureSettings {
            tenants: settings.capture_content.clone(),
            bytes: settings.capture_bytes,
        },
        receives: !settings.otlp_listen.is_empty(),
        received_bytes_per_minute: settings.otlp_bytes_per_minute,
    })
    .await?;
    let following = tokio::spawn(tenancy::follow(tenancy.clone(), folder));
    let watching = upstreams.map(|upstreams| tokio::spawn(async move { upstreams.watch().await }));
    let watches = watching.into_iter().chain([following]).collect();
    let counted = gateway.admin();
    let push = push_settings(&told)
        .map(|push| MetricsPush::start(push, &resource, move || counted.metrics()))
        .transpose()?;
    // Before the first answer: who asks as soon as something answers finds it in the log.
    banner.tell();
    let stop = CancellationToken::new();
    let server = Some(tokio::spawn(HttpServer::run(server, gateway.clone(), stop.clone())));
    let otlp = Some(tokio::spawn(otlp.run(gateway.clone(), stop.clone())));
    let stop_admin = CancellationToken::new();
    let admin = admin
        .map(|server| tokio::spawn(AdminServer::run(server, gateway.admin(), stop_admin.clone())));
    let drain = settings.drain;
    Ok(Running {
        gateway,
        delivery,
        push,
        ledger,
        engines,
        limiter: tenancy.limiter,
        watches,
        server,
        otlp,
        stop,
        admin,
        stop_admin,
        drain,
    })
}

impl Running {
    /// Stops accepting, lets what is in flight finish, delivers every record, then closes the
    /// exporters and, last, the admin API. Returns whether nothing was left behind.
    pub async fn shut_down(mut self) -> bool {
        self.stop.cancel();
        let drain = self.drain;
        let ended = tokio::time::timeout(drain, self.requests_end()).await;
        if ended.is_err() {
            tracing::warn!("requests still ran at the deadline; --drain-seconds allows more");
            // What still runs is cancelled, told so, and accounted for.
            self.stop_engines();
            if tokio::time::timeout(FLUSH, self.requests_end()).await.is_err() {
                tracing::error!("requests could not be cancelled in time; they are not on record");
            }
        }
        self.stop_engines();
        for watch in &self.watches {
            watch.abort();
        }
        if !self.limiter.drain(LAST_SETTLEMENT).await {
            tracing::warn!(
                "Redis was not told of all requests; budgets are read from the ledger again"
            );
        }
        let mut clean = ended.unwrap_or(false);
        clean &= deliver(self.delivery).await;
        if let Some(push) = self.push {
            push.close(LAST_PUSH).await;
        }
        if let Err(error) = self.ledger.close().await {
            tracing::error!(%error, "the ledger was not closed in order; the next start repairs it");
            clean = false;
        }
        self.stop_admin.cancel();
        if let Some(admin) = self.admin
            && tokio::time::timeout(ADMIN_STOP, admin).await.is_err()
        {
            tracing::warn!("the admin API was still answering; its connections are cut off");
        }
        clean
    }

    fn stop_engines(&self) {
        self.engines.iter().for_each(Engine::shutdown);
    }

    /// Waits for the last connection and the last record; whether the server ended well.
    async fn requests_end(&mut self) -> bool {
        let mut well = true;
        if let Some(server) = &mut self.server {
            well = match server.await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::error!(%error, "the server ended with an error");
                    false
                }
                Err(error) => {
                    tracing::error!(%error, "the server's task failed");
                    false
                }
            };
            self.server = None;
        }
        if let Some(otlp) = &mut self.otlp {
            well &= otlp.await.is_ok();
            self.otlp = None;
        }
        self.gateway.drain().await;
        well
    }
}

/// Delivers what receivers take and closes the exporters. What they do not take waits in the
/// ledger, so only a file that cannot be closed in order leaves something behind.
async fn deliver(delivery: Delivery) -> bool {
    let mut clean = true;
    let Ok(exporters) = tokio::time::timeout(FLUSH, delivery.finish()).await else {
        tracing::warn!("records were not delivered in time; they wait in the ledger");
        return true;
    };
    for exporter in exporters {
        let name = exporter.name().to_owned();
        if let Err(error) = exporter.close(FLUSH).await {
            tracing::error!(exporter = name, %error, "an exporter was not closed in order");
            clean = false;
        }
    }
    clean
}

/// Loads the models and starts their threads. An alias that is another model's name is that model's.
fn start_models(settings: &Settings) -> Result<Vec<ModelHere>, StartError> {
    let device: ComputeDevice = settings.device.parse()?;
    let mut models = Vec::new();
    for choice in &settings.models {
        let source: ModelSource = choice.source.parse()?;
        let engine = start_engine(&source, choice.name.as_deref(), device, settings)?;
        models.push(ModelHere { engine, aliases: aliases(&source) });
    }
    let names: Vec<String> = models.iter().map(|model| model.engine.info().name.clone()).collect();
    for (place, name) in names.iter().enumerate() {
        if names.iter().take(place).any(|other| other == name) {
            return Err(StartError::SameName(name.clone()));
        }
    }
    let mut taken = names;
    for model in &mut models {
        model.aliases.retain(|alias| !taken.contains(alias));
        taken.extend_from_slice(&model.aliases);
    }
    Ok(models)
}

/// Loads a model and starts its thread.
fn start_engine(
    source: &ModelSource,
    name: Option<&str>,
    device: ComputeDevice,
    settings: &Settings,
) -> Result<Engine, StartError> {
    let mut model = tokio::task::block_in_place(|| Model::load_on(source, device))?;
    if let Some(name) = name {
        model.rename(name);
    }
    let info = model.info();
    tracing::info!(
        model = info.name,
        architecture = info.architecture,
        parameters = info.parameters,
        context = info.context_length,
        passes = info.passes.name(),
        device = info.device,
        "model loaded"
    );
    let options = EngineOptions {
        max_running: settings.max_running,
        max_queued: settings.max_queued,
        kv_memory: settings.kv_memory,
        max_step_tokens: settings.max_step_tokens,
    };
    Engine::start(model, options).map_err(StartError::Engine)
}

fn ledger_settings(settings: &Settings) -> LedgerSettings {
    let keeping = &settings.ledger;
    LedgerSettings {
        folder: settings.data_dir.join("ledger"),
        durability: match keeping.durability {
            given::Durability::Power => Durability::Power,
            given::Durability::Process => Durability::Process,
        },
        partition_bytes: keeping.partition_bytes,
        retain_for: keeping.retain_for,
        retain_bytes: keeping.retain_bytes,
        min_free_bytes: keeping.min_free_bytes,
        budget_bytes: keeping.budget_bytes,
    }
}

fn push_settings(told: &FromEnvironment) -> Option<PushSettings> {
    let receiver = told.metrics.clone().filter(|_| !told.disabled);
    receiver.map(|receiver| PushSettings::from_environment(receiver, environment))
}

fn http_settings(settings: &Settings) -> HttpSettings {
    HttpSettings {
        listen: settings.listen,
        max_body_bytes: settings.max_body_bytes,
        write_stall: settings.stall,
        ..HttpSettings::default()
    }
}

/// The plugin host's settings.
pub(crate) fn plugin_settings(settings: &Settings) -> Result<PluginHostSettings, StartError> {
    let keys = settings.plugin_keys.iter().map(|key| key.parse());
    Ok(PluginHostSettings {
        state: Some(settings.data_dir.join("plugins")),
        compiler: Compiler::this_program().map_err(StartError::Program)?,
        trusted_keys: keys.collect::<Result<_, _>>().map_err(StartError::PluginKey)?,
        ..PluginHostSettings::new(settings.plugins.clone())
    })
}

/// Where the certificate is that spans are taken with.
pub(crate) fn otlp_tls(settings: &Settings) -> Option<TlsFiles> {
    let (certificate, key) = settings.otlp_tls.clone()?;
    Some(TlsFiles { certificate, key })
}

/// The admin API's listener, where one is asked for.
async fn bind_admin(settings: &Settings) -> Result<Option<AdminServer>, HttpError> {
    let Some(listen) = settings.admin_listen else {
        return Ok(None);
    };
    let token = settings.admin_token.as_ref().map(|token| token.reveal().to_owned());
    tollgate_http_api::bind_admin(AdminSettings { listen, token }).await.map(Some)
}

/// A variable of the environment.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn aliases(source: &ModelSource) -> Vec<String> {
    match source {
        ModelSource::Demo => DEMO_ALIASES.map(str::to_owned).to_vec(),
        _ => Vec::new(),
    }
}

fn warn_without_plugins(plugins: &PluginHost, settings: &Settings) {
    if plugins.pin().plugins().next().is_none() {
        tracing::warn!(
            folder = %settings.plugins.display(),
            "no plugins: requests are served and recorded, but not priced; \
             drop .wasm files into the folder or name another with --plugins"
        );
    }
}
