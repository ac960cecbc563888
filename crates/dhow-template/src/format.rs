//! What all list commands share: default tables, `table …` templates, `json`, plain templates.

use serde_json::Value;

use crate::error::TemplateError;
use crate::table::align;
use crate::template::{Methods, MissingKey, Template};

const TABLE: &str = "table";
const JSON: &str = "json";
/// The default of the formats that name no template of their own.
const JSON_TEMPLATE: &str = "{{json .}}";

/// What a list command can show.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'c> {
    /// The table shown when no format is asked for, as a template: `{{.ID}}\t{{.Name}}`.
    pub default: &'c str,
    /// Every field a row has, with its header.
    pub headers: &'c [(&'c str, &'c str)],
}

/// The rows of a list, as `format` wants them.
///
/// - none, an empty one, and `table`: the default table;
/// - `table TEMPLATE`: the template for each row, under a header made by the same template;
/// - `json`: each row as a JSON object, its keys sorted, on a line;
/// - any other: the template for each row, on a line.
///
/// The two characters `\t` in a format mean a tab, and `\n` a line end. A row is an object that has
/// every field of `columns`; asking for another field is an error. `methods` answers calls like
/// `.Label "x"`.
pub fn rows(
    format: Option<&str>,
    columns: Columns<'_>,
    rows: &[Value],
    methods: &Methods<'_>,
) -> Result<String, TemplateError> {
    let format = format.unwrap_or(TABLE);
    match format.strip_prefix(TABLE).map(|template| template.trim_matches(' ')) {
        _ if format.is_empty() => table(columns.default, columns, rows, methods),
        Some("") => table(columns.default, columns, rows, methods),
        Some(template) => table(template, columns, rows, methods),
        None if format == JSON => lines(JSON_TEMPLATE, rows, methods),
        None => lines(format.trim_matches(' '), rows, methods),
    }
}

fn table(
    template: &str,
    columns: Columns<'_>,
    rows: &[Value],
    methods: &Methods<'_>,
) -> Result<String, TemplateError> {
    let template = template.replace(r"\t", "\t").replace(r"\n", "\n");
    let headers = columns.headers.iter().map(|(field, header)| ((*field).to_owned(), Value::from(*header)));
    let headers = Value::Object(headers.collect());
    let mut text = Template::parse(&template)?.render_header(&headers, &call_header);
    text.push('\n');
    text.push_str(&lines(&template, rows, methods)?);
    Ok(align(&text))
}

fn lines(template: &str, rows: &[Value], methods: &Methods<'_>) -> Result<String, TemplateError> {
    let template = template.replace(r"\t", "\t").replace(r"\n", "\n");
    let template = Template::parse(&template)?.missing_key(MissingKey::Error);
    let mut out = String::new();
    for row in rows {
        out.push_str(&template.render_with(&sorted(row), methods)?);
        out.push('\n');
    }
    Ok(out)
}

/// Docker keeps a row in a Go map, which its JSON encoder sorts.
fn sorted(row: &Value) -> Value {
    let mut row = row.clone();
    if let Value::Object(map) = &mut row {
        map.sort_keys();
    }
    row
}

/// The header of `.Label "com.example.some-name"` is `some name`.
fn call_header(_: &Value, _: &str, args: &[Value]) -> Option<Result<Value, String>> {
    let name = args.first()?.as_str()?;
    let last = name.rsplit('.').next().unwrap_or(name);
    Some(Ok(Value::from(last.replace(['-', '_'], " "))))
}
