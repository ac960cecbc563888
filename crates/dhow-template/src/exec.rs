//! Runs a parsed template over a value.
//!
//! Templates come from users and scripts, so a run is bounded in depth, work and output: a template
//! that calls itself for ever ends with an error, not with the machine.

use std::fmt::Display;

use serde_json::Value;

use crate::ast::{Branch, Call, Command, Expr, ExprKind, Node, Pipe};
use crate::error::TemplateError;
use crate::funcs::{self, Fault, Function, TEXT_BYTES_MAX};
use crate::parse::{Trees, line_at};
use crate::printf::quote;
use crate::value::{Val, sorted, type_name};
use crate::{Methods, MissingKey};

/// How deep lists, parentheses and template calls may nest while running.
const DEPTH_MAX: usize = 200;
/// How many steps a run may take; a step is a node or [`STEP_BYTES`] of text.
const STEPS_MAX: usize = 5_000_000;
/// How much text is as much work as visiting a node.
const STEP_BYTES: usize = 64;
/// The longest output of a run.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// What a run is told besides its data.
#[derive(Clone, Copy)]
pub(crate) struct Options<'o> {
    pub(crate) missing_key: MissingKey,
    pub(crate) methods: Option<&'o Methods<'o>>,
    /// Headers of a table are made by running the rows' template: functions must leave them alone.
    pub(crate) header: bool,
}

/// Runs the main tree of `trees`, parsed from `source`. On an error `out` holds what came before it.
pub(crate) fn run(
    source: &str,
    trees: &Trees,
    data: &Value,
    options: Options<'_>,
    out: &mut String,
) -> Result<(), TemplateError> {
    let mut exec = Exec {
        source,
        trees,
        data,
        options,
        name: "",
        vars: vec![("$", Val::borrowed(data))],
        out,
        depth: 0,
        steps: 0,
    };
    let main = trees.get("").map_or(&[][..], Vec::as_slice);
    exec.list(main, &Val::borrowed(data)).map(|_| ())
}

/// What happens after a node: the next one, or the way out of a `range`.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

type Ran<T> = Result<T, TemplateError>;

struct Exec<'t, 'v, 'o> {
    source: &'t str,
    trees: &'t Trees,
    data: &'v Value,
    options: Options<'t>,
    /// The defined template that is running.
    name: &'t str,
    vars: Vec<(&'t str, Val<'v>)>,
    out: &'o mut String,
    depth: usize,
    steps: usize,
}

