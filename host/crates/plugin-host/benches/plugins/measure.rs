//! Timing: percentiles of single calls, or of groups where one is shorter than the clock can tell.

use std::hint::black_box;
use std::time::{Duration, Instant};

const CALLS: usize = 200_000;
const WARM_UP: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(4);

/// Nanoseconds for one item.
pub struct Figures {
    pub p50: f64,
    pub p99: f64,
    pub p9995: f64,
    pub mean: f64,
    pub calls: usize,
}

impl Figures {
    pub const HEADER: &str =
        "                                p50 ns    p99 ns  p99.95 ns   mean ns     calls";

    pub fn row(&self, name: &str) -> String {
        let Self { p50, p99, p9995, mean, calls } = self;
        format!("{name:<28}{p50:>10.0}{p99:>10.0}{p9995:>11.0}{mean:>10.0}{calls:>10}")
    }

    pub fn json(&self) -> String {
        let Self { p50, p99, p9995, mean, .. } = self;
        format!(
            "{{\"p50_ns\":{p50:.1},\"p99_ns\":{p99:.1},\"p99_95_ns\":{p9995:.1},\"mean_ns\":{mean:.1}}}"
        )
    }
}

/// Times `call`, which is for so many items, in groups of so many calls.
pub fn measure<R>(group: usize, items: usize, mut call: impl FnMut() -> R) -> Figures {
    measure_of(group, items, || (), |()| drop(black_box(call())))
}

/// The same for a call that takes what it works on: neither making that nor dropping the answer is timed.
pub fn measure_of<T, R>(
    group: usize,
    items: usize,
    mut make: impl FnMut() -> T,
    mut call: impl FnMut(T) -> R,
) -> Figures {
    let count = u32::try_from(group * items).unwrap_or(u32::MAX);
    let mut answers = Vec::with_capacity(group);
    let mut once = || {
        let given: Vec<T> = (0..group).map(|_| make()).collect();
        let start = Instant::now();
        answers.extend(given.into_iter().map(|given| black_box(call(given))));
        let taken = start.elapsed().as_secs_f64() * 1e9 / f64::from(count);
        answers.clear();
        taken
    };
    let began = Instant::now();
    while began.elapsed() < WARM_UP {
        once();
    }
    let began = Instant::now();
    let mut samples = Vec::with_capacity(CALLS);
    while samples.len() < CALLS && began.elapsed() < LONGEST {
        samples.push(once());
    }
    samples.sort_by(f64::total_cmp);
    let at = |part: usize| samples.get(samples.len() * part / 10_000).copied().unwrap_or_default();
    let count = u32::try_from(samples.len()).unwrap_or(u32::MAX);
    Figures {
        p50: at(5_000),
        p99: at(9_900),
        p9995: at(9_995),
        mean: samples.iter().sum::<f64>() / f64::from(count.max(1)),
        calls: samples.len(),
    }
}

/// What the process holds in memory, where the system tells: counted page by page, since the quick figure lags behind.
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}
