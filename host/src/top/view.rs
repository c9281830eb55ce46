//! From two readings of a gateway to what is shown of it: sections of rows, whoever draws them.

use serde::Deserialize;
use tollgate_domain::text::printable;
use tollgate_http_api::PluginsView;

use super::limits::Standings;
use super::scrape::{Samples, quantile, since};

/// Most rows of one section.
const ROWS: usize = 12;
const MIB: f64 = 1_048_576.0;
const IN: &str = "llm_prompt_tokens_total";
const OUT: &str = "llm_completion_tokens_total";

/// What was read of a gateway at one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// When, by a clock that only goes forward.
    pub(super) at: std::time::Instant,
    pub(super) samples: Samples,
    pub(super) plugins: PluginsView,
    pub(super) limits: Standings,
    pub(super) backends: Backends,
    pub(super) shadow: Shadow,
}

/// `GET /admin/backends`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Backends {
    backends: Vec<Backend>,
}

#[derive(Clone, Debug, Deserialize)]
struct Backend {
    name: String,
    health: String,
    breaker: String,
    in_flight: u64,
    attempts: Attempts,
}

#[derive(Clone, Debug, Deserialize)]
struct Attempts {
    answered: u64,
    refused: u64,
    failed: u64,
    broken: u64,
}

/// `GET /admin/shadow`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Shadow {
    series: Vec<ShadowSeries>,
}

#[derive(Clone, Debug, Deserialize)]
struct ShadowSeries {
    file: String,
    model: Option<String>,
    tenant: Option<String>,
    amounts: Vec<ShadowAmounts>,
}

#[derive(Clone, Debug, Deserialize)]
struct ShadowAmounts {
    currency: String,
    billed: String,
    shadow: String,
    difference: String,
}

/// A table with a title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) headings: &'static [&'static str],
    /// How many columns at the left are text; the others are numbers.
    pub(super) text_columns: usize,
    pub(super) rows: Vec<Vec<String>>,
}

impl Section {
    fn new(title: &'static str, text_columns: usize, headings: &'static [&'static str]) -> Self {
        Self { title, headings, text_columns, rows: Vec::new() }
    }

    /// Cells may hold what clients sent.
    fn row(&mut self, cells: &[String]) {
        if self.rows.len() < ROWS {
            self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
        }
    }
}

/// Everything that has something to show.
pub(super) fn sections(now: &Reading, before: Option<&Reading>) -> Vec<Section> {
    let view = View { now, before };
    let sections = [
        view.requests(),
        view.models(),
        view.cost(),
        view.tenants(),
        view.limits(),
        view.plugins(),
        view.backends(),
        view.exporters(),
        view.ledger(),
        view.shadow(),
    ];
    sections.into_iter().filter(|section| !section.rows.is_empty()).collect()
}

struct View<'a> {
    now: &'a Reading,
    before: Option<&'a Reading>,
}

