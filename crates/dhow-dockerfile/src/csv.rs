//! One comma-separated record, as `--mount` and `--device` take it.

/// The fields of `record`. A field may be quoted; a doubled quote inside one is a quote.
pub fn fields(record: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let (field, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(rest)?,
        };
        fields.push(field);
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

fn plain_field(rest: &str) -> Result<(String, Option<&str>), String> {
    let (field, tail) = match rest.split_once(',') {
        Some((field, tail)) => (field, Some(tail)),
        None => (rest, None),
    };
    if field.contains('"') {
        return Err(format!("bare \" in non-quoted field {field:?}"));
    }
    Ok((field.to_owned(), tail))
}

fn quoted_field(rest: &str) -> Result<(String, Option<&str>), String> {
    let mut field = String::new();
    let mut rest = rest;
    loop {
        let (part, tail) = rest.split_once('"').ok_or("missing closing \"")?;
        field.push_str(part);
        if let Some(after) = tail.strip_prefix('"') {
            field.push('"');
            rest = after;
        } else if tail.is_empty() {
            return Ok((field, None));
        } else {
            let tail = tail.strip_prefix(',').ok_or("text after a closing \"")?;
            return Ok((field, Some(tail)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_protect_commas() {
        assert_eq!(fields(r#"a=1,"b=2,""3""",c"#).unwrap(), ["a=1", r#"b=2,"3""#, "c"]);
        assert_eq!(fields("").unwrap(), [""]);
        for bad in [r#"a"b"#, r#""a"#, r#""a"b"#] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }
}
