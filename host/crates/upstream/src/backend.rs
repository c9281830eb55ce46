//! One backend: what the configuration says of it, its connections, and what is known of how it does.
//!
//! What is known ([`State`]) outlives a change of the configuration, as long as name and URL stay.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};
use tollgate_domain::BreakerState;

use crate::breaker::Breaker;
use crate::config::{BackendSettings, BreakerSettings, Kind};
use crate::transport::Transport;

/// Failed checks in a row after which a backend counts as unhealthy.
const UNHEALTHY_AFTER: u8 = 2;

/// One backend of one configuration.
#[derive(Debug)]
pub(crate) struct Backend {
    pub settings: BackendSettings,
    pub name: Arc<str>,
    pub transport: Transport,
    /// Of the key, ready to be sent.
    pub credentials: Option<HeaderValue>,
    pub state: Arc<State>,
}

/// How a backend does.
#[derive(Debug)]
pub(crate) struct State {
    pub breaker: Arc<Breaker>,
    breaker_settings: BreakerSettings,
    in_flight: AtomicU32,
    pub totals: Totals,
    /// Failed checks in a row.
    failed_checks: AtomicU8,
    checked: AtomicU8,
    problem: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub attempts: AtomicU64,
    pub answered: AtomicU64,
    pub refused: AtomicU64,
    pub failed: AtomicU64,
    pub broken: AtomicU64,
}

/// What a backend's checks say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// It is not checked, or has not been yet.
    Unknown,
    /// The last check was good.
    Healthy,
    /// Two checks in a row were not.
    Unhealthy {
        /// What the last one met.
        problem: String,
    },
}

impl HealthState {
    /// Its name in metrics and in lists.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }
}

/// A backend as an operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its base URL.
    pub url: String,
    /// How it is spoken to.
    pub kind: Kind,
    /// `gen_ai.provider.name`.
    pub provider: String,
    /// Its share.
    pub weight: u32,
    /// Requests under way.
    pub in_flight: u32,
    /// Most of them, if there is a limit.
    pub max_in_flight: Option<u32>,
    /// Its breaker.
    pub breaker: BreakerState,
    /// How often that has opened.
    pub breaker_openings: u64,
    /// What its checks say.
    pub health: HealthState,
    /// Attempts made.
    pub attempts: u64,
    /// Of them, answered; also with an error that is the client's.
    pub answered: u64,
    /// Of them, answered with 429, 502, 503, 504 or 529.
    pub refused: u64,
    /// Of them, not answered: no connection, too slow, not the protocol.
    pub failed: u64,
    /// Answers that broke off after their first byte.
    pub broken: u64,
}

