//! The thread that writes: takes what has arrived, commits it together, answers all.
//!
//! After a commit that failed nothing is known of the file. Whoever waited is told, ends of
//! requests are owed, and the thread opens the file anew until it can write what it owes. What a
//! failed commit left on disk after all is found then: an end that is there is not written twice,
//! and a start that nobody has a ticket for is ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, error::TryRecvError};
use tokio::sync::oneshot::Sender;
use tollgate_domain::{CostOutcome, ErrorKind, Outcome, Record, UnixNanos, UnpricedReason};

use crate::book::Book;
use crate::entry::{Cursor, Head, Kind, NewEntry, Outbound, Payload, Seq};
use crate::error::LedgerError;
use crate::files::Lock;
use crate::recent::Recent;
use crate::shared::Shared;
use crate::slots::Ticket;
use crate::upkeep::Beside;

/// Commands that are committed together at most.
const BATCH: usize = 512;

/// First and longest pause before the file is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// How often a command is looked for meanwhile.
const POLL: Duration = Duration::from_millis(10);

type Reply<T> = Sender<Result<T, LedgerError>>;

/// What the writer is asked to do.
pub(crate) enum Command {
    Start {
        entry: NewEntry,
        plugin_set: String,
        reply: Reply<Ticket>,
    },
    End {
        entry: NewEntry,
        record: Arc<Record>,
        ticket: Option<Ticket>,
        reply: Reply<Seq>,
    },
    Receive {
        entries: Vec<NewEntry>,
        payloads: Vec<Payload>,
        reply: Reply<()>,
    },
    Advance {
        exporter: String,
        cursor: Cursor,
        reply: Reply<()>,
    },
    Retire {
        ordinal: u64,
        reply: Reply<()>,
    },
    /// What the upkeep left of the journal: while this is done nothing is added, so that it can begin anew.
    WriteBack {
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
}

/// What a command has come to within a transaction.
enum Done {
    Started(Seq, u32),
    Ended(Option<Seq>, u64),
    /// Place and number of each.
    Received(Vec<(Seq, u64)>),
    Other,
}

/// An end that could not be put on record yet.
struct Owed {
    record: Arc<Record>,
    ticket: Ticket,
}

/// The thread's state.
pub(crate) struct Writer {
    book: Book,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    /// Starts that somebody has a ticket for.
    live: HashSet<Seq>,
    /// At most one for each request in flight.
    owed: Vec<Owed>,
    trouble: Option<Trouble>,
    /// When the next file is tried again.
    turn_at: Instant,
    upkeep: Beside,
    lock: Lock,
}

#[derive(Clone, Copy)]
struct Trouble {
    again_at: Instant,
    pause: Duration,
}

impl Writer {
    pub(crate) fn new(
        book: Book,
        shared: Arc<Shared>,
        commands: Receiver<Command>,
        live: HashSet<Seq>,
        upkeep: Beside,
        lock: Lock,
    ) -> Self {
        let (owed, trouble, turn_at) = (Vec::new(), None, Instant::now());
        Self { book, shared, commands, live, owed, trouble, turn_at, upkeep, lock }
    }

    /// Writes until it is closed or nobody is left to ask, and lets go of the folder.
    pub(crate) fn run(mut self) {
        let asked = self.serve();
        let closed = self.close();
        let Self { book, shared, commands, upkeep, lock, .. } = self;
        // Whoever still waits hears that it is closed; the upkeep, too, which can then end.
        drop(commands);
        upkeep.end();
        shared.close_files();
        drop((book, lock));
        match (asked, closed) {
            (Some(reply), closed) => drop(reply.send(closed)),
            (None, Ok(())) => {}
            (None, Err(error)) => tracing::warn!(%error, "the ledger's next start repairs it"),
        }
    }

    /// Writes until then; who asked to close it.
    fn serve(&mut self) -> Option<Reply<()>> {
        while let Some(first) = self.next() {
            let mut batch = vec![first];
            // On a processor that is shared with those who ask, whoever was first would else be written alone: they
            // go on asking meanwhile (`decisions/0029`).
            std::thread::yield_now();
            while batch.len() < BATCH
                && let Ok(more) = self.commands.try_recv()
            {
                batch.push(more);
            }
            let close = batch.iter().position(|command| matches!(command, Command::Close { .. }));
            let rest = close.map(|close| batch.split_off(close)).unwrap_or_default();
            if !batch.is_empty() {
                self.commit(batch);
            }
            if let Some(Command::Close { reply }) = rest.into_iter().next() {
                return Some(reply);
            }
        }
        None
    }

