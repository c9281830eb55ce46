//! While the client waits: admit, pin, generate, price, put on record, and only then end the
//! answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tollgate_domain::ErrorKind;
use tollgate_domain::record::{Asked, Operation};
use tollgate_domain::time::Interval;
use tollgate_engine::{GenerateRequest, Generation, SamplingOptions, SubmitError};
use tollgate_plugin_host::{NotAdmitted, PluginSet};

use crate::call::{Answer, AnswerEvent, Arrival, Call, Ending, Prompt, Refusal};
use crate::deliver::Finished;
use crate::request::{End, Request, asked};
use crate::tap::{self, Ran};
use crate::{Gateway, Inner};

/// Pieces of an answer that may wait for the client. Policy when it is full: generation's reader
/// waits; the engine, whose own queue holds a whole answer, does not.
const PIECES_WAITING: usize = 64;

/// Most tokens that `/v1/completions` generates when it is not told, as OpenAI does.
const DEFAULT_COMPLETION_TOKENS: u32 = 16;

/// An admitted request: its prompt is made of tokens and the engine has it.
struct Admitted {
    generation: Generation,
    served: String,
    prompt_tokens: u64,
    tokenize: Interval,
    submitted: Instant,
}

impl Gateway {
    /// Serves one request: the answer while it is made, or why there is none. Either way it is on
    /// record.
    ///
    /// # Errors
    /// The refusal to tell the client, with the ids it is on record under.
    pub async fn serve(&self, call: Call) -> Result<Answer, Refusal> {
        let inner = &self.0;
        let model = call.model.clone().unwrap_or_else(|| inner.models.default_name().to_owned());
        let request = Request::begin(&call.arrival, asked(&call, model), call.user.clone());
        let plugins = inner.plugins.pin();
        let admitted = match inner.admit(&call, &request, &plugins) {
            Ok(admitted) => admitted,
            Err(refusal) => return Err(inner.put_refusal_on_record(request, plugins, refusal)),
        };
        let (pieces, events) = mpsc::channel(PIECES_WAITING);
        let answer = Answer {
            id: request.id.clone(),
            trace_id: request.trace.trace_id,
            created: request.arrived.wall(),
            model: request.asked.model.clone(),
            events,
        };
        let finish = finish(Arc::clone(inner), request, plugins, admitted, pieces);
        inner.running.spawn(finish);
        Ok(answer)
    }

    /// Puts a refusal on record that was decided before a [`Call`] could be made of the request.
    #[must_use]
    pub fn refuse(
        &self,
        arrival: &Arrival,
        asked: Asked,
        user: Option<String>,
        refusal: Refusal,
    ) -> Refusal {
        let request = Request::begin(arrival, asked, user);
        self.0.put_refusal_on_record(request, self.0.plugins.pin(), refusal)
    }
}

/// The rest of a request's life, in a task that outlives its connection.
async fn finish(
    gateway: Arc<Inner>,
    request: Request,
    plugins: Arc<PluginSet>,
    admitted: Admitted,
    pieces: mpsc::Sender<AnswerEvent>,
) {
    let Admitted { generation, served, prompt_tokens, tokenize, submitted } = admitted;
    let Ran { tapped, failure } = tap::run(generation, &pieces, gateway.stall).await;
    let usage = tapped.usage(request.usage_base(&served), prompt_tokens, &gateway.engine);
    let cost = tokio::task::block_in_place(|| plugins.price(request.tenant(), &usage));
    let ending = Ending {
        result: match (&failure, tapped.reason) {
            (None, Some(reason)) => Ok(reason),
            (Some(refusal), _) => Err(refusal.clone()),
            (None, None) => Err(Refusal::new(ErrorKind::Internal, "The answer was cut off.")),
        },
        tokens: usage.tokens,
        source: usage.source,
        cost: cost.clone(),
    };
    let phases = tapped.phases(&request.arrived, tokenize, submitted);
    let outcome = tapped.outcome(failure);
    let record = request.served(End { phases, outcome, usage, cost });
    gateway.put_on_record(Finished { record, plugins }).await;
    // A client that is gone does not hear it; that is already on record.
    let _ = pieces.send(AnswerEvent::Ended(Box::new(ending))).await;
}

