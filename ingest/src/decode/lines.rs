//! Cutting bytes into lines, each known to be UTF-8 or not, without looking at any byte twice.

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Where it begins.
    pub(super) start: usize,
    /// How many bytes it has.
    pub(super) len: usize,
    /// Its text; `None` when it is not UTF-8.
    pub(super) text: Option<&'a str>,
    /// Where the next line begins.
    pub(super) next: usize,
}

/// Walks over the lines of a piece of a message.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    /// The text from `valid_start` on, as far as it is UTF-8.
    valid: &'a str,
    valid_start: usize,
    at: usize,
    last: bool,
}

impl<'a> Lines<'a> {
    /// Lines from `at` on; the last one counts without an end only when nothing follows.
    pub(super) fn new(bytes: &'a [u8], at: usize, last: bool) -> Self {
        Self {
            bytes,
            valid: valid_prefix(&bytes[at..]),
            valid_start: at,
            at,
            last,
        }
    }

    /// Where the next line begins.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn line(&mut self, end: usize, next: usize) -> Line<'a> {
        let start = self.at;
        let valid_end = self.valid_start + self.valid.len();
        let text = (end <= valid_end).then(|| &self.valid[start - self.valid_start..end - self.valid_start]);
        self.at = next;
        if next > valid_end {
            self.valid = valid_prefix(&self.bytes[next..]);
            self.valid_start = next;
        }
        Line {
            start,
            len: end - start,
            text,
            next,
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = &self.valid[self.at - self.valid_start..];
        let end = match rest.find('\n') {
            Some(offset) => Some(self.at + offset),
            None => {
                let from = self.at + rest.len();
                self.bytes[from..]
                    .iter()
                    .position(|&byte| byte == b'\n')
                    .map(|offset| from + offset)
            }
        };
        match end {
            Some(end) => Some(self.line(end, end + 1)),
            None if self.last && self.at < self.bytes.len() => {
                Some(self.line(self.bytes.len(), self.bytes.len()))
            }
            None => None,
        }
    }
}

fn valid_prefix(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8], last: bool) -> (Vec<Option<&str>>, usize) {
        let mut lines = Lines::new(bytes, 0, last);
        let texts = lines.by_ref().map(|line| line.text).collect();
        (texts, lines.position())
    }

    #[test]
    fn the_last_line_needs_no_end_when_nothing_follows() {
        assert_eq!(texts(b"a\nb", true), (vec![Some("a"), Some("b")], 3));
        assert_eq!(texts(b"a\nb", false), (vec![Some("a")], 2));
        assert_eq!(texts(b"a\n\n", true), (vec![Some("a"), Some("")], 3));
        assert_eq!(texts(b"", true), (vec![], 0));
    }

    #[test]
    fn a_line_that_is_no_utf8_harms_no_other() {
        let bytes = b"one\nt\xffwo\n\xfe\nth\xc3\xa9\nfour\xc3";
        assert_eq!(
            texts(bytes, true).0,
            [Some("one"), None, None, Some("th\u{e9}"), None]
        );
        let (lines, at) = texts(bytes, false);
        assert_eq!((lines.len(), at), (4, bytes.len() - 5));
    }
}
