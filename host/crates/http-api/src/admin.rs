//! The operator's API, on a listener of its own.
//!
//! Every route but `/health` and the dashboard's files asks for `Authorization: Bearer TOKEN`; see `guard` for a listener on
//! loopback without one. Errors have the form of the public API (`{"error": {"message", "type",
//! "param", "code"}}`): 401 without the right token, 404 for a file or route that is not there,
//! 409 where the plugin's present state forbids it, 400, 408, 413 and 415 for a bad body.
//!
//! | route | answers |
//! |---|---|
//! | `GET /admin/plugins` | `{"generation": n, "plugins": [plugin..]}` |
//! | `GET /admin/plugins/{file}` | one plugin, with `config_schema` and `meters` |
//! | `POST /admin/plugins/reload` | looks at the folder now; as `GET /admin/plugins` once it is done |
//! | `POST /admin/plugins/{file}/disable` | the plugin; off until it is enabled, also after a restart |
//! | `POST /admin/plugins/{file}/enable` | the plugin |
//! | `POST /admin/plugins/{file}/rollback` | the plugin, from its last good content; 409 if there is none |
//! | `POST /admin/plugins/{file}/price` | a dry run on the posted usage (`price`); never recorded or billed |
//! | `GET /admin/backends` | how other servers do (`backends`) |
//! | `GET /admin/shadow` | what shadow plugins would have billed (`shadow`) |
//! | `GET /admin/requests` | the newest requests on record, filtered, a page at a time (`requests`) |
//! | `GET /admin/requests/{number}` | one of them with its spans (`requests`) |
//! | `GET /admin/requests/in-flight` | what is being served now (`requests`) |
//! | `GET /admin/totals` | sums by tenant, model, plugin, day and time (`totals`) |
//! | `GET /admin/limits` | limits and budgets, and what is used of them (`limits`) |
//! | `GET /admin/ledger` | how the ledger stands (`stores`) |
//! | `GET /admin/exporters` | how exporters do (`stores`) |
//! | `GET /metrics` | OpenMetrics if `Accept` names it, else Prometheus' text format 0.0.4 |
//! | `GET /openapi.json` | all of this as an OpenAPI document |
//! | `GET /health` | `{"status": "ok"}` |
//! | `GET /` | to `/ui/`, if the dashboard is in this program |
//! | `GET /ui/` | the dashboard, a page that reads all this (`dashboard`) |
//!
//! A plugin is a [`PluginView`]. Amounts are exact decimal strings, times RFC 3339 in UTC.

mod backends;
mod dashboard;
mod guard;
mod limits;
mod parameters;
mod price;
mod requests;
mod routes;
mod shadow;
mod stores;
mod totals;
mod view;

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;
use tollgate_gateway::Admin;

use crate::server::{HttpError, HttpServer, bind};
use crate::settings::HttpSettings;

pub use dashboard::has_dashboard;
pub use view::{BreakerView, FaultCount, MeterView, PluginView, PluginsView, RefusalView};

use guard::Guard;

/// Most connections at a time: operators, scrapers and probes.
const CONNECTIONS: usize = 64;

/// What an operator can set about the admin API.
#[derive(Clone)]
pub struct AdminSettings {
    /// Where to listen. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// What a caller must know; without one `listen` has to be on loopback.
    pub token: Option<String>,
}

/// The admin API's server: it listens and does not answer yet.
pub struct AdminServer {
    server: HttpServer,
    guard: Guard,
}

/// Starts to listen for the admin API.
///
/// # Errors
/// [`HttpError`], which says what to do about it; also where there is no token and others could
/// reach the address.
pub async fn bind_admin(settings: AdminSettings) -> Result<AdminServer, HttpError> {
    let address = settings.listen;
    if settings.token.is_none() && !address.ip().is_loopback() {
        return Err(HttpError::Unguarded { address });
    }
    let http = HttpSettings {
        listen: address,
        setting: "admin-listen",
        max_connections: CONNECTIONS,
        ..HttpSettings::default()
    };
    Ok(AdminServer { server: bind(http).await?, guard: Guard::new(settings.token) })
}

impl AdminServer {
    /// Where it listens: the real port, also when any was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Serves until `stop`, and returns once the requests in flight are answered.
    pub async fn run(self, admin: Admin, stop: CancellationToken) {
        let router = routes::router(admin, self.guard);
        self.server.serve(router, &stop).await;
    }
}
