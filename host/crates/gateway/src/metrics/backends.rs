//! Other servers and the store that limits are shared through, as they count themselves.

use tollgate_domain::BreakerState;
use tollgate_telemetry::metrics::{Family, Snapshot};
use tollgate_tenancy::LimiterStatus;
use tollgate_upstream::{BackendStatus, HealthState};

use super::double;

pub(super) fn of_backends(backends: &[BackendStatus], to: &mut Snapshot) {
    let mut attempts = Family::new(
        "tollgate.backend.attempts",
        "Attempts at a backend, by result; broken: answered, and broke off afterwards.",
    );
    let mut in_flight =
        Family::new("tollgate.backend.in_flight", "Requests under way at a backend.");
    let mut healthy = Family::new(
        "tollgate.backend.healthy",
        "Whether a backend's checks are good: 1 or 0. Absent where there are none.",
    );
    let mut breaker =
        Family::new("tollgate.backend.breaker", "State of a backend's breaker: 1 for the one.");
    for status in backends {
        let backend = ("backend", &*status.name);
        for (result, count) in [
            ("answered", status.answered),
            ("refused", status.refused),
            ("failed", status.failed),
            ("broken", status.broken),
        ] {
            attempts.add([backend, ("result", result)], count);
        }
        in_flight.add([backend], double(u64::from(status.in_flight)));
        if status.health != HealthState::Unknown {
            let good = status.health == HealthState::Healthy;
            healthy.add([backend], f64::from(u8::from(good)));
        }
        for state in BreakerState::NAMES {
            let is = f64::from(u8::from(status.breaker.name() == state));
            breaker.add([backend, ("state", state)], is);
        }
    }
    to.counters.push(attempts);
    to.gauges.extend([in_flight, healthy, breaker]);
}

pub(super) fn of_limits(status: LimiterStatus, to: &mut Snapshot) {
    let away = f64::from(u8::from(status.redis_away));
    let gauges = [
        ("tollgate.limits.scopes", "Limits that are counted here.", status.local_scopes as u64),
        (
            "tollgate.limits.unsettled",
            "Requests that have ended and that Redis has not been told of.",
            status.waiting as u64,
        ),
    ];
    to.gauges
        .extend(gauges.map(|(name, help, count)| Family::new(name, help).with([], double(count))));
    let away = Family::new(
        "tollgate.limits.redis_away",
        "Whether limits are shared through a Redis that cannot be asked: 1 or 0.",
    )
    .with([], away);
    to.gauges.push(away);
}
