//! The clock: against those of other servers where any were seen, else against itself. Budgets begin and end
//! by it, and traces of several machines fit together only as well as their clocks do.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Finding;

const CHECK: &str = "clock";
/// `Date` has whole seconds, and the answer was under way for a while.
const TOLERANCE: Duration = Duration::from_secs(3);
/// Beyond this, budgets and traces are wrong in a way that people see.
const FAR: Duration = Duration::from_secs(60);
/// How long the clock is watched.
const WATCHED: Duration = Duration::from_millis(100);
/// No build of this program is older: 2025-01-01.
const EARLIEST: Duration = Duration::from_secs(1_735_689_600);

/// Another's clock, and ours when it was read.
pub(super) struct Clock {
    /// Whose it is.
    pub(super) of: String,
    /// What it showed.
    pub(super) theirs: SystemTime,
    /// What ours showed.
    pub(super) ours: SystemTime,
}

impl Clock {
    /// From the `Date` of an answer that has just come; none if that is no date.
    pub(super) fn of_http(of: &str, date: &str) -> Option<Self> {
        let theirs = httpdate::parse_http_date(date).ok()?;
        Some(Self { of: of.to_owned(), theirs, ours: SystemTime::now() })
    }

    fn apart(&self) -> Duration {
        let later = self.ours.duration_since(self.theirs);
        later.unwrap_or_else(|earlier| earlier.duration())
    }
}

/// How far it is from all others.
pub(super) fn look(clocks: &[Clock]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = clocks.iter().filter_map(far).collect();
    if findings.is_empty() {
        findings.push(match clocks {
            [] => itself(),
            _ => {
                let names: Vec<&str> = clocks.iter().map(|clock| clock.of.as_str()).collect();
                Finding::ok(CHECK, format!("agrees with {}", names.join(", ")))
            }
        });
    }
    findings
}

fn far(clock: &Clock) -> Option<Finding> {
    let apart = clock.apart();
    let seen = format!("{} s away from the clock of {}", apart.as_secs(), clock.of);
    let mend = "synchronise both (`timedatectl set-ntp true`, chrony)";
    match apart {
        apart if apart <= TOLERANCE => None,
        apart if apart <= FAR => Some(Finding::warning(CHECK, seen, mend)),
        _ => Some(Finding::failed(CHECK, seen, mend)),
    }
}

/// Whether it is after this program was written, and goes forward as fast as time does.
fn itself() -> Finding {
    let mend = "set it (`timedatectl set-ntp true`)";
    let (begun, before) = (Instant::now(), SystemTime::now());
    if before.duration_since(UNIX_EPOCH).unwrap_or_default() < EARLIEST {
        return Finding::failed(CHECK, "shows a time before this program was written", mend);
    }
    std::thread::sleep(WATCHED);
    let went = SystemTime::now().duration_since(before).unwrap_or_default();
    let drift = went.abs_diff(begun.elapsed());
    if drift > WATCHED {
        let seen = format!("jumped by {} ms while it was watched", drift.as_millis());
        return Finding::warning(CHECK, seen, mend);
    }
    Finding::ok(CHECK, "goes steadily; no server told another time to compare with")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examination::Verdict;

    #[test]
    fn seconds_are_forgiven_and_minutes_are_not() {
        let ours = SystemTime::now();
        for (seconds, verdict) in
            [(0, Verdict::Ok), (2, Verdict::Ok), (30, Verdict::Warning), (3600, Verdict::Failed)]
        {
            for theirs in [ours + Duration::from_secs(seconds), ours - Duration::from_secs(seconds)]
            {
                let clocks = [Clock { of: "redis".to_owned(), theirs, ours }];
                let found = look(&clocks);
                assert_eq!((found.len(), found[0].verdict), (1, verdict), "{seconds}: {found:?}");
            }
        }
        assert_eq!(look(&[])[0].verdict, Verdict::Ok);
    }

    #[test]
    fn a_date_header_is_a_clock() {
        let clock = Clock::of_http("a", "Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(clock.theirs, UNIX_EPOCH + Duration::from_secs(784_111_777));
        assert!(Clock::of_http("a", "yesterday").is_none());
    }
}
