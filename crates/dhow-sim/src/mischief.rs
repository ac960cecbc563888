//! A registry on a bad day.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::dice::Dice;
use crate::registry::{Answer, Asked, Body};

/// Of ten answers so many go wrong.
const WRONG_OF_TEN: u64 = 4;
/// Deeper than anybody nests, and than a stack would bear.
const DEPTH: usize = 200_000;
/// More than a client reads of a small answer, and than it takes as a header.
const HUGE_BYTES: usize = 32 << 20;
const HEADER_BYTES: usize = 1 << 20;

/// Spoils answers. What happens to the n-th answer for a path depends on the seed, the path and n alone, so that a story
/// is the same whatever the order in which threads ask.
#[derive(Debug)]
pub struct Mischief {
    seed: u64,
    asked: Mutex<HashMap<String, u64>>,
}

impl Mischief {
    /// One story.
    pub fn new(seed: u64) -> Self {
        Self { seed, asked: Mutex::default() }
    }

    /// What becomes of an honest answer.
    pub fn spoil(&self, asked: &Asked, honest: Answer) -> Answer {
        let mut dice = Dice::new(self.seed ^ hash(&asked.path) ^ (self.count(&asked.path) << 32));
        if asked.method != "GET" || asked.path == "/v2/" || dice.below(10) >= WRONG_OF_TEN {
            return honest;
        }
        match honest.body {
            Body::Whole(_) => spoiled(&mut dice, asked, honest),
            _ => honest,
        }
    }

    /// How often a path was asked for before.
    fn count(&self, path: &str) -> u64 {
        let mut asked = self.asked.lock().expect("no server panics");
        let count = asked.entry(path.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

fn spoiled(dice: &mut Dice, asked: &Asked, honest: Answer) -> Answer {
    let Answer { status, headers, body } = honest;
    let Body::Whole(mut body) = body else { return Answer { status, headers, body } };
    let at = dice.below(body.len() as u64 + 1) as usize;
    let with = |body| Answer { status, headers, body };
    match dice.below(19) {
        0 => with(Body::Cut(body, at)),
        1 => with(Body::Reset(body, at)),
        2 => with(Body::Trickle(body)),
        3 => with(Body::Lie(body, at as u64)),
        4 => {
            let longer = body.len() as u64 + 1 + dice.below(1000);
            with(Body::Lie(body, longer))
        }
        5 => {
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
            with(Body::Whole(body))
        }
        6 => with(Body::Nothing),
        7 => Answer::endless(None),
        8 => Answer::new(429, "slow down").header("retry-after", dice.below(2).to_string()),
        9 => Answer::new(dice.one_of(&[500, 502, 503, 504]), "<html>oops</html>"),
        10 => Answer::new(307, "").header("location", asked.path.clone()),
        11 => Answer::refusal(401, "UNAUTHORIZED", "authentication required")
            .header("www-authenticate", "Basic realm=\"nobody\""),
        12 => Answer::new(200, "[".repeat(DEPTH)).header("content-type", "application/json"),
        13 => Answer::new(200, format!("\"{}\"", " ".repeat(HUGE_BYTES))),
        14 => with(Body::Whole(body)).header("x-flood", "a".repeat(HEADER_BYTES)),
        // There and back again.
        15 => Answer::new(302, "").header("location", turned(&asked.path)),
        16 => Answer::refusal(401, "UNAUTHORIZED", "authentication required").header(
            "www-authenticate",
            format!("Bearer realm=\"http://127.0.0.1:1/token\",service=\"{at}\""),
        ),
        // Another part than was asked for, of something larger than there is.
        17 => Answer::new(206, body).header("content-range", format!("bytes {}-{}/{}", at + 1, at + 2, at)),
        _ => {
            body.extend_from_slice(&surplus(at));
            with(Body::Whole(body))
        }
    }
}

/// A path whose own is this one.
fn turned(path: &str) -> String {
    match path.strip_suffix("?again") {
        Some(path) => path.to_owned(),
        None => format!("{path}?again"),
    }
}

/// Bytes nobody asked for.
fn surplus(count: usize) -> Vec<u8> {
    vec![b'\n'; count % 4096 + 1]
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_story() {
        let tell = |seed| -> Vec<u16> {
            let mischief = Mischief::new(seed);
            let asked = Asked { method: "GET".into(), path: "/v2/a/blobs/b".into(), ..Asked::default() };
            (0..50).map(|_| mischief.spoil(&asked, Answer::new(200, "content")).status).collect()
        };
        assert_eq!(tell(1), tell(1));
        assert_ne!(tell(1), tell(2));
        assert!(tell(1).contains(&200) && tell(1).iter().any(|status| *status != 200));
    }
}
