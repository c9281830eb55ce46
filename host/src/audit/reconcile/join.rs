//! An invoice and our records side by side, by day and model: pure.

use std::collections::BTreeMap;

use tollgate_domain::{CostOutcome, Currency, Outcome, Record};

use super::super::error::AuditError;
use super::invoice::InvoiceLine;
use tollgate_summary::Day;
use tollgate_summary::added;
use tollgate_summary::{MOST_GROUPS, SummaryError, count, group};

/// Which of a request's models the invoice names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Naming {
    /// The model that answered.
    #[default]
    Served,
    /// The model as the client named it.
    Requested,
}

/// What a line of the answer is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) day: Day,
    pub(super) model: String,
}

/// What kind of request it is, as far as a bill goes. A request is of one kind only: the first that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    /// It has no amount: no plugin had a price.
    Unpriced,
    /// It has no amount: the plugin failed.
    PluginFailed,
    /// Its amount is in another currency than the invoice.
    OtherCurrency,
    /// Its process ended; priced by what it had used.
    Aborted,
    /// The client left or the backend failed; priced by what it had used.
    Interrupted,
    /// Priced from counts that are estimates.
    Estimated,
    /// Priced as reported or counted, and completed: nothing about it is in doubt.
    Settled,
}

impl Status {
    pub(super) const ALL: [Self; 7] = [
        Self::Settled,
        Self::Estimated,
        Self::Interrupted,
        Self::Aborted,
        Self::Unpriced,
        Self::PluginFailed,
        Self::OtherCurrency,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unpriced => "unpriced",
            Self::PluginFailed => "plugin_failed",
            Self::OtherCurrency => "other_currency",
            Self::Aborted => "aborted",
            Self::Interrupted => "interrupted",
            Self::Estimated => "estimated",
            Self::Settled => "settled",
        }
    }

    /// Whether our sum has nothing of it.
    pub(super) fn has_no_amount(self) -> bool {
        matches!(self, Self::Unpriced | Self::PluginFailed | Self::OtherCurrency)
    }

    /// None: it was never served, so nobody bills it.
    fn of(record: &Record, currency: Currency) -> Option<Self> {
        if matches!(record.outcome, Outcome::Refused { .. }) {
            return None;
        }
        Some(match (&record.cost, &record.outcome) {
            (CostOutcome::Unpriced { .. }, _) => Self::Unpriced,
            (CostOutcome::PluginFailed(_), _) => Self::PluginFailed,
            (CostOutcome::Priced(cost) | CostOutcome::Estimated(cost), _)
                if cost.total.currency != currency =>
            {
                Self::OtherCurrency
            }
            (_, Outcome::Aborted) => Self::Aborted,
            (_, Outcome::ClientGone | Outcome::Failed { .. }) => Self::Interrupted,
            (CostOutcome::Estimated(_), _) => Self::Estimated,
            (CostOutcome::Priced(_), _) => Self::Settled,
        })
    }
}

/// Requests of one status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) requests: u64,
    pub(super) input: u64,
    pub(super) output: u64,
    /// Pico-units of the invoice's currency.
    pub(super) amount: i128,
}

/// What the invoice has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Invoiced {
    pub(super) lines: u64,
    pub(super) amount: i128,
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
}

/// One day and model.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) invoiced: Option<Invoiced>,
    pub(super) ours: BTreeMap<Status, Counted>,
}

/// What to think of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// The gap is within the tolerance.
    Agrees,
    /// Requests of a status in doubt can account for it.
    Explained,
    /// Nothing on record can.
    Unexplained,
    /// It is on the invoice, and nothing was served.
    OnlyInvoice,
    /// It was served, and is on no line.
    OnlyOurs,
}

/// Both sides.
#[derive(Debug)]
pub(super) struct Reconciliation {
    pub(super) currency: Currency,
    tolerance: i128,
    naming: Naming,
    pub(super) rows: BTreeMap<Key, Row>,
    pub(super) total: Row,
    /// Settled requests of each model: what a mean price comes from.
    settled: BTreeMap<String, Counted>,
}

impl Reconciliation {
    pub(super) fn new(currency: Currency, tolerance: i128, naming: Naming) -> Self {
        let (rows, total, settled) = Default::default();
        Self { currency, tolerance, naming, rows, total, settled }
    }

    /// Adds a line of the invoice; its model may have another name on record.
    pub(super) fn add_line(
        &mut self,
        line: &InvoiceLine,
        aliases: &[(String, String)],
    ) -> Result<(), AuditError> {
        let alias = aliases.iter().find(|(theirs, _)| *theirs == line.model);
        let model = alias.map_or_else(|| line.model.clone(), |(_, ours)| ours.clone());
        let currency = self.currency;
        group(&mut self.rows, Key { day: line.day, model }, MOST_GROUPS)?
            .add_line(line, currency)?;
        self.total.add_line(line, currency)
    }

