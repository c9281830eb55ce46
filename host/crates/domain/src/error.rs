//! Classes of failure that a client can meet, and the one table that maps them to HTTP.

use serde::{Deserialize, Serialize};

/// What kind of failure ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request breaks the API: a wrong type, a value out of range.
    InvalidRequest,
    /// The prompt does not fit into the model's context.
    ContextLengthExceeded,
    /// The request is larger than the gateway takes.
    TooLarge,
    /// No token, or not the right one.
    Unauthorized,
    /// Not from there: a page in a browser asks on its own account.
    Forbidden,
    /// As things are now it cannot be done.
    Conflict,
    /// No such model.
    ModelNotFound,
    /// No such route.
    NotFound,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The body is not JSON by its own declaration.
    UnsupportedMediaType,
    /// The queue is full; worth another try.
    Overloaded,
    /// More requests or tokens than a key, a tenant or a model may have; worth another try later.
    RateLimited,
    /// What a key or a tenant may spend is spent.
    BudgetExhausted,
    /// The gateway is shutting down; worth another try elsewhere.
    ShuttingDown,
    /// What must price a request has failed lately; worth another try later.
    PricingUnavailable,
    /// Limits are shared with others and cannot be checked; worth another try.
    LimitsUnavailable,
    /// The ledger cannot put the request on record; worth another try once the operator has helped.
    RecordUnavailable,
    /// The backend failed.
    Backend,
    /// The backend did not answer in time.
    BackendTimeout,
    /// No backend can be asked at the moment; worth another try.
    BackendUnavailable,
    /// A bug of ours.
    Internal,
    /// The client took too long to send or to read.
    Timeout,
}

impl ErrorKind {
    /// Its name as `error.type` on spans and as `code` in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::TooLarge => "request_too_large",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Conflict => "conflict",
            Self::ModelNotFound => "model_not_found",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Overloaded => "overloaded",
            // OpenAI's codes, which its clients tell apart: they try again after the first only.
            Self::RateLimited => "rate_limit_exceeded",
            Self::BudgetExhausted => "insufficient_quota",
            Self::ShuttingDown => "shutting_down",
            Self::PricingUnavailable => "pricing_unavailable",
            Self::LimitsUnavailable => "limits_unavailable",
            Self::RecordUnavailable => "record_unavailable",
            Self::Backend => "backend_error",
            Self::BackendTimeout => "backend_timeout",
            Self::BackendUnavailable => "backend_unavailable",
            Self::Internal => "internal_error",
            Self::Timeout => "timeout",
        }
    }

    /// The status of the HTTP answer.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::ContextLengthExceeded => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::ModelNotFound | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Overloaded | Self::RateLimited | Self::BudgetExhausted => 429,
            Self::Internal => 500,
            Self::Backend => 502,
            Self::ShuttingDown
            | Self::PricingUnavailable
            | Self::LimitsUnavailable
            | Self::RecordUnavailable
            | Self::BackendUnavailable => 503,
            Self::BackendTimeout => 504,
        }
    }
}
