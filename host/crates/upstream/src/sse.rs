//! Server-sent events as they arrive from the network: where each ends, and which of its bytes are data.
//!
//! Bytes go in by [`Framer::push`] however they were split. [`Framer::find`] shows the next whole event, and its caller
//! either lets it pass, which keeps it in one run with its neighbours, or takes it out. So a frame with forty events costs
//! one allocation and not forty, and what is not taken out leaves byte for byte as it came.
//!
//! What holds, however the stream was split: the same events with the same data, and the same bytes out. For this a CR
//! at the end of what has arrived ends no line yet, since a LF may follow it; events of a server that ends lines with a
//! lone CR are therefore seen when the next byte arrives.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr2};

/// An event is longer than the framer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Finds events in bytes.
#[derive(Debug)]
pub(crate) struct Framer {
    buffer: BytesMut,
    /// Bytes at the start of `buffer` that pass and have not been taken yet.
    run: usize,
    /// Where the line begins that is not yet known whole. At least `run`.
    line: usize,
    /// Up to here that line has no line end.
    scanned: usize,
    /// What the event that begins at `run` has so far.
    fields: Fields,
    /// Whether nothing has been read yet: a byte order mark may stand first.
    at_start: bool,
    longest: usize,
}

/// Where the fields of an event lie, from its first byte on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fields {
    data: Option<Place>,
    /// Further `data` lines.
    more_data: Vec<Place>,
    name: Option<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    start: usize,
    end: usize,
}

/// A whole event, still in the framer.
#[derive(Debug)]
pub(crate) struct Found {
    length: usize,
    fields: Fields,
}

