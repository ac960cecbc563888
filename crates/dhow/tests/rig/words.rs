//! Splits a command line as a shell would, as far as tutorials need it.

/// The words of a line. Quotes of both kinds keep spaces; there is nothing else.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\n') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is open at the end of `{line}`");
    words.extend(word);
    words
}

#[test]
fn quotes_keep_spaces_and_empty_words() {
    assert_eq!(words("run  -e 'A=b \"c\"' \"\" x"), ["run", "-e", "A=b \"c\"", "", "x"]);
}
