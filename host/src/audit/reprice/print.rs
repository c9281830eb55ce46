//! A difference as a table, as comma-separated lines, as JSON.

use std::path::Path;

use serde_json::{Value, json};
use tollgate_domain::{Money, PluginIdentity};
use tollgate_ledger::Head;

use super::super::error::AuditError;
use super::super::output::{Csv, Format, json as pretty};
use super::difference::{Difference, Differences, Key, Sums};
use crate::table::{Table, short};

/// The difference as it is wanted.
pub(super) fn written(
    differences: &Differences,
    plugin: &PluginIdentity,
    into: &Path,
    head: Head,
    format: Format,
) -> Result<String, AuditError> {
    match format {
        Format::Table => {
            let PluginIdentity { name, version, digest } = plugin;
            let digest = short(digest);
            let what = format!(
                "\n{} records, priced by {name} {version} {digest}, are in {}",
                head.records,
                into.display()
            );
            Ok(table(differences)? + &what)
        }
        Format::Csv => csv(differences),
        Format::Json => pretty(&json!({
            "plugin": plugin,
            "into": into,
            "records": head.records,
            "groups": differences
                .groups
                .iter()
                .map(|(key, difference)| as_json(Some(key), difference))
                .collect::<Result<Vec<_>, _>>()?,
            "total": as_json(None, &differences.total)?,
        })),
    }
}

fn table(differences: &Differences) -> Result<String, AuditError> {
    let headings =
        ["TENANT", "MODEL", "REQUESTS", "SAME", "CHANGED", "CURRENCY", "OLD", "NEW", "DIFFERENCE"];
    let mut table = Table::new(headings).right([2, 3, 4, 6, 7, 8]);
    for (key, difference) in &differences.groups {
        let tenant = key.tenant.as_deref().unwrap_or("-");
        rows(&mut table, [tenant, &key.model], difference)?;
    }
    rows(&mut table, ["total", ""], &differences.total)?;
    Ok(table.text())
}

/// A row for each currency; figures of the group stand in the first.
fn rows(table: &mut Table, labels: [&str; 2], difference: &Difference) -> Result<(), AuditError> {
    let mut counted = [difference.requests, difference.same, difference.changed]
        .map(|number| number.to_string())
        .to_vec();
    for sums in lines(difference)? {
        let mut cells = labels.map(str::to_owned).to_vec();
        cells.append(&mut counted);
        cells.resize(5, String::new());
        let text = |money: Option<Money>| money.map_or("-".to_owned(), |money| money.decimal());
        cells.extend(match sums {
            Some(Sums { old, new, difference }) => {
                [difference.currency.code().to_owned(), text(old), text(new), difference.decimal()]
            }
            None => ["-", "-", "-", "-"].map(str::to_owned),
        });
        table.row(&cells);
    }
    for ((old, new), count) in &difference.statuses {
        table.note(&format!("{old} -> {new}: {count}"));
    }
    Ok(())
}

/// The sums of each currency, or one line without.
fn lines(difference: &Difference) -> Result<Vec<Option<Sums>>, AuditError> {
    let sums = difference.sums()?;
    Ok(if sums.is_empty() { vec![None] } else { sums.into_iter().map(Some).collect() })
}

/// A line for each group and currency; counts stand in the first line of a group, so that columns can be summed.
fn csv(differences: &Differences) -> Result<String, AuditError> {
    let mut csv = Csv::new([
        "tenant",
        "model",
        "currency",
        "old",
        "new",
        "difference",
        "requests",
        "same",
        "changed",
        "status_changes",
    ])?;
    for (key, difference) in &differences.groups {
        let statuses = difference.statuses.iter();
        let statuses: Vec<String> =
            statuses.map(|((old, new), count)| format!("{old} -> {new}: {count}")).collect();
        let mut counted = [difference.requests, difference.same, difference.changed]
            .map(|number| number.to_string())
            .to_vec();
        counted.push(statuses.join("; "));
        for sums in lines(difference)? {
            let text = |money: Option<Money>| money.map_or(String::new(), |money| money.decimal());
            let mut cells = vec![key.tenant.clone().unwrap_or_default(), key.model.clone()];
            cells.extend(sums.map_or_else(Default::default, |sums| {
                let currency = sums.difference.currency.code().to_owned();
                [currency, text(sums.old), text(sums.new), sums.difference.decimal()]
            }));
            cells.append(&mut counted);
            cells.resize(10, String::new());
            csv.row(&cells)?;
        }
    }
    csv.text()
}

