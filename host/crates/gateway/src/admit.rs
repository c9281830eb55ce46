//! From a well-formed call to one that a backend works on: room, place, price, limits, and the start
//! on record.

use std::time::Instant;

use tokio::sync::watch;
use tollgate_domain::record::{Asked, Operation, Record, ServedBy};
use tollgate_domain::time::Interval;
use tollgate_domain::upstream::UpstreamCall;
use tollgate_domain::usage::UsageSource;
use tollgate_domain::{ErrorKind, TokenUsage, Usage};
use tollgate_ledger::Ticket;
use tollgate_plugin_host::{NotAdmitted, PluginSet};
use tollgate_upstream::{
    Candidate, Exchange, Failed, Route, Trail, Tried, Upstreams, another_may_do_better,
    refuses_our_key,
};

use crate::admission::Terms;
use crate::call::{Call, Form, Forward, Moment, Prompt, Refusal};
use crate::content::Captured;
use crate::forward;
use crate::local::{Local, Prepared, Working};
use crate::models::ModelCard;
use crate::request::{IN_PROCESS, Request};
use crate::serve::{Reply, unrecorded};
use crate::tap::upstream::{Question, unanswered};
use crate::tap::{self, Tap, Tapped};
use crate::{Inner, needs, pricing, prompt};

/// An admitted request: a backend has it, or none would, and it is on record as started.
pub(crate) struct Admitted {
    pub(crate) work: Work,
    /// Other servers that were asked.
    pub(crate) tried: Tried,
    pub(crate) usage: Usage,
    pub(crate) tokenize: Option<Interval>,
    pub(crate) submitted: Instant,
    pub(crate) ticket: Ticket,
    pub(crate) terms: Terms,
    pub(crate) content: Option<Captured>,
}

/// What a backend does for a request.
pub(crate) enum Work {
    /// The model in this process answers it; other servers may have been asked before.
    Here { working: Box<Working> },
    /// Another server answers it.
    Elsewhere { exchange: Box<Exchange>, question: Box<Question> },
    /// No server answered, or none in a way that can be passed on, or the client did not wait. `asked`: what a server was at
    /// work on then.
    Nowhere { refusal: Option<Refusal>, asked: Option<Box<Question>> },
}

/// Who answers in this process, what it is asked, and as which of its models.
type Here<'a> = (&'a Local, &'a Prompt, &'a ModelCard);

/// A request on its way to other servers.
struct Leaving<'a> {
    upstreams: &'a Upstreams,
    route: Route,
    forward: Forward,
}

impl Work {
    /// What the pieces of the answer are, if there is one.
    pub(crate) fn form(&self) -> Option<Form> {
        match self {
            Self::Here { working } => Some(Form::Pieces { choices: working.choices.len() }),
            Self::Elsewhere { exchange, .. } => Some(Form::Forwarded(forward::head(exchange))),
            Self::Nowhere { .. } => None,
        }
    }

    /// The call to another server, as far as it is known before its answer has passed.
    pub(crate) fn upstream(&self, tried: &Tried, arrived: &Moment) -> Option<UpstreamCall> {
        let answer = match self {
            Self::Elsewhere { exchange, .. } => Some(exchange.head()),
            Self::Here { .. } | Self::Nowhere { .. } => None,
        };
        forward::call(tried, answer, arrived)
    }

    /// Passes on what the backend makes until it ends.
    pub(crate) async fn run(self, tap: Tap<'_>) -> Tapped {
        match self {
            Self::Here { working } => tap::engine::run(*working, tap).await,
            Self::Elsewhere { exchange, question } => {
                tap::upstream::run(*exchange, &question, tap).await
            }
            Self::Nowhere { refusal, asked } => unanswered(refusal, asked.as_deref()),
        }
    }
}

impl Inner {
    /// Lets a call in and hands it to whom it is for. Other servers come first: whoever names them
    /// in the configuration wants them asked.
    pub(crate) async fn admit(
        &self,
        mut call: Call,
        request: &Request,
        plugins: &PluginSet,
        reply: &mut Reply,
    ) -> Result<Admitted, Refusal> {
        self.ledger.admits().map_err(|error| unrecorded(&error))?;
        if self.running.is_closed() {
            return Err(Refusal::new(ErrorKind::ShuttingDown, "The gateway is shutting down."));
        }
        let model = request.asked.model.as_str();
        if !request.caller.0.allows(model) {
            return Err(self.unknown_model(model));
        }
        match self.elsewhere(&mut call, request) {
            Some(leaving) => self.admit_elsewhere(leaving, &call, request, plugins, reply).await,
            None => {
                let here = self.here(&call, model).ok_or_else(|| self.unserved(&call, request))?;
                self.admit_here(here, &call, request, plugins).await
            }
        }
    }

