//! The comma-separated lists that docker's flags take.

use super::OutputError;

/// Splits a line of comma-separated values. A value in double quotes may hold commas, and `""` in it is a
/// quote.
pub fn split_csv(text: &str) -> Result<Vec<String>, OutputError> {
    let mut values = Vec::new();
    let mut rest = text;
    loop {
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_value(text, quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        values.push(value);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(values),
            None => return Err(OutputError::new(format!("{text:?}: text after a closing quote"))),
        }
    }
}

/// The value up to the closing quote, and what follows that.
fn quoted_value<'t>(text: &str, quoted: &'t str) -> Result<(String, &'t str), OutputError> {
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let Some(end) = rest.find('"') else {
            return Err(OutputError::new(format!("{text:?}: a quote is not closed")));
        };
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                rest = more;
            }
            None => return Ok((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_commas_together() {
        let split = |text| split_csv(text).expect("a list");
        assert_eq!(split("type=oci,dest=a"), ["type=oci", "dest=a"]);
        assert_eq!(split(r#"type=image,"name=a,b",push=true"#), ["type=image", "name=a,b", "push=true"]);
        assert_eq!(split(r#""a""b",,c"#), ["a\"b", "", "c"]);
        assert!(split_csv(r#""a"b"#).is_err());
        assert!(split_csv(r#"a,"b"#).is_err());
    }
}
