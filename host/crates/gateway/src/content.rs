//! What was said, for the tenants whose operator asked to keep it: off unless a tenant is named.
//!
//! Bounded while it is gathered: of the prompt the end is kept, of the answer the beginning, and
//! what is cut says so. It goes into the record, so onto the disk, and on the request's span, so
//! through the export filters.

use tollgate_domain::record::{Content, FinishReason, Message};
use wildmatch::WildMatch;

use crate::call::{Input, Prompt};

/// Whose content is kept, and how much of it.
#[derive(Clone, Debug, Default)]
pub struct CaptureSettings {
    /// Patterns of tenants: `*` is any text, `?` one character. None: nobody's.
    pub tenants: Vec<String>,
    /// Most bytes of text kept of a prompt, and as many of an answer.
    pub bytes: usize,
}

/// The same, ready to ask.
pub(crate) struct Capture {
    tenants: Vec<WildMatch>,
    bytes: usize,
}

/// The content of one request while it is served.
pub(crate) struct Captured {
    content: Content,
    room: usize,
}

impl Capture {
    pub(crate) fn new(settings: &CaptureSettings) -> Self {
        let tenants = settings.tenants.iter().map(|pattern| WildMatch::new(pattern)).collect();
        Self { tenants, bytes: settings.bytes }
    }

    /// Begins to keep what is said, if the tenant's is kept. Without a tenant none is.
    pub(crate) fn begin(
        &self,
        tenant: Option<&str>,
        prompt: impl FnOnce() -> Prompt,
    ) -> Option<Captured> {
        let tenant = tenant?;
        self.tenants.iter().any(|pattern| pattern.matches(tenant)).then(|| {
            let (input, truncated) = self.input(&prompt());
            let content = Content { input, output: Vec::new(), finish_reason: None, truncated };
            let mut captured = Captured { content, room: self.bytes };
            captured.answer(0);
            captured
        })
    }

    /// The end of the prompt, oldest message first; whether any of it was left out.
    fn input(&self, prompt: &Prompt) -> (Vec<Message>, bool) {
        let said: Vec<(&str, &str)> = match prompt {
            Prompt::Text(text) => vec![("user", text)],
            Prompt::Inputs(inputs) => {
                inputs.iter().filter_map(Input::text).map(|text| ("user", text)).collect()
            }
            // Its text is the model's to know.
            Prompt::Tokens(_) => Vec::new(),
            Prompt::Chat(messages) => {
                messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect()
            }
        };
        let (mut kept, mut room, mut truncated) = (Vec::new(), self.bytes, false);
        for (role, text) in said.into_iter().rev() {
            if room == 0 {
                truncated = true;
                break;
            }
            let from = text.ceil_char_boundary(text.len().saturating_sub(room));
            truncated |= from > 0;
            let text = text.get(from..).unwrap_or_default().to_owned();
            // Nothing before a message that was cut, so that what is kept has no hole.
            room = if from > 0 { 0 } else { room - text.len() };
            kept.push(Message { role: role.to_owned(), text });
        }
        kept.reverse();
        (kept, truncated)
    }
}

impl Captured {
    /// Keeps more of the answer, or of one of several, while there is room for all together.
    pub(crate) fn answered(&mut self, choice: usize, text: &str) {
        let kept = text.get(..text.floor_char_boundary(self.room)).unwrap_or_default();
        self.content.truncated |= kept.len() < text.len();
        // Nothing further, so that the answer has no hole.
        self.room = if kept.len() < text.len() { 0 } else { self.room - kept.len() };
        if let Some(message) = self.answer(choice) {
            message.text.push_str(kept);
        }
    }

    fn answer(&mut self, choice: usize) -> Option<&mut Message> {
        let answers = &mut self.content.output;
        while answers.len() <= choice {
            answers.push(Message { role: "assistant".to_owned(), text: String::new() });
        }
        answers.get_mut(choice)
    }

    /// What goes on record.
    pub(crate) fn ended(mut self, reason: Option<FinishReason>) -> Content {
        self.content.finish_reason = reason;
        self.content
    }
}

#[cfg(test)]
mod tests {
    use tollgate_model::ChatMessage;

    use super::*;

    fn capture(bytes: usize) -> Capture {
        Capture::new(&CaptureSettings { tenants: vec!["acme-*".to_owned()], bytes })
    }

    fn chat(said: &[(&str, &str)]) -> Prompt {
        let message = |(role, content): &(&str, &str)| ChatMessage {
            role: (*role).to_owned(),
            content: (*content).to_owned(),
        };
        Prompt::Chat(said.iter().map(message).collect())
    }

    #[test]
    fn only_what_is_asked_for_is_kept() {
        let prompt = Prompt::Text("secret".to_owned());
        for (tenant, kept) in [(None, false), (Some("other"), false), (Some("acme-1"), true)] {
            assert_eq!(capture(100).begin(tenant, || prompt.clone()).is_some(), kept, "{tenant:?}");
        }
        assert!(
            Capture::new(&CaptureSettings::default())
                .begin(Some("acme-1"), || prompt.clone())
                .is_none()
        );
    }

    #[test]
    fn what_is_kept_is_bounded_and_says_what_is_missing() {
        let prompt = chat(&[("system", "Be brief."), ("user", "Grüße an alle")]);
        for (bytes, input, cut) in [
            (100, vec![("system", "Be brief."), ("user", "Grüße an alle")], false),
            (17, vec![("system", "f."), ("user", "Grüße an alle")], true),
            // Never half a character.
            (12, vec![("user", "ße an alle")], true),
            (0, vec![], true),
        ] {
            let content =
                capture(bytes).begin(Some("acme-1"), || prompt.clone()).unwrap().ended(None);
            let found: Vec<_> =
                content.input.iter().map(|m| (m.role.as_str(), m.text.as_str())).collect();
            assert_eq!((found, content.truncated), (input, cut), "{bytes}");
        }
    }

    #[test]
    fn an_answer_is_kept_from_its_beginning_without_holes() {
        let mut captured = capture(5).begin(Some("acme-1"), || Prompt::Tokens(vec![1])).unwrap();
        for piece in ["ab", "cü", "ß", "d"] {
            captured.answered(0, piece);
        }
        let content = captured.ended(Some(FinishReason::Stop));
        assert_eq!(content.output[0].text, "abcü");
        assert!(content.truncated && content.finish_reason == Some(FinishReason::Stop));
        let mut captured = capture(5).begin(Some("acme-1"), || Prompt::Tokens(vec![1])).unwrap();
        for (choice, piece) in [(1, "ab"), (0, "c"), (1, "d"), (2, "efg")] {
            captured.answered(choice, piece);
        }
        let content = captured.ended(None);
        let texts: Vec<_> = content.output.iter().map(|message| message.text.as_str()).collect();
        assert!(texts == ["c", "abd", "e"] && content.truncated, "room is shared: {texts:?}");
    }
}
