//! Finds stop strings in text that comes in pieces, and lets none of them through.

/// Passes text on, up to the first stop string.
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// End of the text so far that may be the beginning of a stop string.
    held: String,
}

impl StopMatcher {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            held: String::new(),
        }
    }

    /// Takes a piece; gives the text that is safe to show and whether a stop string was found.
    /// After one was found nothing more should be pushed.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let rest = self.held.split_off(self.held.len() - self.possible_start());
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The end of the text: what was held back is no stop string after all.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of the longest end of the text that begins some stop string.
    fn possible_start(&self) -> usize {
        let longest = |stop: &String| {
            let most = self.held.len().min(stop.len() - 1);
            (1..=most)
                .rev()
                .filter(|&length| stop.is_char_boundary(length))
                .find(|&length| stop.get(..length).is_some_and(|start| self.held.ends_with(start)))
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[String], pieces: &[String]) -> String {
        let mut matcher = StopMatcher::new(stops.to_vec());
        let mut shown = String::new();
        for piece in pieces {
            let (text, stopped) = matcher.push(piece);
            shown.push_str(&text);
            if stopped {
                return shown;
            }
        }
        shown + &matcher.finish()
    }

    fn expected(stops: &[String], text: &str) -> String {
        let first =
            stops.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s.as_str())).min();
        text[..first.unwrap_or(text.len())].to_owned()
    }

    proptest! {
        /// However the text is cut, what is shown ends before the first stop string. Where one
        /// stop string is found before a longer one that began earlier is complete, the earlier
        /// one could not have been known; so stop strings here do not contain each other.
        #[test]
        fn cuts_do_not_matter(
            stop in "[ab\u{e9}]{1,3}",
            pieces in prop::collection::vec("[abc\u{e9}]{0,4}", 0..8),
        ) {
            let stops = [stop];
            prop_assert_eq!(run(&stops, &pieces), expected(&stops, &pieces.concat()));
        }

        #[test]
        fn no_stop_string_is_ever_shown(
            stops in prop::collection::vec("[ab]{1,3}", 0..3),
            pieces in prop::collection::vec("[abc]{0,4}", 0..8),
        ) {
            let shown = run(&stops, &pieces);
            for stop in &stops {
                prop_assert!(!shown.contains(stop.as_str()));
            }
            prop_assert!(pieces.concat().starts_with(&shown));
        }
    }
}
