//! Both sides as a table, as comma-separated lines, as JSON.

use serde_json::{Value, json};
use tollgate_domain::Money;

use super::super::error::AuditError;
use super::super::output::{Csv, Format, json as pretty};
use super::join::{Counted, Invoiced, Key, Reconciliation, Row, Status, Verdict};
use crate::table::Table;

/// Both sides as they are wanted.
pub(super) fn written(joined: &Reconciliation, format: Format) -> Result<String, AuditError> {
    match format {
        Format::Table => table(joined),
        Format::Csv => csv(joined),
        Format::Json => pretty(&as_json(joined)?),
    }
}

fn table(joined: &Reconciliation) -> Result<String, AuditError> {
    let currency = joined.currency.code();
    let [invoice, ours, gap] =
        ["INVOICE", "OURS", "GAP"].map(|heading| format!("{heading} {currency}"));
    let mut table = Table::new(["DAY", "MODEL", &invoice, &ours, &gap, "VERDICT"]).right([2, 3, 4]);
    for (key, row) in &joined.rows {
        let verdict = joined.verdict(row)?.name();
        let figures = figures(joined, row)?;
        let [invoice, ours, gap] = &figures;
        table.row([&key.day.to_string(), &key.model, invoice, ours, gap, verdict]);
        notes(&mut table, joined, Some(&key.model), row)?;
    }
    let [invoice, ours, gap] = &figures(joined, &joined.total)?;
    table.row(["total", "", invoice, ours, gap, ""]);
    notes(&mut table, joined, None, &joined.total)?;
    Ok(table.text())
}

/// Invoice, ours, gap; a dash for a side that has nothing.
fn figures(joined: &Reconciliation, row: &Row) -> Result<[String; 3], AuditError> {
    let dash = || "-".to_owned();
    let invoice = row.invoiced.map_or_else(dash, |invoiced| decimal(joined, invoiced.amount));
    let ours = if has_amount(row) {
        decimal(joined, row.counted(joined.currency)?.amount)
    } else {
        dash()
    };
    Ok([invoice, ours, decimal(joined, row.gap(joined.currency)?)])
}

/// Whether any request of ours has an amount.
fn has_amount(row: &Row) -> bool {
    row.ours.keys().any(|status| !status.has_no_amount())
}

/// What is in doubt, one line for each status, and the tokens of both sides where they differ.
fn notes(
    table: &mut Table,
    joined: &Reconciliation,
    model: Option<&str>,
    row: &Row,
) -> Result<(), AuditError> {
    for (status, counted) in &row.ours {
        if *status == Status::Settled {
            continue;
        }
        let Counted { requests, input, output, amount } = counted;
        let worth = if status.has_no_amount() {
            let about = model.and_then(|model| joined.about(model, *status, counted));
            about.map_or_else(String::new, |pico| {
                format!(", about {} {}", decimal(joined, pico), joined.currency)
            })
        } else {
            format!(", {} {} of ours", decimal(joined, *amount), joined.currency)
        };
        table.note(&format!(
            "{}: requests {requests}, tokens {input} in and {output} out{worth}",
            status.name()
        ));
    }
    let all = row.counted(joined.currency)?;
    if let Some(Invoiced { input, output, .. }) = row.invoiced {
        for (what, theirs, ours) in [("in", input, all.input), ("out", output, all.output)] {
            if let Some(theirs) = theirs.filter(|theirs| *theirs != ours) {
                table.note(&format!("tokens {what}: invoice {theirs}, ours {ours}"));
            }
        }
    }
    Ok(())
}

