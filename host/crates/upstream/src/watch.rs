//! Keeps the configuration up to date and looks after the backends' health, as long as its future is polled.
//!
//! The file, and those that it names, are read each second: contents count and not times, so that every way of replacing a
//! file works; a change counts once two looks have seen the same. One that is wrong changes nothing and is logged once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::backend::{Backend, HealthState};
use crate::config::{Configuration, HealthSettings};
use crate::error::{UpstreamError, chain};
use crate::exchange::frame;
use crate::route::Snapshot;
use crate::upstreams::Upstreams;

/// How often the file is read.
const EVERY: Duration = Duration::from_secs(1);
/// Time between two looks that must see the same before a change counts, and most of them in a row.
const SETTLE: Duration = Duration::from_millis(150);
const LOOKS: usize = 6;

impl Upstreams {
    /// Keeps the configuration and what is known of health up to date. Never ends; dropping it stops all checks.
    pub async fn watch(&self) {
        let mut problem = None;
        let mut checks = Checks::default();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            checks.follow(&self.snapshot());
            ticks.tick().await;
            let found = match self.reload().await {
                Ok(changed) => {
                    if changed || problem.is_some() {
                        let backends = self.snapshot().backends.len();
                        tracing::info!(file = %self.path().display(), backends, "backends loaded");
                    }
                    None
                }
                Err(error) => Some(chain(&error)),
            };
            if let Some(found) = &found
                && problem.as_ref() != Some(found)
            {
                tracing::error!(problem = found, "the backends stay as they were");
            }
            problem = found;
        }
    }

    /// Reads the configuration again. Whether it has changed.
    async fn reload(&self) -> Result<bool, UpstreamError> {
        let before = self.snapshot();
        let mut seen = self.read().await;
        if seen.as_ref().is_ok_and(|seen| *seen == before.configuration) {
            return Ok(false);
        }
        // Half of a file may be a good file too, one without backends for instance.
        for _ in 0..LOOKS {
            tokio::time::sleep(SETTLE).await;
            let again = self.read().await;
            let settled = match (&seen, &again) {
                (Ok(seen), Ok(again)) => seen == again,
                (Err(seen), Err(again)) => seen.to_string() == again.to_string(),
                _ => false,
            };
            seen = again;
            if settled {
                let configuration = seen?;
                if configuration == before.configuration {
                    return Ok(false);
                }
                self.replace(Snapshot::new(configuration, Some(&before), self.path())?);
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn read(&self) -> Result<Configuration, UpstreamError> {
        let path = self.path().to_owned();
        let read = tokio::task::spawn_blocking(move || Configuration::read(&path)).await;
        read.unwrap_or_else(|error| {
            let source = std::io::Error::other(error);
            Err(UpstreamError::Unreadable { path: self.path().to_owned(), source })
        })
    }
}

/// A task for each backend that is to be checked.
#[derive(Default)]
struct Checks {
    tasks: JoinSet<()>,
    running: HashMap<Arc<str>, (Arc<Backend>, AbortHandle)>,
}

impl Checks {
    fn follow(&mut self, snapshot: &Snapshot) {
        while self.tasks.try_join_next().is_some() {}
        self.running.retain(|name, (backend, task)| {
            let stays =
                snapshot.backends.iter().any(|b| b.name == *name && Arc::ptr_eq(b, backend));
            if !stays {
                task.abort();
            }
            stays
        });
        for backend in &snapshot.backends {
            match &backend.settings.health {
                None => backend.state.unchecked(),
                Some(health) if !self.running.contains_key(&backend.name) => {
                    let task = self.tasks.spawn(check(Arc::clone(backend), health.clone()));
                    self.running.insert(Arc::clone(&backend.name), (Arc::clone(backend), task));
                }
                Some(_) => {}
            }
        }
    }
}

/// Checks one backend, for ever.
async fn check(backend: Arc<Backend>, health: HealthSettings) {
    let mut ticks = interval(health.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = match timeout(health.timeout, ask(&backend, &health)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", health.timeout)),
        };
        if backend.state.checked(result) {
            match backend.state.health() {
                HealthState::Unhealthy { problem } => {
                    tracing::warn!(backend = %backend.name, problem, "the backend is unhealthy");
                }
                state => {
                    tracing::info!(backend = %backend.name, state = state.name(), "the backend's health");
                }
            }
        }
    }
}

/// One check: a status below 300 is good.
async fn ask(backend: &Backend, health: &HealthSettings) -> Result<(), String> {
    let url = backend.at(health.path.clone()).ok_or("the path cannot stand in a URL")?;
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = url;
    if let Some(credentials) = &backend.credentials {
        let name = backend.credentials_header();
        request.headers_mut().insert(name, credentials.clone());
    }
    let response = backend.transport.send(request).await.map_err(|error| chain(&error))?;
    let (parts, mut body) = response.into_parts();
    // Read, so that the connection can be used again; a server that talks for too long meets the timeout.
    while let Ok(Some(_)) = frame(&mut body, health.timeout).await {}
    if parts.status.as_u16() < 300 { Ok(()) } else { Err(format!("it answered {}", parts.status)) }
}