    /// Adds a request.
    pub(super) fn add_record(&mut self, record: &Record) -> Result<(), AuditError> {
        let Some(status) = Status::of(record, self.currency) else { return Ok(()) };
        let served = record.served_by.as_ref().map(|by| by.model.as_str());
        let model = match self.naming {
            Naming::Served => served.unwrap_or(&record.asked.model),
            Naming::Requested => &record.asked.model,
        };
        let tokens = record.usage.as_ref().map(|usage| usage.tokens).unwrap_or_default();
        let cost = record.cost.cost().filter(|_| !status.has_no_amount());
        let counted = Counted {
            requests: 1,
            input: tokens.input,
            output: tokens.output,
            amount: cost.map_or(0, |cost| cost.total.pico),
        };
        let currency = self.currency;
        let key = Key { day: Day::of(record.phases.request.start), model: model.to_owned() };
        group(&mut self.rows, key, MOST_GROUPS)?
            .ours
            .entry(status)
            .or_default()
            .add(&counted, currency)?;
        self.total.ours.entry(status).or_default().add(&counted, currency)?;
        if status == Status::Settled {
            self.settled.entry(model.to_owned()).or_default().add(&counted, currency)?;
        }
        Ok(())
    }

    /// Whether every row agrees.
    pub(super) fn agrees(&self) -> Result<bool, AuditError> {
        for row in self.rows.values() {
            if self.verdict(row)? != Verdict::Agrees {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What to think of a row.
    pub(super) fn verdict(&self, row: &Row) -> Result<Verdict, AuditError> {
        let gap = row.gap(self.currency)?;
        Ok(match (&row.invoiced, row.ours.is_empty()) {
            (Some(_), true) => Verdict::OnlyInvoice,
            (None, false) => Verdict::OnlyOurs,
            _ if gap.unsigned_abs() <= self.tolerance.unsigned_abs() => Verdict::Agrees,
            _ if row.ours.keys().any(|status| status.accounts_for(gap)) => Verdict::Explained,
            _ => Verdict::Unexplained,
        })
    }

    /// What requests without an amount may have cost, by the mean price of a token of settled requests of the model.
    pub(super) fn about(&self, model: &str, status: Status, counted: &Counted) -> Option<i128> {
        let settled = self.settled.get(model).filter(|_| status.has_no_amount())?;
        let tokens = i128::from(counted.input).checked_add(i128::from(counted.output))?;
        let of = i128::from(settled.input).checked_add(i128::from(settled.output))?;
        settled.amount.checked_mul(tokens)?.checked_div(of)
    }
}

impl Status {
    /// Whether requests of this status can make the invoice differ from our sum in this direction.
    fn accounts_for(self, gap: i128) -> bool {
        match self {
            Self::Settled => false,
            Self::Estimated | Self::Interrupted | Self::Aborted => true,
            Self::Unpriced | Self::PluginFailed | Self::OtherCurrency => gap > 0,
        }
    }
}

impl Row {
    /// All our requests.
    pub(super) fn counted(&self, currency: Currency) -> Result<Counted, AuditError> {
        let mut all = Counted::default();
        for counted in self.ours.values() {
            all.add(counted, currency)?;
        }
        Ok(all)
    }

    /// The invoice less our amounts.
    pub(super) fn gap(&self, currency: Currency) -> Result<i128, AuditError> {
        let theirs = self.invoiced.map_or(0, |invoiced| invoiced.amount);
        let overflow = || SummaryError::Overflow { currency: currency.code().to_owned() };
        Ok(theirs.checked_sub(self.counted(currency)?.amount).ok_or_else(overflow)?)
    }

    fn add_line(&mut self, line: &InvoiceLine, currency: Currency) -> Result<(), AuditError> {
        let invoiced = self.invoiced.get_or_insert_default();
        count(&mut invoiced.lines);
        invoiced.amount = added(invoiced.amount, line.amount.pico, currency)?;
        for (sum, more) in
            [(&mut invoiced.input, line.input_tokens), (&mut invoiced.output, line.output_tokens)]
        {
            if let Some(more) = more {
                *sum = Some(sum.unwrap_or(0).saturating_add(more));
            }
        }
        Ok(())
    }
}

impl Counted {
    fn add(&mut self, other: &Self, currency: Currency) -> Result<(), AuditError> {
        self.requests = self.requests.saturating_add(other.requests);
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.amount = added(self.amount, other.amount, currency)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollgate_domain::{FaultKind, Money, UnpricedReason};

    use super::super::super::testing::*;
    use super::*;

    fn line(model: &str, pico: i128) -> InvoiceLine {
        InvoiceLine {
            day: Day::parse("2026-01-01").unwrap(),
            model: model.to_owned(),
            amount: Money::new(pico, Currency::USD),
            input_tokens: None,
            output_tokens: None,
        }
    }

    fn joined(tolerance: i128, lines: &[InvoiceLine], records: &[Record]) -> Reconciliation {
        let mut joined = Reconciliation::new(Currency::USD, tolerance, Naming::Requested);
        for line in lines {
            joined.add_line(line, &[("theirs".into(), "m".into())]).unwrap();
        }
        for record in records {
            joined.add_record(record).unwrap();
        }
        joined
    }

    fn ours(cost: CostOutcome) -> Record {
        record("a", "m", NEW_YEAR + HOUR, cost)
    }

    fn ended(outcome: Outcome) -> Record {
        Record { outcome, ..ours(priced(5)) }
    }

    #[test]
    fn verdicts_say_what_can_account_for_a_gap() {
        let unknown = || ours(unpriced(UnpricedReason::UnknownModel));
        let euros = || ours(CostOutcome::Priced(amount(5, "EUR")));
        let cases: Vec<(i128, Vec<Record>, Verdict, i128)> = vec![
            (5, vec![ours(priced(5))], Verdict::Agrees, 0),
            (6, vec![ours(priced(5))], Verdict::Agrees, 1),
            (4, vec![ours(priced(5))], Verdict::Agrees, -1),
            (9, vec![ours(priced(5))], Verdict::Unexplained, 4),
            (9, vec![ours(priced(5)), unknown()], Verdict::Explained, 4),
            (9, vec![ours(priced(5)), ours(plugin_failed(FaultKind::Trap))], Verdict::Explained, 4),
            (9, vec![ours(priced(5)), euros()], Verdict::Explained, 4),
            (1, vec![ours(priced(5)), unknown()], Verdict::Unexplained, -4),
            (1, vec![ours(estimated(5))], Verdict::Explained, -4),
            (1, vec![ended(Outcome::Aborted)], Verdict::Explained, -4),
            (9, vec![ended(Outcome::ClientGone)], Verdict::Explained, 4),
            (9, vec![ended(failed())], Verdict::Explained, 4),
            (9, vec![], Verdict::OnlyInvoice, 9),
            (9, vec![refused("a", "m", NEW_YEAR)], Verdict::OnlyInvoice, 9),
        ];
        for (pico, records, verdict, gap) in cases {
            let joined = joined(1, &[line("theirs", pico)], &records);
            assert_eq!(joined.rows.len(), 1);
            let row = joined.rows.values().next().unwrap();
            let found = (joined.verdict(row).unwrap(), row.gap(Currency::USD).unwrap());
            assert_eq!(found, (verdict, gap), "{pico} {:?}", row.ours);
        }
        let other_day = record("a", "m", NEW_YEAR + 25 * HOUR, priced(1));
        let joined = joined(0, &[line("m", 5)], &[other_day]);
        let verdicts: Vec<_> =
            joined.rows.values().map(|row| joined.verdict(row).unwrap()).collect();
        assert_eq!(verdicts, [Verdict::OnlyInvoice, Verdict::OnlyOurs]);
    }

    #[test]
    fn a_request_has_one_status() {
        let aborted_unpriced =
            Record { outcome: Outcome::Aborted, ..ours(unpriced(UnpricedReason::PluginsChanged)) };
        let gone_estimated = Record { outcome: Outcome::ClientGone, ..ours(estimated(5)) };
        for (record, status) in
            [(aborted_unpriced, Status::Unpriced), (gone_estimated, Status::Interrupted)]
        {
            assert_eq!(Status::of(&record, Currency::USD), Some(status));
        }
    }

    #[test]
    fn what_has_no_amount_is_estimated_by_the_mean_price() {
        let records = [
            ours(priced(60)),
            ours(priced(30)),
            ours(unpriced(UnpricedReason::UnknownModel)),
            record("a", "n", NEW_YEAR, unpriced(UnpricedReason::UnknownModel)),
        ];
        let joined = joined(0, &[], &records);
        let about = |model: &str, status| {
            let key = joined.rows.keys().find(|key| key.model == model).unwrap();
            joined.about(model, status, &joined.rows[key].ours[&status])
        };
        assert_eq!(about("m", Status::Unpriced), Some(45));
        assert_eq!(about("n", Status::Unpriced), None);
        assert_eq!(about("m", Status::Settled), None);
    }

    #[test]
    fn models_are_named_as_the_invoice_does() {
        let mut joined = Reconciliation::new(Currency::USD, 0, Naming::Served);
        joined.add_record(&ours(priced(1))).unwrap();
        assert_eq!(joined.rows.keys().next().unwrap().model, "m-2026");
    }

    proptest! {
        /// The gaps of the rows are the gap of the whole.
        #[test]
        fn gaps_add_up(
            lines in prop::collection::vec(("[mn]", any::<i64>()), 0..30),
            records in prop::collection::vec(("[mno]", any::<i64>(), 0..3_u64), 0..30),
        ) {
            let lines: Vec<_> = lines.iter().map(|(model, pico)| line(model, i128::from(*pico))).collect();
            let records: Vec<_> = records
                .iter()
                .map(|(model, pico, day)| record("a", model, NEW_YEAR + day * 24 * HOUR, priced(*pico)))
                .collect();
            let joined = joined(0, &lines, &records);
            let gaps: i128 = joined.rows.values().map(|row| row.gap(Currency::USD).unwrap()).sum();
            prop_assert_eq!(gaps, joined.total.gap(Currency::USD).unwrap());
            let requests: u64 =
                joined.rows.values().flat_map(|row| row.ours.values()).map(|counted| counted.requests).sum();
            prop_assert_eq!(requests, records.len() as u64);
        }
    }
}
