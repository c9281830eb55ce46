//! Who is let in and how much they may use: keys, limits, and budgets that go on where the ledger says
//! that they stood.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tollgate_domain::UnixNanos;
use tollgate_gateway::Tenancy;
use tollgate_ledger::{LedgerError, LedgerReader, Query, Stored};
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
            tracing::error!(%error, "what was spent could not be read; new budgets begin with what could");
        }
    }
}

/// Tells budgets what was spent before this process began.
pub(crate) fn restore(tenancy: &Tenancy, ledger: &Path) -> Result<(), StartError> {
    let now: UnixNanos = SystemTime::now().into();
    let Some(since) = tenancy.keys.spending_since(now) else { return Ok(()) };
    let began = Instant::now();
    let query = Query { since: Some(since), ..Query::default() };
    let ledger = LedgerReader::open(ledger)?;
    if !tenancy.limiter.is_shared()
        && let Some(Ok(oldest)) = ledger.records(Query::default()).next()
        && begins_within(&oldest, since)
    {
        tracing::warn!(
            "budgets count from a time of which the ledger has been deleted, and what was spent then counts no more: let \
             ledger-retain-days and ledger-retain-mib keep as much as budgets go back, or share them with redis-url"
        );
    }
    let mut reading = Reading::of(ledger.records(query));
    tenancy.limiter.restore(&tenancy.keys, &mut reading, now);
    let took = began.elapsed();
    if took > LONG {
        let records = reading.priced;
        tracing::info!(records, seconds = took.as_secs(), "budgets were read from the ledger");
    }
    reading.failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Whether records since that time may be among those that were deleted before this one, the oldest.
fn begins_within(oldest: &Stored, since: UnixNanos) -> bool {
    oldest.number > 1 && oldest.record.phases.request.start > since
}

/// What was spent, as it is read: a ledger may have more records than there is memory. Ends at the first that cannot be read.
struct Reading<I> {
    records: I,
    /// Records that had a price, so far.
    priced: u64,
    failed: Option<LedgerError>,
}

impl<I> Reading<I> {
    fn of(records: I) -> Self {
        Self { records, priced: 0, failed: None }
    }
}

impl<I: Iterator<Item = Result<Stored, LedgerError>>> Iterator for Reading<I> {
    type Item = Spent;

    fn next(&mut self) -> Option<Spent> {
        while self.failed.is_none() {
            let record = match self.records.next()? {
                Ok(stored) => stored.record,
                Err(error) => {
                    self.failed = Some(error);
                    return None;
                }
            };
            if let Some(cost) = record.cost.cost() {
                self.priced += 1;
                return Some(Spent {
                    cost: cost.total,
                    tenant: record.tenant,
                    key_id: record.admission.and_then(|admission| admission.key),
                    at: record.phases.request.start,
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use tollgate_domain::UnpricedReason;
    use tollgate_ledger::Seq;
    use tollgate_summary::testing::{priced, record, unpriced};

    use super::*;

    #[test]
    fn a_ledger_that_lost_its_beginning_within_a_budget_is_noticed() {
        let oldest = |number, at| Stored {
            seq: Seq(number),
            number,
            record: record("acme", "m", at, priced(1)),
        };
        let since = UnixNanos(1000);
        for (number, at, noticed) in
            [(1, 2000, false), (2, 2000, true), (2, 1000, false), (2, 500, false)]
        {
            assert_eq!(begins_within(&oldest(number, at), since), noticed, "{number} {at}");
        }
    }

    #[test]
    fn the_ledger_is_read_no_further_than_it_is_summed() {
        let pulled = std::cell::Cell::new(0);
        let costs = [priced(1), unpriced(UnpricedReason::NotServed), priced(2), priced(3)];
        let stored = costs.into_iter().enumerate().map(|(at, cost)| {
            pulled.set(at + 1);
            let number = at as u64;
            Ok(Stored { seq: Seq(number), number, record: record("acme", "m", number, cost) })
        });
        let torn = std::iter::once_with(|| Err(LedgerError::Closed));
        let mut reading = Reading::of(stored.chain(torn).chain(std::iter::from_fn(|| panic!())));
        for (pico, read) in [(1, 1), (2, 3), (3, 4)] {
            assert_eq!(reading.next().unwrap().cost.pico, pico);
            assert_eq!(pulled.get(), read);
        }
        assert_eq!((reading.next(), reading.next(), reading.priced), (None, None, 3));
        assert!(reading.failed.is_some());
    }
}
