//! What a limiter that counts alone guarantees, under random requests.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use proptest::prelude::*;
use support::{NOON, at, draw, keys, principal, usd};
use tollgate_domain::{Currency, Money, UnixNanos};
use tollgate_tenancy::{
    Draw, Keys, Limiter, Per, Principal, Refusal, Reservation, Scope, Spent, What,
};

fn reserve(
    limiter: &Limiter,
    principal: &Principal,
    model: &str,
    draw: Draw,
    now: UnixNanos,
) -> Result<Reservation, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(limiter.reserve(principal, model, draw, now))
}

fn limited(refusal: Refusal) -> tollgate_tenancy::Limited {
    match refusal {
        Refusal::Limited(limited) => *limited,
        Refusal::Unavailable(trouble) => panic!("{trouble:?}"),
    }
}

fn all() -> (Keys, Principal) {
    let keys = keys(
        "KEY(k1)
         [key.limits]
         requests-per-minute = 100
         tokens-per-minute = 10000
         [[key.budget]]
         amount = \"1\"
         currency = \"USD\"
         per = \"day\"
         soft = 0.5
         KEY(k2)
         [[tenant]]
         name = \"acme\"
         [tenant.limits]
         requests-per-minute = 10
         concurrent = 3
         [[tenant.budget]]
         amount = \"2\"
         currency = \"USD\"
         per = \"total\"
         [[model]]
         name = \"big*\"
         [model.limits]
         tokens-per-minute = 500",
    );
    let principal = principal(&keys, "k1");
    (keys, principal)
}

#[test]
fn a_refusal_takes_nothing_and_says_whose_limit_it_is() {
    let (_keys, principal) = all();
    let limiter = Limiter::local();
    let ask = |model, tokens, cost| reserve(&limiter, &principal, model, draw(tokens, cost), NOON);
    let first = ask("big-1", 400, Some("0.4")).unwrap();
    let tokens = first.allowance().tokens.unwrap();
    assert_eq!((tokens.scope, tokens.remaining), (Scope::Model, 100));
    assert_eq!(first.allowance().requests.unwrap().remaining, 9);
    assert_eq!(first.allowance().soft().count(), 0);

    let refused = limited(ask("big-1", 101, None).unwrap_err());
    assert_eq!((refused.scope, refused.what), (Scope::Model, What::Tokens));
    assert_eq!((refused.limit, refused.remaining, refused.needed), (500, 100, 101));
    assert_eq!(refused.retry_after, Some(Duration::from_millis(120)));
    assert_eq!(limited(ask("big-1", 501, None).unwrap_err()).retry_after, None);
    let money = limited(ask("small", 1, Some("0.7")).unwrap_err());
    assert_eq!((money.scope, money.what), (Scope::Key, What::Budget));
    assert_eq!(money.retry_after, Some(Duration::from_secs(12 * 3600)));
    assert_eq!((money.http_status(), money.code()), (429, "insufficient_quota"));
    let never = limited(ask("small", 1, Some("1.1")).unwrap_err());
    assert_eq!(never.retry_after, None, "{never}");

    let second = ask("small", 1, Some("0.1")).unwrap();
    assert_eq!(second.allowance().requests.unwrap().remaining, 8, "refusals took nothing");
    let soft: Vec<_> = second.allowance().soft().map(|b| (b.scope, b.per, b.spent)).collect();
    assert_eq!(soft, [(Scope::Key, Per::Day, usd("0.5"))]);
    let third = ask("small", 1, None).unwrap();
    let places = limited(ask("small", 1, None).unwrap_err());
    assert_eq!((places.scope, places.what), (Scope::Tenant, What::Concurrent));
    drop(third);
    ask("small", 1, None).unwrap().settle(draw(0, Some("0")), NOON);
    second.settle(draw(1, Some("0.65")), NOON);
    // Spent to the last cent: what costs nothing as far as is known is refused too.
    first.settle(draw(1, Some("0.35")), NOON);
    let spent = limited(ask("small", 1, None).unwrap_err());
    assert_eq!(spent.budget.unwrap().remaining(), usd("0"));
    // The next day it goes on, to the total of the tenant.
    let tomorrow = at(13 * 3_600_000);
    let next = reserve(&limiter, &principal, "small", draw(1, Some("1")), tomorrow).unwrap();
    drop(next);
    let spent =
        limited(reserve(&limiter, &principal, "small", draw(1, None), tomorrow).unwrap_err());
    assert_eq!((spent.scope, spent.retry_after), (Scope::Tenant, None), "{spent}");
}

#[test]
fn budgets_go_on_from_what_the_ledger_knows() {
    let (keys, principal) = all();
    let limiter = Limiter::local();
    let spent = |hours_ago: u64, key: Option<&str>, cost| Spent {
        tenant: Some("acme".to_owned()),
        key_id: key.map(str::to_owned),
        at: UnixNanos(NOON.0 - hours_ago * 3_600 * support::SECOND),
        cost,
    };
    let euro = Money::new(usd("9").pico, Currency::parse("EUR").unwrap());
    let ledger = [
        spent(1, Some("k1"), usd("0.25")),
        spent(2, Some("k1"), usd("0.25")),
        spent(30, Some("k1"), usd("0.5")),
        spent(2, Some("k2"), usd("0.125")),
        spent(2, None, usd("0.125")),
        spent(1, Some("k1"), euro),
        Spent { tenant: Some("other".to_owned()), ..spent(1, Some("k1"), usd("5")) },
    ];
    for _ in 0..2 {
        limiter.restore(&keys, ledger.clone(), NOON);
        let held = reserve(&limiter, &principal, "m", draw(0, None), NOON).unwrap();
        let stands: Vec<Money> = held.allowance().budgets.iter().map(|b| b.spent).collect();
        assert_eq!(stands, [usd("0.5"), usd("1.25")], "the same, however often it is told");
    }
}