    /// The next command. While there is trouble the file is tried again in between.
    fn next(&mut self) -> Option<Command> {
        loop {
            let Some(trouble) = self.trouble else { return self.commands.blocking_recv() };
            match self.commands.try_recv() {
                Ok(command) => return Some(command),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            if Instant::now() >= trouble.again_at {
                self.recover(trouble);
            } else {
                std::thread::sleep(POLL);
            }
        }
    }

    fn commit(&mut self, batch: Vec<Command>) {
        if self.trouble.is_some() {
            let error = self.shared.trouble().unwrap_or(LedgerError::Closed);
            return self.refuse(batch, &error);
        }
        let began = Instant::now();
        let mut slots = Vec::new();
        let written = self.book.write(|page| {
            batch
                .iter()
                .map(|command| {
                    Ok(match command {
                        Command::Start { entry, plugin_set, .. } => {
                            let slot = self.shared.slots.take();
                            slots.push(slot);
                            Done::Started(page.start(entry, slot, plugin_set)?, slot)
                        }
                        Command::End { entry, ticket, .. } => {
                            let started = ticket.as_ref().map(|ticket| ticket.started);
                            Done::Ended(page.end(entry, started)?, page.tail().records)
                        }
                        Command::Receive { entries, .. } => {
                            let mut places = Vec::with_capacity(entries.len());
                            for entry in entries {
                                let seq = page.end(entry, None)?.unwrap_or_default();
                                places.push((seq, page.tail().records));
                            }
                            Done::Received(places)
                        }
                        Command::Advance { exporter, cursor, .. } => {
                            page.advance(exporter, cursor)?;
                            Done::Other
                        }
                        Command::Retire { ordinal, .. } => {
                            page.retire(*ordinal)?;
                            Done::Other
                        }
                        Command::WriteBack { .. } | Command::Close { .. } => Done::Other,
                    })
                })
                .collect::<Result<Vec<Done>, rusqlite::Error>>()
        });
        match written {
            Ok(done) => self.committed(batch, done, began),
            Err(error) => {
                slots.into_iter().for_each(|slot| self.shared.slots.release(slot));
                self.in_trouble(&error);
                self.refuse(batch, &error);
            }
        }
    }

    fn committed(&mut self, batch: Vec<Command>, done: Vec<Done>, began: Instant) {
        let tail = self.book.tail();
        self.shared.count(|counts| counts.committed(batch.len(), began.elapsed()));
        let mut replies: Vec<Box<dyn FnOnce()>> = Vec::with_capacity(batch.len());
        let mut write_back = None;
        for (command, done) in batch.into_iter().zip(done) {
            match (command, done) {
                (Command::Start { reply, .. }, Done::Started(seq, slot)) => {
                    self.live.insert(seq);
                    self.shared.count(|counts| counts.started += 1);
                    let ticket = Ticket::new(seq, slot, Arc::clone(&self.shared.slots));
                    replies.push(Box::new(move || drop(reply.send(Ok(ticket)))));
                }
                (Command::End { entry, record, ticket, reply }, Done::Ended(seq, number)) => {
                    let seq = self.ended(&entry, record, ticket, seq, number);
                    replies.push(Box::new(move || drop(reply.send(Ok(seq)))));
                }
                (Command::Receive { entries, payloads, reply }, Done::Received(places)) => {
                    let sizes = entries.into_iter().map(|entry| entry.bytes);
                    self.received(payloads, sizes, places);
                    replies.push(Box::new(move || drop(reply.send(Ok(())))));
                }
                (Command::Advance { exporter, cursor, reply }, _) => {
                    self.shared.moved(exporter, cursor);
                    replies.push(Box::new(move || drop(reply.send(Ok(())))));
                }
                (Command::Retire { reply, .. }, _) => {
                    replies.push(Box::new(move || drop(reply.send(Ok(())))));
                }
                (Command::WriteBack { reply }, _) => write_back = Some(reply),
                _ => {}
            }
        }
        // Whoever hears of it finds it there.
        self.shared.head.send_replace(Head { seq: tail.seq, records: tail.records });
        replies.into_iter().for_each(|reply| reply());
        // After all others, who have no need to wait for it.
        if let Some(reply) = write_back {
            let newest = self.book.newest();
            let written = newest.write_back().map(drop).map_err(|error| newest.failed(&error));
            let _ = reply.send(written);
        }
        self.keep_bounds();
    }

    fn ended(
        &mut self,
        entry: &NewEntry,
        record: Arc<Record>,
        ticket: Option<Ticket>,
        seq: Option<Seq>,
        number: u64,
    ) -> Seq {
        if let Some(ticket) = ticket {
            self.live.remove(&ticket.started);
            ticket.end();
        }
        self.shared.count(|counts| match entry.kind {
            Kind::Aborted => counts.aborted += 1,
            Kind::Refused => counts.refused += 1,
            _ => counts.finished += 1,
        });
        // Else a commit that failed has put it on record after all.
        let Some(seq) = seq else { return Seq::default() };
        self.shared
            .recent()
            .push(Arc::new(Outbound { seq, number, what: Payload::Record(record) }), entry.bytes);
        seq
    }

    fn received(
        &mut self,
        payloads: Vec<Payload>,
        sizes: impl Iterator<Item = usize>,
        places: Vec<(Seq, u64)>,
    ) {
        let mut recent = self.shared.recent();
        for ((what, bytes), (seq, number)) in payloads.into_iter().zip(sizes).zip(places) {
            self.shared.count(|counts| match &what {
                Payload::Record(_) => counts.received += 1,
                Payload::Spans(_) => counts.span_batches += 1,
                Payload::Passed(_) => counts.passed += 1,
            });
            recent.push(Arc::new(Outbound { seq, number, what }), bytes);
        }
    }

    /// Begins the next file when it is time.
    fn keep_bounds(&mut self) {
        if Instant::now() >= self.turn_at
            && let Err(error) = self.book.turn()
        {
            tracing::warn!(%error, "cannot begin the ledger's next file; this one goes on");
            self.turn_at = Instant::now() + PAUSE.1;
            // What is begun of it would be taken for the newest by the next start.
            if let Err(error) = self.book.discard_later() {
                self.in_trouble(&error);
            }
        }
        self.shared.set_newest(self.book.newest().ordinal);
    }

    /// Tells everybody that it was not put on record; keeps the ends of requests.
    fn refuse(&mut self, batch: Vec<Command>, error: &LedgerError) {
        for command in batch {
            match command {
                Command::Start { reply, .. } => {
                    let _ = reply.send(Err(error.clone()));
                }
                Command::End { record, ticket, reply, .. } => {
                    self.owed.extend(ticket.map(|ticket| Owed { record, ticket }));
                    let _ = reply.send(Err(error.clone()));
                }
                Command::Advance { reply, .. }
                | Command::Receive { reply, .. }
                | Command::Retire { reply, .. }
                | Command::WriteBack { reply }
                | Command::Close { reply } => {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    fn in_trouble(&mut self, error: &LedgerError) {
        self.shared.count(|counts| counts.failed_commits += 1);
        let pause = self.trouble.map_or(PAUSE.0, |trouble| (trouble.pause * 2).min(PAUSE.1));
        if self.trouble.is_none() {
            tracing::error!(%error, "the ledger cannot commit; requests are refused until it can");
        }
        self.trouble = Some(Trouble { again_at: Instant::now() + pause, pause });
        self.shared.set_trouble(Some(error.to_string()));
    }

    /// Opens the file anew and writes what is owed.
    fn recover(&mut self, trouble: Trouble) {
        match self.write_owed() {
            Ok(ended) => {
                self.trouble = None;
                self.shared.set_trouble(None);
                tracing::info!(ended, tries_after = ?trouble.pause, "the ledger commits again");
            }
            Err(error) => self.in_trouble(&error),
        }
    }

    fn write_owed(&mut self) -> Result<usize, LedgerError> {
        self.book.discard_later()?;
        self.book.reopen()?;
        // What the failed commit left on disk after all is read from there.
        *self.shared.recent() = Recent::from(self.book.tail().seq);
        let newest = self.book.newest();
        let in_flight = newest.in_flight().map_err(|error| newest.failed(&error))?;
        let mut ends = Vec::new();
        for request in in_flight.into_iter().filter(|found| !self.live.contains(&found.started)) {
            let record = self.shared.record_at(request.started)?;
            ends.push((request.started, unacknowledged(record, false)));
        }
        let unheard = ends.len() as u64;
        for Owed { record, ticket } in &self.owed {
            ends.push((ticket.started, unacknowledged(Record::clone(record), true)));
        }
        let entries = ends
            .into_iter()
            .map(|(started, record)| {
                let entry = NewEntry::new(Kind::of_end(&record), &record);
                let entry = entry.map_err(|error| {
                    LedgerError::damaged(&self.shared.folder, error.to_string())
                })?;
                Ok((started, record, entry))
            })
            .collect::<Result<Vec<_>, LedgerError>>()?;
        let done = self.book.write(|page| {
            page.partition().probe()?;
            let mut done = Vec::with_capacity(entries.len());
            for (started, _, entry) in &entries {
                done.push((page.end(entry, Some(*started))?, page.tail().records));
            }
            Ok(done)
        })?;
        self.shared.count(|counts| counts.started += unheard);
        let mut tickets: Vec<Ticket> = self.owed.drain(..).map(|owed| owed.ticket).collect();
        let count = entries.len();
        for ((started, record, entry), (seq, number)) in entries.into_iter().zip(done) {
            let place = tickets.iter().position(|ticket| ticket.started == started);
            let ticket = place.map(|place| tickets.swap_remove(place));
            self.ended(&entry, Arc::new(record), ticket, seq, number);
        }
        let tail = self.book.tail();
        self.shared.head.send_replace(Head { seq: tail.seq, records: tail.records });
        Ok(count)
    }

    fn close(&mut self) -> Result<(), LedgerError> {
        if self.trouble.is_some() {
            self.write_owed()?;
        }
        let newest = self.book.newest();
        newest.empty_journal().map_err(|error| newest.failed(&error))
    }
}

/// The record of a request whose client was told that it cannot be put on record: what it used is
/// billed, if it was served.
fn unacknowledged(record: Record, served: bool) -> Record {
    let message = "the ledger could not commit while it was served".to_owned();
    let outcome = Outcome::Failed { kind: ErrorKind::RecordUnavailable, message };
    let cost = if served {
        record.cost.clone()
    } else {
        CostOutcome::Unpriced { reason: UnpricedReason::NotServed }
    };
    let mut record = Record { outcome, cost, ..record };
    let end = UnixNanos::from(std::time::SystemTime::now());
    record.phases.request.end = record.phases.request.end.max(end);
    record
}
