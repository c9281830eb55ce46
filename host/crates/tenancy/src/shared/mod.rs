//! Counts that many gateways share through Redis.
//!
//! A request asks once, and waits at most for the time that is set. What it used is told in the
//! background: in batches, again and again until Redis took it, and counted once even if the
//! answer got lost. What waits to be told is bounded; beyond that, budgets of requests that ended
//! are *merged*, so their sums stay exact, and tokens are left to flow out.

mod client;
mod connection;
mod ping;
mod scripts;
mod worker;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::admission::{Ask, AskedBudget, Seen, judge};
use crate::allowance::Limited;
use crate::error::TenancyError;
use crate::local::Local;
use crate::secret;
use connection::Connection;
pub use connection::RedisTrouble;
pub use ping::{RedisPong, ping};
pub(crate) use scripts::Owed;
use scripts::{Place, Scripts, Stand};

/// Requests that have ended and wait for Redis; some 20 MB.
const QUEUE: usize = 16_384;

/// What happens to requests while Redis is away or slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RedisPolicy {
    /// They are admitted without a limit.
    Open,
    /// They are refused with 503.
    Closed,
    /// Each gateway limits them by itself, as if it were alone; budgets go on from what they were
    /// last known to stand at.
    #[default]
    Local,
}

impl RedisPolicy {
    /// Its name in settings and on spans.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Local => "local",
        }
    }
}

/// How to share counts through Redis.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://host:6379/0`, `redis+unix:///path`, or `rediss://` with the feature `tls`; may hold
    /// a user and a password. Redis 6 or later, or what speaks like it.
    pub url: String,
    /// PEM of the authorities that are trusted instead of the system's, for `rediss://`.
    pub ca_file: Option<PathBuf>,
    /// What all keys begin with. One Redis may serve several fleets.
    pub prefix: String,
    /// Longest that a request waits for it.
    pub timeout: Duration,
    /// What happens to requests meanwhile.
    pub policy: RedisPolicy,
    /// After which the place of a request is free again if its gateway was killed. Requests may
    /// take longer: their gateway renews their places.
    pub lease: Duration,
    /// Whether times are those that are handed in, for tests. Else the server's clock rules.
    pub given_clock: bool,
}

