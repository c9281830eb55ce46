//! A model's name without the date of its snapshot.
//!
//! Providers answer a request for `gpt-4o-mini` as `gpt-4o-mini-2024-07-18`, and a backend may be asked for one snapshot. A
//! date is all that is taken off a name: any other ending may be another model, with another price.

/// Endings that are dates: a digit for each letter, and the rest as it is. Without a year they are too short to be told
/// from sizes and versions.
const ENDINGS: [&str; 3] = ["-yyyy-mm-dd", "-yyyymmdd", "@yyyymmdd"];
/// What OpenAI's older snapshots end with, such as `gpt-3.5-turbo-0125`.
const SHORT: &str = "-mmdd";

/// The name without the date at its end, if it has one. A date without a year counts as one only of what was `asked` for.
pub(crate) fn undated<'a>(name: &'a str, asked: &str) -> Option<&'a str> {
    let before = |ending: &str| {
        let (rest, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
        (!rest.is_empty() && is_dated(end, ending)).then_some(rest)
    };
    ENDINGS
        .iter()
        .find_map(|ending| before(ending))
        .or_else(|| before(SHORT).filter(|rest| *rest == asked))
}

fn is_dated(text: &str, ending: &str) -> bool {
    let (mut year, mut month, mut day) = (0, 0, 0);
    for (byte, place) in text.bytes().zip(ending.bytes()) {
        let part = match place {
            b'y' => &mut year,
            b'm' => &mut month,
            b'd' => &mut day,
            _ if byte == place => continue,
            _ => return false,
        };
        if !byte.is_ascii_digit() {
            return false;
        }
        *part = *part * 10 + u32::from(byte - b'0');
    }
    let has_year = ending.contains('y');
    (!has_year || (2000..2100).contains(&year))
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
}
