//! Warm instances of one plugin, between calls.
//!
//! A call takes one or starts one, and never waits for another call. With isolation by tenant an instance serves the
//! tenant that it was started for and nobody else; there are so many at most, and when there are more the one that was not
//! used for longest goes. With isolation by batch nothing is kept.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::instance::Instance;
use crate::limits::Limits;
use crate::manifest::Isolation;

/// The warm instances of one plugin.
pub(crate) struct Pool {
    isolation: Isolation,
    most: usize,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    #[expect(clippy::vec_box, reason = "each call takes one out and puts it back")]
    instances: Vec<Box<Instance>>,
    /// Counts what was put back.
    clock: u64,
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
            Isolation::Plugin => self.lock().instances.pop(),
            Isolation::Tenant => {
                let mut shelf = self.lock();
                let place = shelf.instances.iter().position(|i| i.tenant.as_deref() == tenant)?;
                Some(shelf.instances.swap_remove(place))
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
    pub fn put_back(&self, mut instance: Box<Instance>) {
        instance.calls_left = instance.calls_left.saturating_sub(1);
        if instance.calls_left == 0 || instance.is_swollen() || self.most == 0 {
            return;
        }
        // Declared before the lock: an instance takes long to drop.
        let _surplus;
        let mut shelf = self.lock();
        if shelf.instances.len() >= self.most {
            if self.isolation != Isolation::Tenant {
                drop(shelf);
                return;
            }
            let oldest = shelf.instances.iter().enumerate().min_by_key(|(_, i)| i.last_used);
            if let Some((place, _)) = oldest {
                _surplus = shelf.instances.swap_remove(place);
            }
        }
        shelf.clock += 1;
        instance.last_used = shelf.clock;
        shelf.instances.push(instance);
    }

    /// Lets all of them go. Those at work come back to it later.
    pub fn clear(&self) {
        let instances = std::mem::take(&mut self.lock().instances);
        drop(instances);
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
