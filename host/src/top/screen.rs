//! The screen of `tollgate top`. Readings come from a thread of their own, so that keys are heard while a gateway is slow,
//! and so do keys, since nothing but a thread can wait for them.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use ratatui::backend::{Backend, TermionBackend};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead;
use ratatui::termion::raw::IntoRawMode;
use ratatui::termion::screen::IntoAlternateScreen;
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Row, Table};
use ratatui::{Frame, Terminal};
use url::Url;

use super::look;
use super::view::{Reading, Section, sections};
use crate::admin::{Client, ClientError};

/// How long a key may wait.
const BLINK: Duration = Duration::from_millis(100);
/// Keys that may be pressed meanwhile; the terminal keeps the rest.
const KEYS: usize = 16;

type Looked = Result<Reading, ClientError>;

/// What is on the screen.
struct Screen {
    gateway: String,
    now: Option<Reading>,
    before: Option<Reading>,
    trouble: Option<String>,
    paused: bool,
    /// How many sections are scrolled out of sight.
    scrolled: usize,
}

/// Shows a gateway until `q`, Escape or Control-C.
///
/// # Errors
/// The terminal fails.
pub(super) fn run(client: Client, interval: Duration, gateway: &Url) -> io::Result<()> {
    // One reading at a time: the thread waits for the screen to take it.
    let (sender, readings) = sync_channel(0);
    std::thread::Builder::new()
        .name("readings".to_owned())
        .spawn(move || read(&client, interval, &sender))?;
    let mut screen = Screen {
        gateway: format!("{}{}", gateway.origin().ascii_serialization(), gateway.path()),
        now: None,
        before: None,
        trouble: None,
        paused: false,
        scrolled: 0,
    };
    // Both are undone when the terminal is dropped, however this ends.
    let output = io::stdout().into_raw_mode()?.into_alternate_screen()?;
    let mut terminal = Terminal::new(TermionBackend::new(output))?;
    let done = show(&mut terminal, &mut screen, &readings);
    terminal.show_cursor()?;
    done
}

/// Looks again and again, until nobody listens.
fn read(client: &Client, interval: Duration, to: &SyncSender<Looked>) {
    while to.send(look(client)).is_ok() {
        std::thread::sleep(interval);
    }
}

fn show<B: Backend<Error = io::Error>>(
    terminal: &mut Terminal<B>,
    screen: &mut Screen,
    readings: &Receiver<Looked>,
) -> io::Result<()> {
    let (sender, keys) = sync_channel(KEYS);
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        for key in io::stdin().keys() {
            if sender.send(key).is_err() {
                return;
            }
        }
    })?;
    loop {
        match readings.try_recv() {
            Ok(looked) => screen.take(looked),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                return Err(io::Error::other("the thread that reads the gateway has ended"));
            }
        }
        terminal.draw(|frame| screen.draw(frame))?;
        if screen.obeys(&keys)? {
            return Ok(());
        }
        std::thread::sleep(BLINK);
    }
}

impl Screen {
    /// Does what the keys say that were pressed meanwhile; whether one of them ends it.
    fn obeys(&mut self, keys: &Receiver<io::Result<Key>>) -> io::Result<bool> {
        for key in keys.try_iter() {
            match key? {
                Key::Char('q') | Key::Esc | Key::Ctrl('c') => return Ok(true),
                Key::Char('p' | ' ') => self.paused = !self.paused,
                Key::Down | Key::Char('j') => self.scrolled = self.scrolled.saturating_add(1),
                Key::Up | Key::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
                _ => {}
            }
        }
        Ok(false)
    }

    fn take(&mut self, looked: Looked) {
        match looked {
            _ if self.paused => {}
            Ok(reading) => {
                self.before = self.now.replace(reading);
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, body] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(frame.area());
        frame.render_widget(self.head(), head);
        let Some(now) = &self.now else { return };
        let all = sections(now, self.before.as_ref());
        self.scrolled = self.scrolled.min(all.len().saturating_sub(1));
        let mut top = body;
        for section in all.iter().skip(self.scrolled) {
            if top.height < 3 {
                break;
            }
            let height = section.rows.len().saturating_add(2).min(usize::from(top.height));
            let height = u16::try_from(height).unwrap_or(top.height);
            let area = Rect { height, ..top };
            frame.render_widget(table(section), area);
            top = Rect {
                y: top.y.saturating_add(height),
                height: top.height.saturating_sub(height),
                ..top
            };
        }
    }

    fn head(&self) -> Line<'_> {
        let state = match &self.trouble {
            Some(trouble) => format!("  {trouble}").red(),
            None if self.now.is_none() => "  looking".dim(),
            None if self.paused => "  paused".yellow(),
            None => "  q ends, p pauses, arrows scroll".dim(),
        };
        Line::from(vec!["tollgate ".bold(), self.gateway.as_str().into(), state])
    }
}

fn table(section: &Section) -> Table<'_> {
    let widths = (0..section.headings.len()).map(|column| {
        let of_rows = section.rows.iter().filter_map(|row| row.get(column));
        let heading = section.headings.get(column).map_or(0, |heading| heading.chars().count());
        let widest = of_rows.map(|cell| cell.chars().count()).chain([heading]).max();
        Constraint::Length(widest.and_then(|width| u16::try_from(width).ok()).unwrap_or(u16::MAX))
    });
    let widths: Vec<Constraint> = widths.collect();
    let line = |cells: Vec<String>| {
        let cells = cells.into_iter().enumerate().map(|(column, cell)| {
            let line = Line::from(cell);
            if column < section.text_columns { line } else { line.right_aligned() }
        });
        Row::new(cells.collect::<Vec<_>>())
    };
    let headings = section.headings.iter().map(|heading| (*heading).to_owned()).collect();
    Table::new(section.rows.iter().cloned().map(line), widths)
        .header(line(headings).style(Style::new().dim()))
        .column_spacing(2)
        .block(Block::new().borders(Borders::TOP).title(section.title.bold()))
}