/// One line for each day and model. A cell is empty where there is nothing, which is not zero.
fn csv(joined: &Reconciliation) -> Result<String, AuditError> {
    let mut headings: Vec<String> = [
        "day",
        "model",
        "verdict",
        "currency",
        "invoice",
        "ours",
        "gap",
        "invoice_lines",
        "invoice_input_tokens",
        "invoice_output_tokens",
        "input_tokens",
        "output_tokens",
    ]
    .map(str::to_owned)
    .to_vec();
    for status in Status::ALL {
        let name = status.name();
        headings
            .extend(["requests", "input_tokens", "output_tokens"].map(|of| format!("{name}_{of}")));
        let amount = if status.has_no_amount() { "about" } else { "amount" };
        headings.push(format!("{name}_{amount}"));
    }
    let mut csv = Csv::new(&headings)?;
    for (key, row) in &joined.rows {
        csv.row(cells(joined, key, row)?)?;
    }
    csv.text()
}

fn cells(joined: &Reconciliation, key: &Key, row: &Row) -> Result<Vec<String>, AuditError> {
    let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
    let all = row.counted(joined.currency)?;
    let invoiced = row.invoiced.unwrap_or_default();
    let [invoice, ours, gap] =
        figures(joined, row)?.map(|cell| if cell == "-" { String::new() } else { cell });
    let mut cells = vec![
        key.day.to_string(),
        key.model.clone(),
        joined.verdict(row)?.name().to_owned(),
        joined.currency.code().to_owned(),
        invoice,
        ours,
        gap,
        invoiced.lines.to_string(),
        number(invoiced.input),
        number(invoiced.output),
        all.input.to_string(),
        all.output.to_string(),
    ];
    for status in Status::ALL {
        let counted = row.ours.get(&status).copied().unwrap_or_default();
        cells.extend([counted.requests, counted.input, counted.output].map(|n| n.to_string()));
        let worth = worth(joined, Some(&key.model), status, &counted);
        cells.push(worth.map(|pico| decimal(joined, pico)).unwrap_or_default());
    }
    Ok(cells)
}

/// What requests of a status cost, or may have cost.
fn worth(
    joined: &Reconciliation,
    model: Option<&str>,
    status: Status,
    counted: &Counted,
) -> Option<i128> {
    if counted.requests == 0 {
        None
    } else if status.has_no_amount() {
        joined.about(model?, status, counted)
    } else {
        Some(counted.amount)
    }
}

fn as_json(joined: &Reconciliation) -> Result<Value, AuditError> {
    let rows = joined.rows.iter().map(|(key, row)| {
        let mut value = row_json(joined, Some(&key.model), row)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("day".to_owned(), json!(key.day));
            object.insert("model".to_owned(), json!(key.model));
            object.insert("verdict".to_owned(), json!(joined.verdict(row)?));
        }
        Ok::<_, AuditError>(value)
    });
    Ok(json!({
        "currency": joined.currency,
        "agrees": joined.agrees()?,
        "rows": rows.collect::<Result<Vec<_>, _>>()?,
        "total": row_json(joined, None, &joined.total)?,
    }))
}

fn row_json(joined: &Reconciliation, model: Option<&str>, row: &Row) -> Result<Value, AuditError> {
    let all = row.counted(joined.currency)?;
    let statuses = row.ours.iter().map(|(status, counted)| {
        let worth = worth(joined, model, *status, counted).map(|pico| decimal(joined, pico));
        let (amount, about) = if status.has_no_amount() { (None, worth) } else { (worth, None) };
        json!({
            "status": status.name(),
            "requests": counted.requests,
            "input_tokens": counted.input,
            "output_tokens": counted.output,
            "amount": amount,
            "about": about,
        })
    });
    Ok(json!({
        "invoice": row.invoiced.map(|invoiced| json!({
            "lines": invoiced.lines,
            "amount": decimal(joined, invoiced.amount),
            "input_tokens": invoiced.input,
            "output_tokens": invoiced.output,
        })),
        "ours": (!row.ours.is_empty()).then(|| json!({
            "requests": all.requests,
            "amount": has_amount(row).then(|| decimal(joined, all.amount)),
            "input_tokens": all.input,
            "output_tokens": all.output,
        })),
        "gap": decimal(joined, row.gap(joined.currency)?),
        "statuses": statuses.collect::<Vec<_>>(),
    }))
}

