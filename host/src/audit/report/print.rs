//! A summary as a table, as comma-separated lines, as JSON.

use tollgate_summary::{
    Counts, Dimension, Group, Latencies, Part, Percentiles, Period, Summary, Tokens, shown,
};

use super::super::error::AuditError;
use super::super::output::{Csv, Format, counts, json as pretty};
use crate::table::{Table, short};

/// The summary as it is wanted.
pub(super) fn written(
    summary: &Summary,
    period: Period,
    format: Format,
) -> Result<String, AuditError> {
    match format {
        Format::Table => Ok(table(summary)),
        Format::Csv => csv(summary),
        Format::Json => pretty(&summary.json(period)),
    }
}

fn table(summary: &Summary) -> String {
    if summary.total.requests == 0 {
        return "no requests".to_owned();
    }
    let mut headings: Vec<String> = summary.by.iter().map(|by| by.name().to_uppercase()).collect();
    let labels = headings.len();
    let figures = [
        "REQUESTS",
        "ERRORS",
        "COST",
        "INPUT",
        "OUTPUT",
        "P50 MS",
        "P90",
        "P99",
        "TTFT P50 MS",
        "P90",
        "P99",
    ];
    headings.extend(figures.map(str::to_owned));
    let mut table = Table::with(headings).right(labels..labels + figures.len());
    for (key, group) in &summary.groups {
        line(&mut table, key.iter().map(label).collect(), group);
    }
    if labels > 0 {
        let label = |place| if place == 0 { "total".to_owned() } else { String::new() };
        line(&mut table, (0..labels).map(label).collect(), &summary.total);
    }
    table.text()
}

fn line(table: &mut Table, mut cells: Vec<String>, group: &Group) {
    let [p50, p90, p99] = milliseconds(&group.duration);
    let [first_50, first_90, first_99] = milliseconds(&group.first_token);
    cells.extend([
        group.requests.to_string(),
        failures(group).to_string(),
        group.amounts.text(),
        group.tokens.input.to_string(),
        group.tokens.output.to_string(),
        p50,
        p90,
        p99,
        first_50,
        first_90,
        first_99,
    ]);
    table.row(&cells);
    for note in notes(group) {
        table.note(&note);
    }
}

/// What stands between a sum and the truth.
fn notes(group: &Group) -> Vec<String> {
    let mut notes = Vec::new();
    if group.estimated > 0 {
        notes.push(format!(
            "estimated: {}, {} of the cost",
            group.estimated,
            group.estimates.text()
        ));
    }
    for (name, those) in [("unpriced", &group.unpriced), ("plugin_failed", &group.plugin_failed)] {
        if those.total() > 0 {
            notes.push(format!("{name}: {}", counts(&those.0)));
        }
    }
    if group.cost_unknown > 0 {
        notes.push(format!("cost unknown: {}, which no span tells", group.cost_unknown));
    }
    if !group.errors.0.is_empty() {
        notes.push(format!("not completed: {}", counts(&group.errors.0)));
    }
    notes
}

fn milliseconds(latencies: &Latencies) -> [String; 3] {
    match latencies.percentiles() {
        Some(Percentiles { p50, p90, p99 }) => [p50, p90, p99].map(|ms| format!("{ms:.1}")),
        None => ["-", "-", "-"].map(str::to_owned),
    }
}

/// Outcomes, in the order in which they are told.
const OUTCOMES: [&str; 5] = ["completed", "client_gone", "refused", "failed", "aborted"];