    /// Admits what the model in this process is to answer.
    async fn admit_here(
        &self,
        here: Here<'_>,
        call: &Call,
        request: &Request,
        plugins: &PluginSet,
    ) -> Result<Admitted, Refusal> {
        let (local, prompt, _) = here;
        let (usage, prepared) = prepare(here, call, request, plugins)?;
        let most = (u64::from(prepared.prompt_tokens), prepared.most_output_tokens());
        let terms = self.reserve(request, plugins, &usage, most).await?;
        let tokenize = Some(prepared.tokenize);
        let submitted = Instant::now();
        let (terms, working) = terms.kept_for(local.submit(prepared))?;
        let content = self.capture.begin(request.tenant(), || prompt.clone());
        // The engine reads the prompt meanwhile; nothing of it goes out before this commit.
        let started = self.started(request.aborted(&usage, tokenize, None), plugins).await;
        let (terms, ticket) = terms.kept_for(started)?;
        let work = Work::Here { working: Box::new(working) };
        let tried = Tried::default();
        Ok(Admitted { work, tried, usage, tokenize, submitted, ticket, terms, content })
    }

    /// Admits what another server is to answer.
    async fn admit_elsewhere(
        &self,
        Leaving { upstreams, route, forward }: Leaving<'_>,
        call: &Call,
        request: &Request,
        plugins: &PluginSet,
        reply: &mut Reply,
    ) -> Result<Admitted, Refusal> {
        let mut usage = match route.candidates().first() {
            Some(first) => request.usage_base(first.provider(), first.model()),
            None => return Err(self.unknown_model(&request.asked.model)),
        };
        usage.source = UsageSource::Estimated;
        if request.operation != Operation::Other {
            plugins.admits(request.tenant(), &usage).map_err(|refused| unpriceable(&refused))?;
        }
        let (longest, choices) = (request.asked.max_tokens, request.asked.choices);
        let needs = needs::of(request.operation, &forward.body, longest, choices);
        let terms = self.reserve(request, plugins, &usage, (needs.input, needs.output)).await?;
        let said = || prompt::prompt(request.operation, &forward.body);
        let content = self.capture.begin(request.tenant(), said);
        let body = forward.body.clone();
        let outgoing = forward::outgoing(request, forward, content.is_some());
        let mut submitted = Instant::now();
        let trail = Trail::default();
        let mut seen = trail.follow();
        let asking = async {
            let answered = tokio::select! {
                answered = upstreams.send(&route, &outgoing, &trail) => answered.map(Some),
                // The client does not wait for it, so nobody does.
                () = reply.closed() => Ok(None),
            };
            (answered, trail.ended())
        };
        let fallback = self.here(call, &request.asked.model);
        let planned = forward::planned_call(&route, fallback.map(by_here), &request.arrived);
        // What the server reads is used, also if it is the last that is heard of it.
        let tokens = TokenUsage { input: needs.input, ..TokenUsage::default() };
        let record = request.aborted(&Usage { tokens, ..usage.clone() }, None, planned);
        // The backend works meanwhile; nothing of it goes out before this commit.
        let starting = async {
            let ticket = self.started(record, plugins).await?;
            note_who_is_asked(&ticket, &mut seen).await;
            Ok(ticket)
        };
        let ((answered, tried), started) = tokio::join!(asking, starting);
        let (terms, ticket) = terms.kept_for(started)?;
        if let Some(last) = tried.last() {
            (usage.provider, usage.response_model) =
                (last.provider().to_owned(), last.model().to_owned());
        }
        let question = Box::new(Question {
            operation: request.operation,
            model: usage.response_model.clone(),
            body,
            prompt_tokens: needs.input,
            media_tokens: needs.media,
        });
        let mut tokenize = None;
        let work = match (passable(answered, fallback.is_some()), fallback) {
            (Ok(exchange), _) => Work::Elsewhere { exchange: Box::new(exchange), question },
            (Err(Some(_)), Some(here)) => match self.step_in(here, call, request, plugins) {
                Ok((own, read, working)) => {
                    // Behind all servers of the plan.
                    let place = route.candidates().len();
                    ticket.asks(u16::try_from(place).unwrap_or(u16::MAX));
                    (usage, tokenize, submitted) = (own, Some(read), Instant::now());
                    Work::Here { working: Box::new(working) }
                }
                Err(refusal) => Work::Nowhere { refusal: Some(refusal), asked: None },
            },
            (Err(None), _) => {
                let asked = tried.asking.is_some().then_some(question);
                Work::Nowhere { refusal: None, asked }
            }
            (Err(refusal), None) => Work::Nowhere { refusal, asked: None },
        };
        Ok(Admitted { work, tried, usage, tokenize, submitted, ticket, terms, content })
    }

    /// Has the model here answer what no other server does. The request is on record, and has taken from its limits.
    fn step_in(
        &self,
        here: Here<'_>,
        call: &Call,
        request: &Request,
        plugins: &PluginSet,
    ) -> Result<(Usage, Interval, Working), Refusal> {
        let (usage, prepared) = prepare(here, call, request, plugins)?;
        let tokenize = prepared.tokenize;
        let working = here.0.submit(prepared)?;
        tracing::warn!("no backend answered; the model here does");
        Ok((usage, tokenize, working))
    }

