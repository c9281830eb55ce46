//! What attributes tell, by the names of the table. They are looked at once, whatever is asked of them, and no value is made
//! but of lists: nearly all spans that come tell of no call, and all are asked.

use std::sync::LazyLock;

use foldhash::{HashMap, HashMapExt};
use tollgate_domain::span::{Attributes, Value};
use tollgate_domain::value::ValueRef;

use super::table::{FACTS, Fact, keys};

/// The names of the table.
struct Names {
    /// Each, what it tells, and how many names of the same come before it.
    all: HashMap<&'static [u8], (Fact, usize, &'static str)>,
    /// Which bytes one begins with: most that come begin with none of them.
    begins: [bool; 256],
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut names = Names { all: HashMap::new(), begins: [false; 256] };
    for fact in FACTS {
        for (rank, name) in keys(fact).iter().enumerate() {
            names.all.insert(name.as_bytes(), (fact, rank, *name));
            let begins =
                name.as_bytes().first().and_then(|at| names.begins.get_mut(usize::from(*at)));
            begins.into_iter().for_each(|begins| *begins = true);
        }
    }
    names
});

impl Names {
    fn find(&self, key: &[u8]) -> Option<(Fact, usize, &'static str)> {
        let begins = self.begins.get(usize::from(*key.first()?)).is_some_and(|begins| *begins);
        if begins { self.all.get(key).copied() } else { None }
    }
}

/// What some attributes tell.
pub(super) struct Told<'a> {
    /// By fact, and of one fact by the order of its names.
    found: Vec<Found<'a>>,
}

struct Found<'a> {
    fact: Fact,
    rank: usize,
    name: &'static str,
    value: ValueRef<'a>,
}

impl<'a> Told<'a> {
    /// Looks at them.
    pub(super) fn by(attributes: &'a Attributes) -> Self {
        let names = &*NAMES;
        let mut found: Vec<Found<'a>> = Vec::new();
        attributes.each(|entry| {
            let Some((fact, rank, name)) = names.find(entry.key) else { return };
            let value = entry.value();
            match found.iter_mut().find(|before| before.name == name) {
                // Of one name the last one counts.
                Some(before) => before.value = value,
                None => found.push(Found { fact, rank, name, value }),
            }
        });
        found.sort_by_key(|found| (found.fact, found.rank));
        Self { found }
    }

    /// Whether they tell anything.
    pub(super) fn is_nothing(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether one has that name, which is one of the table.
    pub(super) fn has(&self, name: &str) -> bool {
        self.found.iter().any(|found| found.name == name)
    }

    /// Whether they tell it, whatever it is.
    pub(super) fn tells(&self, fact: Fact) -> bool {
        self.all(fact).next().is_some()
    }

    /// What is told of it, by the order of its names.
    fn all(&self, fact: Fact) -> impl Iterator<Item = &ValueRef<'a>> {
        let of_fact = self.found.iter().filter(move |found| found.fact == fact);
        of_fact.map(|found| &found.value)
    }

    /// The first that is a text, which is not empty; of a list its first.
    pub(super) fn text(&self, fact: Fact) -> Option<&str> {
        let mut texts = self.all(fact).filter_map(|value| match first(value)? {
            ValueRef::Text(text) => Some(text),
            _ => None,
        });
        texts.find(|text| !text.is_empty())
    }

    /// The first that is a name, of at most so many bytes: a text, or a number as one.
    pub(super) fn name(&self, fact: Fact, most: usize) -> Option<String> {
        let mut names = self.all(fact).filter_map(|value| match first(value)? {
            ValueRef::Text(text) => Some(text.to_owned()),
            ValueRef::Int(number) => Some(number.to_string()),
            ValueRef::Double(number) => Some(number.to_string()),
            _ => None,
        });
        names.find(|name| !name.is_empty() && name.len() <= most)
    }

    /// The first that is a count: a whole number, also as a double or as text.
    pub(super) fn count(&self, fact: Fact) -> Option<u64> {
        self.all(fact).find_map(|value| match value {
            ValueRef::Int(number) => u64::try_from(*number).ok(),
            ValueRef::Double(number) if number.fract() == 0.0 && (0.0..1e15).contains(number) =>
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked"
                )]
                Some(*number as u64)
            }
            ValueRef::Text(digits) => digits.parse().ok(),
            _ => None,
        })
    }

    /// The first that is a number.
    pub(super) fn double(&self, fact: Fact) -> Option<f64> {
        self.all(fact).find_map(|value| match value {
            ValueRef::Double(number) => Some(*number),
            #[expect(clippy::cast_precision_loss, reason = "a setting of a sampler is small")]
            ValueRef::Int(number) => Some(*number as f64),
            _ => None,
        })
    }

    /// Whether any is true.
    pub(super) fn is_true(&self, fact: Fact) -> bool {
        self.all(fact).any(|value| *value == ValueRef::Bool(true))
    }
}

/// Of a list its first.
fn first<'a>(value: &'a ValueRef<'_>) -> Option<ValueRef<'a>> {
    let ValueRef::Other(other) = value else { return Some(value.clone()) };
    let Value::List(items) = &**other else { return None };
    items.first().map(ValueRef::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_one_fact() {
        let all: usize = FACTS.into_iter().map(|fact| keys(fact).len()).sum();
        assert_eq!(NAMES.all.len(), all);
        let in_order = FACTS.is_sorted_by(|one, next| one < next);
        assert!(in_order && FACTS.len() == Fact::Ours as usize + 1, "one is missing");
    }

    #[test]
    fn the_newest_name_that_tells_it_counts_however_often_it_stands() {
        let pairs =
            [("llm.model", "b"), ("gen_ai.usage.input_tokens", "x"), ("llm.model_name", "a")];
        let attributes: Attributes =
            pairs.map(|(key, text)| (key, text.into())).into_iter().collect();
        let told = Told::by(&attributes);
        assert_eq!((told.text(Fact::Model), told.count(Fact::Input)), (Some("a"), None));
        assert!(told.tells(Fact::Input) && told.has("llm.model") && !told.tells(Fact::Output));
    }
}