impl Framer {
    /// `longest`: most bytes of an event.
    pub fn new(longest: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            run: 0,
            line: 0,
            scanned: 0,
            fields: Fields::default(),
            at_start: true,
            longest,
        }
    }

    /// Most bytes of an event.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Bytes that it keeps.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn kept(&self) -> usize {
        self.buffer.len()
    }

    /// Takes what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event. It is found again until it passes or is taken out.
    pub fn find(&mut self) -> Result<Option<Found>, TooLong> {
        while let Some((end, next)) = self.line_end() {
            let line = Place { start: self.line, end };
            self.line = next;
            self.scanned = next;
            if self.is_blank(line) {
                return self.found(next).map(Some);
            }
            self.read(line);
        }
        if self.buffer.len().saturating_sub(self.run) > self.longest {
            return Err(TooLong);
        }
        Ok(None)
    }

    /// What is left when the stream has ended: an event without the blank line that should end it, which is then added.
    /// None if nothing is left.
    pub fn rest(&mut self) -> Result<Option<Found>, TooLong> {
        if self.buffer.len() <= self.run {
            return Ok(None);
        }
        let ending: &[u8] = if self.buffer.ends_with(b"\r") || self.line == self.buffer.len() {
            b"\n"
        } else {
            b"\n\n"
        };
        self.buffer.extend_from_slice(ending);
        if self.buffer.ends_with(b"\r\n") {
            // What was a CR at the end is one line end with the LF: the blank line comes after it, unless it is one.
            if let Some(found) = self.find()? {
                return Ok(Some(found));
            }
            self.buffer.extend_from_slice(b"\n");
        }
        self.find()
    }

    /// Its name and its data. Lines of data are joined by LF.
    pub fn parts(&self, found: &Found) -> (Option<&[u8]>, Option<Cow<'_, [u8]>>) {
        let at = |place: &Place| {
            self.buffer.get(self.run + place.start..self.run + place.end).unwrap_or_default()
        };
        let name = found.fields.name.as_ref().map(at);
        let Some(first) = &found.fields.data else { return (name, None) };
        if found.fields.more_data.is_empty() {
            return (name, Some(Cow::Borrowed(at(first))));
        }
        let mut joined = at(first).to_vec();
        for more in &found.fields.more_data {
            joined.push(b'\n');
            joined.extend_from_slice(at(more));
        }
        (name, Some(Cow::Owned(joined)))
    }

    /// Where in the event its data lies, if in one line.
    pub fn data_place(found: &Found) -> Option<(usize, usize)> {
        let single = found.fields.more_data.is_empty();
        found.fields.data.filter(|_| single).map(|place| (place.start, place.end))
    }

    /// It goes out as it came, together with what is around it.
    pub fn pass(&mut self, found: &Found) {
        self.run += found.length;
    }

    /// All that has passed since the last time.
    pub fn take_run(&mut self) -> Option<Bytes> {
        (self.run > 0).then(|| self.split(self.run))
    }

    /// Takes the event out, after [`Self::take_run`].
    pub fn take(&mut self, found: &Found) -> Bytes {
        debug_assert_eq!(self.run, 0, "the run has been taken");
        self.split(self.run + found.length)
    }

    fn split(&mut self, length: usize) -> Bytes {
        let length = length.min(self.buffer.len());
        let taken = self.buffer.split_to(length).freeze();
        self.run = self.run.saturating_sub(length);
        self.line = self.line.saturating_sub(length);
        self.scanned = self.scanned.saturating_sub(length);
        taken
    }

    /// Where the next line ends and where the one after it begins.
    fn line_end(&mut self) -> Option<(usize, usize)> {
        let unread = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(offset) = memchr2(b'\n', b'\r', unread) else {
            self.scanned = self.buffer.len();
            return None;
        };
        let end = self.scanned + offset;
        if self.buffer.get(end) == Some(&b'\n') {
            return Some((end, end + 1));
        }
        match self.buffer.get(end + 1) {
            Some(b'\n') => Some((end, end + 2)),
            Some(_) => Some((end, end + 1)),
            None => {
                self.scanned = end;
                None
            }
        }
    }

    fn is_blank(&mut self, line: Place) -> bool {
        if self.at_start {
            self.at_start = false;
            let text = self.buffer.get(line.start..line.end).unwrap_or_default();
            if let Some(after) = text.strip_prefix("\u{feff}".as_bytes()) {
                let (start, blank) = (line.end - after.len(), after.is_empty());
                if !blank {
                    self.read(Place { start, end: line.end });
                }
                return blank;
            }
        }
        line.start == line.end
    }

    /// Notes what a line says.
    fn read(&mut self, line: Place) {
        let text = self.buffer.get(line.start..line.end).unwrap_or_default();
        let (field, mut value) = match memchr(b':', text) {
            Some(colon) => (text.get(..colon).unwrap_or_default(), line.start + colon + 1),
            None => (text, line.end),
        };
        if self.buffer.get(value) == Some(&b' ') && value < line.end {
            value += 1;
        }
        let place = Place { start: value - self.run, end: line.end - self.run };
        match field {
            b"data" if self.fields.data.is_none() => self.fields.data = Some(place),
            b"data" => self.fields.more_data.push(place),
            b"event" => self.fields.name = Some(place),
            // Comments, ids and what nobody knows.
            _ => {}
        }
    }

    fn found(&mut self, end: usize) -> Result<Found, TooLong> {
        let length = end - self.run;
        let fields = std::mem::take(&mut self.fields);
        if length > self.longest {
            return Err(TooLong);
        }
        Ok(Found { length, fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Event = (Option<String>, Option<String>);

    /// Feeds the pieces; all events, and all bytes that came out.
    fn frame(pieces: &[&[u8]]) -> (Vec<Event>, Vec<u8>) {
        let mut framer = Framer::new(1 << 20);
        let (mut events, mut out) = (Vec::new(), Vec::new());
        let mut keep = |framer: &mut Framer, found: &Found| {
            let (name, data) = framer.parts(found);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            events.push((name.map(text), data.as_deref().map(text)));
            framer.pass(found);
        };
        for piece in pieces {
            framer.push(piece);
            while let Some(found) = framer.find().unwrap() {
                keep(&mut framer, &found);
            }
            out.extend_from_slice(&framer.take_run().unwrap_or_default());
        }
        while let Some(found) = framer.rest().unwrap() {
            keep(&mut framer, &found);
        }
        out.extend_from_slice(&framer.take_run().unwrap_or_default());
        (events, out)
    }

    fn data(text: &str) -> Event {
        (None, Some(text.to_owned()))
    }

    #[test]
    fn events_are_what_the_standard_says() {
        let named = |name: &str, text: &str| (Some(name.to_owned()), Some(text.to_owned()));
        let cases: &[(&str, Vec<Event>)] = &[
            ("data: a\n\ndata: b\n\n", vec![data("a"), data("b")]),
            ("data: a\r\n\r\ndata:b\r\n\r\n", vec![data("a"), data("b")]),
            ("data: a\r\rdata: b\r\r", vec![data("a"), data("b")]),
            ("\u{feff}data: a\n\n", vec![data("a")]),
            ("data: a\ndata:  b\n\n", vec![data("a\n b")]),
            ("data\n\n", vec![data("")]),
            (": ping\n\ndata: a\n\n", vec![(None, None), data("a")]),
            ("event: x\nid: 7\nretry: 1\ndata: a\n\n", vec![named("x", "a")]),
            ("data: a", vec![data("a")]),
            ("data: a\n", vec![data("a")]),
            ("data: a\r", vec![data("a")]),
            ("data: a\r\n", vec![data("a")]),
            ("data: a\r\n\r", vec![data("a")]),
            ("data: {\"a\":\"b:c\"}\n\n", vec![data("{\"a\":\"b:c\"}")]),
        ];
        for (text, expected) in cases {
            assert_eq!(frame(&[text.as_bytes()]).0, *expected, "{text:?}");
        }
    }

    #[test]
    fn an_event_may_be_so_long_and_no_longer() {
        for (text, fits) in
            [("data: 12\n\n", true), ("data: 123\n\n", false), ("data: 12345", false)]
        {
            for split in 0..text.len() {
                let mut framer = Framer::new(10);
                let (a, b) = text.as_bytes().split_at(split);
                framer.push(a);
                let first = framer.find().map(|found| found.is_some());
                framer.push(b);
                assert_eq!(first.is_ok() && framer.find().is_ok(), fits, "{text:?} at {split}");
            }
        }
    }

    #[test]
    fn what_is_taken_out_is_gone_and_the_rest_is_whole() {
        let mut framer = Framer::new(1 << 10);
        framer.push(b"data: a\n\ndata: b\n\ndata: c\n\ndata: d");
        let mut out = Vec::new();
        while let Some(found) = framer.find().unwrap() {
            if framer.parts(&found).1.as_deref() == Some(b"b") {
                out.extend(framer.take_run());
                assert_eq!(framer.take(&found), "data: b\n\n");
            } else {
                framer.pass(&found);
            }
        }
        out.extend(framer.take_run());
        assert_eq!(out, ["data: a\n\n", "data: c\n\n"]);
        framer.push(b"\n\n");
        assert!(framer.find().unwrap().is_some());
    }

    proptest! {
        #[test]
        fn how_it_was_split_makes_no_difference(
            lines in prop::collection::vec("(data: ?[a-c]{0,4}|:c|event: x|id|\u{feff}|)(\n|\r|\r\n)", 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text = lines.concat();
            let bytes = text.as_bytes();
            let whole = frame(&[bytes]);
            prop_assert!(whole.1.starts_with(bytes), "all bytes go out");
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.push(0);
            at.push(bytes.len());
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(frame(&pieces), whole);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(frame(&single), frame(&[bytes]));
        }
    }
}
