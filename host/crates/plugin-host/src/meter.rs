//! What each plugin did so far: calls, how long they took, faults, instances, memory.
//!
//! An instance serves one call at a time, so it counts into cells of its own that nobody else writes: a few plain stores a
//! call, and no cache line that two processors want. A [`Tally`] adds up the cells of one plugin's instances, [`Meters`]
//! the tallies of all builds that ever served under a plugin's name, so that figures survive swaps. There is no queue to
//! measure: calls run in place on the caller's thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tollgate_domain::{FaultKind, PluginIdentity};

use crate::role::Role;

/// Upper bounds of the histogram are 250 ns, twice that, and so on to 1.05 s; longer calls have a bucket of their own.
const BOUNDS: usize = 23;
const FIRST_BOUND: u64 = 250;
/// Most plugins remembered that serve no more.
const GONE: usize = 256;

/// What one plugin did in one role since the gateway started.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginMeter {
    /// Its name for itself.
    pub plugin: String,
    /// The version that served last.
    pub version: String,
    /// The digest of the file that served last.
    pub digest: String,
    /// In which role.
    pub role: Role,
    /// Whether these are the figures of a plugin that runs in the shadow.
    pub shadow: bool,
    /// Calls that ended, well or not.
    pub calls: u64,
    /// Items in them: requests, or spans.
    pub items: u64,
    /// Faults by kind, only those that occurred. `breaker_open` counts calls that were not made.
    pub faults: Vec<(FaultKind, u64)>,
    /// Of an enricher: how often it wrote a key of a span that an enricher before it had written too.
    pub conflicts: u64,
    /// Edits left out because the key is reserved or was not announced.
    pub refused_edits: u64,
    /// How long calls took, from taking an instance to the checked answer.
    pub latency: LatencyHistogram,
    /// Linear memory and tables of its instances now, in bytes; of the plugin, whatever the role.
    pub memory_bytes: u64,
    /// Its instances now, at work or warm; of the plugin, whatever the role.
    pub instances: u64,
    /// Instances started so far; of the plugin, whatever the role.
    pub instances_started: u64,
    /// Instances at work now; of the plugin, whatever the role.
    pub in_flight: u64,
}

/// Lengths of calls.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyHistogram {
    /// Upper bounds in seconds, and how many calls took at most so long. Those that took longer are in `count` only.
    pub buckets: Vec<(f64, u64)>,
    /// All calls.
    pub count: u64,
    /// Seconds that all calls took together.
    pub sum: f64,
}

/// What one instance did in one role. Written by whoever holds the instance, read by anyone.
#[derive(Default)]
struct RoleCells {
    buckets: [AtomicU64; BOUNDS + 1],
    nanos: AtomicU64,
    items: AtomicU64,
}

/// What one instance does.
#[derive(Default)]
struct Cells {
    roles: [RoleCells; Role::ALL.len()],
    memory: AtomicU64,
    busy: AtomicBool,
}

/// The counting part of an instance; when it is dropped, what it counted stays with its tally.
#[derive(Default)]
pub(crate) struct InstanceMeter {
    cells: Arc<Cells>,
    tally: Option<Arc<Tally>>,
}

impl InstanceMeter {
    /// Of one more instance.
    pub fn new(tally: &Arc<Tally>) -> Self {
        let cells = Arc::new(Cells::default());
        let mut instances = tally.lock();
        instances.live.push(Arc::clone(&cells));
        instances.started += 1;
        Self { cells, tally: Some(Arc::clone(tally)) }
    }

    /// It was taken for a call, or given back.
    pub fn at_work(&self, busy: bool) {
        self.cells.busy.store(busy, Relaxed);
    }

    /// It has so much memory now.
    pub fn memory(&self, bytes: usize) {
        self.cells.memory.store(count(bytes), Relaxed);
    }

    /// A call ended.
    pub fn ended(&self, role: Role, items: usize, nanos: u64) {
        if let Some(cells) = self.cells.roles.get(role as usize) {
            cells.add(items, nanos);
        }
    }
}