/// One line for each group; a group with amounts in several currencies has a further line for each, with nothing but the
/// amount, so that columns can be summed.
fn csv(summary: &Summary) -> Result<String, AuditError> {
    let mut headings: Vec<&str> = Vec::new();
    for by in &summary.by {
        headings.extend(columns(*by));
    }
    headings.extend(["currency", "amount", "amount_estimated", "requests"]);
    headings.extend(OUTCOMES);
    headings.extend([
        "errors",
        "priced",
        "estimated",
        "unpriced",
        "unpriced_reasons",
        "plugin_failed",
        "plugin_failed_kinds",
        "cost_unknown",
        "input_tokens",
        "input_cache_read_tokens",
        "input_cache_write_tokens",
        "output_tokens",
        "output_reasoning_tokens",
        "without_usage",
        "duration_p50_ms",
        "duration_p90_ms",
        "duration_p99_ms",
        "first_token_p50_ms",
        "first_token_p90_ms",
        "first_token_p99_ms",
    ]);
    let mut csv = Csv::new(&headings)?;
    for (key, group) in &summary.groups {
        let mut amounts = group.amounts.iter().map(|money| {
            let estimated = group.estimates.get(money.currency);
            let estimated = estimated.map(|money| money.decimal()).unwrap_or_default();
            [money.currency.code().to_owned(), money.decimal(), estimated]
        });
        let labels: Vec<String> =
            summary.by.iter().zip(key).flat_map(|(by, part)| cells(*by, part.as_ref())).collect();
        let mut cells = labels.clone();
        cells.extend(amounts.next().unwrap_or_default());
        cells.extend(figures(group));
        csv.row(&cells)?;
        for further in amounts {
            let mut cells = labels.clone();
            cells.extend(further);
            cells.resize(headings.len(), String::new());
            csv.row(&cells)?;
        }
    }
    csv.text()
}

fn figures(group: &Group) -> Vec<String> {
    let mut cells = vec![group.requests.to_string()];
    cells.extend(OUTCOMES.map(|outcome| group.outcomes.of(outcome).to_string()));
    let named = |those: &Counts| [those.total().to_string(), counts(&those.0)];
    cells.push(counts(&group.errors.0));
    cells.extend([group.priced.to_string(), group.estimated.to_string()]);
    cells.extend(named(&group.unpriced));
    cells.extend(named(&group.plugin_failed));
    let Tokens { input, input_cache_read, input_cache_write, output, output_reasoning } =
        group.tokens;
    let numbers = [
        group.cost_unknown,
        input,
        input_cache_read,
        input_cache_write,
        output,
        output_reasoning,
        group.without_usage,
    ];
    cells.extend(numbers.map(|number| number.to_string()));
    for latencies in [&group.duration, &group.first_token] {
        cells.extend(match latencies.percentiles() {
            Some(Percentiles { p50, p90, p99 }) => [p50, p90, p99].map(|ms| ms.to_string()),
            None => Default::default(),
        });
    }
    cells
}

/// One part of a key for people.
fn label(part: &Option<Part>) -> String {
    match part {
        None => "-".to_owned(),
        Some(Part::Text(text)) => text.clone(),
        Some(Part::Day(day)) => day.to_string(),
        Some(Part::Time(time)) => shown(*time),
        Some(Part::Plugin { name, version, digest }) => {
            format!("{name} {version} {}", short(digest))
        }
    }
}

fn columns(by: Dimension) -> &'static [&'static str] {
    match by {
        Dimension::Tenant => &["tenant"],
        Dimension::Model => &["model"],
        Dimension::Plugin => &["plugin", "plugin_version", "plugin_digest"],
        Dimension::Day => &["day"],
        Dimension::Time(_) => &["time"],
    }
}

/// As many as there are columns.
fn cells(by: Dimension, part: Option<&Part>) -> Vec<String> {
    match part {
        Some(Part::Plugin { name, version, digest }) => {
            vec![name.clone(), version.clone(), digest.clone()]
        }
        Some(Part::Text(text)) => vec![text.clone()],
        Some(Part::Day(day)) => vec![day.to_string()],
        Some(Part::Time(time)) => vec![shown(*time)],
        None => vec![String::new(); columns(by).len()],
    }
}