impl Inner {
    /// From a well-formed call to one the engine works on.
    fn admit(
        &self,
        call: &Call,
        request: &Request,
        plugins: &PluginSet,
    ) -> Result<Admitted, Refusal> {
        if self.running.is_closed() {
            return Err(Refusal::new(ErrorKind::ShuttingDown, "The gateway is shutting down."));
        }
        let model = self.models.resolve(call.model.as_deref())?;
        plugins
            .admits(request.tenant(), &request.usage_base(&model.root))
            .map_err(|refused| unpriceable(&refused))?;
        let began = Instant::now();
        let prompt_tokens = tokio::task::block_in_place(|| self.tokenize(&call.prompt))?;
        let submitted = Instant::now();
        let used = u32::try_from(prompt_tokens.len()).unwrap_or(u32::MAX);
        let room = room(used, model.context_length, call)?;
        let wanted = call.max_tokens.unwrap_or(match call.arrival.operation {
            Operation::TextCompletion => DEFAULT_COMPLETION_TOKENS,
            Operation::Chat => room,
        });
        let generation = self
            .engine
            .submit(GenerateRequest {
                prompt_tokens,
                max_tokens: wanted.min(room),
                sampling: sampling(call),
                stop: call.stop.clone(),
            })
            .map_err(|error| busy(&error))?;
        Ok(Admitted {
            generation,
            served: model.root.clone(),
            prompt_tokens: u64::from(used),
            tokenize: call.arrival.at.interval(began, submitted),
            submitted,
        })
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, Refusal> {
        let tokenizer = self.engine.tokenizer();
        let (param, tokens) = match prompt {
            Prompt::Text(text) => ("prompt", tokenizer.encode(text, true)),
            Prompt::Chat(messages) => {
                let encode = |text: String| tokenizer.encode(&text, false);
                ("messages", tokenizer.render_chat(messages).and_then(encode))
            }
            Prompt::Tokens(tokens) => ("prompt", Ok(tokens.clone())),
        };
        let refused = |message: String| Refusal::new(ErrorKind::InvalidRequest, message);
        let tokens = tokens.map_err(|error| refused(error.to_string()).param(param))?;
        let vocabulary = self.engine.info().vocabulary;
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            None => Ok(tokens),
            Some(token) => {
                let message = format!("Token {token} is not one of the model's {vocabulary}.");
                Err(refused(message).param(param))
            }
        }
    }

    async fn put_on_record(&self, finished: Finished) {
        self.requests.count(&finished.record, None);
        if self.finished.send(finished).await.is_err() {
            tracing::error!("delivery has ended; a record is lost");
        }
    }

    /// Records a refusal without making the client wait for it.
    fn put_refusal_on_record(
        self: &Arc<Self>,
        request: Request,
        plugins: Arc<PluginSet>,
        mut refusal: Refusal,
    ) -> Refusal {
        refusal.recorded = Some((request.id.clone(), request.trace.trace_id));
        let record = request.refused(&refusal);
        let inner = Arc::clone(self);
        self.running.spawn(async move { inner.put_on_record(Finished { record, plugins }).await });
        refusal
    }
}

/// Tokens left in the context after the prompt.
fn room(used: u32, context: u32, call: &Call) -> Result<u32, Refusal> {
    let param = if matches!(call.prompt, Prompt::Chat(_)) { "messages" } else { "prompt" };
    if used == 0 {
        let message = "The prompt is empty: it must have at least one token.";
        return Err(Refusal::new(ErrorKind::InvalidRequest, message).param(param));
    }
    if used >= context {
        let message = format!(
            "The prompt has {used} tokens; this model's context holds {context}, the answer \
             included. Shorten the prompt to at most {} tokens.",
            context.saturating_sub(1)
        );
        return Err(Refusal::new(ErrorKind::ContextLengthExceeded, message).param(param));
    }
    Ok(context - used)
}

fn sampling(call: &Call) -> SamplingOptions {
    // Ranges were checked with the request; doubles are narrowed as the model computes in f32.
    #[expect(clippy::cast_possible_truncation, reason = "a temperature needs no double")]
    let narrow = |value: f64| value as f32;
    SamplingOptions {
        temperature: call.temperature.map_or(1.0, narrow),
        top_p: call.top_p.map_or(1.0, narrow),
        top_k: call.top_k.map(|k| k as usize),
        seed: call.seed.unwrap_or_else(rand::random),
    }
}

/// The operator wants no request served that cannot be priced.
fn unpriceable(refused: &NotAdmitted) -> Refusal {
    let plugin = &refused.fault.plugin;
    tracing::warn!(
        plugin = plugin.name,
        version = plugin.version,
        message = refused.fault.message,
        "request refused, since its cost model fails closed"
    );
    let message = "This request cannot be priced at the moment. Try again shortly.";
    Refusal::new(ErrorKind::PricingUnavailable, message).retry_after(refused.retry_after)
}

fn busy(error: &SubmitError) -> Refusal {
    match error {
        SubmitError::Busy => Refusal::new(
            ErrorKind::Overloaded,
            "Too many requests are waiting for the model. Try again shortly.",
        )
        .retry_after(Duration::from_secs(1)),
        SubmitError::Stopped => {
            Refusal::new(ErrorKind::ShuttingDown, "The engine has stopped; restart the gateway.")
        }
    }
}
