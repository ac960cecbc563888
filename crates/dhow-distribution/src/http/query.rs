use crate::error::{ApiError, Code};
use crate::registry::Page;

/// The pairs of a query, or of a form.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads them. What is not text is left out: no parameter of ours is anything else.
    pub(super) fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plus = |text: &str| decode(&text.replace('+', " "));
            Some((plus(name)?, plus(value)?))
        });
        Query(pairs.collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `n` and `last`.
    pub(super) fn page(&self) -> Result<Page, ApiError> {
        let number = |text: &str| {
            let message = format!("n={text} is no number of names");
            text.parse().map_err(|_| ApiError::new(Code::PaginationNumberInvalid, message))
        };
        let size = self.get("n").map(number).transpose()?;
        let last = self.get("last").filter(|last| !last.is_empty()).map(str::to_owned);
        Ok(Page { size, last })
    }
}

/// Undoes percent-encoding. `None` if that gives no text; a percent sign that begins no escape stands for itself.
pub(super) fn decode(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|hex| first == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let escaped = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = &rest[if escaped.is_some() { 3 } else { 1 }..];
    }
    String::from_utf8(bytes).ok()
}

/// Encodes what would mean something in a query.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_was_meant() {
        let query = Query::parse("n=10&last=a%2Fb&scope=x&scope=y+z&empty&bad=%ff&%6e2=%");
        assert_eq!(query.page().ok(), Some(Page { size: Some(10), last: Some("a/b".to_owned()) }));
        assert_eq!(query.all("scope").collect::<Vec<_>>(), ["x", "y z"]);
        assert_eq!((query.get("empty"), query.get("bad"), query.get("n2")), (Some(""), None, Some("%")));
        assert!(Query::parse("n=-1").page().is_err() && Query::parse("n=x").page().is_err());
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["", "a/b:c", "a b&c=d%", "ü"] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
    }
}
