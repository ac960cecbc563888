//! Output with everything that differs from run to run replaced by something that does not.

use std::fmt::Write;

/// Digits of a short and of a full ID.
const SHORT: usize = 12;
const FULL: usize = 64;

/// Replaces IDs and digests: the first one seen by the first made-up one, and so on. Lengths stay, so tables stay straight,
/// and a short ID stays the beginning of its full one.
#[derive(Default)]
pub(crate) struct Normal {
    /// The short forms seen, in order.
    seen: Vec<String>,
    replacements: Vec<(String, String)>,
}

impl Normal {
    /// Also replaces `from`, wherever it occurs, by `to`.
    pub(crate) fn replace(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.replacements.push((from.into(), to.into()));
        self
    }

    /// The normal form of a piece of output. Pieces of one story belong through one `Normal`.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut result = String::new();
        let is_part = |c: char| c.is_ascii_alphanumeric();
        let mut rest = text;
        while let Some(start) = rest.find(is_part) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            result += before;
            result += &self.word(word);
            rest = after;
        }
        result += rest;
        self.replacements.iter().fold(result, |text, (from, to)| text.replace(from, to))
    }

    fn word(&mut self, word: &str) -> String {
        let is_id = matches!(word.len(), SHORT | FULL)
            && word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_id {
            return word.to_owned();
        }
        let short = &word[..SHORT];
        let number = self.seen.iter().position(|known| known == short).unwrap_or_else(|| {
            self.seen.push(short.to_owned());
            self.seen.len() - 1
        });
        made_up(number)[..word.len()].to_owned()
    }
}

/// An ID nobody would have by accident, the same every time.
fn made_up(number: usize) -> String {
    let mut state = number as u64;
    let mut id = String::new();
    while id.len() < FULL {
        // The step and the mixing of splitmix64: neighbours look nothing like each other.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        write!(id, "{:016x}", mixed ^ (mixed >> 31)).expect("a String takes all text");
    }
    id
}

#[test]
fn an_id_is_replaced_by_the_same_one_wherever_it_is_seen() {
    let id = "0123456789abcdef".repeat(4);
    let mut normal = Normal::default().replace("/tmp/x", "/home/you");
    let text = normal.text(&format!("sha256:{id}  {}  /tmp/x deadbeef", &id[..12]));
    let made_up = made_up(0);
    assert_eq!(text, format!("sha256:{made_up}  {}  /home/you deadbeef", &made_up[..12]));
    assert_ne!(normal.text("ffffffffffff"), made_up[..12]);
}