    /// The way of a call to other servers, if any may answer it: then they get what is to be forwarded.
    fn elsewhere(&self, call: &mut Call, request: &Request) -> Option<Leaving<'_>> {
        let upstreams = self.upstreams.as_ref()?;
        let forward = call.forward.as_ref()?;
        let route = upstreams.route(&request.asked.model, request.tenant())?;
        let route = match request.operation {
            Operation::Other => route.passing(&forward.path)?,
            _ => route,
        };
        let forward = call.forward.take()?;
        Some(Leaving { upstreams, route, forward })
    }

    /// The model in this process that a call means, and its prompt.
    fn here<'a>(&'a self, call: &'a Call, model: &str) -> Option<Here<'a>> {
        let (local, card) = self.locals.find(model)?;
        Some((local, call.prompt.as_ref()?, card))
    }

    /// The name of the model that is asked for.
    pub(crate) fn model_of<'a>(&'a self, asked: &'a Asked) -> &'a str {
        if asked.model.is_empty() { self.locals.default_name() } else { &asked.model }
    }

    /// Why nobody answers a call.
    fn unserved(&self, call: &Call, request: &Request) -> Refusal {
        let model = request.asked.model.as_str();
        let has = |upstreams: &Upstreams| upstreams.serves(model, request.tenant());
        let has_backend = self.upstreams.as_ref().is_some_and(has);
        match &call.forward {
            Some(forward) if request.operation == Operation::Other && has_backend => {
                // Its path may be anything, so no more of it is repeated than fits a line.
                let path: String = forward.path.chars().take(100).collect();
                let message = format!(
                    "/v1{path} is not passed on to the backend. Its operator can name the path in \
                     `pass-through`."
                );
                Refusal::new(ErrorKind::NotFound, message)
            }
            _ => self.unknown_model(model),
        }
    }

    fn unknown_model(&self, name: &str) -> Refusal {
        let message = match name {
            "" => "Say which `model` is to answer. `GET /v1/models` lists those that there are."
                .to_owned(),
            name => format!(
                "The model `{name}` does not exist here. `GET /v1/models` lists those that there are."
            ),
        };
        Refusal::new(ErrorKind::ModelNotFound, message).param("model")
    }

    /// Takes what a request may use from the limits of whoever asks: at most so many tokens of
    /// prompt and answer.
    async fn reserve(
        &self,
        request: &Request,
        plugins: &PluginSet,
        usage: &Usage,
        (input, output): (u64, u64),
    ) -> Result<Terms, Refusal> {
        let cost = || pricing::estimate(request, plugins, usage, (input, output));
        self.tenancy.reserve(request, input.saturating_add(output), cost).await
    }

    /// Puts a request on record as started, by the record that it has if nothing more is heard of it.
    async fn started(&self, record: Record, plugins: &PluginSet) -> Result<Ticket, Refusal> {
        let started = self.ledger.start(&record, plugins.fingerprint()).await;
        started.map_err(|error| unrecorded(&error))
    }
}

/// What the model here is to do, and the usage that it will be billed by.
fn prepare(
    (local, prompt, card): Here<'_>,
    call: &Call,
    request: &Request,
    plugins: &PluginSet,
) -> Result<(Usage, Prepared), Refusal> {
    let usage = request.usage_base(IN_PROCESS, &card.root);
    plugins.admits(request.tenant(), &usage).map_err(|refused| unpriceable(&refused))?;
    Ok((usage, local.prepare(call, request, prompt)?))
}

/// The answer of a server, if it can be passed on; else what to tell the client, unless it did not wait. `may_step_in`: the
/// model here may do better.
fn passable(
    answered: Result<Option<Exchange>, Failed>,
    may_step_in: bool,
) -> Result<Exchange, Option<Refusal>> {
    let exchange = match answered {
        Ok(Some(exchange)) => exchange,
        Ok(None) => return Err(None),
        Err(failed) => {
            tracing::warn!(reason = failed.message, "no backend answered");
            return Err(Some(forward::refusal(&failed)));
        }
    };
    match exchange.head().status {
        status if refuses_our_key(status) => Err(Some(forward::turned_away())),
        status if may_step_in && another_may_do_better(status) => {
            let message = format!("The backend answered {status}.");
            Err(Some(Refusal::new(ErrorKind::Backend, message)))
        }
        _ => Ok(exchange),
    }
}

/// Who serves what the model here answers.
fn by_here((_, _, card): Here<'_>) -> ServedBy {
    ServedBy { provider: IN_PROCESS.to_owned(), model: card.root.clone() }
}

/// Notes where it will be found if this process dies who is asked, as long as somebody is.
async fn note_who_is_asked(ticket: &Ticket, seen: &mut watch::Receiver<Tried>) {
    loop {
        let asked = seen.borrow_and_update().last().map(Candidate::place);
        if let Some(place) = asked {
            ticket.asks(place);
        }
        if seen.changed().await.is_err() {
            return;
        }
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