impl<'t, 'v> Exec<'t, 'v, '_> {
    fn list(&mut self, nodes: &'t [Node], dot: &Val<'v>) -> Ran<Flow> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &'t Node, dot: &Val<'v>) -> Ran<Flow> {
        match node {
            Node::Text(text) => self.write(text, 0, &"text")?,
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.decl.is_empty() {
                    self.write(&value.print(), pipe.pos, pipe)?;
                }
            }
            Node::If(branch) => return self.choose(branch, dot, false),
            Node::With(branch) => return self.choose(branch, dot, true),
            Node::Range(branch) => return self.range(branch, dot),
            Node::Template(call) => self.call_template(call, dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn write(&mut self, text: &str, pos: usize, at: &dyn Display) -> Ran<()> {
        self.work(text.len(), pos, at)?;
        if self.out.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(self.error(pos, at, format!("output is longer than {OUTPUT_BYTES_MAX} bytes")));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn choose(&mut self, branch: &'t Branch, dot: &Val<'v>, with: bool) -> Ran<Flow> {
        let visible = self.vars.len();
        self.enter(branch.pipe.pos, &branch.pipe)?;
        let value = self.pipe(&branch.pipe, dot)?;
        let flow = match (value.is_true(), with) {
            (true, true) => self.list(&branch.list, &value),
            (true, false) => self.list(&branch.list, dot),
            (false, _) => self.list(&branch.otherwise, dot),
        }?;
        self.depth -= 1;
        self.vars.truncate(visible);
        Ok(flow)
    }

    fn range(&mut self, branch: &'t Branch, dot: &Val<'v>) -> Ran<Flow> {
        let visible = self.vars.len();
        self.enter(branch.pipe.pos, &branch.pipe)?;
        let value = self.pipe(&branch.pipe, dot)?;
        let flow = match value.json() {
            Value::Array(items) => {
                let each = (0..items.len()).map(|i| (Val::from(i), value.part(|v| v.get(i))));
                self.iterate(branch, each)?
            }
            Value::Object(map) => {
                let each = sorted(map).into_iter().map(|(k, _)| (Val::from(&**k), value.part(|v| v.get(k))));
                self.iterate(branch, each)?
            }
            Value::Number(n) if n.as_i64().is_some() => {
                if branch.pipe.decl.len() > 1 {
                    let message = format!("can't use {n} to iterate over more than one variable");
                    return Err(self.pipe_error(&branch.pipe, message));
                }
                let each = (0..n.as_i64().unwrap_or_default()).map(|i| (Val::from(i), Some(Val::from(i))));
                self.iterate(branch, each)?
            }
            Value::Null => None,
            other => {
                let message = format!("range can't iterate over {}", crate::value::print(other));
                return Err(self.pipe_error(&branch.pipe, message));
            }
        };
        let flow = match flow {
            Some(flow) => flow,
            None => self.list(&branch.otherwise, dot)?,
        };
        self.depth -= 1;
        self.vars.truncate(visible);
        Ok(flow)
    }

    /// Runs the body for each pair of index and element. `None` if there was no element.
    fn iterate(
        &mut self,
        branch: &'t Branch,
        each: impl Iterator<Item = (Val<'v>, Option<Val<'v>>)>,
    ) -> Ran<Option<Flow>> {
        let visible = self.vars.len();
        let mut flow = None;
        for (index, element) in each {
            let element = element.unwrap_or(Val::Missing);
            self.work(0, branch.pipe.pos, &branch.pipe)?;
            self.bind_element(&branch.pipe, index, &element)?;
            flow = Some(Flow::Next);
            if self.list(&branch.list, &element)? == Flow::Break {
                break;
            }
            self.vars.truncate(visible);
        }
        Ok(flow)
    }

    /// One variable receives the element, two receive index and element.
    fn bind_element(&mut self, pipe: &'t Pipe, index: Val<'v>, element: &Val<'v>) -> Ran<()> {
        match pipe.decl.as_slice() {
            [] => Ok(()),
            [one] => self.set(pipe, one, element.clone()),
            [first, second, ..] => {
                self.set(pipe, first, index)?;
                self.set(pipe, second, element.clone())
            }
        }
    }

    fn call_template(&mut self, call: &'t Call, dot: &Val<'v>) -> Ran<()> {
        let Some((name, list)) = self.trees.get_key_value(&call.name) else {
            let message = format!("template {} not defined", quote(&call.name));
            return Err(self.error(call.pos, call, message));
        };
        self.enter(call.pos, call)?;
        let dot = match &call.pipe {
            Some(pipe) => self.pipe(pipe, dot)?,
            None => Val::Missing,
        };
        let outer_name = std::mem::replace(&mut self.name, name);
        let outer_vars = std::mem::replace(&mut self.vars, vec![("$", dot.clone())]);
        self.list(list, &dot)?;
        self.name = outer_name;
        self.vars = outer_vars;
        self.depth -= 1;
        Ok(())
    }

    fn pipe(&mut self, pipe: &'t Pipe, dot: &Val<'v>) -> Ran<Val<'v>> {
        self.enter(pipe.pos, pipe)?;
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, dot, value)?);
        }
        self.depth -= 1;
        let value = value.unwrap_or(Val::Missing);
        for name in &pipe.decl {
            if pipe.assign {
                self.set(pipe, name, value.clone())?;
            } else {
                self.vars.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    fn set(&mut self, pipe: &Pipe, name: &str, value: Val<'v>) -> Ran<()> {
        match self.vars.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, slot)) => {
                *slot = value;
                Ok(())
            }
            None => Err(self.pipe_error(pipe, format!("undefined variable: {name}"))),
        }
    }

    /// Runs one stage of a pipeline; `last` is what the stage before it gave.
    fn command(&mut self, command: &'t Command, dot: &Val<'v>, last: Option<Val<'v>>) -> Ran<Val<'v>> {
        let Command { first, args, .. } = command;
        match &first.kind {
            ExprKind::Function(name) => self.function(first, command, name, args, dot, last),
            ExprKind::Field(fields) => self.chain(first, dot.clone(), fields, args, dot, last),
            ExprKind::Variable { name, fields } => {
                let value = self.variable(first, name)?;
                self.chain(first, value, fields, args, dot, last)
            }
            ExprKind::Chain { base, fields } => {
                let value = self.operand(base, dot)?;
                self.chain(first, value, fields, args, dot, last)
            }
            ExprKind::Nil => Err(self.error(first.pos, first, "nil is not a command".into())),
            ExprKind::Dot | ExprKind::Literal { .. } | ExprKind::Pipe(_) => {
                self.refuse_arguments(first, args, last.as_ref())?;
                self.operand(first, dot)
            }
        }
    }

    /// The value of a word that stands alone or as an argument.
    fn operand(&mut self, expr: &'t Expr, dot: &Val<'v>) -> Ran<Val<'v>> {
        match &expr.kind {
            ExprKind::Dot => Ok(dot.clone()),
            ExprKind::Nil => Ok(Val::from(Value::Null)),
            ExprKind::Literal { value, .. } => Ok(Val::from(value.clone())),
            ExprKind::Field(fields) => self.chain(expr, dot.clone(), fields, &[], dot, None),
            ExprKind::Variable { name, fields } => {
                let value = self.variable(expr, name)?;
                self.chain(expr, value, fields, &[], dot, None)
            }
            ExprKind::Chain { base, fields } => {
                let value = self.operand(base, dot)?;
                self.chain(expr, value, fields, &[], dot, None)
            }
            ExprKind::Function(name) => self.function(expr, expr, name, &[], dot, None),
            ExprKind::Pipe(pipe) => self.pipe(pipe, dot),
        }
    }

    fn variable(&self, expr: &Expr, name: &str) -> Ran<Val<'v>> {
        let found = self.vars.iter().rev().find(|(known, _)| *known == name);
        let message = || self.error(expr.pos, expr, format!("undefined variable: {name}"));
        found.map(|(_, value)| value.clone()).ok_or_else(message)
    }

    /// Follows `.A.B` from `value`. Arguments belong to the last field, which then is a method.
    fn chain(
        &mut self,
        expr: &'t Expr,
        mut value: Val<'v>,
        fields: &'t [String],
        args: &'t [Expr],
        dot: &Val<'v>,
        last: Option<Val<'v>>,
    ) -> Ran<Val<'v>> {
        let Some((method, path)) = fields.split_last() else {
            self.refuse_arguments(expr, args, last.as_ref())?;
            return Ok(value);
        };
        for field in path {
            value = self.field(expr, &value, field)?;
        }
        if args.is_empty() && last.is_none() {
            return self.field(expr, &value, method);
        }
        let mut given = Vec::with_capacity(args.len() + 1);
        for arg in args {
            given.push(self.operand(arg, dot)?.into_json());
        }
        given.extend(last.map(Val::into_json));
        match self.method(expr, &value, method, &given)? {
            Some(value) => Ok(value),
            None => {
                let message = format!("{method} is not a method but has arguments");
                Err(self.error(expr.pos, expr, message))
            }
        }
    }

    fn field(&mut self, expr: &Expr, value: &Val<'v>, field: &str) -> Ran<Val<'v>> {
        if let Some(part) = value.part(|value| value.as_object().and_then(|map| map.get(field))) {
            return Ok(part);
        }
        if let Some(value) = self.method(expr, value, field, &[])? {
            return Ok(value);
        }
        let strict = self.options.missing_key == MissingKey::Error && !self.is_string_map(value.json());
        let message = match (value, value.json()) {
            (Val::Missing, _) if strict => format!("nil data; no entry for key {}", quote(field)),
            (_, Value::Object(_)) if strict => format!("map has no entry for key {}", quote(field)),
            (Val::Missing, _) | (_, Value::Object(_)) => return Ok(Val::Missing),
            (_, Value::Null) => format!("nil pointer evaluating interface {{}}.{field}"),
            (_, other) => format!("can't evaluate field {field} in type {}", type_name(other)),
        };
        Err(self.error(expr.pos, expr, message))
    }

    /// Whether the fields of an object are not known beforehand, as those of labels are not.
    fn is_string_map(&self, value: &Value) -> bool {
        let strings = value.as_object().is_some_and(|map| map.values().all(Value::is_string));
        strings && !std::ptr::eq(value, self.data)
    }

    fn method(&self, expr: &Expr, value: &Val<'v>, name: &str, args: &[Value]) -> Ran<Option<Val<'v>>> {
        let answer = self.options.methods.and_then(|methods| methods(value.json(), name, args));
        let failed = |message| self.error(expr.pos, expr, format!("error calling {name}: {message}"));
        answer.transpose().map(|value| value.map(Val::from)).map_err(failed)
    }

    /// Calls a function; `at` is what an error shows as the call.
    fn function(
        &mut self,
        expr: &'t Expr,
        at: &dyn Display,
        name: &str,
        args: &'t [Expr],
        dot: &Val<'v>,
        last: Option<Val<'v>>,
    ) -> Ran<Val<'v>> {
        let count = args.len() + usize::from(last.is_some());
        if matches!(name, "and" | "or") {
            self.check_count(expr, name, count, 1, None)?;
            return self.and_or(name == "or", args, dot, last);
        }
        let Some(Function { least, most, run }) = funcs::lookup(name) else {
            return Err(self.error(expr.pos, expr, format!("{} is not a defined function", quote(name))));
        };
        self.check_count(expr, name, count, least, most)?;
        let mut given = Vec::with_capacity(count);
        for arg in args {
            given.push(self.operand(arg, dot)?);
        }
        given.extend(last);
        if self.options.header
            && let Some(value) = given.first().and_then(|first| header_function(name, first))
        {
            return Ok(value);
        }
        let given_bytes: usize = given.iter().filter_map(|value| value.json().as_str()).map(str::len).sum();
        self.work(given_bytes, expr.pos, at)?;
        let answer = if given_bytes > TEXT_BYTES_MAX { Err(funcs::too_long()) } else { run(&given) };
        let result = answer.map_err(|fault| match fault {
            Fault::Call(message) => self.error(expr.pos, at, format!("error calling {name}: {message}")),
            Fault::Argument { at, expected } => match args.get(at) {
                Some(arg) => self.error(arg.pos, arg, argument_fault(arg, given[at].json(), expected)),
                None => self.error(expr.pos, expr, wrong_type(given[at].json(), expected)),
            },
        })?;
        self.work(result.json().as_str().map_or(0, str::len), expr.pos, expr)?;
        Ok(result)
    }

    /// The first argument that settles the question, or the last one. Later ones are not evaluated.
    fn and_or(
        &mut self,
        settled_by: bool,
        args: &'t [Expr],
        dot: &Val<'v>,
        last: Option<Val<'v>>,
    ) -> Ran<Val<'v>> {
        let mut value = Val::Missing;
        for arg in args {
            value = self.operand(arg, dot)?;
            if value.is_true() == settled_by {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    fn check_count(
        &self,
        expr: &Expr,
        name: &str,
        count: usize,
        least: usize,
        most: Option<usize>,
    ) -> Ran<()> {
        let want = match most {
            Some(most) if count > most || count < least => most.to_string(),
            None if count < least => format!("at least {least}"),
            _ => return Ok(()),
        };
        let message = format!("wrong number of args for {name}: want {want} got {count}");
        Err(self.error(expr.pos, expr, message))
    }

    fn refuse_arguments(&self, expr: &Expr, args: &[Expr], last: Option<&Val<'v>>) -> Ran<()> {
        if args.is_empty() && last.is_none() {
            return Ok(());
        }
        Err(self.error(expr.pos, expr, format!("can't give argument to non-function {expr}")))
    }

    fn enter(&mut self, pos: usize, at: &dyn Display) -> Ran<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(pos, at, format!("exceeded maximum template depth ({DEPTH_MAX})")));
        }
        self.work(0, pos, at)
    }

    fn work(&mut self, bytes: usize, pos: usize, at: &dyn Display) -> Ran<()> {
        self.steps += 1 + bytes / STEP_BYTES;
        if self.steps > STEPS_MAX {
            return Err(self.error(pos, at, format!("takes more than {STEPS_MAX} steps")));
        }
        Ok(())
    }

    fn pipe_error(&self, pipe: &Pipe, message: String) -> TemplateError {
        match pipe.commands.last() {
            Some(command) => self.error(command.pos, command, message),
            None => self.error(pipe.pos, pipe, message),
        }
    }

    fn error(&self, pos: usize, at: &dyn Display, message: String) -> TemplateError {
        let line_start = self.source[..pos].rfind('\n').map_or(0, |newline| newline + 1);
        TemplateError::Exec {
            line: line_at(self.source, pos),
            column: pos - line_start,
            template: self.name.to_owned(),
            at: at.to_string(),
            message,
        }
    }
}

/// In a header, functions that would change a column's name leave it alone.
fn header_function<'v>(name: &str, first: &Val<'v>) -> Option<Val<'v>> {
    match name {
        "json" | "title" | "lower" | "upper" | "truncate" => Some(first.clone()),
        "split" => Some(Val::from(vec![first.json().clone()])),
        "join" if first.json().is_string() => Some(first.clone()),
        _ => None,
    }
}

/// Go words the same fault differently for constants and for what was computed.
fn argument_fault(arg: &Expr, value: &Value, expected: &str) -> String {
    let kind = if expected == "int" { "integer" } else { expected };
    match arg.kind {
        ExprKind::Nil => format!("cannot assign nil to {expected}"),
        ExprKind::Literal { .. } => format!("expected {kind}; found {arg}"),
        _ => wrong_type(value, expected),
    }
}

fn wrong_type(value: &Value, expected: &str) -> String {
    if value.is_null() {
        return format!("invalid value; expected {expected}");
    }
    format!("wrong type for value; expected {expected}; got {}", type_name(value))
}
