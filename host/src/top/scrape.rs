//! Prometheus' text format as the admin API writes it, read into samples.
//!
//! What is not understood is skipped: a newer gateway may tell more than this knows.

/// Most samples that are kept; a gateway has at most so many series.
const MOST: usize = 1 << 18;

/// One value.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// All values of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples(Vec<Sample>);

/// Upper bounds and how many were at most that, ascending.
pub(super) type Buckets = Vec<(f64, f64)>;

impl Samples {
    /// Reads a page of metrics.
    pub(super) fn read(text: &str) -> Self {
        Self(text.lines().filter_map(sample).take(MOST).collect())
    }

    /// The sum of a family, of those series whose labels are as said.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // Not `sum`, which of nothing is -0.
        self.of(name, labels).fold(0.0, |sum, sample| sum + sample.value)
    }

    /// Values that a label has in a family, each once, in order.
    pub(super) fn values<'a>(&'a self, name: &str, label: &str) -> Vec<&'a str> {
        let mut values: Vec<&str> =
            self.of(name, &[]).filter_map(|sample| get(sample, label)).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// The buckets of a histogram, of all series whose labels are as said.
    pub(super) fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Buckets {
        let name = format!("{name}_bucket");
        let mut buckets: Buckets = Vec::new();
        for sample in self.of(&name, labels) {
            let Some(bound) = get(sample, "le").and_then(number) else { continue };
            match buckets.iter_mut().find(|(of, _)| *of == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }

    fn of<'a>(&'a self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| get(sample, label) == Some(*value))
        })
    }
}

/// What came in between two readings; all of the later one if it has begun anew, or there is no earlier one.
pub(super) fn since(now: &Buckets, before: &Buckets) -> Buckets {
    let earlier =
        |bound: f64| before.iter().find(|(of, _)| *of == bound).map_or(0.0, |(_, count)| *count);
    let total = |buckets: &Buckets| buckets.last().map_or(0.0, |(_, count)| *count);
    if total(now) < total(before) {
        return now.clone();
    }
    now.iter().map(|(bound, count)| (*bound, (count - earlier(*bound)).max(0.0))).collect()
}

/// The value that a share of all lies below, as far as buckets tell; none if there are none.
pub(super) fn quantile(buckets: &Buckets, share: f64) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
    let rank = share * total;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank && *count > below {
            if bound.is_infinite() {
                return Some(lower);
            }
            return Some(
                lower + (bound - lower) * ((rank - below) / (count - below)).clamp(0.0, 1.0),
            );
        }
        (lower, below) = (*bound, *count);
    }
    None
}

fn get<'a>(sample: &'a Sample, label: &str) -> Option<&'a str> {
    sample.labels.iter().find(|(of, _)| of == label).map(|(_, value)| value.as_str())
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        text => text.parse().ok().filter(|number: &f64| !number.is_nan()),
    }
}

/// One line; none if it is a comment or something else.
fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = number(rest.split_whitespace().next()?)?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels up to the brace that ends them, and what follows it.
fn labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        text = rest.get(end.saturating_add(1)..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = "\
# HELP a_total Counts.
# TYPE a_total counter
a_total{model=\"m\",user=\"a \\\"b\\\" \\\\ \\n, }\"} 3
a_total{model=\"n\",user=\"\"} 4.5e1 1700000000
b 7.0
broken{x=\"
also broken
h_bucket{le=\"0.1\",x=\"1\"} 1
h_bucket{le=\"0.1\",x=\"2\"} 1
h_bucket{le=\"1\",x=\"1\"} 4
h_bucket{le=\"+Inf\",x=\"1\"} 4
";

    #[test]
    fn a_page_is_read() {
        let page = Samples::read(PAGE);
        assert_eq!(page.sum("a_total", &[]), 48.0);
        assert_eq!(page.sum("a_total", &[("model", "n")]), 45.0);
        assert_eq!((page.sum("b", &[]), page.sum("none", &[])), (7.0, 0.0));
        assert_eq!(page.values("a_total", "user"), ["", "a \"b\" \\ \n, }"]);
        let buckets = page.buckets("h", &[("x", "1")]);
        assert_eq!(buckets, [(0.1, 1.0), (1.0, 4.0), (f64::INFINITY, 4.0)]);
        assert_eq!(page.buckets("h", &[]).first(), Some(&(0.1, 2.0)));
    }

    #[test]
    fn quantiles_lie_between_bounds() {
        let buckets = vec![(0.1, 10.0), (1.0, 20.0), (f64::INFINITY, 20.0)];
        let about = |share: f64| quantile(&buckets, share).map(|value| (value * 1e6).round() / 1e6);
        assert_eq!((about(0.25), about(0.5), about(0.75)), (Some(0.05), Some(0.1), Some(0.55)));
        let beyond = vec![(0.1, 0.0), (f64::INFINITY, 5.0)];
        assert_eq!(quantile(&beyond, 0.5), Some(0.1));
        assert_eq!(quantile(&Vec::new(), 0.5), None);
        assert_eq!(quantile(&vec![(1.0, 0.0)], 0.5), None);
        let before = vec![(0.1, 10.0), (1.0, 10.0), (f64::INFINITY, 10.0)];
        assert_eq!(since(&buckets, &before), [(0.1, 0.0), (1.0, 10.0), (f64::INFINITY, 10.0)]);
        assert_eq!(since(&before, &buckets), before, "it began anew");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".*", line in "[a-z]{1,3}(\\{[a-z=\",\\\\}]{0,12})? ?[0-9.eE+-]{0,5}") {
            Samples::read(&text);
            Samples::read(&line);
        }
    }
}
