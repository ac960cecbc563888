//! A template, ready to be run.

use serde_json::Value;

use crate::error::TemplateError;
use crate::exec::{self, Options};
use crate::parse::{self, Trees};

/// What a field that the data does not have stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MissingKey {
    /// `<no value>`, and no value again for its own fields: Go's rule for maps.
    #[default]
    NoValue,
    /// An error: docker's rule for objects whose fields are known, as `inspect` and the lists have.
    ///
    /// JSON does not tell such an object from a map. One that holds nothing but strings is taken for
    /// a map, like labels, unless it is the data itself, like a row.
    Error,
}

/// Answers `.Name "argument"…` on a piece of the data, where Go would call a method of it.
///
/// It is asked with the receiver, the name and the arguments: always if there are arguments, and if
/// there are none then only for a field the receiver does not have. `None` says there is no such
/// method.
pub type Methods<'m> = dyn Fn(&Value, &str, &[Value]) -> Option<Result<Value, String>> + 'm;

/// A parsed Go template.
///
/// ```
/// use dhow_template::Template;
///
/// let template = Template::parse("{{range $i, $p := .Ports}}{{if $i}}, {{end}}{{upper $p}}{{end}}")?;
/// let data = serde_json::json!({"Ports": ["80/tcp", "53/udp"]});
/// assert_eq!(template.render(&data)?, "80/TCP, 53/UDP");
/// # Ok::<(), dhow_template::TemplateError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Template {
    source: String,
    trees: Trees,
    missing_key: MissingKey,
}

impl Template {
    /// Reads a template.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let trees = parse::parse(source)?;
        Ok(Self { source: source.to_owned(), trees, missing_key: MissingKey::default() })
    }

    /// The same template with another rule for fields the data does not have.
    #[must_use]
    pub fn missing_key(mut self, missing_key: MissingKey) -> Self {
        self.missing_key = missing_key;
        self
    }

    /// The template's text with `data` filled in.
    pub fn render(&self, data: &Value) -> Result<String, TemplateError> {
        self.run(data, None)
    }

    /// Like [`render`](Self::render), for data that has methods.
    pub fn render_with(&self, data: &Value, methods: &Methods<'_>) -> Result<String, TemplateError> {
        self.run(data, Some(methods))
    }

    fn run(&self, data: &Value, methods: Option<&Methods<'_>>) -> Result<String, TemplateError> {
        let options = Options { missing_key: self.missing_key, methods, header: false };
        let mut out = String::new();
        exec::run(&self.source, &self.trees, data, options, &mut out)?;
        Ok(out)
    }

    /// Renders the header of a table: functions that would change a field's text leave it alone.
    ///
    /// A template made for rows need not fit their headers (it may look into a label's value). Then
    /// the header goes as far as it can, as docker's does; a real fault shows in the first row.
    pub(crate) fn render_header(&self, headers: &Value, methods: &Methods<'_>) -> String {
        let options = Options { missing_key: MissingKey::NoValue, methods: Some(methods), header: true };
        let mut out = String::new();
        let _header_ends_here = exec::run(&self.source, &self.trees, headers, options, &mut out);
        out
    }
}
