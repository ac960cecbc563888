//! A parsed template, and its text again for error messages.

use std::fmt;

use serde_json::Value;

/// What a template is made of.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template(Call),
    Break,
    Continue,
}

/// `if`, `with` and `range`: a pipeline and the two lists it chooses between.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    pub(crate) pipe: Pipe,
    pub(crate) list: Vec<Node>,
    pub(crate) otherwise: Vec<Node>,
}

/// `{{template "name" pipeline}}`.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) pos: usize,
    pub(crate) name: String,
    pub(crate) pipe: Option<Pipe>,
}

/// Commands joined by `|`, with the variables that receive the result.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    pub(crate) pos: usize,
    pub(crate) assign: bool,
    pub(crate) decl: Vec<String>,
    pub(crate) commands: Vec<Command>,
}

/// A word and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) pos: usize,
    pub(crate) first: Expr,
    pub(crate) args: Vec<Expr>,
}

/// An operand.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) pos: usize,
    pub(crate) kind: ExprKind,
}

#[derive(Debug, Clone)]
pub(crate) enum ExprKind {
    Dot,
    Nil,
    /// A boolean, number or string with the text it was written as.
    Literal {
        text: String,
        value: Value,
    },
    /// `.A.B`
    Field(Vec<String>),
    /// `$name.A.B`
    Variable {
        name: String,
        fields: Vec<String>,
    },
    Function(String),
    /// `(pipeline).A.B`
    Chain {
        base: Box<Expr>,
        fields: Vec<String>,
    },
    Pipe(Pipe),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {}", crate::printf::quote(&self.name))?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.decl.is_empty() {
            let sign = if self.assign { "=" } else { ":=" };
            write!(f, "{} {sign} ", self.decl.join(", "))?;
        }
        for (i, command) in self.commands.iter().enumerate() {
            let separator = if i > 0 { " | " } else { "" };
            write!(f, "{separator}{command}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Dot => f.write_str("."),
            ExprKind::Nil => f.write_str("nil"),
            ExprKind::Literal { text, .. } => f.write_str(text),
            ExprKind::Field(fields) => write_fields(f, fields),
            ExprKind::Variable { name, fields } => {
                f.write_str(name)?;
                write_fields(f, fields)
            }
            ExprKind::Function(name) => f.write_str(name),
            ExprKind::Chain { base, fields } => {
                write!(f, "{base}")?;
                write_fields(f, fields)
            }
            ExprKind::Pipe(pipe) => write!(f, "({pipe})"),
        }
    }
}

fn write_fields(f: &mut fmt::Formatter<'_>, fields: &[String]) -> fmt::Result {
    fields.iter().try_for_each(|field| write!(f, ".{field}"))
}
