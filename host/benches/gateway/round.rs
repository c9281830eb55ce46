//! One round of one subject: every kind of load once, and what it took.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load::{Came, closed, open};
use crate::options::Options;
use crate::servers::{Stream, Upstream};
use crate::subject::Subject;

/// Figures by name; times in microseconds. What a subject has not, such as processor time of none, is absent.
pub type Figures = BTreeMap<&'static str, f64>;

/// Tokens of a long streamed answer.
const TOKENS: usize = 200;

/// Figures of which those of the upstream itself are taken off, and what is left.
const ADDED: &[(&str, &str)] = &[
    ("one_p50", "one_added_p50"),
    ("one_p99", "one_added_p99"),
    ("many_p50", "many_added_p50"),
    ("many_p99", "many_added_p99"),
    ("open_p50", "open_added_p50"),
    ("open_p99", "open_added_p99"),
    ("first_p50", "first_added_p50"),
    ("first_p99", "first_added_p99"),
];

/// Puts the subject under every load.
pub fn measure(subject: &Subject, upstream: &Upstream, options: &Options) -> Figures {
    let lasts = Duration::from_secs_f64(options.seconds);
    let (plain, streamed, many) = (&subject.plain, &subject.streamed, options.connections);
    let mut figures = Figures::new();
    put(&mut figures, "idle_mib", subject.resident_mib());
    closed(plain, many, lasts / 4);
    closed(streamed, many, lasts / 4);
    subject.settle();

    let (one, each) = loaded(subject, &mut figures, || closed(plain, 1, lasts));
    quantiles(&mut figures, ["one_p50", "one_p99"], &one.whole);
    put(&mut figures, "one_processor_us", each);

    let (came, each_of_many) = loaded(subject, &mut figures, || closed(plain, many, lasts));
    quantiles(&mut figures, ["many_p50", "many_p99"], &came.whole);
    figures.insert("per_second", came.per_second());
    put(&mut figures, "many_processor_us", each_of_many);
    put(&mut figures, "per_second_per_core", each_of_many.map(|micros| 1e6 / micros));

    let (came, _) = loaded(subject, &mut figures, || open(plain, many, options.rate, lasts));
    quantiles(&mut figures, ["open_p50", "open_p99"], &came.whole);

    // The first token is on its way before the upstream, which shares a core with the client, is busy with the next.
    upstream.stream(Stream { tokens: 2, pace: Duration::from_millis(1) });
    let (came, _) = loaded(subject, &mut figures, || closed(streamed, 1, lasts));
    quantiles(&mut figures, ["first_p50", "first_p99"], &came.first);

    // Of a stream what a plain request takes is taken off: it is not the events'.
    upstream.stream(Stream { tokens: TOKENS, pace: Duration::ZERO });
    let (came, stream) = loaded(subject, &mut figures, || closed(streamed, 1, lasts));
    put(&mut figures, "fast_event_us", event(&came, stream, each));

    upstream.stream(Stream { tokens: TOKENS, pace: Duration::from_millis(options.pace) });
    let (came, stream) = loaded(subject, &mut figures, || closed(streamed, many, lasts));
    put(&mut figures, "paced_event_us", event(&came, stream, each_of_many));
    figures
}

/// Takes off what the same took without a gateway.
pub fn add_differences(figures: &mut Figures, direct: &Figures) {
    for (name, added) in ADDED {
        if let (Some(with), Some(without)) = (figures.get(name), direct.get(name)) {
            let difference = with - without;
            figures.insert(added, difference);
        }
    }
}

/// The middle one of each figure.
pub fn medians(rounds: &[Figures]) -> Figures {
    let names = rounds.iter().flat_map(|figures| figures.keys().copied());
    names
        .map(|name| {
            let mut all: Vec<f64> =
                rounds.iter().filter_map(|figures| figures.get(name).copied()).collect();
            all.sort_by(f64::total_cmp);
            let (half, odd) = (all.len() / 2, all.len() % 2 == 1);
            (name, if odd { all[half] } else { f64::midpoint(all[half - 1], all[half]) })
        })
        .collect()
}

/// A load, and the microseconds of processor time that each answer took, its later delivery included. The most memory that
/// was seen is noted.
fn loaded(
    subject: &Subject,
    figures: &mut Figures,
    load: impl FnOnce() -> Came,
) -> (Came, Option<f64>) {
    let before = subject.processor_seconds();
    let came = load();
    let resident = subject.resident_mib();
    subject.settle();
    let used = subject.processor_seconds().zip(before).map(|(after, before)| after - before);
    let most = figures.get("loaded_mib").copied().into_iter().chain(resident).reduce(f64::max);
    put(figures, "loaded_mib", most);
    let each = used.map(|seconds| seconds * 1e6 / came.answers as f64);
    (came, each)
}

/// What each event of a stream takes.
fn event(came: &Came, stream: Option<f64>, plain: Option<f64>) -> Option<f64> {
    let events = came.events as f64 / came.answers as f64;
    stream.zip(plain).map(|(stream, plain)| (stream - plain) / events)
}

fn quantiles(figures: &mut Figures, names: [&'static str; 2], nanos: &Histogram<u64>) {
    for (name, quantile) in names.into_iter().zip([0.5, 0.99]) {
        figures.insert(name, nanos.value_at_quantile(quantile) as f64 / 1e3);
    }
}

fn put(figures: &mut Figures, name: &'static str, value: Option<f64>) {
    figures.extend(value.map(|value| (name, value)));
}
