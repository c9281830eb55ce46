//! The table, and the same as JSON.

use crate::options::Options;
use crate::round::Figures;

/// Figure, heading and decimals.
type Column = (&'static str, &'static str, usize);

/// In groups.
const COLUMNS: &[(&str, &[Column])] = &[
    (
        "1 connection, us",
        &[
            ("one_p50", "p50", 0),
            ("one_p99", "p99", 0),
            ("one_added_p50", "+p50", 0),
            ("one_added_p99", "+p99", 0),
        ],
    ),
    (
        "closed loop",
        &[
            ("many_p50", "p50", 0),
            ("many_p99", "p99", 0),
            ("per_second", "req/s", 0),
            ("per_second_per_core", "per core", 0),
        ],
    ),
    ("open loop", &[("open_p50", "p50", 0), ("open_p99", "p99", 0)]),
    (
        "streamed, us",
        &[
            ("first_added_p50", "+first", 0),
            ("fast_event_us", "fast", 2),
            ("paced_event_us", "paced", 2),
        ],
    ),
    ("MiB", &[("idle_mib", "idle", 1), ("loaded_mib", "loaded", 1)]),
];
const NAME: usize = 30;
const WIDTH: usize = 9;

/// Prints the table of medians.
pub fn print(rows: &[(String, Figures)]) {
    let groups: String = COLUMNS
        .iter()
        .map(|(group, columns)| format!("  {group:>width$}", width = columns.len() * WIDTH - 2))
        .collect();
    println!("\n{:NAME$}{groups}", "");
    let columns = || COLUMNS.iter().flat_map(|(_, columns)| *columns);
    let headings: String = columns().map(|(_, heading, _)| format!("{heading:>WIDTH$}")).collect();
    println!("{:NAME$}{headings}", "what is on");
    for (name, figures) in rows {
        println!("{}", line(name, figures));
    }
}

/// A line of the table.
pub fn line(name: &str, figures: &Figures) -> String {
    let columns = COLUMNS.iter().flat_map(|(_, columns)| *columns);
    let cells: String = columns
        .map(|(figure, _, decimals)| match figures.get(figure) {
            Some(value) => format!("{value:>WIDTH$.decimals$}"),
            None => format!("{:>WIDTH$}", "-"),
        })
        .collect();
    format!("{name:NAME$}{cells}")
}

/// Prints what a gateway of ours is beside another.
pub fn compare(ours: &(String, Figures), other: &(String, Figures)) {
    let ratio = |name| Some(ours.1.get(name)? / other.1.get(name)?);
    let told: Vec<String> = [
        ("requests/s per core", "per_second_per_core"),
        ("added p50", "one_added_p50"),
        ("added p99", "one_added_p99"),
        ("added time to the first token", "first_added_p50"),
        ("time of a paced event", "paced_event_us"),
        ("memory under load", "loaded_mib"),
    ]
    .into_iter()
    .filter_map(|(words, name)| Some(format!("{words} {:.2}", ratio(name)?)))
    .collect();
    println!("\n\"{}\" as a multiple of \"{}\": {}", ours.0, other.0, told.join(", "));
}

/// Prints all figures on one line.
pub fn print_json(options: &Options, load: [f64; 2], rows: &[(String, Figures)]) {
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|(name, figures)| {
            let rounded = figures.iter().map(|(name, value)| {
                ((*name).to_owned(), serde_json::Value::from((value * 100.0).round() / 100.0))
            });
            let mut row = serde_json::Map::from_iter([("name".to_owned(), name.as_str().into())]);
            row.extend(rounded);
            row.into()
        })
        .collect();
    let all = serde_json::json!({
        "bench": "gateway",
        "seconds": options.seconds,
        "rounds": options.rounds,
        "connections": options.connections,
        "rate": options.rate,
        "pace_ms": options.pace,
        "load_average": load,
        "rows": rows,
    });
    println!("\n{all}");
}
