//! Gateways that share one Redis: all at once, while it is killed, slow, emptied, a cluster.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{Redis, draw, keys, now, principal, until, usd};
use tollgate_domain::Money;
use tollgate_tenancy::{
    Degraded, Limiter, RedisPolicy, RedisSettings, RedisTrouble, Refusal, Reservation,
    TenancyError, What,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

fn what(answer: &Result<Reservation, Refusal>) -> Option<What> {
    match answer {
        Err(Refusal::Limited(limited)) => Some(limited.what),
        Err(Refusal::Unavailable(trouble)) => panic!("{trouble:?}"),
        Ok(_) => None,
    }
}

fn stands(held: &Reservation) -> Money {
    held.allowance().budgets[0].spent
}

/// Whether Redis is asked again.
async fn back(limiter: &Limiter) {
    until("Redis is asked again", || !limiter.status().redis_away).await;
}

#[test]
fn sixty_four_clients_of_two_gateways_stay_within_all_limits() {
    let Some(redis) = Redis::start() else { return };
    let keys = keys(
        "KEY(k1)\n[key.limits]\nrequests-per-minute = 300\nconcurrent = 8\n[[tenant]]\nname = \"acme\"\n\
         [tenant.limits]\ntokens-per-minute = 3000\n[[tenant.budget]]\namount = \"2\"\ncurrency = \"USD\"\nper = \"total\"",
    );
    let principal = principal(&keys, "k1");
    let in_flight = Arc::new(AtomicI64::new(0));
    let most = Arc::new(AtomicI64::new(0));
    let admitted = Arc::new(AtomicU64::new(0));
    runtime().block_on(async {
        let settings = redis.settings(RedisPolicy::Closed);
        let both = [Limiter::shared(&settings).unwrap(), Limiter::shared(&settings).unwrap()];
        let begun = Instant::now();
        let clients: Vec<_> = (0..64)
            .map(|n: usize| {
                let (limiter, principal) = (both[n % 2].clone(), principal.clone());
                let counts = (Arc::clone(&in_flight), Arc::clone(&most), Arc::clone(&admitted));
                tokio::spawn(async move {
                    for _ in 0..40 {
                        let asked = limiter.reserve(&principal, "m", draw(10, Some("0.01")), now());
                        let Ok(held) = asked.await else { continue };
                        let (in_flight, most, admitted) = &counts;
                        most.fetch_max(
                            in_flight.fetch_add(1, Ordering::SeqCst) + 1,
                            Ordering::SeqCst,
                        );
                        admitted.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        in_flight.fetch_sub(1, Ordering::SeqCst);
                        held.settle(draw(10, Some("0.01")), now());
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        for limiter in &both {
            assert!(limiter.drain(PATIENCE).await);
        }
        let minutes = begun.elapsed().as_secs_f64() / 60.0 + 1.0;
        let admitted = admitted.load(Ordering::SeqCst);
        assert!(admitted > 8, "{admitted}");
        assert!(admitted <= 200, "{admitted} times 0.01 of 2 USD");
        assert!((admitted as f64) <= 300.0 * minutes, "{admitted} in {minutes} minutes");
        assert!(most.load(Ordering::SeqCst) <= 8, "{most:?} at the same time");
        // Both see the same sum, and no place is left behind.
        for limiter in &both {
            let Ok(held) = limiter.reserve(&principal, "m", draw(0, None), now()).await else {
                continue;
            };
            assert_eq!(stands(&held).pico, usd("0.01").pico * i128::from(admitted));
        }
        let mut connection = redis.connect();
        until("all places are free", || {
            let places: u64 = redis::cmd("ZCARD")
                .arg("tollgate:{acme}:k:k1:places")
                .query(&mut connection)
                .unwrap();
            places == 0
        })
        .await;
    });
}

#[test]
fn a_cluster_takes_the_scripts() {
    let Some(redis) = Redis::start() else { return };
    // A cluster of one: it refuses keys of different slots in one script like any other.
    let folder = tempfile::tempdir().unwrap();
    let port = (0..50)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
        .find(|port| *port < 55_000)
        .unwrap();
    let mut child = std::process::Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--cluster-enabled",
            "yes",
            "--save",
            "",
        ])
        .current_dir(folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(redis);
    let url = format!("redis://127.0.0.1:{port}");
    let client = redis::Client::open(url.clone()).unwrap();
    let outcome = std::panic::catch_unwind(|| {
        runtime().block_on(async {
            until("the cluster listens", || client.get_connection().is_ok()).await;
            let mut connection = client.get_connection().unwrap();
            let slots: redis::RedisResult<()> =
                redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383).query(&mut connection);
            slots.unwrap();
            until("the cluster is up", || {
                let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut connection).unwrap();
                info.contains("cluster_state:ok")
            })
            .await;
            let keys = keys(
                "KEY(k1)\n[key.limits]\nconcurrent = 1\n[[key.budget]]\namount = \"1\"\ncurrency = \"USD\"\nper = \"day\"\n\
                 [defaults.limits]\nrequests-per-minute = 10\n[[model]]\nname = \"*\"\n[model.limits]\ntokens-per-minute = 50",
            );
            let principal = principal(&keys, "k1");
            let limiter = Limiter::shared(&RedisSettings {
                timeout: Duration::from_secs(5),
                policy: RedisPolicy::Closed,
                ..RedisSettings::new(url)
            })
            .unwrap();
            for _ in 0..3 {
                let held = limiter.reserve(&principal, "m {x}", draw(10, Some("0.1")), now()).await;
                held.unwrap().settle(draw(1, Some("0.2")), now());
                assert!(limiter.drain(PATIENCE).await);
            }
            let held = limiter.reserve(&principal, "m {x}", draw(0, None), now()).await.unwrap();
            assert_eq!(stands(&held), usd("0.6"));
        });
    });
    child.kill().unwrap();
    child.wait().unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn redis_is_killed_and_started_again_in_the_middle() {
    let Some(mut redis) = Redis::start() else { return };
    let keys = keys(
        "KEY(k1)\n[key.limits]\nconcurrent = 3\n[[key.budget]]\namount = \"1\"\ncurrency = \"USD\"\nper = \"total\"",
    );
    let principal = principal(&keys, "k1");
    runtime().block_on(async {
        let make = |policy| Limiter::shared(&redis.settings(policy)).unwrap();
        let policies = [RedisPolicy::Local, RedisPolicy::Open, RedisPolicy::Closed];
        let [local, open, closed] = policies.map(make);
        let ask = |limiter: &Limiter, cost| {
            let (limiter, principal) = (limiter.clone(), principal.clone());
            async move { limiter.reserve(&principal, "m", draw(1, Some(cost)), now()).await }
        };
        // One ends before, one while it is away.
        ask(&local, "0.1").await.unwrap().settle(draw(1, Some("0.2")), now());
        let flight = ask(&local, "0.1").await.unwrap();
        assert_eq!(flight.degraded(), None);
        assert!(local.drain(PATIENCE).await);
        redis.kill();

        let trouble = ask(&closed, "0.1").await.unwrap_err();
        assert!(matches!(trouble, Refusal::Unavailable(_)), "{trouble:?}");
        // Nobody waits for a server that is gone.
        until("it counts as away", || closed.status().redis_away).await;
        let free = ask(&open, "9").await.unwrap();
        assert_eq!(free.degraded().map(|d| d.policy), Some(RedisPolicy::Open));
        free.settle(draw(1, Some("0.05")), now());
        let held = ask(&local, "0.3").await.unwrap();
        assert_eq!(held.degraded().map(|d| d.policy), Some(RedisPolicy::Local));
        assert_eq!(stands(&held), usd("0.6"), "budgets go on from what they stood at");
        assert_eq!(what(&ask(&local, "0.5").await), Some(What::Budget));
        flight.settle(draw(1, Some("0.15")), now());
        held.settle(draw(1, Some("0.25")), now());
        assert!(!local.drain(Duration::from_millis(50)).await, "it is owed");

        // It comes back and has forgotten everything.
        redis.restart();
        for limiter in [&local, &open, &closed] {
            back(limiter).await;
            assert!(limiter.drain(PATIENCE).await);
        }
        let held = ask(&closed, "0").await.unwrap();
        assert_eq!(held.degraded(), None);
        // 0.2 and 0.15 and 0.25 of one gateway, 0.05 of the other, each once.
        assert_eq!(stands(&held), usd("0.65"));
        drop(held);
        assert!(closed.drain(PATIENCE).await);
        let three = [ask(&local, "0").await, ask(&open, "0").await, ask(&closed, "0").await];
        assert!(three.iter().all(Result::is_ok));
        assert_eq!(what(&ask(&local, "0").await), Some(What::Concurrent));
    });
}

#[test]
fn a_slow_redis_costs_no_more_than_the_timeout_and_nothing_is_counted_twice() {
    let Some(redis) = Redis::start() else { return };
    let keys = keys(
        "KEY(k1)\n[key.limits]\nconcurrent = 50\n[[key.budget]]\namount = \"100\"\ncurrency = \"USD\"\nper = \"total\"",
    );
    let principal = principal(&keys, "k1");
    runtime().block_on(async {
        let settings = RedisSettings {
            timeout: Duration::from_millis(50),
            ..redis.settings(RedisPolicy::Open)
        };
        let limiter = Limiter::shared(&settings).unwrap();
        let ask = || limiter.reserve(&principal, "m", draw(1, Some("1")), now());
        // A busy machine may be slow by itself at first.
        let mut spent = 0;
        for _ in 0..100 {
            let held = ask().await.unwrap();
            let degraded = held.degraded().is_some();
            held.settle(draw(1, Some("1")), now());
            spent += 1;
            if !degraded {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut connection = redis.connect();
        let sleeping = std::thread::spawn(move || {
            let slept: redis::RedisResult<()> =
                redis::cmd("DEBUG").arg("SLEEP").arg("3").query(&mut connection);
            slept.unwrap();
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        let mut troubles = Vec::new();
        for _ in 0..10 {
            let held = ask().await.unwrap();
            troubles.push(held.degraded());
            held.settle(draw(1, Some("1")), now());
            spent += 1;
        }
        let slow = Degraded { trouble: RedisTrouble::Slow, policy: RedisPolicy::Open };
        assert_eq!(troubles[0], Some(slow));
        assert!(troubles.iter().all(Option::is_some), "{troubles:?}");
        assert!(troubles.contains(&Some(Degraded { trouble: RedisTrouble::Away, ..slow })));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        sleeping.join().unwrap();
        back(&limiter).await;
        assert!(limiter.drain(PATIENCE).await);
        // Also those whose reservation Redis worked through after nobody waited for it any more.
        let mut connection = redis.connect();
        let total: (i64, i64) = redis::cmd("HMGET")
            .arg("tollgate:{acme}:b:k:k1:USD:total:total")
            .arg("u")
            .arg("p")
            .query(&mut connection)
            .unwrap();
        assert_eq!(total, (spent, 0));
        let places: u64 =
            redis::cmd("ZCARD").arg("tollgate:{acme}:k:k1:places").query(&mut connection).unwrap();
        assert_eq!(places, 0);
    });
}

#[test]
fn places_of_a_gateway_that_was_killed_are_free_after_a_lease() {
    let Some(redis) = Redis::start() else { return };
    let keys = keys("KEY(k1)\n[key.limits]\nconcurrent = 1");
    let principal = principal(&keys, "k1");
    let settings =
        RedisSettings { lease: Duration::from_secs(2), ..redis.settings(RedisPolicy::Closed) };
    // Its runtime ends as if it were killed: nobody renews and nobody gives back.
    let killed = runtime();
    let held = killed.block_on(async {
        let limiter = Limiter::shared(&settings).unwrap();
        let held = limiter.reserve(&principal, "m", draw(0, None), now()).await.unwrap();
        // Renewed for longer than a lease.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let other = limiter.reserve(&principal, "m", draw(0, None), now()).await;
        assert_eq!(what(&other), Some(What::Concurrent));
        held
    });
    killed.shutdown_background();
    runtime().block_on(async {
        let limiter = Limiter::shared(&settings).unwrap();
        let begun = Instant::now();
        loop {
            let asked = limiter.reserve(&principal, "m", draw(0, None), now()).await;
            if asked.is_ok() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    drop(held);
}

#[test]
fn scripts_and_counts_that_redis_forgot_are_told_again() {
    let Some(redis) = Redis::start() else { return };
    let keys = keys("KEY(k1)\n[[key.budget]]\namount = \"1\"\ncurrency = \"USD\"\nper = \"month\"");
    let principal = principal(&keys, "k1");
    runtime().block_on(async {
        let limiter = Limiter::shared(&redis.settings(RedisPolicy::Closed)).unwrap();
        let ask = |cost| limiter.reserve(&principal, "m", draw(1, Some(cost)), now());
        ask("0.1").await.unwrap().settle(draw(1, Some("0.3")), now());
        let flight = ask("0.1").await.unwrap();
        assert!(limiter.drain(PATIENCE).await);
        let mut connection = redis.connect();
        let forget = [("SCRIPT", "FLUSH"), ("FLUSHALL", "SYNC")];
        for (command, argument) in forget {
            let done: redis::RedisResult<()> =
                redis::cmd(command).arg(argument).query(&mut connection);
            done.unwrap();
        }
        // What was in flight is not counted until it is settled.
        let held = ask("0").await.unwrap();
        assert_eq!(stands(&held), usd("0.3"));
        flight.settle(draw(1, Some("0.15")), now());
        drop(held);
        assert!(limiter.drain(PATIENCE).await);
        assert_eq!(stands(&ask("0").await.unwrap()), usd("0.45"));
        assert!(limiter.drain(PATIENCE).await);

        // A replica that was behind takes over.
        let names: Vec<String> =
            redis::cmd("KEYS").arg("tollgate:{acme}:b:*").query(&mut connection).unwrap();
        let [name] = &names[..] else { panic!("{names:?}") };
        let copy: Vec<String> = redis::cmd("HGETALL").arg(name).query(&mut connection).unwrap();
        ask("0").await.unwrap().settle(draw(1, Some("0.25")), now());
        assert!(limiter.drain(PATIENCE).await);
        let put: redis::RedisResult<()> =
            redis::cmd("HSET").arg(name).arg(copy).query(&mut connection);
        put.unwrap();
        assert_eq!(stands(&ask("0").await.unwrap()), usd("0.7"));
    });
}

#[test]
fn a_client_that_goes_away_while_redis_is_asked_takes_nothing() {
    let Some(redis) = Redis::start() else { return };
    let keys = keys(
        "KEY(k1)\n[key.limits]\nconcurrent = 1\n[[key.budget]]\namount = \"1\"\ncurrency = \"USD\"\nper = \"total\"",
    );
    let principal = principal(&keys, "k1");
    runtime().block_on(async {
        let limiter = Limiter::shared(&redis.settings(RedisPolicy::Closed)).unwrap();
        for n in 0..200u64 {
            let asked = limiter.reserve(&principal, "m", draw(1, Some("0.5")), now());
            let _ = tokio::time::timeout(Duration::from_micros(n * 5), async {
                if let Ok(held) = asked.await {
                    held.settle(draw(0, Some("0")), now());
                }
            })
            .await;
        }
        assert!(limiter.drain(PATIENCE).await);
        let held = limiter.reserve(&principal, "m", draw(1, Some("0")), now()).await.unwrap();
        assert_eq!(stands(&held), usd("0"));
    });
}

#[test]
fn what_ends_while_redis_is_away_is_owed_to_the_last_digit_however_much_it_is() {
    let Some(mut redis) = Redis::start() else { return };
    let keys =
        keys("KEY(k1)\n[[key.budget]]\namount = \"1000\"\ncurrency = \"USD\"\nper = \"total\"");
    let principal = principal(&keys, "k1");
    runtime().block_on(async {
        let limiter = Limiter::shared(&redis.settings(RedisPolicy::Open)).unwrap();
        let ask = |cost| limiter.reserve(&principal, "m", draw(1, Some(cost)), now());
        ask("0").await.unwrap().settle(draw(1, Some("1")), now());
        assert!(limiter.drain(PATIENCE).await);
        redis.kill();
        while !limiter.status().redis_away {
            drop(ask("0").await.unwrap());
        }
        // More than the queue holds.
        for _ in 0..20_000 {
            ask("0").await.unwrap().settle(draw(1, Some("0.000000000003")), now());
        }
        assert!(limiter.status().waiting < 20_000, "{:?}", limiter.status());
        redis.restart();
        back(&limiter).await;
        assert!(limiter.drain(PATIENCE).await);
        assert_eq!(stands(&ask("0").await.unwrap()), usd("1.00000006"));
    });
}

#[test]
fn an_address_that_is_none_is_an_error_and_is_not_shown() {
    let nowhere = Limiter::shared(&RedisSettings::new("redis://host".to_owned()));
    assert!(matches!(nowhere, Err(TenancyError::NoRuntime(_))));
    let runtime = runtime();
    let _within = runtime.enter();
    let error = Limiter::shared(&RedisSettings::new("http://user:hunter2@host".to_owned()));
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    let settings = RedisSettings::new("redis://:hunter2@host".to_owned());
    assert!(!format!("{settings:?}").contains("hunter2"));
}
