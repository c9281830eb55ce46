//! A summary as a table, as comma-separated lines, as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::error::AuditError;
use super::super::output::{Csv, Format, counts, json as pretty};
use super::super::period::{Period, shown};
use super::super::request::Tokens;
use super::group::{Counts, Dimension, Group, Part, Summary};
use super::latency::{Latencies, Percentiles};
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
        Format::Json => pretty(&as_json(summary, period)),
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
        group.failures().to_string(),
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
        headings.extend(by.columns());
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
            summary.by.iter().zip(key).flat_map(|(by, part)| by.cells(part.as_ref())).collect();
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

#[derive(Serialize)]
struct WrittenAmount {
    currency: String,
    amount: String,
    /// The part of it that comes from estimated counts.
    estimated: String,
}

#[derive(Serialize)]
struct WrittenGroup<'a> {
    requests: u64,
    outcomes: &'a BTreeMap<String, u64>,
    errors: &'a BTreeMap<String, u64>,
    amounts: Vec<WrittenAmount>,
    cost_status: Value,
    tokens: Tokens,
    without_usage: u64,
    duration_ms: Option<Percentiles>,
    first_token_ms: Option<Percentiles>,
}

fn as_json(summary: &Summary, period: Period) -> Value {
    let groups = summary.groups.iter().map(|(key, group)| {
        let mut object = Map::new();
        for (by, part) in summary.by.iter().zip(key) {
            object.insert(by.name().to_owned(), part.as_ref().map_or(Value::Null, part_json));
        }
        if let Value::Object(figures) = group_json(group) {
            object.extend(figures);
        }
        Value::Object(object)
    });
    json!({
        "by": summary.by.iter().map(|by| by.name()).collect::<Vec<_>>(),
        "since": period.since.map(shown),
        "until": period.until.map(shown),
        "groups": groups.collect::<Vec<_>>(),
        "total": group_json(&summary.total),
    })
}

fn group_json(group: &Group) -> Value {
    let amounts = group.amounts.iter().map(|money| {
        let estimated = group.estimates.get(money.currency);
        WrittenAmount {
            currency: money.currency.code().to_owned(),
            amount: money.decimal(),
            estimated: estimated.map_or_else(|| "0".to_owned(), |money| money.decimal()),
        }
    });
    json!(WrittenGroup {
        requests: group.requests,
        outcomes: &group.outcomes.0,
        errors: &group.errors.0,
        amounts: amounts.collect(),
        cost_status: json!({
            "priced": group.priced,
            "estimated": group.estimated,
            "unpriced": group.unpriced.0,
            "plugin_failed": group.plugin_failed.0,
            "unknown": group.cost_unknown,
        }),
        tokens: group.tokens,
        without_usage: group.without_usage,
        duration_ms: group.duration.percentiles(),
        first_token_ms: group.first_token.percentiles(),
    })
}

fn part_json(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!(text),
        Part::Day(day) => json!(day),
        Part::Plugin { name, version, digest } => {
            json!({ "name": name, "version": version, "digest": digest })
        }
    }
}

/// One part of a key for people.
fn label(part: &Option<Part>) -> String {
    match part {
        None => "-".to_owned(),
        Some(Part::Text(text)) => text.clone(),
        Some(Part::Day(day)) => day.to_string(),
        Some(Part::Plugin { name, version, digest }) => {
            format!("{name} {version} {}", short(digest))
        }
    }
}

impl Dimension {
    fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Model => "model",
            Self::Plugin => "plugin",
            Self::Day => "day",
        }
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Tenant => &["tenant"],
            Self::Model => &["model"],
            Self::Plugin => &["plugin", "plugin_version", "plugin_digest"],
            Self::Day => &["day"],
        }
    }

    /// As many as there are columns.
    fn cells(self, part: Option<&Part>) -> Vec<String> {
        match part {
            Some(Part::Text(text)) => vec![text.clone()],
            Some(Part::Day(day)) => vec![day.to_string()],
            Some(Part::Plugin { name, version, digest }) => {
                vec![name.clone(), version.clone(), digest.clone()]
            }
            None => vec![String::new(); self.columns().len()],
        }
    }
}

impl Group {
    /// Requests that the gateway owed an answer and did not give: a client that left is not among them.
    fn failures(&self) -> u64 {
        ["refused", "failed", "aborted"]
            .iter()
            .fold(0, |sum, outcome| sum.saturating_add(self.outcomes.of(outcome)))
    }
}

#[cfg(test)]
mod tests {
    use tollgate_domain::{CostOutcome, FaultKind, UnpricedReason};

    use super::super::super::request::Request;
    use super::super::super::testing::*;
    use super::*;

    fn summary(by: &[Dimension]) -> Summary {
        let mut summary = Summary::new(by);
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
        assert_eq!(table(&Summary::new(&[Dimension::Day])), "no requests");
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
        let value = as_json(&summary(&[Dimension::Tenant]), Period::default());
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
