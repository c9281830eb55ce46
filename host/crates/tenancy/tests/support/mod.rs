//! Keys for tests, and a real Redis that can be killed, started again and made slow.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "each test file uses a part of it, fails by panicking, and says what it skips"
)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate_domain::{Currency, Money, UnixNanos};
use tollgate_tenancy::{Digest, Draw, Keys, Principal, RedisPolicy, RedisSettings};

pub const SECOND: u64 = 1_000_000_000;
/// Noon of the first day of 2100: Redis deletes at once what ended before its own time.
pub const NOON: UnixNanos = UnixNanos(4_102_488_000 * SECOND);

pub fn at(milliseconds: u64) -> UnixNanos {
    UnixNanos(NOON.0 + milliseconds * 1_000_000)
}

pub fn now() -> UnixNanos {
    std::time::SystemTime::now().into()
}

pub fn usd(decimal: &str) -> Money {
    Money::parse_decimal(decimal, Currency::USD).unwrap()
}

pub fn draw(tokens: u64, cost: Option<&str>) -> Draw {
    Draw { tokens, cost: cost.map(usd) }
}

/// Keys from `text`, in which `KEY(id)` stands for the beginning of a key of that id, whose secret
/// is its id and whose tenant is `acme`.
pub fn keys(text: &str) -> Keys {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let mut written = String::new();
    for line in text.lines() {
        match line.trim().strip_prefix("KEY(").and_then(|rest| rest.strip_suffix(')')) {
            Some(id) => written.push_str(&format!(
                "[[key]]\nid = \"{id}\"\nsha256 = \"{}\"\ntenant = \"acme\"\n",
                Digest::of(id)
            )),
            None => written.push_str(&format!("{line}\n")),
        }
    }
    std::fs::write(&path, written).unwrap();
    Keys::open(Some(path), None).unwrap()
}

pub fn principal(keys: &Keys, secret: &str) -> Principal {
    keys.authenticate(Some(secret), Some(secret), NOON).unwrap()
}

/// A Redis of a test's own, on a socket of its own.
pub struct Redis {
    folder: TempDir,
    child: Option<Child>,
}

impl Redis {
    /// None, and a line that says so, where there is no `redis-server`.
    pub fn start() -> Option<Self> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&paths).any(|path| path.join("redis-server").is_file()) {
            eprintln!("skipped: there is no redis-server on PATH");
            return None;
        }
        let mut redis = Self { folder: tempfile::tempdir().unwrap(), child: None };
        redis.restart();
        Some(redis)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    pub fn settings(&self, policy: RedisPolicy) -> RedisSettings {
        RedisSettings {
            policy,
            // A busy machine is no slow Redis.
            timeout: Duration::from_secs(2),
            ..RedisSettings::new(format!("redis+unix://{}", self.socket().display()))
        }
    }

    /// A connection of the test's own.
    pub fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(self.settings(RedisPolicy::Open).url).unwrap();
        client.get_connection().unwrap()
    }

    /// What the server knows is lost.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    pub fn restart(&mut self) {
        self.kill();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "yes", "--unixsocket"])
            .arg(self.socket())
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        let client = redis::Client::open(self.settings(RedisPolicy::Open).url).unwrap();
        while client.get_connection().is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "redis-server does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