impl View<'_> {
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.now.samples.sum(name, labels)
    }

    /// By the second, since the reading before; none if there is none.
    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let before = self.before?;
        let seconds = self.now.at.saturating_duration_since(before.at).as_secs_f64();
        let (now, then) = (self.sum(name, labels), before.samples.sum(name, labels));
        // A gateway that was started again counts from zero.
        let more = if now < then { now } else { now - then };
        (seconds > 0.0).then(|| more / seconds)
    }

    /// A quantile of what came since the reading before, or, where nothing did, of all.
    fn quantile(&self, name: &str, labels: &[(&str, &str)], share: f64) -> Option<f64> {
        let now = self.now.samples.buckets(name, labels);
        let before = self.before.map(|before| before.samples.buckets(name, labels));
        let recent = since(&now, &before.unwrap_or_default());
        quantile(&recent, share).or_else(|| quantile(&now, share))
    }

    /// How much is written now, and of those that write nothing how much was.
    fn busy(&self, label: &str, value: &str) -> f64 {
        let of = [(label, value)];
        self.rate(OUT, &of).unwrap_or(0.0).max(self.sum(OUT, &of) * 1e-12)
    }

    fn requests(&self) -> Section {
        let mut section = Section::new("requests", 1, &["OUTCOME", "PER SECOND", "ALL"]);
        const NAME: &str = "tollgate_requests_total";
        for outcome in self.now.samples.values(NAME, "outcome") {
            let labels = [("outcome", outcome)];
            section.row(&[
                outcome.to_owned(),
                per_second(self.rate(NAME, &labels)),
                whole(self.sum(NAME, &labels)),
            ]);
        }
        let in_flight = whole(self.sum("tollgate_requests_in_flight", &[]));
        section.row(&["in flight".to_owned(), String::new(), in_flight]);
        let strangers = self.sum("tollgate_requests_unauthorized_total", &[]);
        if strangers > 0.0 {
            let rate = per_second(self.rate("tollgate_requests_unauthorized_total", &[]));
            section.row(&["without a key".to_owned(), rate, whole(strangers)]);
        }
        section
    }

    fn models(&self) -> Section {
        let headings = &["MODEL", "IN/S", "OUT/S", "IN", "OUT", "FIRST TOKEN", "P50", "P95"];
        let mut section = Section::new("models", 1, headings);
        let mut models = self.now.samples.values(IN, "llm_model");
        models.sort_by(|a, b| self.busy("llm_model", b).total_cmp(&self.busy("llm_model", a)));
        for model in models {
            let (of, asked) = ([("llm_model", model)], [("gen_ai_request_model", model)]);
            let took = |share| {
                seconds(self.quantile("gen_ai_server_request_duration_seconds", &asked, share))
            };
            section.row(&[
                model.to_owned(),
                per_second(self.rate(IN, &of)),
                per_second(self.rate(OUT, &of)),
                whole(self.sum(IN, &of)),
                whole(self.sum(OUT, &of)),
                seconds(self.quantile("gen_ai_server_time_to_first_token_seconds", &asked, 0.5)),
                took(0.5),
                took(0.95),
            ]);
        }
        section
    }

    fn cost(&self) -> Section {
        let mut section = Section::new("cost", 1, &["CURRENCY", "PER HOUR", "ALL"]);
        const NAME: &str = "tollgate_cost_total";
        for currency in self.now.samples.values(NAME, "currency") {
            let labels = [("currency", currency)];
            let hourly = self.rate(NAME, &labels).map(|rate| rate * 3600.0);
            section.row(&[
                currency.to_owned(),
                money(hourly),
                money(Some(self.sum(NAME, &labels))),
            ]);
        }
        for reason in self.now.samples.values("tollgate_requests_unpriced_total", "reason") {
            let count = self.sum("tollgate_requests_unpriced_total", &[("reason", reason)]);
            section.row(&[format!("requests unpriced: {reason}"), String::new(), whole(count)]);
        }
        section
    }

    /// Those that use most now, then those that used most.
    fn tenants(&self) -> Section {
        let headings = &["TENANT", "IN/S", "OUT/S", "IN", "OUT", "USD"];
        let mut section = Section::new("tenants", 1, headings);
        let mut tenants = self.now.samples.values(IN, "llm_user");
        tenants.sort_by(|a, b| self.busy("llm_user", b).total_cmp(&self.busy("llm_user", a)));
        for tenant in tenants {
            let of = [("llm_user", tenant)];
            section.row(&[
                tenant.to_owned(),
                per_second(self.rate(IN, &of)),
                per_second(self.rate(OUT, &of)),
                whole(self.sum(IN, &of)),
                whole(self.sum(OUT, &of)),
                money(Some(self.sum("llm_estimated_cost_usd_total", &of))),
            ]);
        }
        section
    }

    fn limits(&self) -> Section {
        let headings = &["LIMITS OF", "REQUESTS/MIN", "TOKENS/MIN", "AT ONCE", "BUDGET"];
        let mut section = Section::new("limits", 5, headings);
        self.now.limits.rows().iter().for_each(|row| section.row(row));
        section
    }

    fn plugins(&self) -> Section {
        let headings = &["FILE", "PLUGIN", "STATE", "CALLS/S", "MEAN", "FAULTS"];
        let mut section = Section::new("plugins", 3, headings);
        for file in &self.now.plugins.plugins {
            let state = match file.breaker.state.as_str() {
                "closed" => file.state.clone(),
                breaker => format!("{}, breaker {breaker}", file.state),
            };
            let name = file.plugin.as_ref().map(|plugin| plugin.name.as_str()).unwrap_or_default();
            let version =
                file.plugin.as_ref().map(|plugin| format!("{} {}", plugin.name, plugin.version));
            let of = [("plugin", name)];
            let calls = self.sum("tollgate_plugin_call_duration_seconds_count", &of);
            let mean = self.sum("tollgate_plugin_call_duration_seconds_sum", &of) / calls;
            section.row(&[
                file.file.clone(),
                version.unwrap_or_else(|| "-".to_owned()),
                state,
                per_second(self.rate("tollgate_plugin_calls_total", &of)),
                seconds((calls > 0.0).then_some(mean)),
                whole(self.sum("tollgate_plugin_faults_total", &of)),
            ]);
        }
        section
    }

    fn backends(&self) -> Section {
        let headings =
            &["BACKEND", "HEALTH", "BREAKER", "IN FLIGHT", "ANSWERED", "REFUSED", "FAILED"];
        let mut section = Section::new("backends", 3, headings);
        for backend in &self.now.backends.backends {
            let Attempts { answered, refused, failed, broken } = &backend.attempts;
            section.row(&[
                backend.name.clone(),
                backend.health.clone(),
                backend.breaker.clone(),
                backend.in_flight.to_string(),
                answered.to_string(),
                refused.to_string(),
                failed.saturating_add(*broken).to_string(),
            ]);
        }
        section
    }

    fn exporters(&self) -> Section {
        let headings =
            &["EXPORTER", "PER SECOND", "DELIVERED", "WAITING", "BEHIND", "RETRIES", "REJECTED"];
        let mut section = Section::new("exporters", 1, headings);
        const NAME: &str = "tollgate_exporter_delivered_total";
        for exporter in self.now.samples.values(NAME, "exporter") {
            let of = [("exporter", exporter)];
            section.row(&[
                exporter.to_owned(),
                per_second(self.rate(NAME, &of)),
                whole(self.sum(NAME, &of)),
                whole(self.sum("tollgate_exporter_pending", &of)),
                seconds(Some(self.sum("tollgate_exporter_oldest_pending_seconds", &of))),
                whole(self.sum("tollgate_exporter_retries_total", &of)),
                whole(self.sum("tollgate_exporter_rejected_total", &of)),
            ]);
        }
        section
    }

    fn ledger(&self) -> Section {
        let headings = &["LEDGER", "MIB", "FILES", "DISK FREE, MIB", "COMMITS/S", "COMMIT P95"];
        let mut section = Section::new("ledger", 1, headings);
        let size = self.sum("tollgate_ledger_size_bytes", &[])
            + self.sum("tollgate_ledger_wal_size_bytes", &[]);
        let takes = if self.sum("tollgate_ledger_available", &[]) > 0.0 {
            "takes records"
        } else {
            "full or failing"
        };
        section.row(&[
            takes.to_owned(),
            format!("{:.1}", size / MIB),
            whole(self.sum("tollgate_ledger_partitions", &[])),
            whole(self.sum("tollgate_ledger_disk_free_bytes", &[]) / MIB),
            per_second(self.rate("tollgate_ledger_commits_total", &[("result", "ok")])),
            seconds(self.quantile("tollgate_ledger_commit_duration_seconds", &[], 0.95)),
        ]);
        section
    }

    fn shadow(&self) -> Section {
        let headings = &["FILE", "MODEL", "TENANT", "CURRENCY", "BILLED", "SHADOW", "DIFFERENCE"];
        let mut section = Section::new("shadow prices", 4, headings);
        for series in &self.now.shadow.series {
            for amounts in &series.amounts {
                section.row(&[
                    series.file.clone(),
                    series.model.clone().unwrap_or_else(|| "other".to_owned()),
                    series.tenant.clone().unwrap_or_else(|| "-".to_owned()),
                    amounts.currency.clone(),
                    amounts.billed.clone(),
                    amounts.shadow.clone(),
                    amounts.difference.clone(),
                ]);
            }
        }
        section
    }
}

