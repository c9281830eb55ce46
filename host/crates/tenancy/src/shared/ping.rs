//! Whether Redis is there and fit for limits, asked once and by hand: for an operator before a start.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError};
use tollgate_domain::UnixNanos;
use tollgate_domain::text::one_line;

use super::{RedisSettings, client};
use crate::error::TenancyError;

/// What Redis says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisPong {
    /// Its clock.
    pub clock: UnixNanos,
    /// What it does when its memory is full, if it tells; `noeviction` is what limits need.
    pub maxmemory_policy: Option<String>,
}

/// Connects anew and asks, for at most `patience`.
///
/// # Errors
/// [`TenancyError::NoAnswer`], or what is wrong with the settings.
pub async fn ping(settings: &RedisSettings, patience: Duration) -> Result<RedisPong, TenancyError> {
    let client = client::client(settings)?;
    let no_answer = |problem: String| TenancyError::NoAnswer { problem };
    match tokio::time::timeout(patience, ask(&client)).await {
        Ok(Ok(pong)) => Ok(pong),
        Ok(Err(error)) => Err(no_answer(one_line(&error.to_string(), 256))),
        Err(_) => Err(no_answer(format!("nothing within {patience:?}"))),
    }
}

async fn ask(client: &Client) -> Result<RedisPong, RedisError> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await?;
    let nanos = seconds.saturating_mul(1_000_000).saturating_add(micros).saturating_mul(1000);
    Ok(RedisPong { clock: UnixNanos(nanos), maxmemory_policy: policy(&mut connection).await })
}

/// Servers that are managed by others do not tell.
async fn policy(connection: &mut MultiplexedConnection) -> Option<String> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("maxmemory-policy");
    let pair: Result<Vec<String>, _> = command.query_async(connection).await;
    pair.ok()?.into_iter().nth(1)
}