impl RedisSettings {
    /// The defaults, for one server.
    #[must_use]
    pub fn new(url: String) -> Self {
        Self {
            url,
            ca_file: None,
            prefix: "tollgate:".to_owned(),
            timeout: Duration::from_millis(50),
            policy: RedisPolicy::default(),
            lease: Duration::from_secs(60),
            given_clock: false,
        }
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the address, which may hold a password.
        f.debug_struct("RedisSettings")
            .field("ca_file", &self.ca_file)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("policy", &self.policy)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

/// The handle.
#[derive(Debug)]
pub(crate) struct SharedStore {
    book: Arc<Book>,
    queue: mpsc::Sender<Owed>,
    pub policy: RedisPolicy,
    /// Ids of requests begin with it: no two gateways have the same.
    gateway: String,
    next: AtomicU64,
}

/// What the handle and its worker both know.
#[derive(Debug)]
struct Book {
    connection: Connection,
    scripts: Scripts,
    local: Arc<Local>,
    /// Requests in flight, and when their places were last renewed.
    live: Mutex<HashMap<String, (Instant, Place)>>,
    /// What found no room in the queue, by budget.
    merged: Mutex<HashMap<String, Merged>>,
    /// Ended requests that Redis has not taken.
    waiting: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Merged {
    tag: String,
    asked: AskedBudget,
    spent: i128,
}

/// What came of asking.
pub(crate) enum Answer {
    /// It was admitted and this is what it saw.
    Admitted(Seen),
    Refused(Box<Limited>),
    /// Nobody knows; if it was asked, whether it took anything shows when that is settled.
    Trouble {
        trouble: RedisTrouble,
        asked: bool,
    },
}

impl SharedStore {
    /// Starts the worker; needs a runtime. Does not wait for a connection.
    pub fn new(settings: &RedisSettings, local: Arc<Local>) -> Result<Self, TenancyError> {
        let runtime = Handle::try_current().map_err(TenancyError::NoRuntime)?;
        let connection = Connection::new(client::client(settings)?, settings.timeout)?;
        let scripts = Scripts::new(&settings.prefix, settings.lease, settings.given_clock);
        let gateway = secret::random(10)?;
        let book = Arc::new(Book {
            connection,
            scripts,
            local,
            live: Mutex::default(),
            merged: Mutex::default(),
            waiting: AtomicUsize::new(0),
        });
        let (queue, owed) = mpsc::channel(QUEUE);
        runtime.spawn(worker::run(Arc::clone(&book), owed, format!("{gateway}-m")));
        Ok(Self { book, queue, policy: settings.policy, gateway, next: AtomicU64::new(0) })
    }

    /// A name for a request.
    pub fn id(&self) -> String {
        format!("{}-{:x}", self.gateway, self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn reserve(&self, ask: &Ask, id: &str) -> Answer {
        let book = &self.book;
        if book.connection.is_away() {
            return Answer::Trouble { trouble: RedisTrouble::Away, asked: false };
        }
        let known = book.known(ask);
        let call = book.scripts.reserve(ask, id, &known);
        // Whoever goes away while Redis is asked gives back what it may have taken.
        let mut given_up = GivenUp { store: self, ask: Some(ask), id };
        let answer = book.connection.run(&call).await;
        given_up.ask = None;
        let answer = match answer {
            Ok(answer) => answer,
            Err(trouble) => return Answer::Trouble { trouble, asked: true },
        };
        let Some((admitted, seen, stands)) = Scripts::reserved(ask, &answer) else {
            return Answer::Trouble { trouble: RedisTrouble::Failed, asked: true };
        };
        if !admitted {
            // The judge says why; were it of another opinion than the script, nobody would know.
            return match judge(ask, &seen) {
                Err(limited) => Answer::Refused(limited),
                Ok(()) => Answer::Trouble { trouble: RedisTrouble::Failed, asked: true },
            };
        }
        for (asked, stand) in ask.budgets.iter().zip(&stands) {
            book.local.note(&ask.tag, &asked.name, &asked.period, ask.at, |spend| {
                spend.learn(stand.spent, stand.version);
                spend.reserved = spend.reserved.saturating_add(asked.estimate);
            });
        }
        if let Some(place) = book.scripts.place(ask, id) {
            book.live().insert(id.to_owned(), (Instant::now(), place));
        }
        Answer::Admitted(seen)
    }

    /// Tells Redis, as soon as it listens, what a request used. Never waits.
    pub fn settle(&self, owed: Owed) {
        self.book.live().remove(&owed.id);
        self.book.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(
            mpsc::error::TrySendError::Full(owed) | mpsc::error::TrySendError::Closed(owed),
        ) = self.queue.try_send(owed)
        {
            self.book.merge(owed);
        }
    }

    /// Gives back what a request may have taken that was told to go.
    pub fn cancel(&self, ask: &Ask, id: &str) {
        let nothing = vec![0; ask.budgets.len()];
        self.settle(Owed {
            id: id.to_owned(),
            ask: ask.clone(),
            tokens: 0,
            spent: nothing,
            at: ask.at,
            counted: false,
            refusals: 0,
        });
    }

    pub fn is_away(&self) -> bool {
        self.book.connection.is_away()
    }

    /// Ended requests that Redis has not taken.
    pub fn waiting(&self) -> usize {
        self.book.waiting.load(Ordering::Relaxed).saturating_add(self.book.merged().len())
    }
}

struct GivenUp<'a> {
    store: &'a SharedStore,
    ask: Option<&'a Ask>,
    id: &'a str,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(ask) = self.ask {
            self.store.cancel(ask, self.id);
        }
    }
}

impl Book {
    fn live(&self) -> MutexGuard<'_, HashMap<String, (Instant, Place)>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn merged(&self) -> MutexGuard<'_, HashMap<String, Merged>> {
        self.merged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What Redis should begin with, were it empty.
    fn known(&self, ask: &Ask) -> Vec<Stand> {
        let known = |asked: &AskedBudget| {
            let spend = self.local.spend(&ask.tag, &asked.name);
            Stand { spent: spend.floor(), version: spend.version }
        };
        ask.budgets.iter().map(known).collect()
    }

    /// Adds up what has no room. Its mark cannot be asked any more, so an estimate that Redis may
    /// have counted stays counted: too much rather than too little.
    fn merge(&self, owed: Owed) {
        if owed.counted {
            for asked in &owed.ask.budgets {
                self.local.note(&owed.ask.tag, &asked.name, &asked.period, owed.at, |spend| {
                    spend.reserved = spend.reserved.saturating_sub(asked.estimate);
                    spend.local = spend.local.saturating_add(asked.estimate);
                });
            }
        }
        let mut merged = self.merged();
        let spent = owed.ask.budgets.into_iter().zip(owed.spent);
        for (asked, spent) in spent.filter(|(_, spent)| *spent != 0) {
            let tag = owed.ask.tag.clone();
            let sum = merged.entry(asked.name.clone()).or_insert_with(|| {
                let asked = AskedBudget { estimate: 0, ..asked };
                Merged { tag, asked, spent: 0 }
            });
            sum.spent = sum.spent.saturating_add(spent);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
