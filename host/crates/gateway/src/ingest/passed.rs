//! Metrics and logs of other programs: on record before they are acknowledged, and otherwise left
//! alone. Exporters to OTLP receivers pass them on in their order.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::block_in_place;
use tollgate_domain::passed::{Passed, Signal};
use tollgate_ledger::Payload;
use tollgate_telemetry::receive::{self, Encoding};
use tracing::Instrument;

use super::malformed;
use crate::call::{Caller, Refusal};
use crate::serve::unrecorded;
use crate::{Gateway, Inner};
use tollgate_domain::ErrorKind;

impl Gateway {
    /// Takes a request of metrics or logs; its bytes are not compressed any more. It ends in a task
    /// of its own, as [`Gateway::ingest`].
    ///
    /// # Errors
    /// The refusal says whether the same request may be sent again.
    pub async fn pass_on(
        &self,
        caller: Caller,
        signal: Signal,
        body: bytes::Bytes,
        encoding: Encoding,
    ) -> Result<(), Refusal> {
        let inner = Arc::clone(&self.0);
        let taking = async move {
            let taken = inner.pass_on(&caller, signal, &body, encoding).await;
            let result = taken.as_ref().map_or_else(|refusal| refusal.kind.name(), |()| "taken");
            inner.requests.received.request(result);
            taken
        };
        let taken = self.0.running.spawn(taking.in_current_span());
        taken.await.unwrap_or_else(|_| Err(Refusal::new(ErrorKind::Internal, "It was cut off.")))
    }
}

impl Inner {
    async fn pass_on(
        &self,
        caller: &Caller,
        signal: Signal,
        body: &[u8],
        encoding: Encoding,
    ) -> Result<(), Refusal> {
        let ingest = self.ready_to_take()?;
        self.keep_pace().await;
        let _place = ingest.place(caller, body.len())?;
        let request = block_in_place(|| receive::passed(body, encoding, signal));
        let request = request.map_err(|error| malformed(&error))?;
        if request.is_empty() {
            return Ok(());
        }
        let (tenant, arrived) = (caller.0.tenant.clone(), SystemTime::now().into());
        let passed = Passed { signal, tenant, arrived, request };
        let committed = self.ledger.received(vec![Payload::Passed(Box::new(passed))]).await;
        committed.map_err(|error| unrecorded(&error))
    }
}
