//! Load of two kinds. In a closed loop each connection asks again as soon as it was answered, so a slow server is asked less.
//! In an open loop requests come at their times whatever became of those before, as those of many users do: one that had to
//! wait for a free connection has waited since it was due.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::{JoinSet, LocalSet};

use crate::client::{Answer, Ask, Connection};

/// What came of a load.
pub struct Came {
    /// Nanoseconds to the end of an answer, and to its first bytes.
    pub whole: Histogram<u64>,
    pub first: Histogram<u64>,
    pub answers: u64,
    pub events: u64,
    pub took: Duration,
}

impl Came {
    fn new() -> Self {
        let histogram = || Histogram::new(3).unwrap();
        let took = Duration::ZERO;
        Self { whole: histogram(), first: histogram(), answers: 0, events: 0, took }
    }

    fn note(&mut self, began: Instant, answer: &Answer) {
        let text = String::from_utf8_lossy(&answer.last);
        assert_eq!(answer.status, 200, "{text}");
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap();
        self.whole.record(nanos(began.elapsed())).unwrap();
        self.first.record(nanos(answer.first.duration_since(began))).unwrap();
        self.answers += 1;
        self.events += answer.events;
    }

    fn add(&mut self, other: &Self) {
        self.whole.add(&other.whole).unwrap();
        self.first.add(&other.first).unwrap();
        self.answers += other.answers;
        self.events += other.events;
    }

    pub fn per_second(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }
}

/// A closed loop on so many connections. What is under way at the end is waited for.
pub fn closed(ask: &Ask, connections: usize, lasts: Duration) -> Came {
    all(connections, |_| {
        let ask = ask.clone();
        async move {
            let (mut connection, mut came) = (Connection::open(&ask).await.unwrap(), Came::new());
            let began = Instant::now();
            while began.elapsed() < lasts || came.answers == 0 {
                let sent = Instant::now();
                let answer = connection.ask(&ask).await.unwrap();
                came.note(sent, &answer);
            }
            came
        }
    })
}

/// An open loop of so many requests per second, on at most so many connections.
pub fn open(ask: &Ask, connections: usize, rate: u32, lasts: Duration) -> Came {
    let began = Instant::now() + Duration::from_millis(20);
    let next = Rc::new(Cell::new(0));
    all(connections, |_| {
        let (ask, next) = (ask.clone(), Rc::clone(&next));
        async move {
            let (mut connection, mut came) = (Connection::open(&ask).await.unwrap(), Came::new());
            loop {
                let due = began + Duration::from_secs(1) * next.get() / rate;
                if due > began + lasts {
                    return came;
                }
                next.set(next.get() + 1);
                let mut since = due;
                if due > Instant::now() {
                    // The timer has whole milliseconds. That it wakes us late is nothing that a client waited for.
                    tokio::time::sleep_until(due.into()).await;
                    since = Instant::now();
                }
                let answer = connection.ask(&ask).await.unwrap();
                came.note(since, &answer);
            }
        }
    })
}

/// All connections at once on this thread.
fn all<F: Future<Output = Came> + 'static>(connections: usize, one: impl Fn(usize) -> F) -> Came {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..connections {
            tasks.spawn_local(one(number));
        }
        let mut sum = Came::new();
        while let Some(came) = tasks.join_next().await {
            sum.add(&came.unwrap());
        }
        sum.took = began.elapsed();
        sum
    })
}
