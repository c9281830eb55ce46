//! A provider's invoice: comma-separated lines, read by the names of their columns.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord};
use tollgate_domain::{Currency, Money};

use super::super::amounts::parse;
use super::super::error::AuditError;
use super::advice;
use tollgate_summary::Day;

/// Most bytes of an invoice.
const MOST_BYTES: u64 = 256 << 20;

/// Most bad lines that are told at once.
const MOST_FAULTS: usize = 20;

/// Names that are looked for where none is given, in this order.
const DAYS: &[&str] = &["day", "date", "usage_date", "usage date", "start_time", "timestamp"];
const MODELS: &[&str] = &["model", "model_name", "model name", "line_item", "line item"];
const AMOUNTS: &[&str] = &["amount", "cost", "amount_value", "total", "total_cost", "cost_usd"];

/// Which columns say what.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Columns {
    /// Heading of the day [default: one of day, date, usage_date, start_time, timestamp]
    #[arg(long, value_name = "HEADING")]
    pub(super) day_column: Option<String>,

    /// Heading of the model [default: one of model, model_name, line_item]
    #[arg(long, value_name = "HEADING")]
    pub(super) model_column: Option<String>,

    /// Heading of the amount [default: one of amount, cost, amount_value, total, total_cost, cost_usd]
    #[arg(long, value_name = "HEADING")]
    pub(super) amount_column: Option<String>,

    /// Heading of the tokens that went in, to compare them too
    #[arg(long, value_name = "HEADING")]
    pub(super) input_tokens_column: Option<String>,

    /// Heading of the tokens that came out, to compare them too
    #[arg(long, value_name = "HEADING")]
    pub(super) output_tokens_column: Option<String>,

    /// How days are written, as in %m/%d/%Y [default: 2026-01-31, also with a time behind it]
    #[arg(long, value_name = "FORMAT")]
    pub(super) day_format: Option<String>,

    /// What stands between two columns [default: ,]
    #[arg(long, value_name = "CHARACTER")]
    pub(super) delimiter: Option<char>,

    /// Round amounts that are finer than a millionth of a millionth, half to even
    #[arg(long)]
    pub(super) round: bool,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InvoiceLine {
    pub(super) day: Day,
    pub(super) model: String,
    pub(super) amount: Money,
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
}

/// Reads all lines; tells of all that are bad at once.
pub(super) fn read(
    path: &Path,
    columns: &Columns,
    currency: Currency,
) -> Result<Vec<InvoiceLine>, AuditError> {
    let unreadable = AuditError::file("read", path);
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    let mut bytes = Vec::new();
    let read = source.take(MOST_BYTES.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(AuditError::file("read", path))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MOST_BYTES) {
        return Err(AuditError::Invoice {
            path: path.to_owned(),
            faults: format!("it has more than {} MiB; split it by month", MOST_BYTES >> 20),
        });
    }
    parsed(&bytes, columns, currency)
        .map_err(|faults| AuditError::Invoice { path: PathBuf::from(path), faults })
}

/// The lines of a text, or all that is wrong with it.
fn parsed(bytes: &[u8], columns: &Columns, currency: Currency) -> Result<Vec<InvoiceLine>, String> {
    let delimiter = u8::try_from(columns.delimiter.unwrap_or(','))
        .map_err(|_| "--delimiter must be an ASCII character".to_owned())?;
    let mut reader =
        ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(bytes);
    let headings = reader.headers().map_err(|error| described(&error, bytes))?.clone();
    let places = Places::find(columns, &headings)?;
    let (mut lines, mut faults) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let line = match &record {
            Ok(record) => {
                let number = line_of(record.position(), bytes);
                let line = places.line(record, columns, currency);
                line.map_err(|why| format!("line {number}: {why}"))
            }
            Err(error) => Err(described(error, bytes)),
        };
        match line {
            Ok(line) => lines.push(line),
            Err(fault) => faults.push(fault),
        }
        if faults.len() >= MOST_FAULTS {
            faults.push("and perhaps more".to_owned());
            break;
        }
    }
    if faults.is_empty() { Ok(lines) } else { Err(faults.join("\n")) }
}

/// The line that something begins on. A position counts empty lines before it as part of it.
fn line_of(position: Option<&csv::Position>, bytes: &[u8]) -> u64 {
    let Some(position) = position else { return 1 };
    let after = usize::try_from(position.byte()).ok().and_then(|byte| bytes.get(byte..));
    let skipped = after.unwrap_or_default().iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    skipped.filter(|byte| **byte == b'\n').fold(position.line(), |line, _| line.saturating_add(1))
}

fn described(error: &csv::Error, bytes: &[u8]) -> String {
    let line = line_of(error.position(), bytes);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("line {line}: it has {len} columns and the headings are {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => format!("line {line}: it is not UTF-8; save it as UTF-8"),
        _ => format!("line {line}: {error}"),
    }
}

/// Where the columns are.
struct Places {
    day: usize,
    model: usize,
    amount: usize,
    input_tokens: Option<usize>,
    output_tokens: Option<usize>,
}