impl Drop for InstanceMeter {
    fn drop(&mut self) {
        if let Some(tally) = &self.tally {
            let mut instances = tally.lock();
            instances.live.retain(|cells| !Arc::ptr_eq(cells, &self.cells));
            instances.gone.add_cells(&self.cells);
        }
    }
}

impl RoleCells {
    /// One writer at a time, so these need not be atomic additions.
    fn add(&self, items: usize, nanos: u64) {
        let add =
            |cell: &AtomicU64, n: u64| cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        if let Some(bucket) = self.buckets.get(bucket(nanos)) {
            add(bucket, 1);
        }
        add(&self.nanos, nanos);
        add(&self.items, count(items));
    }
}

/// Which bucket a length falls into.
fn bucket(nanos: u64) -> usize {
    let firsts = nanos.div_ceil(FIRST_BOUND);
    if firsts <= 1 {
        return 0;
    }
    let doublings = u64::BITS - (firsts - 1).leading_zeros();
    usize::try_from(doublings).unwrap_or(BOUNDS).min(BOUNDS)
}

/// What one build with one configuration did.
#[derive(Default)]
pub(crate) struct Tally {
    faults: [[AtomicU64; FaultKind::ALL.len()]; Role::ALL.len()],
    refused_edits: [AtomicU64; Role::ALL.len()],
    conflicts: AtomicU64,
    instances: Mutex<Instances>,
}

#[derive(Default)]
struct Instances {
    live: Vec<Arc<Cells>>,
    started: u64,
    /// What instances counted that are no more.
    gone: Totals,
}

impl Tally {
    /// A call failed.
    pub fn fault(&self, role: Role, kind: FaultKind) {
        let cell = self.faults.get(role as usize).and_then(|kinds| kinds.get(kind as usize));
        if let Some(cell) = cell {
            cell.fetch_add(1, Relaxed);
        }
    }

    /// A call ended without an instance, since none could be started.
    pub fn ended_without_instance(&self, role: Role, items: usize, nanos: u64) {
        let cells = RoleCells::default();
        cells.add(items, nanos);
        if let Some(total) = self.lock().gone.roles.get_mut(role as usize) {
            total.add_cells(&cells);
        }
    }

    /// Edits were left out.
    pub fn refused_edits(&self, role: Role, edits: usize) {
        if edits > 0
            && let Some(cell) = self.refused_edits.get(role as usize)
        {
            cell.fetch_add(count(edits), Relaxed);
        }
    }

    /// It wrote what another enricher had written.
    pub fn conflicts(&self, keys: usize) {
        if keys > 0 {
            self.conflicts.fetch_add(count(keys), Relaxed);
        }
    }

    #[cfg(test)]
    pub fn conflict_count(&self) -> u64 {
        self.conflicts.load(Relaxed)
    }

    /// Calls that ended, in any role.
    pub fn calls(&self) -> u64 {
        self.totals().roles.iter().map(RoleTotals::calls).sum()
    }

    fn totals(&self) -> Totals {
        let mut totals = {
            let instances = self.lock();
            let mut totals = instances.gone.clone();
            for cells in &instances.live {
                totals.add_cells(cells);
                totals.memory += cells.memory.load(Relaxed);
                totals.in_flight += u64::from(cells.busy.load(Relaxed));
            }
            totals.instances = count(instances.live.len());
            totals.started = instances.started;
            totals
        };
        totals.conflicts = self.conflicts.load(Relaxed);
        for ((total, faults), refused) in
            totals.roles.iter_mut().zip(&self.faults).zip(&self.refused_edits)
        {
            for (total, cell) in total.faults.iter_mut().zip(faults) {
                *total = cell.load(Relaxed);
            }
            total.refused_edits = refused.load(Relaxed);
        }
        totals
    }

    fn lock(&self) -> MutexGuard<'_, Instances> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Figures added up.
#[derive(Clone, Default)]
struct Totals {
    roles: [RoleTotals; Role::ALL.len()],
    conflicts: u64,
    memory: u64,
    instances: u64,
    started: u64,
    in_flight: u64,
}

#[derive(Clone, Default)]
struct RoleTotals {
    buckets: [u64; BOUNDS + 1],
    nanos: u64,
    items: u64,
    faults: [u64; FaultKind::ALL.len()],
    refused_edits: u64,
}

impl Totals {
    fn add_cells(&mut self, cells: &Cells) {
        for (total, cells) in self.roles.iter_mut().zip(&cells.roles) {
            total.add_cells(cells);
        }
    }

