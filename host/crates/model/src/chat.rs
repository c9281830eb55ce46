//! Conversations to prompts: the model's own Jinja template, as Hugging Face's tools run it.
//!
//! Templates come with models from the internet, so they run in a sandbox: no loader, no files, a
//! budget of steps.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::ModelError;
use crate::tokenizer::special_text;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or whatever else the template knows.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// A model's chat template, compiled.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    begin: String,
    end: String,
}

const NAME: &str = "chat_template";

/// Steps a template may take: thousands of messages fit, an endless loop does not.
const FUEL: u64 = 1_000_000;

impl ChatTemplate {
    /// The template of a file of its own, else the one in tokenizer_config.json, else none.
    pub(crate) fn find(file: Option<&str>, config: &Json) -> Result<Option<Self>, ModelError> {
        let Some(source) = file.or_else(|| in_config(config)) else {
            return Ok(None);
        };
        let mut environment = Environment::new();
        environment.set_syntax(whitespace_as_python()?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python_methods);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| today(&format));
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| ModelError::malformed("chat template", error.to_string()))?;
        let token = |key| special_text(config, key).unwrap_or_default();
        Ok(Some(Self { environment, begin: token("bos_token"), end: token("eos_token") }))
    }

    pub(crate) fn render(&self, messages: &[ChatMessage]) -> Result<String, ModelError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                Value::from_pairs([
                    ("role", message.role.as_str()),
                    ("content", message.content.as_str()),
                ])
            })
            .collect();
        let context = context! {
            messages => messages,
            bos_token => self.begin.as_str(),
            eos_token => self.end.as_str(),
            add_generation_prompt => true,
        };
        let rendered =
            self.environment.get_template(NAME).and_then(|template| template.render(context));
        rendered.map_err(|error| {
            ModelError::ChatTemplate(
                error.detail().map_or_else(|| error.to_string(), str::to_owned),
            )
        })
    }
}

/// Block tags leave no blank line behind, as Hugging Face's tools set it.
fn whitespace_as_python() -> Result<SyntaxConfig, ModelError> {
    let built = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    built.map_err(|error| ModelError::ChatTemplate(error.to_string()))
}

/// A string, or a list of named templates of which `default` is meant.
fn in_config(config: &Json) -> Option<&str> {
    match config.get("chat_template")? {
        Json::String(template) => Some(template),
        Json::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Json::as_str) == Some("default"))?
            .get("template")?
            .as_str(),
        _ => None,
    }
}

/// Llama 3 templates print the date. A prompt must not depend on the day it is rendered, or equal
/// requests would differ in tokens and price: they get the date that the template itself falls back
/// to where it cannot ask.
fn today(_format: &str) -> String {
    "26 Jul 2024".to_owned()
}

/// The methods of Python's strings and dicts that templates of the hub call.
fn python_methods(
    _state: &mut minijinja::State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let text = |index: usize| args.get(index).and_then(|arg| arg.as_str()).unwrap_or_default();
    if let Some(string) = value.as_str() {
        let is_in = |set: &str| {
            let set = set.to_owned();
            move |c: char| if set.is_empty() { c.is_whitespace() } else { set.contains(c) }
        };
        let pieces = |pieces: Vec<&str>| pieces.into_iter().map(Value::from).collect::<Value>();
        return Ok(match method {
            "strip" => string.trim_matches(is_in(text(0))).into(),
            "lstrip" => string.trim_start_matches(is_in(text(0))).into(),
            "rstrip" => string.trim_end_matches(is_in(text(0))).into(),
            "upper" => string.to_uppercase().into(),
            "lower" => string.to_lowercase().into(),
            "title" | "capitalize" => capitalized(string).into(),
            "startswith" => string.starts_with(text(0)).into(),
            "endswith" => string.ends_with(text(0)).into(),
            "replace" => string.replace(text(0), text(1)).into(),
            "split" if args.is_empty() => pieces(string.split_whitespace().collect()),
            "split" => pieces(string.split(text(0)).collect()),
            _ => return Err(unknown(method, "str")),
        });
    }
    match method {
        "items" => minijinja::filters::items(value),
        "get" if !args.is_empty() => {
            let found = value.get_item(args.first().unwrap_or(value))?;
            Ok(if found.is_undefined() { args.get(1).cloned().unwrap_or(().into()) } else { found })
        }
        _ => Err(unknown(method, &value.kind().to_string())),
    }
}

fn unknown(method: &str, kind: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("{kind} has no method `{method}` here"))
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().chain(characters.flat_map(char::to_lowercase)).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, messages: &[(&str, &str)]) -> Result<String, ModelError> {
        let config = serde_json::json!({"chat_template": template, "bos_token": {"content": "<s>"}, "eos_token": "</s>"});
        let messages: Vec<_> = messages
            .iter()
            .map(|(role, content)| ChatMessage { role: (*role).into(), content: (*content).into() })
            .collect();
        ChatTemplate::find(None, &config)?.unwrap().render(&messages)
    }

    #[test]
    fn templates_as_models_have_them() {
        let chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                      '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
        let mistral = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + \
                       message['content'] + ' [/INST]' }}{% else %}{{ message['content'].strip() + eos_token }}{% endif %}{% endfor %}";
        let table = [
            (
                chatml,
                "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n Yo <|im_end|>\n<|im_start|>assistant\n",
            ),
            (mistral, "<s>[INST] Hi [/INST]Yo</s>"),
            (
                "{{ messages[0].get('name', 'none') }}{% for k, v in messages[0].items() %}{% if k == 'content' %} {{ v }}{% endif %}{% endfor %}",
                "none Hi",
            ),
            (
                "{{ messages | length }}{{ messages[1].content | trim }}{{ 'a,b'.split(',')[1] | upper }}",
                "2YoB",
            ),
        ];
        for (template, expected) in table {
            assert_eq!(
                render(template, &[("user", "Hi"), ("assistant", " Yo ")]).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn a_template_can_refuse_and_cannot_run_for_ever() {
        let refused = render("{{ raise_exception('only user messages') }}", &[]).unwrap_err();
        assert!(refused.to_string().contains("only user messages"), "{refused}");
        assert_eq!(refused.kind(), crate::ErrorKind::Request);
        let endless =
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
        assert!(render(endless, &[]).is_err());
        assert_eq!(render("{{ broken", &[]).unwrap_err().kind(), crate::ErrorKind::Model);
    }

    #[test]
    fn named_templates_and_files_of_their_own() {
        let named = serde_json::json!({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]});
        assert_eq!(ChatTemplate::find(None, &named).unwrap().unwrap().render(&[]).unwrap(), "D");
        assert_eq!(
            ChatTemplate::find(Some("F"), &named).unwrap().unwrap().render(&[]).unwrap(),
            "F"
        );
        assert!(ChatTemplate::find(None, &Json::Null).unwrap().is_none());
    }
}
