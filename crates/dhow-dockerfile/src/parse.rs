//! Text to tree.
use crate::diagnostic::{Diagnostic, Span};
use crate::directive::{self, CheckConfig};
use crate::form::{Form, Keyword, Operands};
use crate::heredoc::Heredoc;
use crate::instruction::{Dockerfile, Instruction, InstructionKind, Stage};
use crate::lines::{Logical, Reader};
use crate::lint;
use crate::rule::Rule;
use crate::traps;
use crate::typed::{Typing, is_subcommand, unknown_instruction};

impl Dockerfile {
    /// Reads a Dockerfile. The tree holds what was understood; it is fit to be built when no
    /// diagnostic is an error. Diagnostics are in the order of the text.
    pub fn parse(text: &str) -> (Self, Vec<Diagnostic>) {
        Self::parse_checked(text, None)
    }

    /// The same with settings of the checks that come from elsewhere: the file's own do not count then.
    pub fn parse_checked(text: &str, check: Option<&CheckConfig>) -> (Self, Vec<Diagnostic>) {
        let head = directive::read(text, check);
        let mut diagnostics = head.diagnostics.clone();
        let reader = Reader::new(text, &head, &mut diagnostics);
        let mut parser = Parser {
            reader,
            dockerfile: Self { directives: head.directives, ..Self::default() },
            diagnostics,
            stage_missing_reported: false,
        };
        let empty = !parser.run();
        let Parser { reader, dockerfile, mut diagnostics, .. } = parser;
        if empty {
            diagnostics.push(Diagnostic::error(reader.whole(), "file with no instructions"));
        } else if dockerfile.stages.is_empty() && !diagnostics.iter().any(Diagnostic::is_error) {
            let message = "dockerfile contains no stages to build";
            diagnostics.push(Diagnostic::error(reader.whole(), message).with_hint(FROM_FIRST));
        }
        diagnostics.extend(lint::file(&dockerfile));
        diagnostics.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.severity));
        (dockerfile, diagnostics)
    }
}

impl Instruction {
    /// Reads one instruction that stands alone: an ONBUILD trigger of a base image, or a
    /// `--change` of commit and import.
    pub fn parse(text: &str) -> (Option<Self>, Vec<Diagnostic>) {
        const STAGE: &str = "FROM scratch\n";
        let (mut dockerfile, mut diagnostics) = Dockerfile::parse(&format!("{STAGE}{text}"));
        diagnostics.retain(|diagnostic| diagnostic.rule.is_none());
        let mut instructions = dockerfile.stages.pop().map(|stage| stage.instructions).unwrap_or_default();
        if instructions.len() > 1 || !dockerfile.stages.is_empty() {
            let message = "expected one instruction";
            diagnostics.push(Diagnostic::error(Span::default(), message));
        }
        let ours = |span: Span| Span {
            start_line: span.start_line.saturating_sub(1),
            end_line: span.end_line.saturating_sub(1),
            start: span.start.saturating_sub(STAGE.len()),
            end: span.end.saturating_sub(STAGE.len()),
        };
        diagnostics.iter_mut().for_each(|one| one.span = ours(one.span));
        let instruction = instructions.pop().map(|one| Self { span: ours(one.span), ..one });
        (instruction, diagnostics)
    }
}

const FROM_FIRST: &str = "a Dockerfile begins with FROM; only ARG may stand before it";

/// A file with more errors is not a Dockerfile; the rest is not looked at.
const ERRORS_MAX: usize = 100;

struct Parser<'a> {
    reader: Reader<'a>,
    dockerfile: Dockerfile,
    diagnostics: Vec<Diagnostic>,
    /// One complaint about instructions before FROM is enough.
    stage_missing_reported: bool,
}