    fn add(&mut self, other: &Self) {
        for (total, other) in self.roles.iter_mut().zip(&other.roles) {
            total.add(other);
        }
        self.conflicts += other.conflicts;
        self.memory += other.memory;
        self.instances += other.instances;
        self.started += other.started;
        self.in_flight += other.in_flight;
    }
}

impl RoleTotals {
    fn add_cells(&mut self, cells: &RoleCells) {
        for (total, cell) in self.buckets.iter_mut().zip(&cells.buckets) {
            *total += cell.load(Relaxed);
        }
        self.nanos = self.nanos.wrapping_add(cells.nanos.load(Relaxed));
        self.items += cells.items.load(Relaxed);
    }

    fn add(&mut self, other: &Self) {
        let pairs = self.buckets.iter_mut().zip(&other.buckets);
        pairs.chain(self.faults.iter_mut().zip(&other.faults)).for_each(|(a, b)| *a += b);
        self.nanos = self.nanos.wrapping_add(other.nanos);
        self.items += other.items;
        self.refused_edits += other.refused_edits;
    }

    fn calls(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn latency(&self) -> LatencyHistogram {
        let bounds = (0..BOUNDS).map(|n| seconds(FIRST_BOUND << n));
        let mut so_far = 0;
        let buckets = bounds
            .zip(&self.buckets)
            .map(|(bound, calls)| {
                so_far += calls;
                (bound, so_far)
            })
            .collect();
        LatencyHistogram { buckets, count: self.calls(), sum: seconds(self.nanos) }
    }
}

/// The figures of every plugin that has served.
#[derive(Default)]
pub(crate) struct Meters(Mutex<BTreeMap<(String, bool), Metered>>);

struct Metered {
    identity: PluginIdentity,
    roles: Vec<Role>,
    tallies: Vec<Arc<Tally>>,
    /// Of builds that are no more.
    gone: Totals,
    serves: bool,
}

impl Meters {
    /// Exactly these plugins serve from now on.
    pub fn serve<'a>(
        &self,
        plugins: impl Iterator<Item = (&'a PluginIdentity, bool, Vec<Role>, &'a Arc<Tally>)>,
    ) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values_mut().for_each(|metered| metered.serves = false);
        for (identity, shadow, roles, tally) in plugins {
            let metered = all.entry((identity.name.clone(), shadow)).or_insert_with(|| Metered {
                identity: identity.clone(),
                roles: Vec::new(),
                tallies: Vec::new(),
                gone: Totals::default(),
                serves: true,
            });
            metered.serves = true;
            metered.identity.clone_from(identity);
            metered.roles.extend(
                roles.iter().filter(|role| !metered.roles.contains(role)).collect::<Vec<_>>(),
            );
            if !metered.tallies.iter().any(|known| Arc::ptr_eq(known, tally)) {
                metered.tallies.push(Arc::clone(tally));
            }
        }
        all.values_mut().for_each(Metered::fold);
        let idle = all.values().filter(|metered| !metered.serves).count();
        let surplus: Vec<_> = all
            .iter()
            .filter(|(_, metered)| !metered.serves)
            .map(|(key, _)| key.clone())
            .take(idle.saturating_sub(GONE))
            .collect();
        surplus.iter().for_each(|key| drop(all.remove(key)));
    }

    /// The figures now, by name.
    pub fn snapshot(&self) -> Vec<PluginMeter> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter_mut().flat_map(|((_, shadow), metered)| metered.snapshot(*shadow)).collect()
    }
}

impl Metered {
    /// Takes over the figures of builds that nothing holds any more.
    fn fold(&mut self) {
        self.tallies.retain(|tally| {
            let in_use = Arc::strong_count(tally) > 1;
            if !in_use {
                self.gone.add(&tally.totals());
            }
            in_use
        });
    }

