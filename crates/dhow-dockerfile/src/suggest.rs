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

/// The first of the options closest to `word` that is near enough to be what was meant; nothing if `word` is one
/// of them. Case counts, as it does in the names of variables.
pub fn suggestion<'a>(word: &str, options: &[&'a str]) -> Option<&'a str> {
    if word.chars().count() > WORD_CHARS_MAX || options.contains(&word) {
        return None;
    }
    let near = options.iter().map(|option| (replacements(word, option), *option));
    near.filter(|(edits, _)| *edits <= EDITS_MAX).min_by_key(|(edits, _)| *edits).map(|(_, option)| option)
}

/// Inserted, missing and replaced characters between two words.
fn replacements(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, c) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for j in 0..b.len() {
            let least = (corner + usize::from(c != b[j])).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], least);
        }
    }
    row[b.len()]
}

/// ` (did you mean X?)`, or nothing.
pub(crate) fn did_you_mean(word: &str, options: &[&str]) -> String {
    nearest(word, options).map(|option| format!(" (did you mean {option}?)")).unwrap_or_default()
}

/// Inserted, missing, replaced and swapped characters between two words.
fn edits(a: &str, b: &str) -> usize {
    let [a, b]: [Vec<char>; 2] = [a, b].map(|word| word.chars().collect());
    // The rows of the prefixes of `a`: two back, one back, this one.
    let (mut oldest, mut old): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = old[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(row[j] + 1).min(old[j + 1] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(oldest[j - 1] + 1);
            }
            row.push(least);
        }
        (oldest, old) = (old, row);
    }
    old[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let options = ["FROM", "RUN", "COPY"];
        assert_eq!(nearest("RUNN", &options), Some("RUN"));
        assert_eq!(nearest("cpoy", &options), Some("COPY"));
        assert_eq!(nearest("RNU", &["ENV", "RUN"]), Some("RUN"));
        assert_eq!(nearest("PUSH", &options), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn variables_are_compared_with_their_case() {
        assert_eq!(replacements("kitten", "sitting"), 3);
        assert_eq!(suggestion("PAHT", &["HOME", "PATH"]), Some("PATH"));
        assert_eq!(suggestion("path", &["PATH"]), None);
        assert_eq!(suggestion("ab", &["abc", "ab", "a"]), None, "it is one of them");
        assert_eq!(suggestion("abx", &["abcx", "abx1"]), Some("abcx"), "the first of equals");
    }
}
