//! Runs a target over its kept corpus and fixed mutations of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// `FUZZ_MUTATIONS` asks for more.
const MUTATIONS: u64 = 300;

pub(crate) fn run_over(corpus: &str, words: &[&str], target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(corpus);
    let mut files: Vec<_> =
        folder.read_dir().expect("a corpus").map(|file| file.expect("a file of it").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    let mutations =
        std::env::var("FUZZ_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(MUTATIONS);
    let inputs: Vec<Vec<u8>> =
        files.iter().map(|file| std::fs::read(file).expect("a readable file")).collect();
    for (file, input) in files.iter().zip(&inputs) {
        check(target, input, &format!("{}", file.display()));
        for number in 0..mutations {
            let other = &inputs[number as usize % inputs.len()];
            let mutated = mutated(input, other, words, number);
            check(target, &mutated, &format!("mutation {number} of {}", file.display()));
        }
    }
}

fn check(target: fn(&[u8]), input: &[u8], name: &str) {
    let result = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(result.is_ok(), "{name} makes the target fail:\n{}", input.escape_ascii());
}

/// A few edits of `input`, the same for the same `number` forever.
fn mutated(input: &[u8], other: &[u8], words: &[&str], number: u64) -> Vec<u8> {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ input.len() as u64 | 1);
    let mut bytes = input.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(8)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            4 => {
                let from = random.below(other.len() + 1);
                let to = (from + random.below(64)).min(other.len());
                drop(bytes.splice(at..at, other[from..to].iter().copied()));
            }
            _ => drop(bytes.splice(at..at, words[random.below(words.len())].bytes())),
        }
    }
    bytes
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}
