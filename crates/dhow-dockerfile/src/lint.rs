//! What is legal but unwise, by the names and words of Docker's checks. Only rules that need no more than the
//! text are here; those about variables, images and the build context belong to the builder.
use std::collections::HashSet;

use crate::diagnostic::{Diagnostic, Span};
use crate::directive::CheckConfig;
use crate::instruction::{Dockerfile, Instruction, InstructionKind, Stage};
use crate::rule::Rule;

/// The findings about a whole file.
pub(crate) fn file(dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let mut lint = Lint { check: &dockerfile.directives.check, found: Vec::new() };
    for arg in &dockerfile.global_args {
        lint.description("ARG", &names(&arg.kind), &arg.comments, arg.span);
    }
    for stage in &dockerfile.stages {
        if let Some(name) = stage.name.as_deref() {
            lint.description("FROM", &[name], &stage.comments, stage.span);
        }
        stage.instructions.iter().for_each(|instruction| lint.instruction(instruction));
    }
    lint.stage_names(&dockerfile.stages);
    lint.casing(dockerfile);
    lint.found
}

fn names(arg: &crate::ArgInstruction) -> Vec<&str> {
    arg.args.iter().map(|arg| arg.name.as_str()).collect()
}

struct Lint<'a> {
    check: &'a CheckConfig,
    found: Vec<Diagnostic>,
}

impl Lint<'_> {
    fn report(&mut self, rule: Rule, comments: &[String], span: Span, message: impl Into<String>) {
        if self.check.with_comments(comments).allows(rule) {
            self.found.push(Diagnostic::lint(rule, span, message));
        }
    }

    /// ConsistentInstructionCasing. Comments above an instruction have no say in it.
    fn casing(&mut self, dockerfile: &Dockerfile) {
        let mut words: Vec<(&str, Span)> = Vec::new();
        for stage in &dockerfile.stages {
            words.push((&stage.keyword, stage.span));
            words.extend(stage.instructions.iter().map(|one| (one.keyword.as_str(), one.span)));
        }
        let lower = words.iter().filter(|(word, _)| *word == word.to_lowercase()).count();
        let upper = words.iter().filter(|(word, _)| *word == word.to_uppercase()).count();
        let (case, wanted): (_, fn(&str) -> String) = if lower > upper {
            ("lowercase", |word| word.to_lowercase())
        } else {
            ("uppercase", |word| word.to_uppercase())
        };
        for (word, span) in words.into_iter().filter(|(word, _)| *word != wanted(word)) {
            let message = format!("Command '{word}' should match the case of the command majority ({case})");
            self.report(Rule::ConsistentInstructionCasing, &[], span, message);
        }
    }

    /// DuplicateStageName and ReservedStageName. Here too only the whole file's settings count.
    fn stage_names(&mut self, stages: &[Stage]) {
        let mut seen = HashSet::new();
        for stage in stages {
            let Some(name) = stage.name.as_deref() else { continue };
            if matches!(name, "scratch" | "context") {
                let message = format!("Stage name should not use the same name as reserved stage {name:?}");
                self.report(Rule::ReservedStageName, &[], stage.span, message);
            }
            if !seen.insert(name) {
                let message = format!("Duplicate stage name {name:?}, stage names should be unique");
                self.report(Rule::DuplicateStageName, &[], stage.span, message);
            }
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        let Instruction { kind, comments, span, .. } = instruction;
        match kind {
            InstructionKind::Arg(arg) => self.description("ARG", &names(arg), comments, *span),
            InstructionKind::Maintainer(_) => {
                let message = "Maintainer instruction is deprecated in favor of using label";
                self.report(Rule::MaintainerDeprecated, comments, *span, message);
            }
            _ => {}
        }
    }

    /// InvalidDefinitionDescription.
    fn description(&mut self, instruction: &str, names: &[&str], comments: &[String], span: Span) {
        let Some(comment) = comments.last() else { return };
        let first = comment.split(' ').next().unwrap_or_default();
        if names.contains(&first) {
            return;
        }
        let example = if let [name] = names { name } else { "<arg_key>" };
        let message =
            format!("Comment for {instruction} should follow the format: `# {example} <description>`");
        self.report(Rule::InvalidDefinitionDescription, comments, span, message);
    }
}
