//! The Go templates and tables behind `--format`.
//!
//! Docker's users and their scripts say what they want to see in Go's `text/template`, so dhow speaks
//! that language: actions, pipelines, variables, `if`/`with`/`range`/`define`/`template`/`block`, Go's
//! functions (all but `call`: data has no functions) and docker's own `json split join title lower
//! upper pad truncate`. Values are JSON; they print as Go prints them, and errors read as docker's do.
//! Nothing here does I/O.
//!
//! ```
//! use dhow_template::{MissingKey, Template};
//!
//! let template = Template::parse("{{.State.Pid}}{{range $port, $_ := .Ports}} {{$port}}{{end}}")?
//!     .missing_key(MissingKey::Error);
//! let container = serde_json::json!({"State": {"Pid": 42}, "Ports": {"80/tcp": null}});
//! assert_eq!(template.render(&container)?, "42 80/tcp");
//!
//! let error = Template::parse("{{.State.Pid").unwrap_err();
//! assert_eq!(error.to_string(), "template parsing error: template: :1: unclosed action");
//! # Ok::<(), dhow_template::TemplateError>(())
//! ```
//!
//! # Where JSON is not Go
//!
//! Docker renders typed Go values; JSON has lost some of the types. We decide so:
//! - A missing field is [`MissingKey`]'s matter. `null` prints as `<no value>`, has length 0, and
//!   indexed by a key gives the empty string, as Go's nil maps of strings do.
//! - An object that holds only strings counts as a map of strings, like labels: `index` gives the
//!   empty string for a missing key.
//! - Integers are `int`, other numbers `float64`; an object prints as a map.
//! - `json` keeps the order of the keys.
//!
//! # Bounds
//!
//! Templates arrive from users, scripts and API clients. Parsing bounds nesting; running bounds depth,
//! steps, the length of any text a function makes, and the output. What is over a bound is an error.
//!
//! # Around the templates
//!
//! [`format::rows`] is what every list command does with its `--format`, [`Table`] lays out columns as
//! docker does, [`units`] words sizes and durations, [`json`] prints what `inspect` prints.
#![forbid(unsafe_code)]

mod ast;
mod compare;
mod error;
mod exec;
mod float;
pub mod format;
mod funcs;
pub mod json;
mod lex;
mod literal;
mod parse;
mod printf;
mod table;
mod template;
pub mod units;
mod value;

pub use error::TemplateError;
pub use printf::quote;
pub use table::{Table, align};
pub use template::{Methods, MissingKey, Template};