/// A place among the requests under way, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<State>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Backend {
    /// `before`: the backend of that name in the configuration so far. The error is a sentence.
    pub fn new(
        settings: BackendSettings,
        breaker: BreakerSettings,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        let before = before.filter(|before| {
            before.settings.url == settings.url && before.settings.kind == settings.kind
        });
        let same_connections = |before: &&Self| {
            before.settings.ca == settings.ca
                && before.settings.connect_timeout == settings.connect_timeout
                && before.settings.proxy == settings.proxy
        };
        let transport = match before.filter(same_connections) {
            Some(before) => before.transport.clone(),
            None => Transport::new(
                &settings.url,
                settings.connect_timeout,
                settings.ca.as_deref(),
                settings.proxy.as_ref(),
            )?,
        };
        let kept = before.filter(|before| before.state.breaker_settings == breaker);
        let state = kept.map_or_else(|| Arc::new(State::new(breaker)), |b| Arc::clone(&b.state));
        let credentials = settings.key.as_ref().map(|key| {
            let text = match settings.kind {
                Kind::Openai => format!("Bearer {}", key.0),
                Kind::Anthropic => key.0.clone(),
            };
            // It was checked when it was read.
            let mut value =
                HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
            value.set_sensitive(true);
            value
        });
        let name = settings.name.as_str().into();
        Ok(Self { settings, name, transport, credentials, state })
    }

    /// Whether anything but the state differs.
    pub fn is_as(&self, settings: &BackendSettings, breaker: BreakerSettings) -> bool {
        self.settings == *settings && self.state.breaker_settings == breaker
    }

    /// Host and port of its URL.
    pub fn server(&self) -> (&str, u16) {
        let url = &self.settings.url;
        let default_port = if url.scheme_str() == Some("https") { 443 } else { 80 };
        (url.host().unwrap_or_default(), url.port_u16().unwrap_or(default_port))
    }

    /// The URL of a path below the base.
    pub fn below(&self, path: &str) -> Option<Uri> {
        self.at(format!("{}{path}", self.settings.url.path().trim_end_matches('/')))
    }

    /// The URL of a path of the server.
    pub fn at(&self, path: String) -> Option<Uri> {
        let mut parts = self.settings.url.clone().into_parts();
        parts.path_and_query =
            Some(PathAndQuery::from_maybe_shared(bytes::Bytes::from(path)).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Where the key goes.
    pub fn credentials_header(&self) -> HeaderName {
        match self.settings.kind {
            Kind::Openai => http::header::AUTHORIZATION,
            Kind::Anthropic => HeaderName::from_static("x-api-key"),
        }
    }

    /// A place among the requests under way, if there is one.
    pub fn slot(&self) -> Option<Slot> {
        let most = self.settings.max_in_flight.unwrap_or(u32::MAX);
        let taken = |now: u32| (now < most).then(|| now.saturating_add(1));
        self.state.in_flight.fetch_update(Relaxed, Relaxed, taken).ok()?;
        Some(Slot(Arc::clone(&self.state)))
    }

    /// Requests under way for each unit of weight, in thousandths.
    pub fn load(&self) -> u64 {
        u64::from(self.state.in_flight.load(Relaxed)).saturating_mul(1000)
            / u64::from(self.settings.weight).max(1)
    }

    /// Whether it is full.
    pub fn is_full(&self) -> bool {
        let now = self.state.in_flight.load(Relaxed);
        self.settings.max_in_flight.is_some_and(|most| now >= most)
    }

    pub fn status(&self) -> BackendStatus {
        let (breaker, breaker_openings) = self.state.breaker.state();
        let totals = &self.state.totals;
        BackendStatus {
            name: Arc::clone(&self.name),
            url: self.settings.url.to_string(),
            kind: self.settings.kind,
            provider: self.settings.provider.clone(),
            weight: self.settings.weight,
            in_flight: self.state.in_flight.load(Relaxed),
            max_in_flight: self.settings.max_in_flight,
            breaker,
            breaker_openings,
            health: self.state.health(),
            attempts: totals.attempts.load(Relaxed),
            answered: totals.answered.load(Relaxed),
            refused: totals.refused.load(Relaxed),
            failed: totals.failed.load(Relaxed),
            broken: totals.broken.load(Relaxed),
        }
    }
}

impl State {
    fn new(breaker_settings: BreakerSettings) -> Self {
        Self {
            breaker: Arc::new(Breaker::new(breaker_settings)),
            breaker_settings,
            in_flight: AtomicU32::new(0),
            totals: Totals::default(),
            failed_checks: AtomicU8::new(0),
            checked: AtomicU8::new(0),
            problem: Mutex::new(None),
        }
    }

    /// Whether its checks speak against it.
    pub fn is_unhealthy(&self) -> bool {
        self.failed_checks.load(Relaxed) >= UNHEALTHY_AFTER
    }

    /// Takes the result of a check. Whether that changed what it counts as.
    pub fn checked(&self, result: Result<(), String>) -> bool {
        let was = (self.is_unhealthy(), self.checked.swap(1, Relaxed));
        match &result {
            Ok(()) => self.failed_checks.store(0, Relaxed),
            Err(_) => {
                let _ = self.failed_checks.fetch_update(Relaxed, Relaxed, |n| n.checked_add(1));
            }
        }
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = result.err();
        was != (self.is_unhealthy(), 1)
    }

    /// It is not checked any more.
    pub fn unchecked(&self) {
        self.failed_checks.store(0, Relaxed);
        self.checked.store(0, Relaxed);
    }

    pub fn health(&self) -> HealthState {
        if self.is_unhealthy() {
            let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
            return HealthState::Unhealthy { problem: problem.clone().unwrap_or_default() };
        }
        match self.checked.load(Relaxed) {
            0 => HealthState::Unknown,
            _ => HealthState::Healthy,
        }
    }
}
