//! FROM.
use super::{Typing, description};
use crate::diagnostic::Diagnostic;
use crate::flags::FlagKind;
use crate::form::is_from;
use crate::instruction::Stage;
use crate::rule::Rule;

impl Typing<'_> {
    /// FROM.
    pub(crate) fn stage(mut self) -> Option<Stage> {
        self.mention_comment();
        let platform = self.flags(&[("platform", FlagKind::Text)])?.text("platform");
        let words = self.operands().words();
        if !is_from(&words) {
            return self.fail("FROM requires either one or three arguments");
        }
        let name = match words.get(2) {
            Some(name) => Some(self.stage_name(&words[1], name)?),
            None => None,
        };
        Some(Stage {
            description: name.as_deref().and_then(|name| description(self.comments, name)),
            name,
            base: words[0].clone(),
            platform,
            instructions: Vec::new(),
            keyword: self.form.word.clone(),
            original: self.original.trim().to_owned(),
            comments: self.comments.to_vec(),
            span: self.span,
        })
    }

    fn stage_name(&mut self, keyword_as: &str, typed: &str) -> Option<String> {
        let name = typed.to_lowercase();
        if name != typed {
            let message = format!("Stage name '{typed}' should be lowercase");
            self.diagnostics.push(Diagnostic::lint(Rule::StageNameCasing, self.span, message));
        }
        let from = &self.form.word;
        let matches = (*from == from.to_lowercase() && keyword_as == keyword_as.to_lowercase())
            || (*from == from.to_uppercase() && keyword_as == keyword_as.to_uppercase())
            || (*from != from.to_lowercase() && *from != from.to_uppercase());
        if !matches {
            let message = format!("'{keyword_as}' and '{from}' keywords' casing do not match");
            self.diagnostics.push(Diagnostic::lint(Rule::FromAsCasing, self.span, message));
        }
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(inner) {
            return Some(name);
        }
        self.fail(format!(
            "invalid name for build stage: {typed:?}, name can't start with a number or contain symbols"
        ))
    }
}