fn as_json(key: Option<&Key>, difference: &Difference) -> Result<Value, AuditError> {
    let amounts = difference.sums()?.into_iter().map(|sums| {
        json!({
            "currency": sums.difference.currency.code(),
            "old": sums.old.map(|money| money.decimal()),
            "new": sums.new.map(|money| money.decimal()),
            "difference": sums.difference.decimal(),
        })
    });
    let statuses = difference
        .statuses
        .iter()
        .map(|((old, new), count)| json!({ "old": old, "new": new, "requests": count }));
    let mut value = json!({
        "requests": difference.requests,
        "same": difference.same,
        "changed": difference.changed,
        "status_changes": statuses.collect::<Vec<_>>(),
        "amounts": amounts.collect::<Vec<_>>(),
    });
    if let (Some(key), Some(object)) = (key, value.as_object_mut()) {
        object.insert("tenant".to_owned(), json!(key.tenant));
        object.insert("model".to_owned(), json!(key.model));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use tollgate_domain::{CostOutcome, UnpricedReason};

    use super::super::super::testing::*;
    use super::*;

    fn differences() -> Differences {
        let mut differences = Differences::default();
        for (tenant, old, new) in [
            ("acme", priced(5), priced(9)),
            ("acme", unpriced(UnpricedReason::UnknownModel), priced(1)),
            ("acme", priced(2), CostOutcome::Priced(amount(3, "EUR"))),
            ("", unpriced(UnpricedReason::NotServed), unpriced(UnpricedReason::NotServed)),
        ] {
            differences.add(&record(tenant, "m", NEW_YEAR, old), &new).unwrap();
        }
        differences
    }

    #[test]
    fn a_table_for_people() {
        assert_eq!(
            table(&differences()).unwrap(),
            "\
TENANT  MODEL  REQUESTS  SAME  CHANGED  CURRENCY             OLD             NEW      DIFFERENCE
-       m             1     1        0  -                      -               -               -
acme    m             3     0        2  EUR                    -  0.000000000003  0.000000000003
acme    m                               USD       0.000000000007   0.00000000001  0.000000000003
  unpriced (unknown_model) -> priced: 1
total                 4     1        2  EUR                    -  0.000000000003  0.000000000003
total                                   USD       0.000000000007   0.00000000001  0.000000000003
  unpriced (unknown_model) -> priced: 1
"
        );
    }

    #[test]
    fn comma_separated_lines() {
        assert_eq!(
            csv(&differences()).unwrap(),
            "\
tenant,model,currency,old,new,difference,requests,same,changed,status_changes
,m,,,,,1,1,0,
acme,m,EUR,,0.000000000003,0.000000000003,3,0,2,unpriced (unknown_model) -> priced: 1
acme,m,USD,0.000000000007,0.00000000001,0.000000000003,,,,
"
        );
    }

    #[test]
    fn json_for_programs() {
        let head = Head { records: 4, ..Head::default() };
        let text = written(&differences(), &plugin(), Path::new("x"), head, Format::Json).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["groups"][0]["tenant"], Value::Null);
        assert_eq!(
            value["groups"][1]["amounts"][1],
            json!({ "currency": "USD", "old": "0.000000000007", "new": "0.00000000001", "difference": "0.000000000003" })
        );
        assert_eq!(value["total"]["status_changes"][0]["new"], "priced");
    }
}
