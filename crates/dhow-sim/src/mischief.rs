//! A registry on a bad day.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::registry::{Answer, Asked, Body};

/// Of ten answers so many go wrong.
const WRONG_OF_TEN: u64 = 4;
/// Deeper than anybody nests, and than a stack would bear.
const DEPTH: usize = 200_000;

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
        let mut dice = Dice(self.seed ^ hash(&asked.path) ^ (self.count(&asked.path) << 32));
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
    match dice.below(13) {
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
        9 => Answer::new([500, 502, 503, 504][dice.below(4) as usize], "<html>oops</html>"),
        10 => Answer::new(307, "").header("location", asked.path.clone()),
        11 => Answer::refusal(401, "UNAUTHORIZED", "authentication required")
            .header("www-authenticate", "Basic realm=\"nobody\""),
        _ => Answer::new(200, "[".repeat(DEPTH)).header("content-type", "application/json"),
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// splitmix64: the same numbers for the same start.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
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
