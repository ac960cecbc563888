//! What stands inside an action: pipelines, commands and their operands.

use serde_json::Value;

use super::{Parsed, Parser, unexpected};
use crate::ast::{Command, Expr, ExprKind, Pipe};
use crate::funcs;
use crate::lex::{Keyword, Kind, Token};
use crate::literal;
use crate::printf::quote;

impl Parser<'_> {
    pub(super) fn pipeline(&mut self, context: &str, end: Kind) -> Parsed<Pipe> {
        self.enter()?;
        let pos = self.peek_non_space().pos;
        let mut pipe = Pipe { pos, assign: false, decl: Vec::new(), commands: Vec::new() };
        self.declarations(&mut pipe, context)?;
        loop {
            let start = self.at;
            let token = self.next_non_space();
            if token.kind == end {
                break;
            }
            if !starts_operand(token.kind) {
                return Err(unexpected(&token, context));
            }
            self.at = start;
            pipe.commands.push(self.command()?);
        }
        check_pipeline(&pipe, context)?;
        self.depth -= 1;
        Ok(pipe)
    }

    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Parsed<()> {
        while self.peek_non_space().kind == Kind::Variable {
            let start = self.at;
            let variable = self.next_non_space();
            let sign = self.peek_non_space();
            let comma = sign.kind == Kind::Char && sign.val == ",";
            if !comma && !matches!(sign.kind, Kind::Assign | Kind::Declare) {
                self.at = start;
                return Ok(());
            }
            self.next_non_space();
            pipe.decl.push(variable.val.to_string());
            self.vars.push(variable.val.into());
            if !comma {
                pipe.assign = sign.kind == Kind::Assign;
                return Ok(());
            }
            if context != "range" || pipe.decl.len() >= 2 {
                return Err(format!("too many declarations in {context}"));
            }
            let next = self.peek_non_space().kind;
            if !matches!(next, Kind::Variable | Kind::RightDelim | Kind::RightParen) {
                return Err("range can only initialize variables".into());
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Parsed<Command> {
        let pos = self.peek_non_space().pos;
        let mut words = Vec::new();
        loop {
            self.peek_non_space();
            words.extend(self.operand()?);
            let start = self.at;
            let token = self.next();
            match token.kind {
                Kind::Space => continue,
                Kind::RightDelim | Kind::RightParen => self.at = start,
                Kind::Pipe => {}
                _ => return Err(unexpected(&token, "operand")),
            }
            break;
        }
        if words.is_empty() {
            return Err("empty command".into());
        }
        let first = words.remove(0);
        Ok(Command { pos, first, args: words })
    }

    /// A term and the fields chained to it.
    fn operand(&mut self) -> Parsed<Option<Expr>> {
        let Some(term) = self.term()? else { return Ok(None) };
        let pos = self.peek().pos;
        let mut chain = Vec::new();
        while self.peek().kind == Kind::Field {
            chain.push(self.next().val[1..].to_owned());
        }
        if chain.is_empty() {
            return Ok(Some(term));
        }
        let kind = match term.kind {
            ExprKind::Field(mut fields) => {
                fields.append(&mut chain);
                ExprKind::Field(fields)
            }
            ExprKind::Variable { name, mut fields } => {
                fields.append(&mut chain);
                ExprKind::Variable { name, fields }
            }
            ExprKind::Dot | ExprKind::Nil | ExprKind::Literal { .. } => {
                return Err(format!("unexpected . after term {}", quote(&term.to_string())));
            }
            ExprKind::Function(_) | ExprKind::Chain { .. } | ExprKind::Pipe(_) => {
                ExprKind::Chain { base: Box::new(term), fields: chain }
            }
        };
        Ok(Some(Expr { pos, kind }))
    }

    fn term(&mut self) -> Parsed<Option<Expr>> {
        let start = self.at;
        let Token { kind, pos, val } = self.next_non_space();
        let literal = |value| ExprKind::Literal { text: val.to_string(), value };
        let kind = match kind {
            Kind::Identifier if funcs::exists(&val) => ExprKind::Function(val.into()),
            Kind::Identifier => return Err(format!("function {} not defined", quote(&val))),
            Kind::Dot => ExprKind::Dot,
            Kind::Keyword(Keyword::Nil) => ExprKind::Nil,
            Kind::Variable if self.vars.iter().any(|name| *name == val) => {
                ExprKind::Variable { name: val.into(), fields: Vec::new() }
            }
            Kind::Variable => return Err(format!("undefined variable {}", quote(&val))),
            Kind::Field => ExprKind::Field(vec![val[1..].to_owned()]),
            Kind::Bool => literal(Value::Bool(val == "true")),
            Kind::CharConstant => literal(literal::character(&val)?),
            Kind::Number => literal(literal::number(&val)?),
            Kind::Str | Kind::RawStr => literal(Value::String(literal::string(&val)?)),
            Kind::LeftParen => ExprKind::Pipe(self.pipeline("parenthesized pipeline", Kind::RightParen)?),
            _ => {
                self.at = start;
                return Ok(None);
            }
        };
        Ok(Some(Expr { pos, kind }))
    }
}

fn starts_operand(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Bool
            | Kind::CharConstant
            | Kind::Dot
            | Kind::Field
            | Kind::Identifier
            | Kind::Number
            | Kind::Keyword(Keyword::Nil)
            | Kind::RawStr
            | Kind::Str
            | Kind::Variable
            | Kind::LeftParen
    )
}

fn check_pipeline(pipe: &Pipe, context: &str) -> Parsed<()> {
    if pipe.commands.is_empty() {
        return Err(format!("missing value for {context}"));
    }
    for (i, command) in pipe.commands.iter().enumerate().skip(1) {
        if matches!(command.first.kind, ExprKind::Literal { .. } | ExprKind::Dot | ExprKind::Nil) {
            return Err(format!("non executable command in pipeline stage {}", i + 1));
        }
    }
    Ok(())
}
