//! What the fuzz targets call: bytes become something that a guest hands back, or a `plugins.toml`, and go through the
//! checks that the real thing goes through. `host/fuzz` holds the targets; the corpus is replayed by the test below.
//!
//! Invariants: no panic; what comes out of a check is within the limits; every message to the operator is one bounded line.

use arbitrary::{Result, Unstructured};
use tollgate_domain::span::Attributes;
use tollgate_domain::{Currency, Value};

use crate::bindings::cost_model as cost;
use crate::bindings::edits::{Edit, EditList, EditOp};
use crate::bindings::export_filter::{Filtered, Verdict};
use crate::bindings::lifecycle::{AttributeSelector, ConfigError, PluginInfo};
use crate::bindings::types::{PluginError, Slot, TextRef, ValueKind};
use crate::describe::{Described, KEY_BYTES, Selection};
use crate::error::{PluginHostError, chain};
use crate::lift::{Lifted, Reserved, What, is_reserved, lift};
use crate::limits::Limits;
use crate::log::PluginLog;
use crate::lower::PREFIXED;
use crate::manifest::Manifest;
use crate::price::{self, Answer};
use crate::wasi::{STDERR, Wasi};
use crate::{folder, loaded, log, schema, spans};

mod schemas;

/// Longest message that may reach the operator.
const MESSAGE_BYTES: usize = 4 << 10;
/// Most items of a made-up list.
const ITEMS: usize = 100;
/// Spans of a made-up batch.
const SPANS: usize = 3;

/// One thing that a guest hands back.
pub fn answers(data: &[u8]) {
    // Data that ends too early is made up for by defaults, so an error means there is nothing to try.
    let _ = answer(&mut Unstructured::new(data));
}

/// One `plugins.toml`.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Manifest::parse(text) {
        Ok(manifest) => {
            for file in manifest.files() {
                assert!(folder::is_plugin_name(file), "{file:?} passed for a file");
                let config = manifest.entry(file).config;
                let json = serde_json::from_str::<serde_json::Value>(&config);
                assert!(json.is_ok_and(|json| json.is_object()), "{config}");
            }
        }
        Err(error) => plain(&chain(&error)),
    }
}

fn answer(u: &mut Unstructured<'_>) -> Result<()> {
    match u.int_in_range(0..=7_u8)? {
        0 => describe(u),
        1 => price(u),
        2 => edits(u),
        3 => verdicts(u),
        4 => config_error(u),
        5 => currency(u),
        6 => log_lines(u),
        _ => output(u),
    }
}

fn describe(u: &mut Unstructured<'_>) -> Result<()> {
    let info = PluginInfo {
        name: text(u)?,
        version: text(u)?,
        description: text(u)?,
        reads: list(u, selector)?,
        writes: list(u, selector)?,
        operations: list(u, text)?,
        max_batch: u.arbitrary()?,
        config_schema: match u.arbitrary()? {
            true if u.arbitrary()? => Some(schemas::schema(u)?.to_string()),
            true => Some(text(u)?),
            false => None,
        },
    };
    match Described::check(info) {
        Ok(described) => {
            assert!((1..=128).contains(&described.name.len()) && described.name.is_ascii());
            assert!((5..=64).contains(&described.version.len()) && described.version.is_ascii());
            plain_up_to(&described.description, 5 << 10);
            described.operations.iter().for_each(|operation| plain_up_to(operation, KEY_BYTES));
            if let Some(schema) = &described.config_schema {
                checked(schema, &schemas::json(u)?.to_string());
            }
            for index in 0..300 {
                for selection in [&described.reads, &described.writes] {
                    let Some(key) = selection.key_at(index) else { continue };
                    assert!((1..=KEY_BYTES).contains(&key.len()));
                    assert!(selection.find(key).is_some());
                }
            }
        }
        Err(error) => refusal(&error),
    }
    Ok(())
}

fn price(u: &mut Unstructured<'_>) -> Result<()> {
    let limits = Limits::default();
    let answer = match u.int_in_range(0..=7_u8)? {
        0 => Err(plugin_error(u)?),
        _ => Ok(priced(u)?),
    };
    match price::lift(answer, Currency::USD, &limits) {
        Ok(Answer::Cost(lines, total)) => {
            assert!(lines.len() <= limits.cost_lines);
            let sum: i128 = lines.iter().map(|line| i128::from(line.amount_pico)).sum();
            assert_eq!((total.pico, total.currency), (sum, Currency::USD));
            assert!(i64::try_from(sum).is_ok());
        }
        Ok(Answer::Unpriced(_)) => {}
        Err(fault) => plain(&fault.to_string()),
    }
    Ok(())
}

