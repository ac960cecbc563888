//! "Did you mean".

/// More edits than this make another word, not a slip.
const EDITS_MAX: usize = 2;
/// Longer words are not compared.
const WORD_CHARS_MAX: usize = 64;

/// The option closest to `word`, ignoring case, when it is near enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, options: &[&'a str]) -> Option<&'a str> {
    if word.chars().count() > WORD_CHARS_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let distance = |option: &&str| edits(&word, &option.to_lowercase());
    options
        .iter()
        .map(|option| (distance(option), *option))
        .filter(|(edits, _)| (1..=EDITS_MAX).contains(edits))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, option)| option)
}

/// ` (did you mean X?)`, or nothing.
pub(crate) fn did_you_mean(word: &str, options: &[&str]) -> String {
    nearest(word, options).map(|option| format!(" (did you mean {option}?)")).unwrap_or_default()
}

/// The Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let options = ["FROM", "RUN", "COPY"];
        assert_eq!(nearest("RUNN", &options), Some("RUN"));
        assert_eq!(nearest("cpoy", &options), Some("COPY"));
        assert_eq!(nearest("PUSH", &options), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
