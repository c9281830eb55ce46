//! One multiplexed connection to Redis that comes back by itself, and whether it is worth asking.
//!
//! Nobody waits for a server that does not answer: after a lost connection, an error or three
//! answers in a row that came too late it counts as *away* and no request asks it, until a probe
//! in the background is answered. A connection that stays silent is replaced, since the kernel may
//! take a quarter of an hour to find that the other end is gone.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, ScriptInvocation};

use tollgate_domain::text::one_line;

use crate::error::TenancyError;

/// Answers in a row that may come too late before the server counts as away.
const LATE: u32 = 3;
/// After which a silent connection is replaced by a new one.
const SILENCE: Duration = Duration::from_secs(5);
/// Longest that a new connection, or an answer that nobody waits for, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two lines of the log about the same.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// Why Redis did not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RedisTrouble {
    /// Its answer did not come in time.
    Slow,
    /// It cannot be reached, or lately could not.
    Away,
    /// It answered with an error.
    Failed,
}

impl RedisTrouble {
    /// Its name on spans and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Away => "away",
            Self::Failed => "failed",
        }
    }
}

pub(crate) struct Connection {
    client: Client,
    manager: ArcSwap<ConnectionManager>,
    /// Longest that a request waits.
    timeout: Duration,
    /// Requests do not ask it.
    away: AtomicBool,
    /// The background does not ask it either.
    silent: AtomicBool,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    late: u32,
    silent_since: Option<Instant>,
    logged: Option<(Instant, String)>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("Connection").field("away", &self.away).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects when it is first asked something. Needs a runtime.
    pub fn new(client: Client, timeout: Duration) -> Result<Self, TenancyError> {
        let manager = ArcSwap::from_pointee(connect(&client).map_err(TenancyError::Redis)?);
        let (away, silent) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { client, manager, timeout, away, silent, health: Mutex::default() })
    }

    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Whether it answers nobody, however long they wait.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Runs a script, by its digest if the server has it, for as long as a client waits.
    pub async fn run(&self, script: &ScriptInvocation<'_>) -> Result<Vec<i64>, RedisTrouble> {
        self.run_within(script, self.timeout).await
    }

    /// Runs a script for as long as the background waits.
    pub async fn run_behind(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<Vec<i64>, RedisTrouble> {
        let answer = self.run_within(script, PATIENCE).await;
        if answer == Err(RedisTrouble::Slow) {
            self.silent.store(true, Ordering::Relaxed);
        }
        answer
    }

    async fn run_within(
        &self,
        script: &ScriptInvocation<'_>,
        within: Duration,
    ) -> Result<Vec<i64>, RedisTrouble> {
        let mut manager = ConnectionManager::clone(&self.manager.load());
        match tokio::time::timeout(within, script.invoke_async(&mut manager)).await {
            Ok(Ok(values)) => {
                self.answered();
                Ok(values)
            }
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(self.was_late()),
        }
    }

    /// Asks a server that is away whether it is back: one that answers no faster than requests
    /// wait is not.
    pub async fn probe(&self) {
        let mut manager = ConnectionManager::clone(&self.manager.load());
        let ping = redis::cmd("PING");
        let begun = Instant::now();
        match tokio::time::timeout(PATIENCE, ping.query_async::<String>(&mut manager)).await {
            Ok(Ok(_)) => {
                self.answered();
                let in_time = begun.elapsed() <= self.timeout;
                if in_time && self.away.swap(false, Ordering::Relaxed) {
                    self.log(None);
                }
            }
            Ok(Err(error)) => {
                self.failed(&error);
            }
            Err(_) => {
                self.was_late();
                self.silent.store(true, Ordering::Relaxed);
            }
        }
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) {
        let mut health = self.health();
        health.late = 0;
        health.silent_since = None;
        self.silent.store(false, Ordering::Relaxed);
    }

    fn was_late(&self) -> RedisTrouble {
        let mut health = self.health();
        health.late = health.late.saturating_add(1);
        let since = *health.silent_since.get_or_insert_with(Instant::now);
        let replace = since.elapsed() >= SILENCE;
        if replace {
            health.silent_since = None;
        }
        let away = health.late >= LATE;
        drop(health);
        if replace {
            self.replace();
        }
        if away {
            self.go_away("it does not answer in time");
        }
        RedisTrouble::Slow
    }

    fn failed(&self, error: &RedisError) -> RedisTrouble {
        if error.is_timeout() {
            return self.was_late();
        }
        // After a failover the old leader says READONLY: a new connection may lead to the new one.
        let moved = error.code() == Some("READONLY");
        if moved {
            self.replace();
        }
        self.silent.store(true, Ordering::Relaxed);
        self.go_away(&one_line(&error.to_string(), 256));
        let lost = error.is_io_error() || error.is_connection_dropped();
        if lost { RedisTrouble::Away } else { RedisTrouble::Failed }
    }

    fn replace(&self) {
        if let Ok(manager) = connect(&self.client) {
            self.manager.store(manager.into());
        }
    }

    fn go_away(&self, why: &str) {
        if !self.away.swap(true, Ordering::Relaxed) {
            self.log(Some(why));
        }
    }

    /// Logs that it went, or none: that it is back. A server that comes and goes fills no log.
    fn log(&self, why: Option<&str>) {
        let mut health = self.health();
        let text = why.unwrap_or_default();
        let again = |(at, said): &(Instant, String)| said == text && at.elapsed() < LOG_PAUSE;
        match why {
            Some(_) if health.logged.as_ref().is_some_and(again) => {}
            Some(why) => {
                health.logged = Some((Instant::now(), why.to_owned()));
                tracing::warn!(reason = %why, "Redis is away; limits and budgets are not shared");
            }
            None => tracing::info!("Redis is back"),
        }
    }
}

fn connect(client: &Client) -> Result<ConnectionManager, RedisError> {
    // Attempts are paced by the probe, not by the connection.
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}
