//! Runs a parsed template over a value.
//!
//! Templates come from users and scripts, so a run is bounded in depth, work and output: a template
//! that calls itself for ever ends with an error, not with the machine.

mod eval;

use std::fmt::Display;

use serde_json::Value;

use crate::ast::{Branch, Call, Node, Pipe};
use crate::error::TemplateError;
use crate::parse::{Trees, line_at};
use crate::printf::quote;
use crate::value::{Val, sorted};
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
