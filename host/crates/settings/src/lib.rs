//! Flags, `TOLLGATE_*` variables and a TOML file, resolved into one checked value.
//!
//! One struct, [`Given`], declares every setting once: its field is the flag, the variable and
//! the key of the file. A flag wins over a variable, a variable over the file, the file over the
//! default. A name that nothing knows is an error that names the nearest one, wherever it stands.
//! A [`Secret`] comes from a variable or from a file of its own, and shows nowhere. Exporters are
//! tables of the file alone, `[[exporter]]`.
//!
//! [`schema`] and [`template`] are made from the same struct, so that neither can say what does not hold.

mod exporter;
mod file;
mod given;
mod ledger;
mod names;
mod resolved;
mod schema;
mod secret;
mod template;
mod tenancy;

pub use exporter::{
    Compression, Destination, Exporter, GivenExporter, GivenHeader, Protocol, Receiver, SpanFile,
    StartAt,
};
pub use given::{Console, Durability, Given, LogFormat, RedisAway};
pub use ledger::LedgerKeeping;
pub use resolved::{ModelChoice, Settings, SettingsError, plugins_beside, resolve};
pub use schema::schema;
pub use secret::{ADMIN_TOKEN, Secret, admin_token};
pub use template::{SCHEMA_FILE, template};
pub use tenancy::{KEYS, REDIS_URL, Tenancy};
