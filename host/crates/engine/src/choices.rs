//! Several answers to one prompt, read as they come.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::{Event, Generation};

/// The answers to one prompt under way, by their number. Dropping it cancels all.
#[derive(Debug)]
pub struct Choices {
    /// None once it has ended.
    generations: Vec<Option<Generation>>,
    /// Who is asked first, so that none is heard only when the others are silent.
    turn: usize,
}

impl Choices {
    pub(crate) fn new(generations: Vec<Generation>) -> Self {
        Self { generations: generations.into_iter().map(Some).collect(), turn: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.generations.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.generations.is_empty()
    }

    /// What happens next, and to which; each ends with an `Ended` of its own. `None` after the last
    /// of these. A choice without event: the engine's thread died.
    pub async fn next(&mut self) -> Option<(usize, Option<Event>)> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Asks the engine to stop all of them at the next token. Each still tells its `Ended`.
    pub fn cancel(&self) {
        self.generations.iter().flatten().for_each(Generation::cancel);
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, Option<Event>)>> {
        let count = self.generations.len();
        let mut open = false;
        for place in 0..count {
            let number = (self.turn + place) % count;
            let Some(slot) = self.generations.get_mut(number) else { continue };
            let Some(generation) = slot else { continue };
            let Poll::Ready(event) = generation.poll_next(context) else {
                open = true;
                continue;
            };
            self.turn = number + 1;
            if !matches!(
                event,
                Some(Event::Started { .. } | Event::Prefilled { .. } | Event::Text { .. })
            ) {
                *slot = None;
            }
            return Poll::Ready(Some((number, event)));
        }
        if open { Poll::Pending } else { Poll::Ready(None) }
    }
}