fn edits(u: &mut Unstructured<'_>) -> Result<()> {
    let limits = Limits::default();
    let writes = selection();
    let list = edit_list(u)?;
    for reserved in [Reserved::Keep, Reserved::MayRemove] {
        match lift(&list, SPANS, &writes, reserved, &limits) {
            Ok(Lifted { changes, refused }) => {
                assert!(changes.len() + refused <= limits.edits_per_span * SPANS);
                let mut attributes = Attributes::new();
                for change in changes {
                    assert!(change.span < SPANS);
                    assert!(writes.find(&change.key).is_some(), "{:?} is not declared", change.key);
                    assert!((1..=KEY_BYTES).contains(&change.key.len()));
                    assert!(!change.key.chars().any(char::is_control));
                    let removed = change.what == What::Remove;
                    let may = removed && reserved == Reserved::MayRemove;
                    assert!(!is_reserved(&change.key) || may, "{:?} is reserved", change.key);
                    if let What::Set(value) | What::SetDefault(value) = &change.what {
                        check_value(value, &limits);
                    }
                    change.apply(&mut attributes);
                }
            }
            Err(fault) => plain(&fault.to_string()),
        }
    }
    Ok(())
}

fn verdicts(u: &mut Unstructured<'_>) -> Result<()> {
    let answer = if u.arbitrary::<bool>()? {
        let verdict = |u: &mut Unstructured<'_>| {
            Ok(if u.arbitrary()? { Verdict::Keep } else { Verdict::Drop })
        };
        Ok(Filtered { verdicts: list(u, verdict)?, edits: edit_list(u)? })
    } else {
        Err(plugin_error(u)?)
    };
    match spans::judged(answer, SPANS) {
        Ok((verdicts, _)) => assert_eq!(verdicts.len(), SPANS),
        Err(fault) => plain(&fault.to_string()),
    }
    Ok(())
}

fn config_error(u: &mut Unstructured<'_>) -> Result<()> {
    let error = match u.arbitrary::<bool>()? {
        true => ConfigError::Invalid((text(u)?, text(u)?)),
        false => ConfigError::Failed(text(u)?),
    };
    refusal(&loaded::refused(&error));
    Ok(())
}

fn currency(u: &mut Unstructured<'_>) -> Result<()> {
    let code = text(u)?;
    match loaded::currency(&code) {
        Ok(currency) => assert_eq!(currency.code(), code),
        Err(error) => refusal(&error),
    }
    Ok(())
}

fn log_lines(u: &mut Unstructured<'_>) -> Result<()> {
    let message = text(u)?;
    let fields = list(u, |u| Ok((text(u)?, text(u)?)))?;
    plain_up_to(&log::line(&message, &fields), 28 << 10);
    Ok(())
}

fn output(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut wasi, log) = (Wasi::default(), PluginLog::new("fuzzed", 10));
    wasi.begin_call();
    while !u.is_empty() {
        let stream = if u.arbitrary()? { STDERR } else { u.arbitrary()? };
        let bytes: Vec<u8> = u.arbitrary()?;
        wasi.write(stream, &bytes, &log);
        plain(wasi.last_words());
    }
    Ok(())
}

fn priced(u: &mut Unstructured<'_>) -> Result<cost::Priced> {
    Ok(match u.int_in_range(0..=4_u8)? {
        0 => cost::Priced::Unpriced(*u.choose(&[
            cost::UnpricedReason::UnknownModel,
            cost::UnpricedReason::MissingUsage,
            cost::UnpricedReason::NotBillable,
        ])?),
        1 => cost::Priced::Failed(text(u)?),
        _ => cost::Priced::Cost(list(u, cost_line)?),
    })
}

fn cost_line(u: &mut Unstructured<'_>) -> Result<cost::CostLine> {
    use cost::CostKind as Kind;
    let kind = *u.choose(&[
        Kind::Input,
        Kind::InputCacheRead,
        Kind::InputCacheWrite,
        Kind::InputAudio,
        Kind::InputImage,
        Kind::Output,
        Kind::OutputReasoning,
        Kind::OutputAudio,
        Kind::OutputImage,
        Kind::Compute,
        Kind::Energy,
        Kind::Unit,
        Kind::Request,
        Kind::Discount,
        Kind::Markup,
        Kind::Other,
    ])?;
    let amount = *u.choose(&[None, Some(i64::MIN), Some(i64::MAX), Some(-1)])?;
    let amount = amount.map_or_else(|| u.arbitrary(), Ok)?;
    Ok(cost::CostLine { kind, quantity: u.arbitrary()?, amount })
}

fn plugin_error(u: &mut Unstructured<'_>) -> Result<PluginError> {
    let why = text(u)?;
    Ok(match u.int_in_range(0..=3_u8)? {
        0 => PluginError::Unsupported(why),
        1 => PluginError::InvalidInput(why),
        2 => PluginError::Unavailable(why),
        _ => PluginError::Internal(why),
    })
}