fn per_second(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

/// Six significant digits: for a look, where the ledger has the sums.
fn money(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let size = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let places = (5.0 - size).clamp(2.0, 12.0);
    // Between 2 and 12.
    format!("{value:.width$}", width = places as usize)
}

fn seconds(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if value < 0.001 => format!("{:.0} µs", value * 1e6),
        Some(value) if value < 1.0 => format!("{:.1} ms", value * 1e3),
        Some(value) => format!("{value:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn reading(at: Instant, text: &str) -> Reading {
        let amounts =
            json!([{"currency": "USD", "billed": "1.5", "shadow": "1", "difference": "-0.5"}]);
        Reading {
            at,
            samples: Samples::read(text),
            plugins: PluginsView { generation: 1, plugins: Vec::new() },
            limits: Standings::default(),
            backends: Backends::default(),
            shadow: serde_json::from_value(
                json!({"series": [{"file": "a.wasm", "model": "m", "tenant": null, "amounts": amounts}]}),
            )
            .unwrap(),
        }
    }

    #[test]
    fn rates_are_differences_and_a_restart_counts_from_zero() {
        let start = Instant::now();
        let page = |count: u32| {
            format!(
                "tollgate_requests_total{{outcome=\"completed\",cost_status=\"priced\"}} {count}\nllm_prompt_tokens_total{{llm_model=\"m\\u{{1b}}\"}} 5\n"
            )
        };
        let (before, now) =
            (reading(start, &page(100)), reading(start + Duration::from_secs(10), &page(150)));
        let first = &sections(&now, Some(&before))[0];
        assert_eq!(first.rows[0], ["completed", "5.0", "150"]);
        let again = reading(start + Duration::from_secs(10), &page(20));
        assert_eq!(sections(&again, Some(&before))[0].rows[0], ["completed", "2.0", "20"]);
        assert_eq!(sections(&now, None)[0].rows[0], ["completed", "-", "150"]);
        let shadow = sections(&now, None).pop().unwrap();
        assert_eq!(shadow.rows, [["a.wasm", "m", "-", "USD", "1.5", "1", "-0.5"]]);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0.00000"),
            (6.6e-6, "0.00000660000"),
            (1.5, "1.50000"),
            (123_456_789.5, "123456789.50"),
        ] {
            assert_eq!(money(Some(value)), text);
        }
        for (value, text) in [(0.0, "0"), (12e-6, "12 µs"), (0.0123, "12.3 ms"), (2.5, "2.50 s")] {
            assert_eq!(seconds(Some(value)), text);
        }
    }
}
