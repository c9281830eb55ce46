//! The task that tells Redis what requests used, renews the places of those in flight, and asks a
//! server that is away whether it is back. It ends when its handle is gone and all is told.
//!
//! It does one thing at a time, so a place that was given back is not renewed after it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::connection::RedisTrouble;
use super::scripts::{Owed, Scripts, Stand};
use super::{Book, Merged};
use crate::admission::Ask;

/// Most that is told at once.
const BATCH: usize = 256;
/// Time between two looks at what else there is to do, and between two tries.
const TICK: Duration = Duration::from_millis(100);
/// What Redis answers with an error as often is given up, so that it does not hold up the rest:
/// a minute of tries.
const REFUSALS: u32 = 600;
/// Tries to tell the rest when the gateway ends.
const LAST_TRIES: u32 = 20;

pub(super) async fn run(book: Arc<Book>, mut queue: mpsc::Receiver<Owed>, name: String) {
    let mut batch: Vec<Owed> = Vec::with_capacity(BATCH);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut merges = 0u64;
    let mut last_tries = 0;
    // The first request finds a connection.
    book.connection.probe().await;
    loop {
        let room = BATCH.saturating_sub(batch.len());
        tokio::select! {
            received = queue.recv_many(&mut batch, room), if batch.is_empty() && last_tries == 0 => {
                if received == 0 {
                    last_tries = 1;
                }
            }
            _ = tick.tick() => {
                if book.connection.is_away() {
                    book.connection.probe().await;
                }
                renew(&book).await;
                if last_tries > 0 {
                    last_tries += 1;
                }
            }
        }
        if batch.is_empty() && !book.connection.is_silent() {
            batch = unmerge(&book, &name, &mut merges);
        }
        if !batch.is_empty() && !book.connection.is_silent() {
            batch = tell(&book, batch).await;
            if !batch.is_empty() {
                // What failed is not tried again before the next tick.
                tick.tick().await;
            }
        }
        if last_tries > 0 && (batch.is_empty() || last_tries > LAST_TRIES) {
            if !batch.is_empty() {
                tracing::warn!(requests = batch.len(), "Redis did not take what requests used");
            }
            return;
        }
    }
}

/// Tells a batch; what comes back was not taken.
async fn tell(book: &Book, batch: Vec<Owed>) -> Vec<Owed> {
    let answers = join_all(batch.iter().map(|owed| async move {
        let known = book.known(&owed.ask);
        book.connection.run_behind(&book.scripts.settle(owed, &known)).await
    }))
    .await;
    let mut rest = Vec::new();
    for (mut owed, answer) in batch.into_iter().zip(answers) {
        match answer {
            Ok(answer) => {
                taken(book, &owed, &Scripts::settled(&answer));
                continue;
            }
            Err(RedisTrouble::Failed) => owed.refusals += 1,
            Err(RedisTrouble::Slow | RedisTrouble::Away) => {}
        }
        if owed.refusals < REFUSALS {
            rest.push(owed);
        } else {
            tracing::error!(tag = %owed.ask.tag, "Redis refuses what a request used; it is given up");
            book.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
    rest
}

/// Redis knows now what was known here only.
fn taken(book: &Book, owed: &Owed, stands: &[Stand]) {
    let budgets = owed.ask.budgets.iter().zip(&owed.spent).zip(stands);
    for ((asked, spent), stand) in budgets {
        let counted = if owed.counted { asked.estimate } else { 0 };
        book.local.note(&owed.ask.tag, &asked.name, &asked.period, owed.at, |spend| {
            spend.reserved = spend.reserved.saturating_sub(counted);
            spend.local = spend.local.saturating_sub(spent.saturating_sub(counted));
            spend.learn(stand.spent, stand.version);
        });
    }
    book.waiting.fetch_sub(1, Ordering::Relaxed);
}

/// What was merged, as requests of their own.
fn unmerge(book: &Book, name: &str, merges: &mut u64) -> Vec<Owed> {
    let mut merged = book.merged();
    let names: Vec<String> = merged.keys().take(BATCH).cloned().collect();
    let sums: Vec<Merged> = names.iter().filter_map(|name| merged.remove(name)).collect();
    drop(merged);
    book.waiting.fetch_add(sums.len(), Ordering::Relaxed);
    let owed = sums.into_iter().map(|Merged { tag, asked, spent }| {
        *merges += 1;
        let at = asked.period.start;
        let ask = Ask { tag, scopes: Vec::new(), budgets: vec![asked], tokens: 0, at };
        let id = format!("{name}{merges:x}");
        Owed { id, ask, tokens: 0, spent: vec![spent], at, counted: false, refusals: 0 }
    });
    owed.collect()
}

async fn renew(book: &Book) {
    let every = book.scripts.renew_every();
    let mut due = Vec::new();
    {
        let now = Instant::now();
        let mut live = book.live();
        if book.connection.is_silent() {
            return;
        }
        for (renewed, place) in live.values_mut() {
            if now.duration_since(*renewed) >= every && due.len() < BATCH {
                *renewed = now;
                due.push(place.clone());
            }
        }
    }
    let renewals = due
        .iter()
        .map(|place| async move { book.connection.run_behind(&book.scripts.renew(place)).await });
    // One that fails is renewed again in time: a place holds for three times as long.
    let _ = join_all(renewals).await;
}
