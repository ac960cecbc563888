//! Gives a form its meaning: operands counted, flags checked, values of the right type.
mod copy;
mod healthcheck;
mod run;
mod stage;

use crate::diagnostic::{Diagnostic, Span};
use crate::flags::{FlagSpec, Flags};
use crate::form::{Form, Keyword, Operands, cut_comment};
use crate::heredoc::Heredoc;
use crate::instruction::{ArgInstruction, BuildArg, Command, InstructionKind, KeyValue, Onbuild, Pairs};

/// An instruction on its way from form to meaning.
pub(crate) struct Typing<'a> {
    pub(crate) form: Form,
    pub(crate) heredocs: Vec<Heredoc>,
    /// The logical line.
    pub(crate) original: &'a str,
    pub(crate) comments: &'a [String],
    pub(crate) span: Span,
    pub(crate) diagnostics: &'a mut Vec<Diagnostic>,
}

impl Typing<'_> {
    /// Reports an error; the result is for `?`-less early returns.
    fn fail<T>(&mut self, message: impl Into<String>) -> Option<T> {
        self.diagnostics.push(Diagnostic::error(self.span, message));
        None
    }

    fn warn(&mut self, message: impl Into<String>, hint: Option<String>) {
        let mut diagnostic = Diagnostic::warning(self.span, message);
        diagnostic.hint = hint;
        self.diagnostics.push(diagnostic);
    }

    fn flags(&mut self, spec: &FlagSpec) -> Option<Flags> {
        match Flags::check(&self.form.flags, spec) {
            Ok(flags) => Some(flags),
            Err(errors) => {
                let errors = errors.into_iter().map(|error| Diagnostic::error(self.span, error));
                self.diagnostics.extend(errors);
                None
            }
        }
    }

    fn operands(&mut self) -> Operands {
        std::mem::replace(&mut self.form.operands, Operands::Words(Vec::new()))
    }

    /// The line without `comment` at its end, as the author should have written it.
    fn without(&self, comment: &str) -> Option<String> {
        self.original.trim_end().strip_suffix(comment).map(|line| line.trim().to_owned())
    }

    /// The instruction, unless it is beyond use.
    pub(crate) fn instruction(mut self, keyword: Keyword) -> Option<InstructionKind> {
        self.mention_comment();
        let name = keyword.name();
        Some(match keyword {
            Keyword::Add => InstructionKind::Add(self.add()?),
            Keyword::Arg => InstructionKind::Arg(self.arg()?),
            Keyword::Cmd => InstructionKind::Cmd(self.command()?),
            Keyword::Copy => InstructionKind::Copy(self.copy()?),
            Keyword::Entrypoint => InstructionKind::Entrypoint(self.command()?),
            Keyword::Env => InstructionKind::Env(self.pairs(name)?),
            Keyword::Expose => InstructionKind::Expose(self.some_words(name)?),
            Keyword::Healthcheck => InstructionKind::Healthcheck(self.healthcheck()?),
            Keyword::Label => InstructionKind::Label(self.pairs(name)?),
            Keyword::Maintainer => InstructionKind::Maintainer(self.one_text(name)?),
            Keyword::Onbuild => InstructionKind::Onbuild(self.onbuild()?),
            Keyword::Run => InstructionKind::Run(self.run()?),
            Keyword::Shell => InstructionKind::Shell(self.shell()?),
            Keyword::StopSignal => InstructionKind::StopSignal(self.one_text(name)?),
            Keyword::User => InstructionKind::User(self.one_text(name)?),
            Keyword::Volume => InstructionKind::Volume(self.volume()?),
            Keyword::Workdir => InstructionKind::Workdir(self.one_text(name)?),
            Keyword::From => return self.fail("FROM begins a stage and cannot stand here"),
        })
    }

    /// A comment that the form has set aside.
    fn mention_comment(&mut self) {
        if let Some(comment) = self.form.comment.take() {
            let hint = self.without(&comment).map(|line| format!("write `{line}`"));
            let message = format!("`{comment}` is not a comment in the middle of a line to Docker; ignored");
            self.warn(message, hint);
        }
    }

    /// A comment that is part of a value, because some file may mean it so.
    fn mention_comment_in_value(&mut self, name: &str) {
        let rest = self.form.rest.clone();
        if let Some((_, comment)) = cut_comment(&rest) {
            let hint = self.without(comment).map(|line| format!("write `{line}`"));
            let message = format!(
                "`{comment}` is part of the {name} instruction: a comment cannot follow it on the same line"
            );
            self.warn(message, hint);
        }
    }

    fn one_text(&mut self, name: &str) -> Option<String> {
        self.flags(&[])?;
        if name != "MAINTAINER" {
            self.mention_comment_in_value(name);
        }
        match self.operands().words().pop() {
            Some(text) => Some(text),
            None => self.fail(format!("{name} requires exactly one argument")),
        }
    }

    fn some_words(&mut self, name: &str) -> Option<Vec<String>> {
        let words = self.operands().words();
        if words.is_empty() {
            return self.fail(format!("{name} requires at least one argument"));
        }
        self.flags(&[]).map(|_| words)
    }

    fn volume(&mut self) -> Option<Vec<String>> {
        if !self.form.operands.is_json() {
            self.mention_comment_in_value("VOLUME");
        }
        let words = self.some_words("VOLUME")?;
        let words: Vec<String> = words.iter().map(|word| word.trim().to_owned()).collect();
        if words.iter().any(String::is_empty) {
            return self.fail("VOLUME specified can not be an empty string");
        }
        Some(words)
    }

    fn pairs(&mut self, name: &str) -> Option<Pairs> {
        self.flags(&[])?;
        let Operands::Pairs { pairs, legacy } = self.operands() else {
            return self.fail(format!("{name} requires at least one argument"));
        };
        if pairs.iter().any(|(key, _)| key.is_empty()) {
            return self.fail(format!("{name} names can not be blank"));
        }
        if legacy {
            self.mention_comment_in_value(name);
        }
        let pairs = pairs.into_iter().map(|(key, value)| KeyValue { key, value }).collect();
        Some(Pairs { pairs, legacy })
    }

    fn arg(&mut self) -> Option<ArgInstruction> {
        self.flags(&[])?;
        self.mention_comment_in_value("ARG");
        let words = self.operands().words();
        if words.is_empty() {
            return self.fail("ARG requires at least one argument");
        }
        let mut args = Vec::new();
        for word in words {
            let (name, default) = match word.split_once('=') {
                Some(("", _)) => return self.fail("ARG names can not be blank"),
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word, None),
            };
            let description = description(self.comments, &name);
            args.push(BuildArg { name, default, description });
        }
        Some(ArgInstruction { args })
    }

    fn command(&mut self) -> Option<Command> {
        self.flags(&[])?;
        Some(command(self.operands()))
    }

    fn shell(&mut self) -> Option<Vec<String>> {
        self.flags(&[])?;
        match self.operands() {
            Operands::Json(words) if !words.is_empty() => Some(words),
            Operands::Words(words) if !words.is_empty() => {
                self.fail("SHELL requires the arguments to be in JSON form")
            }
            _ => self.fail("SHELL requires at least one argument"),
        }
    }

    fn onbuild(&mut self) -> Option<Onbuild> {
        self.flags(&[])?;
        let Operands::Trigger(form) = self.operands() else {
            return self.fail("ONBUILD requires at least one argument");
        };
        match form.keyword {
            Some(Keyword::Onbuild) => {
                return self.fail("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
            }
            Some(keyword @ (Keyword::From | Keyword::Maintainer)) => {
                return self.fail(format!("{} isn't allowed as an ONBUILD trigger", keyword.name()));
            }
            _ => {}
        }
        // Blanks at the end are kept: they are in images that Docker makes.
        let blanks = &self.original[self.original.trim_end().len()..];
        let mut trigger = format!("{}{blanks}", self.form.rest);
        for heredoc in &self.heredocs {
            trigger.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
        }
        let instruction = self.trigger(*form).map(Box::new);
        Some(Onbuild { trigger, instruction })
    }

    /// Understands the instruction of an ONBUILD. What is wrong with it breaks the images built on
    /// this one, not this one, and is therefore a warning.
    fn trigger(&mut self, form: Form) -> Option<InstructionKind> {
        let mut diagnostics = Vec::new();
        let kind = match form.keyword {
            None => {
                diagnostics.push(Diagnostic::warning(self.span, unknown_instruction(&form.word)));
                None
            }
            Some(keyword) => Typing {
                form,
                heredocs: std::mem::take(&mut self.heredocs),
                original: self.original,
                comments: &[],
                span: self.span,
                diagnostics: &mut diagnostics,
            }
            .instruction(keyword),
        };
        for mut diagnostic in diagnostics {
            diagnostic.severity = crate::Severity::Warning;
            self.diagnostics.push(diagnostic);
        }
        kind
    }
}

fn command(operands: Operands) -> Command {
    match operands {
        Operands::Json(words) => Command::Exec(words),
        operands => Command::Shell(operands.words().join(" ")),
    }
}

/// The text of the comment `name text`.
fn description(comments: &[String], name: &str) -> Option<String> {
    let text = |comment: &String| comment.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    comments.iter().find_map(text)
}

/// Words of the command line that beginners take for instructions.
const SUBCOMMANDS: [&str; 12] =
    ["BUILD", "COMMIT", "EXEC", "IMAGES", "LOGIN", "PS", "PULL", "PUSH", "SEARCH", "START", "STOP", "TAG"];

pub(crate) fn is_subcommand(word: &str) -> bool {
    SUBCOMMANDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// The message for a word that is no instruction.
pub(crate) fn unknown_instruction(word: &str) -> String {
    match Keyword::nearest(word).filter(|_| !is_subcommand(word)) {
        Some(name) if word == word.to_lowercase() => {
            format!("unknown instruction: {word} (did you mean {}?)", name.to_lowercase())
        }
        Some(name) => format!("unknown instruction: {word} (did you mean {name}?)"),
        None => format!("unknown instruction: {word}"),
    }
}
