//! Who is let in and how much they may use: keys, limits, and budgets that go on where the ledger says
//! that they stood.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tollgate_domain::UnixNanos;
use tollgate_gateway::Tenancy;
use tollgate_ledger::{LedgerReader, Query};
use tollgate_settings::{RedisAway, Settings};
use tollgate_tenancy::{Keys, Limiter, RedisPolicy, RedisSettings, Spent};

use crate::start::StartError;

/// How often changes of the rules are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// After how long reading the ledger for budgets is worth a line in the log.
const LONG: Duration = Duration::from_secs(2);

/// Reads keys and says what limits are counted with.
pub(crate) fn open(settings: &Settings) -> Result<Tenancy, StartError> {
    let tenancy = &settings.tenancy;
    let variable = tenancy.keys.as_ref().map(|keys| keys.reveal());
    let keys = Keys::open(tenancy.keys_file.clone(), variable)?;
    for (setting, listen) in settings.listens() {
        if let Some(fault) = tenancy.unguarded(setting, listen, keys.is_open()) {
            return Err(StartError::Unguarded(fault));
        }
    }
    let limiter = match redis(settings) {
        None => Limiter::local(),
        Some(shared) => Limiter::shared(&shared)?,
    };
    match keys.count() {
        0 => tracing::info!("no keys: everybody is let in, and `user` names the tenant"),
        keys => tracing::info!(keys, "keys are asked for"),
    }
    Ok(Tenancy { keys, limiter })
}

/// What limits are shared through, if they are.
pub(crate) fn redis(settings: &Settings) -> Option<RedisSettings> {
    let tenancy = &settings.tenancy;
    let url = tenancy.redis_url.as_ref()?;
    Some(RedisSettings {
        ca_file: tenancy.redis_ca_file.clone(),
        policy: match tenancy.redis_away {
            RedisAway::Open => RedisPolicy::Open,
            RedisAway::Closed => RedisPolicy::Closed,
            RedisAway::Local => RedisPolicy::Local,
        },
        ..RedisSettings::new(url.reveal().to_owned())
    })
}

/// Tells budgets that are new what was spent before they were: looks for changes of the rules as
/// long as it is polled.
pub(crate) async fn follow(tenancy: Tenancy, ledger: PathBuf) {
    let mut seen = tenancy.keys.changes();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = tenancy.keys.changes();
        if now == std::mem::replace(&mut seen, now) {
            continue;
        }
        let (tenancy, ledger) = (tenancy.clone(), ledger.clone());
        let restored = tokio::task::spawn_blocking(move || restore(&tenancy, &ledger)).await;
        if let Ok(Err(error)) = restored {
            tracing::error!(%error, "what was spent could not be read; new budgets begin at zero");
        }
    }
}

/// Tells budgets what was spent before this process began.
pub(crate) fn restore(tenancy: &Tenancy, ledger: &Path) -> Result<(), StartError> {
    let now: UnixNanos = SystemTime::now().into();
    let Some(since) = tenancy.keys.spending_since(now) else { return Ok(()) };
    let began = Instant::now();
    let query = Query { since: Some(since), ..Query::default() };
    let mut spent = Vec::new();
    for stored in LedgerReader::open(ledger)?.records(query) {
        let record = stored?.record;
        if let Some(cost) = record.cost.cost() {
            spent.push(Spent {
                tenant: record.tenant,
                key_id: record.admission.and_then(|admission| admission.key),
                at: record.phases.request.start,
                cost: cost.total,
            });
        }
    }
    let records = spent.len();
    tenancy.limiter.restore(&tenancy.keys, spent, now);
    let took = began.elapsed();
    if took > LONG {
        tracing::info!(records, seconds = took.as_secs(), "budgets were read from the ledger");
    }
    Ok(())
}
