//! How far a long command has come: a bar on standard error, if somebody watches a terminal.

use std::io::Read;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How many steps make the bar move: moving it costs more than a record.
const EVERY: u64 = 256;

/// Whether to show how far a command has come.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Quiet {
    /// Show no progress and no remarks on standard error
    #[arg(long)]
    pub(super) quiet: bool,
}

/// A bar.
pub(super) struct Progress {
    bar: ProgressBar,
    steps: u64,
}

impl Progress {
    /// Of so many records, where that is known.
    pub(super) fn of_records(total: Option<u64>, what: &str, quiet: Quiet) -> Self {
        let template = match total {
            Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} records, {eta} left",
            None => "{msg} {spinner} {human_pos} records, {elapsed}",
        };
        Self { bar: bar(total, template, what, quiet), steps: 0 }
    }

    /// Of so many bytes, where that is known.
    pub(super) fn of_bytes(total: Option<u64>, what: &str, quiet: Quiet) -> Self {
        let template = match total {
            Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes}, {eta} left",
            None => "{msg} {spinner} {bytes}, {elapsed}",
        };
        Self { bar: bar(total, template, what, quiet), steps: 0 }
    }

    /// One more.
    pub(super) fn step(&mut self) {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(EVERY) {
            self.bar.inc(EVERY);
        }
    }

    /// So many of so many.
    pub(super) fn at(&self, position: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(position);
    }

    /// A reader whose bytes are counted.
    pub(super) fn reading<R: Read>(&self, reader: R) -> impl Read + use<R> {
        self.bar.wrap_read(reader)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn bar(total: Option<u64>, template: &str, what: &str, quiet: Quiet) -> ProgressBar {
    // On what is no terminal it draws nothing.
    let target =
        if quiet.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(total, target).with_message(what.to_owned());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
