//! Words of a command: fields, variables, functions and their arguments.

use std::fmt::Display;

use serde_json::Value;

use super::{Exec, Ran};
use crate::MissingKey;
use crate::ast::{Command, Expr, ExprKind};
use crate::funcs::{self, Fault, Function, TEXT_BYTES_MAX};
use crate::printf::quote;
use crate::value::{Val, type_name};

impl<'t, 'v> Exec<'t, 'v, '_> {
    /// Runs one stage of a pipeline; `last` is what the stage before it gave.
    pub(super) fn command(
        &mut self,
        command: &'t Command,
        dot: &Val<'v>,
        last: Option<Val<'v>>,
    ) -> Ran<Val<'v>> {
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