    fn snapshot(&mut self, shadow: bool) -> Vec<PluginMeter> {
        self.fold();
        let mut totals = self.gone.clone();
        self.tallies.iter().for_each(|tally| totals.add(&tally.totals()));
        let meter = |role: &Role| {
            let of_role = totals.roles.get(*role as usize)?;
            let faults = FaultKind::ALL.into_iter().zip(of_role.faults);
            Some(PluginMeter {
                plugin: self.identity.name.clone(),
                version: self.identity.version.clone(),
                digest: self.identity.digest.clone(),
                role: *role,
                shadow,
                calls: of_role.calls(),
                items: of_role.items,
                faults: faults.filter(|(_, count)| *count > 0).collect(),
                conflicts: if *role == Role::AttributeEnricher { totals.conflicts } else { 0 },
                refused_edits: of_role.refused_edits,
                latency: of_role.latency(),
                memory_bytes: totals.memory,
                instances: totals.instances,
                instances_started: totals.started,
                in_flight: totals.in_flight,
            })
        };
        self.roles.iter().filter_map(meter).collect()
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(version: &str) -> PluginIdentity {
        PluginIdentity { name: "x".into(), version: version.into(), digest: version.into() }
    }

    fn serve(meters: &Meters, version: &str, tally: &Arc<Tally>) {
        let identity = identity(version);
        meters.serve([(&identity, false, vec![Role::CostModel], tally)].into_iter());
    }

    #[test]
    fn figures_survive_instances_and_swaps() {
        let meters = Meters::default();
        let first = Arc::new(Tally::default());
        serve(&meters, "1.0.0", &first);
        let instance = InstanceMeter::new(&first);
        instance.at_work(true);
        instance.memory(1000);
        instance.ended(Role::CostModel, 1, 1_000);
        first.fault(Role::CostModel, FaultKind::Trap);
        let [meter] = &meters.snapshot()[..] else { panic!("one meter") };
        assert_eq!((meter.calls, meter.items, meter.in_flight), (1, 1, 1));
        assert_eq!((meter.instances, meter.instances_started, meter.memory_bytes), (1, 1, 1000));
        assert_eq!(meter.faults, [(FaultKind::Trap, 1)]);
        let short: Vec<u64> = meter.latency.buckets.iter().take(4).map(|(_, n)| *n).collect();
        assert_eq!((short, meter.latency.count), (vec![0, 0, 1, 1], 1));

        drop((instance, first));
        let second = Arc::new(Tally::default());
        serve(&meters, "2.0.0", &second);
        second.ended_without_instance(Role::CostModel, 1, 2_000_000_000);
        let [meter] = &meters.snapshot()[..] else { panic!("one meter") };
        assert_eq!((meter.version.as_str(), meter.calls, meter.in_flight), ("2.0.0", 2, 0));
        assert_eq!((meter.instances, meter.instances_started, meter.memory_bytes), (0, 1, 0));
        assert_eq!(
            meter.latency.buckets.last().map(|(_, n)| *n),
            Some(1),
            "2 s are over all bounds"
        );
        assert!((meter.latency.sum - 2.000_001).abs() < 1e-9);
        assert_eq!(meter.faults, [(FaultKind::Trap, 1)]);
    }

    #[test]
    fn plugins_that_come_and_go_are_forgotten() {
        let meters = Meters::default();
        for n in 0..(2 * GONE) {
            let identity = PluginIdentity { name: format!("p{n}"), ..identity("1.0.0") };
            let tally = Arc::new(Tally::default());
            meters.serve([(&identity, false, vec![Role::CostModel], &tally)].into_iter());
        }
        assert!(meters.snapshot().len() <= GONE + 1);
    }

    proptest! {
        #[test]
        fn a_length_is_in_the_first_bucket_that_holds_it(nanos in prop_oneof![0_u64..10_000, any::<u64>()]) {
            let place = bucket(nanos);
            prop_assert!(place == BOUNDS || nanos <= FIRST_BOUND << place);
            prop_assert!(place == 0 || nanos > FIRST_BOUND << (place - 1));
        }
    }
}
