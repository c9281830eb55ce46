//! Taps a generation of the model in this process.

use bytes::Bytes;
use tollgate_domain::record::EngineFacts;
use tollgate_domain::time::nanos;
use tollgate_domain::usage::{ComputeUsage, UsageSource};
use tollgate_domain::{ErrorKind, TokenUsage};
use tollgate_engine::{End, Event, Facts, Generation};

use crate::call::{AnswerEvent, Refusal};
use crate::tap::{Response, Tap, Tapped, Times};

/// Passes the generation on until it ends or the client is gone. Then it is cancelled, and what it
/// used so far is asked for. What a piece took is noted before the piece goes out, so that a killed
/// process has billed what its clients have.
pub(crate) async fn run(
    mut generation: Generation,
    prompt_tokens: u64,
    device: &str,
    tap: Tap<'_>,
) -> Tapped {
    let mut tapped = Tapped {
        whole: false,
        served: true,
        reason: None,
        failure: None,
        tokens: TokenUsage::default(),
        source: UsageSource::Reported,
        compute: None,
        engine: None,
        times: Times::default(),
        response: Response::default(),
        rest: Bytes::new(),
    };
    let mut client_is_here = true;
    loop {
        let event = tokio::select! {
            event = generation.next() => event,
            () = tap.pieces.closed(), if client_is_here => {
                client_is_here = false;
                generation.cancel();
                continue;
            }
        };
        let Some(event) = event else {
            tapped.failure = Some(Refusal::new(ErrorKind::Internal, "The engine stopped."));
            break;
        };
        match event {
            Event::Started { at } => tapped.times.started = Some(at),
            Event::Prefilled { at } => {
                tapped.times.prefilled = Some(at);
                tapped.tokens.input = prompt_tokens;
                tap.ticket.progress(prompt_tokens, 0);
            }
            Event::Text { text, output_tokens, at, .. } => {
                tapped.times.first_text.get_or_insert(at);
                tap.ticket.progress(prompt_tokens, u64::from(output_tokens));
                if let Some(content) = tap.content {
                    content.answered(&text);
                }
                if client_is_here && !tap.pass(AnswerEvent::Text(text)).await {
                    client_is_here = false;
                    generation.cancel();
                }
            }
            Event::Ended { end, output_tokens, device_time, facts, at, .. } => {
                tapped.tokens.output = u64::from(output_tokens);
                if output_tokens > 0 {
                    tapped.tokens.input = prompt_tokens;
                }
                // A prompt that the model never got to read used nothing.
                if tapped.tokens.input > 0 {
                    tapped.tokens.input_cache_read = u64::from(facts.cached_tokens);
                }
                tapped.compute = Some(ComputeUsage {
                    device: device.to_owned(),
                    device_time_nanos: nanos(device_time),
                    share_ppm: facts.device_share_ppm,
                    energy_millijoules: None,
                });
                tapped.engine = Some(met(&facts));
                tapped.times.ended = Some(at);
                tapped.ended(end, client_is_here);
                break;
            }
        }
    }
    tapped
}

/// The engine's facts, as they go on record.
fn met(facts: &Facts) -> EngineFacts {
    EngineFacts {
        prefill_chunks: facts.chunks,
        cached_tokens: facts.cached_tokens,
        passes: facts.passes,
        batch_mean: facts.batch_mean(),
        batch_max: facts.batch_max,
        kv_blocks_peak: facts.kv_blocks_peak,
        preemptions: facts.preemptions,
        recomputed_tokens: facts.recomputed_tokens,
        requeued_nanos: nanos(facts.requeued),
    }
}

impl Tapped {
    fn ended(&mut self, end: End, client_is_here: bool) {
        match end {
            End::Finished(reason) if client_is_here => {
                (self.whole, self.reason) = (true, Some(reason));
            }
            End::Failed(error) => {
                tracing::error!(%error, "generation failed");
                let message = "The model failed while answering.";
                self.failure = Some(Refusal::new(ErrorKind::Internal, message));
            }
            // We cancelled because the client left; else the engine did, to shut down.
            End::Cancelled if client_is_here => {
                let message = "The gateway shut down while answering.";
                self.failure = Some(Refusal::new(ErrorKind::ShuttingDown, message));
            }
            // The client left, if only in the last moment: it has not seen the end.
            End::Finished(_) | End::Cancelled => {}
        }
    }
}