fn decimal(joined: &Reconciliation, pico: i128) -> String {
    Money::new(pico, joined.currency).decimal()
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Agrees => "agrees",
            Self::Explained => "explained",
            Self::Unexplained => "unexplained",
            Self::OnlyInvoice => "only_invoice",
            Self::OnlyOurs => "only_ours",
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_domain::{Currency, Outcome, Record, UnpricedReason};

    use super::super::super::testing::*;
    use super::super::invoice::InvoiceLine;
    use super::super::join::Naming;
    use super::*;
    use tollgate_summary::Day;

    fn joined() -> Reconciliation {
        let mut joined = Reconciliation::new(Currency::USD, 0, Naming::Requested);
        for (day, model, pico, input_tokens) in [
            ("2026-01-01", "m", 100_000_000_000, Some(31)),
            ("2026-01-01", "m", 1, None),
            ("2026-01-02", "x", 7, None),
        ] {
            let line = InvoiceLine {
                day: Day::parse(day).unwrap(),
                model: model.to_owned(),
                amount: Money::new(pico, Currency::USD),
                input_tokens,
                output_tokens: None,
            };
            joined.add_line(&line, &[]).unwrap();
        }
        for record in [
            record("a", "m", NEW_YEAR, priced(60_000_000_000)),
            record("a", "m", NEW_YEAR, unpriced(UnpricedReason::UnknownModel)),
            Record {
                outcome: Outcome::ClientGone,
                ..record("a", "m", NEW_YEAR, priced(10_000_000_000))
            },
            record("a", "n", NEW_YEAR, unpriced(UnpricedReason::UnknownModel)),
        ] {
            joined.add_record(&record).unwrap();
        }
        joined
    }

    #[test]
    fn a_table_for_people() {
        assert_eq!(
            table(&joined()).unwrap(),
            "\
DAY         MODEL     INVOICE USD  OURS USD         GAP USD  VERDICT
2026-01-01  m      0.100000000001      0.07  0.030000000001  explained
  unpriced: requests 1, tokens 10 in and 20 out, about 0.06 USD
  interrupted: requests 1, tokens 10 in and 20 out, 0.01 USD of ours
  tokens in: invoice 31, ours 30
2026-01-01  n                   -         -               0  only_ours
  unpriced: requests 1, tokens 10 in and 20 out
2026-01-02  x      0.000000000007         -  0.000000000007  only_invoice
total              0.100000000008      0.07  0.030000000008
  unpriced: requests 2, tokens 20 in and 40 out
  interrupted: requests 1, tokens 10 in and 20 out, 0.01 USD of ours
  tokens in: invoice 31, ours 40
"
        );
    }

    #[test]
    fn comma_separated_lines() {
        let text = csv(&joined()).unwrap();
        let column = |name: &str| column(&text, name);
        assert_eq!(column("verdict"), ["explained", "only_ours", "only_invoice"]);
        assert_eq!(column("ours"), ["0.07", "", ""]);
        assert_eq!(column("unpriced_about"), ["0.06", "", ""]);
        assert_eq!(column("unpriced_requests"), ["1", "1", "0"]);
        assert_eq!(column("interrupted_amount"), ["0.01", "", ""]);
        assert_eq!(column("invoice_lines"), ["2", "0", "1"]);
    }

    #[test]
    fn json_for_programs() {
        let value = as_json(&joined()).unwrap();
        assert_eq!(value["agrees"], false);
        assert_eq!(value["rows"][0]["invoice"]["amount"], "0.100000000001");
        assert_eq!(value["rows"][1]["ours"]["amount"], Value::Null);
        assert_eq!(value["rows"][2]["ours"], Value::Null);
        assert_eq!(value["total"]["gap"], "0.030000000008");
        let unpriced = &value["rows"][0]["statuses"][0];
        assert_eq!(
            (unpriced["status"].as_str(), &unpriced["amount"]),
            (Some("unpriced"), &Value::Null)
        );
        assert_eq!(unpriced["about"], "0.06");
    }
}
