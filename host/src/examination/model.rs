//! The model of this process: its files, and whether they fit into memory.

use tollgate_model::{ComputeDevice, ModelSource, Passes, look as look_at};
use tollgate_settings::Settings;

use super::Finding;

const CHECK: &str = "model";
const MIB: u64 = 1 << 20;

/// Nothing is loaded. Each model has to find room beside those before it.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    if settings.models.is_empty() {
        let seen = "none in this process";
        return vec![match settings.backends {
            Some(_) => Finding::ok(CHECK, seen),
            None => Finding::failed(
                CHECK,
                format!("{seen}, and no backends: no request can be answered"),
                "name a model with --model, or other servers with --backends",
            ),
        }];
    }
    let device = settings.device.parse::<ComputeDevice>().and_then(ComputeDevice::resolve);
    let device = match device {
        Ok(device) => device,
        Err(error) => {
            let mend = "correct --device, or install what is missing";
            return vec![Finding::failed(CHECK, error.to_string(), mend)];
        }
    };
    let cache = settings.kv_memory.unwrap_or_default() as u64;
    let mut free = available_memory();
    let each = settings.models.iter();
    each.map(|choice| look_at_one(&choice.source, &device, cache, &mut free)).collect()
}

/// What it takes is taken off `free`.
fn look_at_one(name: &str, device: &str, cache: u64, free: &mut Option<u64>) -> Finding {
    let source: ModelSource = match name.parse() {
        Ok(source) => source,
        Err(error) => {
            return Finding::failed(CHECK, error.to_string(), "correct --model");
        }
    };
    match look_at(&source) {
        Err(error) => Finding::failed(
            CHECK,
            error.to_string(),
            "name a whole model with --model: a Hugging Face folder or a GGUF file of a family that is run",
        ),
        Ok(None) => Finding::warning(
            CHECK,
            format!("{name} is not in the cache yet; the first start fetches it from the hub"),
            format!("fetch it before: `hf download {name}`"),
        ),
        Ok(Some(found)) => {
            let weights = found.memory_bytes;
            let seen = format!(
                "{}, {}, {}, context {}, weights of {} MiB",
                found.name,
                found.architecture,
                found.passes.name(),
                found.context_length,
                weights.div_ceil(MIB)
            );
            if device != "cpu" && found.passes == Passes::Shared {
                return Finding::ok(CHECK, format!("{seen}, on {device}"));
            }
            let Some(room) = *free else { return Finding::ok(CHECK, seen) };
            let takes = weights.saturating_add(cache);
            *free = Some(room.saturating_sub(takes));
            if room < takes {
                return Finding::failed(
                    CHECK,
                    format!("{seen}; only {} MiB of memory are available", room / MIB),
                    "choose a smaller or a quantized model (GGUF), lower kv-memory-mib, or free memory",
                );
            }
            Finding::ok(CHECK, format!("{seen}; {} MiB of memory are available", room / MIB))
        }
    }
}

/// What the system could give, in bytes; none where it does not tell.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}