impl Places {
    fn find(columns: &Columns, headings: &StringRecord) -> Result<Self, String> {
        let place = |name: &str| {
            headings.iter().position(|heading| heading.to_lowercase() == name.to_lowercase())
        };
        let missing = |what: &str, flag: &str| {
            let headings = headings.iter().collect::<Vec<_>>().join(", ");
            format!(
                "line 1: no column is the {what}; name one with {flag}. The headings are: {headings}"
            )
        };
        let needed = |given: &Option<String>, usual: &[&str], what: &str, flag: &str| {
            let found = match given {
                Some(name) => place(name.trim()),
                None => usual.iter().find_map(|name| place(name)),
            };
            found.ok_or_else(|| missing(what, flag))
        };
        let optional = |given: &Option<String>, what: &str, flag: &str| match given {
            Some(name) => place(name.trim()).map(Some).ok_or_else(|| missing(what, flag)),
            None => Ok(None),
        };
        Ok(Self {
            day: needed(&columns.day_column, DAYS, "day", "--day-column")?,
            model: needed(&columns.model_column, MODELS, "model", "--model-column")?,
            amount: needed(&columns.amount_column, AMOUNTS, "amount", "--amount-column")?,
            input_tokens: optional(
                &columns.input_tokens_column,
                "count of tokens that went in",
                "--input-tokens-column",
            )?,
            output_tokens: optional(
                &columns.output_tokens_column,
                "count of tokens that came out",
                "--output-tokens-column",
            )?,
        })
    }

    fn line(
        &self,
        record: &StringRecord,
        columns: &Columns,
        currency: Currency,
    ) -> Result<InvoiceLine, String> {
        let cell = |place: usize| record.get(place).unwrap_or_default();
        let count = |place: Option<usize>| match place.map(cell) {
            None | Some("") => Ok(None),
            Some(text) => text
                .replace(',', "")
                .parse()
                .map(Some)
                .map_err(|_| format!("{text:?} is no count of tokens")),
        };
        let model = cell(self.model);
        if model.is_empty() {
            return Err("it names no model; leave out lines such as totals".to_owned());
        }
        let amount = cell(self.amount);
        Ok(InvoiceLine {
            day: day(cell(self.day), columns.day_format.as_deref())?,
            model: model.to_owned(),
            amount: parse(amount, currency, columns.round)
                .map_err(|why| format!("{amount:?} {}", advice(why)))?,
            input_tokens: count(self.input_tokens)?,
            output_tokens: count(self.output_tokens)?,
        })
    }
}

fn day(text: &str, format: Option<&str>) -> Result<Day, String> {
    match format {
        Some(format) => Day::formatted(text, format)
            .map_err(|why| format!("{text:?} is no day written as {format}: {why}")),
        None => Day::of_text(text).ok_or_else(|| {
            format!(
                "{text:?} is no day such as 2026-01-31; say with --day-format how days are written"
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, columns: &Columns) -> Result<Vec<String>, String> {
        let lines = parsed(text.as_bytes(), columns, Currency::USD)?;
        Ok(lines
            .iter()
            .map(|line| {
                let InvoiceLine { day, model, amount, input_tokens, output_tokens } = line;
                format!("{day} {model} {amount} {input_tokens:?} {output_tokens:?}")
            })
            .collect())
    }

    #[test]
    fn invoices_of_many_shapes() {
        let plain = Columns::default();
        let tokens = Columns {
            input_tokens_column: Some("In".into()),
            output_tokens_column: Some("OUT".into()),
            ..Columns::default()
        };
        let named = Columns {
            day_column: Some("Tag".into()),
            model_column: Some("Posten".into()),
            amount_column: Some("Summe".into()),
            day_format: Some("%d.%m.%Y".into()),
            delimiter: Some(';'),
            ..Columns::default()
        };
        for (text, columns, expected) in [
            ("date,model,amount\n2026-01-31,m,1.50\n", &plain, "2026-01-31 m 1.5 USD None None"),
            (
                "\u{feff}Cost, Model ,x,DATE\r\n\"$1,234.5\",\"a, b\",,2026-01-31T23:00:00-02:00\r\n",
                &plain,
                "2026-02-01 a, b 1234.5 USD None None",
            ),
            (
                "day,model,amount,in,out\n2026-01-31,m,1e-3,\"1,000\",\n",
                &tokens,
                "2026-01-31 m 0.001 USD Some(1000) None",
            ),
            ("Tag;Posten;Summe\n31.01.2026;m;-2\n", &named, "2026-01-31 m -2 USD None None"),
        ] {
            assert_eq!(read(text, columns), Ok(vec![expected.to_owned()]), "{text}");
        }
    }

    #[test]
    fn bad_lines_are_all_named() {
        let text = "\
date,model,amount
2026-01-31,m,1
31.01.2026,m,1
2026-01-31,,1
2026-01-31,m,1.0.0

2026-01-31,m,0.0000000000001
2026-01-31,m
";
        let error = read(text, &Columns::default()).unwrap_err();
        let told: Vec<&str> = error.lines().collect();
        let expected = [
            ("line 3: ", "--day-format"),
            ("line 4: ", "names no model"),
            ("line 5: ", "1.0.0"),
            ("line 7: ", "--round"),
            ("line 8: ", "2 columns"),
        ];
        assert_eq!(told.len(), expected.len(), "{error}");
        for (line, (start, word)) in told.iter().zip(expected) {
            assert!(line.starts_with(start) && line.contains(word), "{line}");
        }
        let rounding = Columns { round: true, ..Columns::default() };
        assert!(read("date,model,amount\n2026-01-31,m,0.0000000000001", &rounding).is_ok());
        let error = read("when,model,amount\n", &Columns::default()).unwrap_err();
        assert!(error.contains("--day-column") && error.contains("when, model, amount"), "{error}");
        let many = format!("date,model,amount\n{}", "x,y,z\n".repeat(1000));
        assert_eq!(read(&many, &Columns::default()).unwrap_err().lines().count(), MOST_FAULTS + 1);
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(date|model|amount|[,\"\n;x0-9.-]){0,60}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let _ = parsed(bytes, &Columns::default(), Currency::USD);
            }
        }
    }
}