/// Requests that the gateway owed an answer and did not give: a client that left is not among them.
fn failures(group: &Group) -> u64 {
    ["refused", "failed", "aborted"]
        .iter()
        .fold(0, |sum, outcome| sum.saturating_add(group.outcomes.of(outcome)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tollgate_domain::{CostOutcome, FaultKind, UnpricedReason};
    use tollgate_summary::{MOST_GROUPS, Request};

    use super::super::super::testing::*;
    use super::*;

    fn summary(by: &[Dimension]) -> Summary {
        let mut summary = Summary::new(by, MOST_GROUPS);
        let mut failing =
            record("globex", "n", NEW_YEAR + 24 * HOUR, plugin_failed(FaultKind::Trap));
        failing.outcome = failed();
        for record in [
            record("acme", "m", NEW_YEAR, priced(1_000_000_000_001)),
            record("acme", "m", NEW_YEAR + HOUR, estimated(1)),
            record("acme", "m", NEW_YEAR + HOUR, CostOutcome::Priced(amount(5, "EUR"))),
            record("", "m", NEW_YEAR, unpriced(UnpricedReason::UnknownModel)),
            failing,
            refused("globex", "n", NEW_YEAR),
        ] {
            summary.add(&Request::from(&record)).unwrap();
        }
        summary
    }

    #[test]
    fn a_table_for_people() {
        assert_eq!(
            table(&summary(&[Dimension::Tenant, Dimension::Model])),
            "\
TENANT  MODEL  REQUESTS  ERRORS                                     COST  INPUT  OUTPUT  P50 MS     P90     P99  TTFT P50 MS     P90     P99
-       m             1       0                                        -     10      20  2000.0  2000.0  2000.0       1000.0  1000.0  1000.0
  unpriced: unknown_model 1
acme    m             3       0  0.000000000005 EUR + 1.000000000002 USD     30      60  2000.0  2000.0  2000.0       1000.0  1000.0  1000.0
  estimated: 1, 0.000000000001 USD of the cost
globex  n             2       2                                        -     10      20       -       -       -       1000.0  1000.0  1000.0
  unpriced: not_served 1
  plugin_failed: trap 1
  not completed: backend_error 1, overloaded 1
total                 6       2  0.000000000005 EUR + 1.000000000002 USD     50     100  2000.0  2000.0  2000.0       1000.0  1000.0  1000.0
  estimated: 1, 0.000000000001 USD of the cost
  unpriced: not_served 1, unknown_model 1
  plugin_failed: trap 1
  not completed: backend_error 1, overloaded 1
"
        );
        assert_eq!(table(&Summary::new(&[Dimension::Day], MOST_GROUPS)), "no requests");
    }

    #[test]
    fn comma_separated_columns_can_be_summed() {
        let text = csv(&summary(&[Dimension::Plugin, Dimension::Day])).unwrap();
        let column = |name: &str| column(&text, name);
        let requests = column("requests");
        assert_eq!(requests.iter().filter_map(|n| n.parse::<u64>().ok()).sum::<u64>(), 6, "{text}");
        assert_eq!(column("amount"), ["", "0.000000000005", "1.000000000002", ""], "{text}");
        assert_eq!(column("amount_estimated"), ["", "", "0.000000000001", ""], "{text}");
        assert_eq!(column("day"), ["2026-01-01", "2026-01-01", "2026-01-01", "2026-01-02"]);
        assert_eq!(column("plugin_digest")[1], "ab".repeat(32));
        assert_eq!(column("unpriced_reasons")[0], "not_served 1, unknown_model 1");
    }

    #[test]
    fn json_for_programs() {
        let value = summary(&[Dimension::Tenant]).json(Period::default());
        assert_eq!(value["groups"][0]["tenant"], Value::Null);
        let acme = &value["groups"][1];
        assert_eq!(acme["tenant"], "acme");
        assert_eq!(
            acme["amounts"],
            json!([
                { "currency": "EUR", "amount": "0.000000000005", "estimated": "0" },
                { "currency": "USD", "amount": "1.000000000002", "estimated": "0.000000000001" },
            ])
        );
        assert_eq!(
            value["total"]["cost_status"],
            json!({
                "priced": 2, "estimated": 1, "unknown": 0, "plugin_failed": { "trap": 1 },
                "unpriced": { "not_served": 1, "unknown_model": 1 },
            })
        );
        assert_eq!(value["groups"][2]["duration_ms"], Value::Null);
        assert_eq!(acme["first_token_ms"]["p50"], 1000.0);
    }
}
