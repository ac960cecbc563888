//! The Go templates and tables behind `--format`.
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