fn selector(u: &mut Unstructured<'_>) -> Result<AttributeSelector> {
    let text = text(u)?;
    Ok(if u.arbitrary()? { AttributeSelector::Key(text) } else { AttributeSelector::Prefix(text) })
}

/// What the made-up plugin has declared: ordinary keys, reserved ones, and a prefix for everything.
fn selection() -> Selection {
    let key = |key: &str| AttributeSelector::Key(key.to_owned());
    let writes = vec![
        key("a"),
        key("service.name"),
        key("tollgate.cost.amount"),
        AttributeSelector::Prefix("p.".to_owned()),
        AttributeSelector::Prefix("gen_ai.".to_owned()),
    ];
    Selection::new(writes, "writes").unwrap_or_default()
}

fn edit_list(u: &mut Unstructured<'_>) -> Result<EditList> {
    let edits = list(u, edit)?;
    let keys = list(u, text_ref)?;
    let mut arena = list(u, |u| u.arbitrary::<u8>())?;
    if u.arbitrary()? {
        arena.splice(0..0, *b"p.x gen_ai.usage.input_tokens [1,\"x\"]");
    }
    Ok(EditList { edits, keys, arena })
}

fn edit(u: &mut Unstructured<'_>) -> Result<Edit> {
    let small = u.int_in_range(0..=SPANS as u32)?;
    let op = *u.choose(&[EditOp::Set, EditOp::SetDefault, EditOp::Remove])?;
    let kind = *u.choose(&[
        ValueKind::Text,
        ValueKind::Boolean,
        ValueKind::Int,
        ValueKind::Double,
        ValueKind::Bytes,
        ValueKind::Json,
        ValueKind::Elided,
    ])?;
    let key = match u.int_in_range(0..=2_u8)? {
        0 => u.int_in_range(0..=6_u32)?,
        1 => PREFIXED + u.int_in_range(0..=6_u32)?,
        _ => u.arbitrary()?,
    };
    let bits = if u.arbitrary()? {
        let at = text_ref(u)?;
        u64::from(at.offset) << 32 | u64::from(at.length)
    } else {
        u.arbitrary()?
    };
    let span = if u.ratio(1_u8, 16)? { u.arbitrary()? } else { small };
    Ok(Edit { span, op, slot: Slot { key, kind, bits } })
}

fn text_ref(u: &mut Unstructured<'_>) -> Result<TextRef> {
    if u.ratio(1_u8, 16)? {
        return Ok(TextRef { offset: u.arbitrary()?, length: u.arbitrary()? });
    }
    Ok(TextRef { offset: u.int_in_range(0..=48)?, length: u.int_in_range(0..=48)? })
}

/// Text of the input, or text that is too long for any limit.
fn text(u: &mut Unstructured<'_>) -> Result<String> {
    let text: String = u.arbitrary()?;
    let times = if u.ratio(1_u8, 32)? { u.int_in_range(1..=20_000)? } else { 1 };
    Ok(text.repeat(times.min((64 << 10) / text.len().max(1)).max(1)))
}

fn list<'a, T>(
    u: &mut Unstructured<'a>,
    item: impl Fn(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut items = Vec::new();
    while items.len() < ITEMS && !u.is_empty() && u.arbitrary()? {
        items.push(item(u)?);
    }
    Ok(items)
}

fn check_value(value: &Value, limits: &Limits) {
    match value {
        Value::Text(text) => assert!(text.len() <= limits.value_bytes),
        Value::Double(number) => assert!(number.is_finite()),
        Value::List(values) => values.iter().for_each(|value| check_value(value, limits)),
        other => assert!(matches!(other, Value::Bool(_) | Value::Int(_)), "no plugin says that"),
    }
}

/// A configuration by a schema, both from strangers.
fn checked(schema: &str, config: &str) {
    if let Err(error) = schema::check(schema, config) {
        refusal(&error);
    }
}

fn refusal(error: &PluginHostError) {
    plain(&chain(error));
}

/// One line without control characters, of a length that fits on a screen.
fn plain(text: &str) {
    plain_up_to(text, MESSAGE_BYTES);
}

fn plain_up_to(text: &str, limit: usize) {
    assert!(text.len() <= limit, "{} bytes: {text}", text.len());
    assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn no_schema_is_too_odd(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            let u = &mut Unstructured::new(&data);
            if let (Ok(schema), Ok(config)) = (schemas::schema(u), schemas::json(u)) {
                checked(&schema.to_string(), &config.to_string());
            }
        }
    }

    #[test]
    fn the_corpus_passes() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for name in ["answers", "manifest"] {
            let target = if name == "answers" { answers } else { manifest };
            let mut count = 0;
            for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 10, "{count} inputs for {name}");
        }
    }
}