impl Parser<'_> {
    /// Reads to the end. The answer is whether there was anything.
    fn run(&mut self) -> bool {
        let (mut any, mut errors) = (false, 0);
        while let Some(logical) = self.reader.next_logical() {
            any = true;
            let (span, known) = (logical.span, self.diagnostics.len());
            self.logical(logical);
            errors += self.diagnostics[known..].iter().filter(|one| one.is_error()).count();
            if errors > ERRORS_MAX {
                self.diagnostics
                    .push(Diagnostic::error(span, "too many errors; the rest of the file is not read"));
                self.reader.skip_to_end();
            }
        }
        any
    }

    fn logical(&mut self, mut logical: Logical) {
        let check = self.dockerfile.directives.check.with_comments(&logical.comments);
        self.blank_continuation(&logical);
        let form = match Form::parse(&logical.text, self.dockerfile.directives.escape) {
            Ok(form) => form,
            Err(error) => {
                self.diagnostics.push(Diagnostic::error(logical.span, error));
                return;
            }
        };
        let Some(keyword) = form.keyword else {
            self.unknown(&form, &mut logical);
            return;
        };
        let Some(heredocs) = self.heredocs(&form, &mut logical) else { return };
        let mut found = traps::find(&form, logical.span);
        let typing = Typing {
            form: form.clone(),
            heredocs,
            original: &logical.text,
            comments: &logical.comments,
            span: logical.span,
            diagnostics: &mut found,
        };
        if keyword == Keyword::From {
            let stage = typing.stage();
            self.dockerfile.stages.push(stage.unwrap_or_else(|| broken_stage(&form, &logical)));
        } else {
            let kind = typing.instruction(keyword);
            self.place(kind, &form, &logical);
        }
        found.retain(|diagnostic| diagnostic.rule.is_none_or(|rule| check.allows(rule)));
        self.diagnostics.extend(found);
    }

    /// NoEmptyContinuation. It points to the last line, and only the whole file's settings count.
    fn blank_continuation(&mut self, logical: &Logical) {
        let rule = Rule::NoEmptyContinuation;
        if !logical.has_blank_continuation || !self.dockerfile.directives.check.allows(rule) {
            return;
        }
        let span = self.reader.last_line(&logical.span);
        self.diagnostics.push(Diagnostic::lint(rule, span, "Empty continuation line"));
    }

    /// Puts an instruction where it belongs.
    fn place(&mut self, kind: Option<InstructionKind>, form: &Form, logical: &Logical) {
        let is_arg = form.keyword == Some(Keyword::Arg);
        if self.dockerfile.stages.is_empty() && !is_arg {
            if !std::mem::replace(&mut self.stage_missing_reported, true) {
                let message = "no build stage in current context";
                self.diagnostics.push(Diagnostic::error(logical.span, message).with_hint(FROM_FIRST));
            }
            return;
        }
        let Some(kind) = kind else { return };
        let instruction = |kind| Instruction {
            kind,
            keyword: form.word.clone(),
            original: logical.text.trim().to_owned(),
            comments: logical.comments.clone(),
            span: logical.span,
        };
        match (self.dockerfile.stages.last_mut(), kind) {
            (Some(stage), kind) => stage.instructions.push(instruction(kind)),
            (None, InstructionKind::Arg(arg)) => {
                let Instruction { keyword, original, comments, span, .. } =
                    instruction(InstructionKind::Arg(arg.clone()));
                self.dockerfile.global_args.push(Instruction {
                    kind: arg,
                    keyword,
                    original,
                    comments,
                    span,
                });
            }
            (None, _) => {}
        }
    }

    /// Reads the bodies of the heredocs an instruction announces. Nothing means that one has no end
    /// and that the rest of the file is its body.
    fn heredocs(&mut self, form: &Form, logical: &mut Logical) -> Option<Vec<Heredoc>> {
        if !takes_heredocs(form) {
            return Some(Vec::new());
        }
        let mut heredocs = Heredoc::find(&logical.text);
        for heredoc in &mut heredocs {
            if !self.reader.take_body(heredoc, &mut logical.span) {
                let hint = format!("no line below is just `{}`", heredoc.name);
                self.diagnostics
                    .push(Diagnostic::error(logical.span, "unterminated heredoc").with_hint(hint));
                self.reader.skip_to_end();
                return None;
            }
        }
        Some(heredocs)
    }

    fn unknown(&mut self, form: &Form, logical: &mut Logical) {
        // The body of a heredoc behind a misspelt RUN is not worth an error a line.
        for mut heredoc in Heredoc::find(&logical.text) {
            self.reader.take_body(&mut heredoc, &mut logical.span);
        }
        let message = unknown_instruction(&form.word);
        let mut diagnostic = Diagnostic::error(logical.span, message);
        diagnostic.hint = hint_for_unknown(&form.word, form.rest.is_empty());
        self.diagnostics.push(diagnostic);
    }
}

pub(crate) fn takes_heredocs(form: &Form) -> bool {
    match (&form.keyword, &form.operands) {
        (Some(Keyword::Onbuild), Operands::Trigger(form)) => takes_heredocs(form),
        (Some(Keyword::Add | Keyword::Copy | Keyword::Run), operands) => !operands.is_json(),
        _ => false,
    }
}

/// Stands for a FROM that could not be read, so that what follows it has a place.
fn broken_stage(form: &Form, logical: &Logical) -> Stage {
    Stage {
        name: None,
        base: String::new(),
        platform: None,
        description: None,
        instructions: Vec::new(),
        keyword: form.word.clone(),
        original: logical.text.trim().to_owned(),
        comments: logical.comments.clone(),
        span: logical.span,
    }
}

/// What helps against a word that is no instruction.
fn hint_for_unknown(word: &str, alone: bool) -> Option<String> {
    if is_subcommand(word) {
        let (capitals, command) = (word.to_uppercase(), word.to_lowercase());
        return Some(format!("{capitals} is not a Dockerfile instruction; use `dhow {command}`"));
    }
    if Keyword::nearest(word).is_some() {
        return None;
    }
    let looks_like_one = word.chars().all(|c| c.is_ascii_uppercase()) && !word.is_empty();
    (!looks_like_one || alone).then(|| {
        "if this line belongs to the instruction above it, that instruction's last line must end in `\\`"
            .to_owned()
    })
}
