//! While the client waits: admit, pin, put on record, generate, price, put on record again, and
//! only then end the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tollgate_domain::ErrorKind;
use tollgate_domain::record::{Asked, Operation, Record};
use tollgate_domain::time::Interval;
use tollgate_engine::{GenerateRequest, Generation, SamplingOptions, SubmitError};
use tollgate_ledger::{LedgerError, Ticket};
use tollgate_plugin_host::{NotAdmitted, PluginSet};
use tracing::Instrument;

use crate::call::{Answer, AnswerEvent, Arrival, Call, Ending, Prompt, Refusal};
use crate::request::{End, Request, asked};
use crate::tap::{self, Ran};
use crate::{Gateway, Inner};

/// Pieces of an answer that may wait for the client. Policy when it is full: generation's reader
/// waits; the engine, whose own queue holds a whole answer, does not.
const PIECES_WAITING: usize = 64;

/// Most tokens that `/v1/completions` generates when it is not told, as OpenAI does.
const DEFAULT_COMPLETION_TOKENS: u32 = 16;

/// When a client may try again whose request could not be put on record.
const LEDGER_RETRY: Duration = Duration::from_secs(5);

/// An admitted request: its prompt is made of tokens and the engine has it.
struct Admitted {
    generation: Generation,
    served: String,
    prompt_tokens: u64,
    tokenize: Interval,
    submitted: Instant,
}

/// Where the answer to a call goes, once it is known whether there is one.
type Reply = oneshot::Sender<Result<Answer, Refusal>>;

impl Gateway {
    /// Serves one request: the answer while it is made, or why there is none. Either way it is on
    /// record.
    ///
    /// # Errors
    /// The refusal to tell the client, with the ids it is on record under.
    pub async fn serve(&self, call: Call) -> Result<Answer, Refusal> {
        let (reply, replied) = oneshot::channel();
        // A task of its own outlives the connection: a client that goes away changes the outcome,
        // never the accounting.
        self.0.running.spawn(serve(Arc::clone(&self.0), call, reply));
        replied.await.unwrap_or_else(|_| Err(cut_off()))
    }

    /// Puts a refusal on record that was decided before a [`Call`] could be made of the request.
    pub async fn refuse(
        &self,
        arrival: &Arrival,
        asked: Asked,
        user: Option<String>,
        refusal: Refusal,
    ) -> Refusal {
        let request = Request::begin(arrival, asked, user);
        let inner = Arc::clone(&self.0);
        let log = request.log_span();
        let recording = async move { inner.refused(&request, refusal).await };
        let recorded = self.0.running.spawn(recording.instrument(log));
        recorded.await.unwrap_or_else(|_| cut_off())
    }
}

/// Who it is, for the log too; then its life.
async fn serve(gateway: Arc<Inner>, call: Call, reply: Reply) {
    let model = call.model.clone().unwrap_or_else(|| gateway.models.default_name().to_owned());
    let request = Request::begin(&call.arrival, asked(&call, model), call.user.clone());
    let log = request.log_span();
    live(gateway, call, request, reply).instrument(log).await;
}

