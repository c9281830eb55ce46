//! Warm instances of one plugin, between calls.
//!
//! A call takes one or starts one, and never waits for another call. With isolation by tenant an instance serves the
//! tenant that it was started for and nobody else; there are so many at most, and when there are more the one that was not
//! used for longest goes. With isolation by batch nothing is kept. All plugins of a host share the places for instances:
//! where none is free, the one that was not used for longest goes, whosever it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::instance::Instance;
use crate::limits::Limits;
use crate::manifest::Isolation;
use crate::stopwatch::Stopwatch;

/// The warm instances of one plugin.
pub(crate) struct Pool {
    isolation: Isolation,
    most: usize,
    shelf: Mutex<Shelf>,
}

/// Boxed, since each call takes one out and puts it back.
type Shelf = Vec<Box<Instance>>;

/// The warm instances of all plugins of a host.
#[derive(Default)]
pub(crate) struct Pools(Mutex<Vec<Weak<Pool>>>);

impl Pools {
    /// One more plugin.
    pub fn add(&self, pool: &Arc<Pool>) {
        let mut pools = self.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// Lets the warm instance go that was not used for longest. Whether there was one.
    pub fn let_the_oldest_go(&self) -> bool {
        // Apart from their locks, since an instance takes long to drop, and a pool may be dropped here.
        let pools: Vec<Arc<Pool>> = self.lock().iter().filter_map(Weak::upgrade).collect();
        loop {
            let oldest = pools.iter().filter_map(|pool| Some((pool.oldest()?, pool)));
            let Some((_, pool)) = oldest.min_by_key(|(used, _)| *used) else { return false };
            // Otherwise it was taken for a call meanwhile.
            if pool.let_the_oldest_go() {
                return true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Pool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Empty.
    pub fn new(isolation: Isolation, limits: &Limits) -> Self {
        let most = match isolation {
            Isolation::Plugin => limits.warm_instances,
            Isolation::Tenant => limits.warm_tenants,
            Isolation::Batch => 0,
        };
        Self { isolation, most, shelf: Mutex::default() }
    }

    /// A warm instance that may serve this tenant.
    pub fn take(&self, tenant: Option<&str>) -> Option<Box<Instance>> {
        match self.isolation {
            Isolation::Plugin => self.lock().pop(),
            Isolation::Tenant => {
                let mut shelf = self.lock();
                let place = shelf.iter().position(|i| i.tenant.as_deref() == tenant)?;
                Some(shelf.swap_remove(place))
            }
            Isolation::Batch => None,
        }
    }

    /// Binds a fresh instance to the tenant it is started for, where that is the isolation.
    pub fn bind(&self, instance: &mut Instance, tenant: Option<&str>) {
        if self.isolation == Isolation::Tenant {
            instance.tenant = tenant.map(Into::into);
        }
    }

    /// Keeps an instance for later, or retires it: after its last call, when it has grown too much, when there are enough.
    /// `now`: when its call ended.
    pub fn put_back(&self, mut instance: Box<Instance>, now: Stopwatch) {
        instance.calls_left = instance.calls_left.saturating_sub(1);
        if instance.calls_left == 0 || instance.is_swollen() || self.most == 0 {
            return;
        }
        instance.last_used = now;
        // Declared before the lock: an instance takes long to drop.
        let _surplus;
        let mut shelf = self.lock();
        if shelf.len() >= self.most {
            if self.isolation != Isolation::Tenant {
                drop(shelf);
                return;
            }
            _surplus = take_oldest(&mut shelf);
        }
        shelf.push(instance);
    }

    /// When the one was used that was not used for longest.
    fn oldest(&self) -> Option<Stopwatch> {
        self.lock().iter().map(|instance| instance.last_used).min()
    }

    fn let_the_oldest_go(&self) -> bool {
        let oldest = take_oldest(&mut self.lock());
        oldest.is_some()
    }

    /// Lets all of them go. Those at work come back to it later.
    pub fn clear(&self) {
        let instances = std::mem::take(&mut *self.lock());
        drop(instances);
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_oldest(shelf: &mut Shelf) -> Option<Box<Instance>> {
    let (place, _) = shelf.iter().enumerate().min_by_key(|(_, instance)| instance.last_used)?;
    Some(shelf.swap_remove(place))
}
