//! Alone and through Redis the same requests meet the same answers, to the last number.

mod support;

use proptest::prelude::*;
use support::{Redis, at, keys, principal};
use tollgate_domain::{Currency, Money};
use tollgate_tenancy::{
    Allowance, Draw, Keys, Limiter, Principal, RedisPolicy, RedisSettings, Refusal, Reservation,
};

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    /// The clock is set back.
    Back(u64),
    Ask {
        who: usize,
        model: usize,
        tokens: u64,
        cost: Option<i64>,
    },
    Settle {
        which: usize,
        tokens: u64,
        cost: Option<i64>,
    },
    Drop {
        which: usize,
    },
}

fn cost() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![Just(None), (0i64..3_000_000_000_000).prop_map(Some), Just(Some(1)), Just(Some(-5))]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => prop_oneof![0u64..40_000, 0u64..20, Just(86_400_000)].prop_map(Act::Wait),
        1 => prop_oneof![0u64..100, 0u64..300_000].prop_map(Act::Back),
        6 => (0usize..3, 0usize..3, prop_oneof![0u64..700, Just(1_001), Just(u64::MAX)], cost())
            .prop_map(|(who, model, tokens, cost)| Act::Ask { who, model, tokens, cost }),
        4 => (any::<usize>(), prop_oneof![0u64..900, Just(u64::MAX)], cost())
            .prop_map(|(which, tokens, cost)| Act::Settle { which, tokens, cost }),
        1 => any::<usize>().prop_map(|which| Act::Drop { which }),
    ];
    prop::collection::vec(act, 1..60)
}

fn everything() -> (Keys, Vec<Principal>) {
    let keys = keys(
        "KEY(k1)
         [key.limits]
         requests-per-minute = 7
         tokens-per-minute = 1000
         concurrent = 2
         [[key.budget]]
         amount = \"9\"
         currency = \"USD\"
         per = \"day\"
         KEY(k2)
         [[key.budget]]
         amount = \"3\"
         currency = \"USD\"
         per = \"month\"
         hard = false
         KEY(k3)
         [key.limits]
         requests-per-minute = 0
         [[tenant]]
         name = \"acme\"
         [tenant.limits]
         requests-per-minute = 13
         [[tenant.budget]]
         amount = \"20.000000000001\"
         currency = \"USD\"
         per = \"total\"
         [[tenant.budget]]
         amount = \"20\"
         currency = \"EUR\"
         per = \"day\"
         [[model]]
         name = \"m1\"
         [model.limits]
         tokens-per-minute = 1300
         [[model]]
         name = \"m*\"
         [model.limits]
         concurrent = 3",
    );
    let all = ["k1", "k2", "k3"].map(|secret| principal(&keys, secret)).into();
    (keys, all)
}

fn money(pico: i64) -> Money {
    Money::new(i128::from(pico), Currency::USD)
}

fn told(
    answer: Result<Reservation, Refusal>,
    held: &mut Vec<Reservation>,
) -> Result<Allowance, Refusal> {
    answer.map(|reservation| {
        assert_eq!(reservation.degraded(), None);
        let allowance = reservation.allowance().clone();
        held.push(reservation);
        allowance
    })
}

#[test]
fn local_equals_redis() {
    let Some(redis) = Redis::start() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_keys, everybody) = everything();
    let number = std::sync::atomic::AtomicU64::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let run = |acts: Vec<Act>| {
        let case = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        runtime.block_on(async {
            let local = Limiter::local();
            let shared = Limiter::shared(&RedisSettings {
                prefix: format!("case{case}:"),
                given_clock: true,
                lease: std::time::Duration::from_secs(1_000_000_000),
                ..redis.settings(RedisPolicy::Closed)
            })
            .unwrap();
            let (mut here, mut there) = (Vec::new(), Vec::new());
            let mut time = 1_000_000u64;
            for act in acts {
                match act {
                    Act::Wait(milliseconds) => time += milliseconds,
                    Act::Back(milliseconds) => time = time.saturating_sub(milliseconds),
                    Act::Ask { who, model, tokens, cost } => {
                        let who = &everybody[who];
                        let model = ["m1", "m2", "other"][model];
                        let draw = Draw { tokens, cost: cost.map(money) };
                        let one = told(local.reserve(who, model, draw, at(time)).await, &mut here);
                        let two =
                            told(shared.reserve(who, model, draw, at(time)).await, &mut there);
                        prop_assert_eq!(one, two);
                    }
                    Act::Settle { which, tokens, cost } if !here.is_empty() => {
                        let which = which % here.len();
                        let draw = Draw { tokens, cost: cost.map(money) };
                        here.swap_remove(which).settle(draw, at(time));
                        there.swap_remove(which).settle(draw, at(time));
                        prop_assert!(shared.drain(std::time::Duration::from_secs(30)).await);
                    }
                    Act::Drop { which } if !here.is_empty() => {
                        let which = which % here.len();
                        drop((here.swap_remove(which), there.swap_remove(which)));
                        prop_assert!(shared.drain(std::time::Duration::from_secs(30)).await);
                    }
                    Act::Settle { .. } | Act::Drop { .. } => {}
                }
            }
            Ok(())
        })
    };
    if let Err(error) = runner.run(&acts(), run) {
        panic!("{error}");
    }
}