/// The life of a request while its client waits.
async fn live(gateway: Arc<Inner>, call: Call, request: Request, reply: Reply) {
    let plugins = gateway.plugins.pin();
    let (admitted, ticket) = match gateway.admit(&call, &request, &plugins).await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let _ = reply.send(Err(gateway.refused(&request, refusal).await));
            return;
        }
    };
    let Admitted { generation, served, prompt_tokens, tokenize, submitted } = admitted;
    let (pieces, events) = mpsc::channel(PIECES_WAITING);
    // A client that is gone by now is found out by the tap.
    let _ = reply.send(Ok(answer(&request, events)));
    let mut content = gateway.capture.begin(request.tenant(), &call.prompt);
    let tapping =
        tap::run(generation, prompt_tokens, &pieces, &ticket, &mut content, gateway.stall);
    let Ran { tapped, failure } = tapping.await;
    let usage = tapped.usage(request.usage_base(&served), prompt_tokens, &gateway.engine);
    let cost = tokio::task::block_in_place(|| plugins.price(request.tenant(), &usage));
    let (tokens, source, billed) = (usage.tokens, usage.source, cost.clone());
    let result = tapped.result(failure.as_ref());
    let phases = tapped.phases(&request.arrived, tokenize, submitted);
    let outcome = tapped.outcome(failure);
    let content = content.map(|content| content.ended(tapped.reason));
    let record = request.served(End { phases, outcome, usage, cost, content });
    let result = gateway.finished(ticket, &record).await.and(result);
    gateway.requests.count(&record, Some(tapped.overhead(&request.arrived, submitted)));
    let ending = Ending { result, tokens, source, cost: billed };
    // A client that is gone does not hear it; that is already on record.
    let _ = pieces.send(AnswerEvent::Ended(Box::new(ending))).await;
    gateway.price_in_the_shadow(&record, &plugins);
}

impl Inner {
    /// From a well-formed call to one that the engine works on and that is on record as started.
    async fn admit(
        &self,
        call: &Call,
        request: &Request,
        plugins: &PluginSet,
    ) -> Result<(Admitted, Ticket), Refusal> {
        self.ledger.admits().map_err(|error| unrecorded(&error))?;
        let admitted = self.submit(call, request, plugins)?;
        // The engine reads the prompt meanwhile; nothing of it goes out before this commit.
        let record = request.aborted(&admitted.served, admitted.tokenize);
        let started = self.ledger.start(&record, plugins.fingerprint()).await;
        let ticket = started.map_err(|error| unrecorded(&error))?;
        Ok((admitted, ticket))
    }

    /// From a well-formed call to one the engine works on.
    fn submit(
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
                ..GenerateRequest::default()
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

    /// Puts the end of a request on record; the refusal to tell the client if that cannot be done.
    async fn finished(&self, ticket: Ticket, record: &Record) -> Result<(), Refusal> {
        let recorded = self.ledger.finish(ticket, record).await;
        recorded.map(drop).map_err(|error| unrecorded(&error))
    }

    /// Puts a refusal on record; what to tell the client.
    async fn refused(&self, request: &Request, mut refusal: Refusal) -> Refusal {
        let record = request.refused(&refusal);
        self.requests.count(&record, None);
        match self.ledger.refused(&record).await {
            Ok(_) => refusal.recorded = Some((request.id.clone(), request.trace.trace_id)),
            Err(error) if refusal.kind != ErrorKind::RecordUnavailable => {
                return unrecorded(&error);
            }
            Err(_) => {}
        }
        refusal
    }

    /// Asks the plugins marked shadow what they would have billed, and counts the difference.
    fn price_in_the_shadow(&self, record: &Record, plugins: &PluginSet) {
        if let Some(usage) = &record.usage {
            let tenant = record.tenant.as_deref();
            let prices = tokio::task::block_in_place(|| plugins.shadow(tenant, usage));
            self.shadow.compare(tenant, usage, &record.cost, prices);
        }
    }
}

fn answer(request: &Request, events: mpsc::Receiver<AnswerEvent>) -> Answer {
    Answer {
        id: request.id.clone(),
        trace_id: request.trace.trace_id,
        created: request.arrived.wall(),
        model: request.asked.model.clone(),
        events,
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
        ..SamplingOptions::default()
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

/// What cannot be put on record is not served.
fn unrecorded(error: &LedgerError) -> Refusal {
    tracing::warn!(%error, "request refused, since the ledger cannot record it");
    let message = "The gateway cannot put requests on record at the moment. Try again shortly.";
    Refusal::new(ErrorKind::RecordUnavailable, message).retry_after(LEDGER_RETRY)
}

fn cut_off() -> Refusal {
    Refusal::new(ErrorKind::Internal, "The request was cut off.")
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
