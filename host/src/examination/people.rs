//! Who comes in and where requests go: keys, backends, Redis. What they tell of the time is kept for the clock.

use std::time::SystemTime;

use tollgate_settings::Settings;
use tollgate_tenancy::{Keys, ping};
use tollgate_upstream::{Heard, Probe, Upstreams};

use super::clock::Clock;
use super::{Finding, PATIENCE};
use crate::tenancy;

/// What was found, and which clocks were seen on the way.
#[derive(Default)]
pub(super) struct People {
    pub(super) findings: Vec<Finding>,
    pub(super) clocks: Vec<Clock>,
}

/// Keys, then backends, then Redis.
pub(super) async fn look(settings: &Settings) -> People {
    let mut people = People::default();
    people.findings.push(keys(settings));
    people.backends(settings).await;
    people.redis(settings).await;
    people
}

fn keys(settings: &Settings) -> Finding {
    const CHECK: &str = "keys";
    let tenancy = &settings.tenancy;
    let variable = tenancy.keys.as_ref().map(|keys| keys.reveal());
    let keys = match Keys::open(tenancy.keys_file.clone(), variable) {
        Ok(keys) => keys,
        Err(error) => {
            let mend = "correct it; `tollgate key create --keys-file FILE --tenant NAME` makes a file and a key";
            return Finding::failed(CHECK, error.to_string(), mend);
        }
    };
    let open = |(setting, listen)| tenancy.unguarded(setting, listen, keys.is_open());
    if let Some(fault) = settings.listens().find_map(open) {
        let (seen, mend) = fault.split_once("; ").unwrap_or((&fault, "make a key"));
        return Finding::failed(CHECK, seen, mend);
    }
    match (keys.count(), keys.is_open()) {
        (0, false) => Finding::warning(
            CHECK,
            "there are none: nobody is let in",
            "make one with `tollgate key create --keys-file FILE --tenant NAME`",
        ),
        (0, true) => Finding::ok(CHECK, "none: everybody is let in, and `user` names the tenant"),
        (count, _) => Finding::ok(CHECK, format!("{count} are asked for")),
    }
}

impl People {
    async fn backends(&mut self, settings: &Settings) {
        const CHECK: &str = "backends";
        let Some(file) = &settings.backends else { return };
        let upstreams = match Upstreams::load(file) {
            Ok(upstreams) => upstreams,
            Err(error) => {
                let mend = "correct the file; README.md shows one";
                self.findings.push(Finding::failed(CHECK, error.to_string(), mend));
                return;
            }
        };
        let probes = upstreams.probe(PATIENCE).await;
        if probes.is_empty() {
            let seen = format!("{} names none", file.display());
            self.findings.push(Finding::warning(CHECK, seen, "add a [[backend]]"));
        }
        for probe in probes {
            if let Ok(Heard { date: Some(date), .. }) = &probe.result {
                self.clocks.extend(Clock::of_http(&probe.backend, date));
            }
            self.findings.push(backend(CHECK, &probe));
        }
    }

    async fn redis(&mut self, settings: &Settings) {
        const CHECK: &str = "redis";
        let Some(redis) = tenancy::redis(settings) else { return };
        let finding = match ping(&redis, PATIENCE).await {
            Err(error) => Finding::failed(
                CHECK,
                error.to_string(),
                "start it, or correct TOLLGATE_REDIS_URL or the file of redis-url-file, or of redis-ca-file \
                 where its certificate is refused; until then redis-away says what happens",
            ),
            Ok(pong) => {
                let now = SystemTime::now();
                self.clocks.push(Clock {
                    of: "redis".to_owned(),
                    theirs: pong.clock.into(),
                    ours: now,
                });
                match pong.maxmemory_policy.as_deref() {
                    Some("noeviction") => Finding::ok(CHECK, "answers, and evicts nothing"),
                    None => Finding::ok(CHECK, "answers; it does not tell whether it evicts"),
                    Some(policy) => Finding::warning(
                        CHECK,
                        format!(
                            "answers, and may evict what was spent: maxmemory-policy is {policy}"
                        ),
                        "set `maxmemory-policy noeviction`",
                    ),
                }
            }
        };
        self.findings.push(finding);
    }
}

fn backend(check: &'static str, probe: &Probe) -> Finding {
    let Probe { backend, url, proxy, result } = probe;
    let url = match proxy {
        Some(proxy) => format!("{url} by the proxy {proxy}"),
        None => url.clone(),
    };
    match result {
        Err(problem) => Finding::failed(
            check,
            format!("{backend}: {url}: {problem}"),
            match proxy {
                None => "start that server, or correct url, ca-file or the network between",
                Some(_) => {
                    "start that server or its proxy, or correct url, ca-file, proxy or the network between; \
                     proxy = \"none\" goes straight, whatever HTTPS_PROXY and HTTP_PROXY say"
                }
            },
        ),
        Ok(Heard { status: 401 | 403, .. }) => Finding::failed(
            check,
            format!("{backend}: {url} does not take our key"),
            "correct key-env or key-file of this backend",
        ),
        Ok(Heard { status: 407, .. }) => Finding::failed(
            check,
            format!("{backend}: {url} answered 407: the proxy wants other credentials"),
            "correct USER:PASSWORD of the proxy's URL, in proxy or in the environment",
        ),
        Ok(Heard { status: status @ 500.., .. }) => Finding::warning(
            check,
            format!("{backend}: {url} answered {status}"),
            "look at that server's log; it is left alone while it answers so",
        ),
        Ok(Heard { status: status @ (200..=299 | 404 | 405), .. }) => {
            Finding::ok(check, format!("{backend}: {url} answered {status}"))
        }
        Ok(Heard { status, .. }) => Finding::warning(
            check,
            format!("{backend}: {url} answered {status}"),
            "check that url is the base of an OpenAI-compatible API, mostly ending in /v1",
        ),
    }
}