#[test]
fn who_is_not_named_has_the_defaults() {
    let keys = keys("[defaults.limits]\nrequests-per-minute = 1");
    let limiter = Limiter::local();
    for user in [Some("jane"), Some("joe"), None] {
        let principal = keys.authenticate(None, user, NOON).unwrap();
        drop(reserve(&limiter, &principal, "m", draw(0, None), NOON).unwrap());
        let limited = limited(reserve(&limiter, &principal, "m", draw(0, None), NOON).unwrap_err());
        assert_eq!(limited.what, What::Requests);
    }
    assert_eq!(limiter.status().local_scopes, 3);
}

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    Ask { key: bool, tokens: u64, cost: u64 },
    Settle { which: usize, tokens: u64, cost: u64 },
    Drop { which: usize },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => (0u64..20_000).prop_map(Act::Wait),
        6 => (any::<bool>(), 0u64..600, 0u64..300)
            .prop_map(|(key, tokens, cost)| Act::Ask { key, tokens, cost }),
        4 => (any::<usize>(), 0u64..900, 0u64..400)
            .prop_map(|(which, tokens, cost)| Act::Settle { which, tokens, cost }),
        1 => any::<usize>().prop_map(|which| Act::Drop { which }),
    ];
    prop::collection::vec(act, 1..120)
}

struct Flight {
    held: Reservation,
    tokens: u64,
    cost: i128,
}

const MILLI: i128 = 1_000_000_000;

fn cost_of(cost: u64) -> Money {
    Money::new(i128::from(cost) * MILLI, Currency::USD)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Rates over every window, places at every moment, money at every moment, and that nothing
    /// gets lost: what a budget stands at is the sum of what was settled and what is in flight.
    #[test]
    fn the_guarantees_hold(acts in acts()) {
        const RPM: u64 = 30;
        const TPM: u64 = 1_000;
        let keys = keys(
            "KEY(k1)\nKEY(k2)\n[[tenant]]\nname = \"acme\"\n[tenant.limits]\nrequests-per-minute = 30\n\
             tokens-per-minute = 1000\nconcurrent = 5\n[[tenant.budget]]\namount = \"5\"\ncurrency = \"USD\"\nper = \"total\"",
        );
        let both = [principal(&keys, "k1"), principal(&keys, "k2")];
        let limiter = Limiter::local();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut time = 0u64;
        let mut flights: Vec<Flight> = Vec::new();
        // When, tokens as estimated, tokens given back later.
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        let mut given_back: Vec<(u64, u64)> = Vec::new();
        let mut settled = 0i128;
        let mut beyond = 0i128;
        for act in acts {
            match act {
                Act::Wait(milliseconds) => time += milliseconds,
                Act::Ask { key, tokens, cost } => {
                    let draw = Draw { tokens, cost: Some(cost_of(cost)) };
                    let asked = limiter.reserve(&both[usize::from(key)], "m", draw, at(time));
                    if let Ok(held) = runtime.block_on(asked) {
                        let cost = cost_of(cost).pico;
                        let stands = held.allowance().budgets[0].spent.pico;
                        flights.push(Flight { held, tokens, cost });
                        prop_assert!(flights.len() <= 5);
                        let in_flight: i128 = flights.iter().map(|f| f.cost).sum();
                        prop_assert_eq!(stands, settled + in_flight);
                        admitted.push((time, tokens));
                    }
                }
                Act::Settle { which, tokens, cost } if !flights.is_empty() => {
                    let flight = flights.swap_remove(which % flights.len());
                    let cost = cost_of(cost);
                    flight.held.settle(Draw { tokens, cost: Some(cost) }, at(time));
                    settled += cost.pico;
                    beyond += (cost.pico - flight.cost).max(0);
                    given_back.push((time, flight.tokens.saturating_sub(tokens)));
                }
                Act::Drop { which } if !flights.is_empty() => {
                    let flight = flights.swap_remove(which % flights.len());
                    settled += flight.cost;
                    drop(flight.held);
                }
                Act::Settle { .. } | Act::Drop { .. } => {}
            }
            prop_assert!(settled <= 5_000 * MILLI + beyond, "overshoot is what estimates missed");
        }
        for (place, (from, _)) in admitted.iter().enumerate() {
            let (mut requests, mut tokens) = (0, 0);
            for (until, estimated) in &admitted[place..] {
                requests += 1;
                tokens += estimated;
                let passed = until - from;
                let back = given_back.iter().filter(|(at, _)| at >= from && at <= until);
                let back: u64 = back.map(|(_, tokens)| tokens).sum();
                prop_assert!(requests * 60_000 <= RPM * (60_000 + passed));
                prop_assert!(tokens.saturating_sub(back) * 60_000 <= TPM * (60_000 + passed));
            }
        }
    }
}
