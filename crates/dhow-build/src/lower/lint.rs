//! What is legal but unwise, as far as only the values of variables tell, by the names and words of Docker's
//! checks.

use std::collections::BTreeMap;

use dhow_dockerfile::{
    BuildArg, Command, Diagnostic, Expanded, FileCopy, InstructionKind, Rule, Span, Stage, suggestion,
};
use dhow_oci::Platform;

use super::{Current, Lowering, Written};
use crate::configure;
use crate::ports::PortSpec;

const SECRET_WORDS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const HARMLESS_WORDS: [&str; 3] = ["public", "file", "version"];

/// What the rules remember of a stage.
#[derive(Default)]
pub(super) struct Seen {
    /// Instructions that count once, and where they were last.
    once: BTreeMap<&'static str, Span>,
}

impl Lowering<'_> {
    /// Reports a finding, unless the file or the comments above the instruction do not want to hear of it.
    pub(super) fn lint(&self, rule: Rule, comments: &[String], span: Span, message: String) {
        if self.source.dockerfile.directives.check.with_comments(comments).allows(rule) {
            self.world.lint(Diagnostic::lint(rule, span, message));
        }
    }

    fn lint_at(&self, rule: Rule, at: &Written<'_>, message: String) {
        self.lint(rule, at.comments, at.span, message);
    }

    /// Looks at an instruction before it is applied.
    pub(super) fn lint_instruction(&self, current: &mut Current, kind: &InstructionKind, at: &Written<'_>) {
        self.undefined(current, kind, at);
        match kind {
            InstructionKind::Env(pairs) => {
                for pair in &pairs.pairs {
                    self.legacy(pairs.legacy, at);
                    let key = self.scope(current).expand(&pair.key);
                    self.secret("ENV", &key.unwrap_or_else(|_| pair.key.clone()), at);
                }
            }
            InstructionKind::Label(pairs) => self.legacy(pairs.legacy, at),
            InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => {
                self.once(current, kind, at);
                self.shell_form(current, command, at);
            }
            InstructionKind::Healthcheck(_) => self.once(current, kind, at),
            InstructionKind::Expose(ports) => self.ports(current, ports, at),
            InstructionKind::Workdir(path) => self.relative_workdir(current, path, at),
            _ => {}
        }
    }

    /// Looks at one argument of an `ARG` before it is declared.
    pub(super) fn lint_arg(&self, current: &Current, arg: &BuildArg, at: &Written<'_>) {
        self.secret("ARG", &arg.name, at);
        if let Some(default) = arg.default.as_ref().filter(|_| self.arguments.given(&arg.name).is_none()) {
            self.undefined_in(current, default, at);
        }
    }

    /// UndefinedVar, in every word whose variables are replaced.
    fn undefined(&self, current: &Current, kind: &InstructionKind, at: &Written<'_>) {
        let mut words: Vec<&str> = Vec::new();
        match kind {
            InstructionKind::Add(add) => {
                words.extend(files_words(&add.files, add.checksum.as_deref()));
                self.undefined_in_heredocs(current, &add.files, at);
            }
            InstructionKind::Copy(copy) => {
                words.extend(files_words(&copy.files, None));
                self.undefined_in_heredocs(current, &copy.files, at);
            }
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
                words.extend(pairs.pairs.iter().flat_map(|pair| [pair.key.as_str(), pair.value.as_str()]));
            }
            InstructionKind::Run(run) => words.extend(run.mounts.iter().map(|mount| mount.text.as_str())),
            InstructionKind::Volume(paths) => words.extend(paths.iter().map(String::as_str)),
            InstructionKind::StopSignal(text)
            | InstructionKind::User(text)
            | InstructionKind::Workdir(text) => {
                words.push(text);
            }
            _ => {}
        }
        words.into_iter().for_each(|word| self.undefined_in(current, word, at));
    }

    fn undefined_in(&self, current: &Current, word: &str, at: &Written<'_>) {
        if let Ok(expanded) = self.scope(current).expanded(word) {
            self.unset(current, &expanded, at);
        }
    }

    fn undefined_in_heredocs(&self, current: &Current, files: &FileCopy, at: &Written<'_>) {
        for heredoc in files.heredocs.iter().filter(|heredoc| heredoc.expand) {
            if let Ok(expanded) = self.scope(current).expanded_heredoc(&heredoc.body()) {
                self.unset(current, &expanded, at);
            }
        }
    }

    fn unset(&self, current: &Current, expanded: &Expanded, at: &Written<'_>) {
        let scope = self.scope(current);
        for name in expanded.unset.iter().filter(|name| !scope.declared.contains(name)) {
            let meant = suggestion(name, &scope.names()).map(|known| format!(" (did you mean ${known}?)"));
            let message = format!("Usage of undefined variable '${name}'{}", meant.unwrap_or_default());
            self.lint_at(Rule::UndefinedVar, at, message);
        }
    }

    /// LegacyKeyValueFormat.
    fn legacy(&self, is_legacy: bool, at: &Written<'_>) {
        if is_legacy {
            let word = at.keyword;
            let message =
                format!("\"{word} key=value\" should be used instead of legacy \"{word} key value\" format");
            self.lint_at(Rule::LegacyKeyValueFormat, at, message);
        }
    }

    /// SecretsUsedInArgOrEnv.
    fn secret(&self, instruction: &str, name: &str, at: &Written<'_>) {
        if names_a_secret(name) {
            let message =
                format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
            self.lint_at(Rule::SecretsUsedInArgOrEnv, at, message);
        }
    }

    /// MultipleInstructionsDisallowed, at the earlier one, which is in vain.
    fn once(&self, current: &mut Current, kind: &InstructionKind, at: &Written<'_>) {
        let Some(earlier) = current.seen.once.insert(kind.name(), at.span) else { return };
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            at.keyword
        );
        self.lint(Rule::MultipleInstructionsDisallowed, at.comments, earlier, message);
    }

    /// JSONArgsRecommended. Who sets a shell wants it.
    fn shell_form(&self, current: &Current, command: &Command, at: &Written<'_>) {
        let has_shell =
            current.end.planned.config.config.shell.as_ref().is_some_and(|words| !words.is_empty());
        if matches!(command, Command::Shell(_)) && !has_shell {
            let message = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                at.keyword
            );
            self.lint_at(Rule::JsonArgsRecommended, at, message);
        }
    }

    /// ExposeProtoCasing and ExposeInvalidFormat.
    fn ports(&self, current: &Current, ports: &[String], at: &Written<'_>) {
        for word in configure::exposed(&self.scope(current), ports).unwrap_or_default() {
            let Ok(port) = PortSpec::parse(&word) else { return };
            if port.protocol != port.protocol.to_lowercase() {
                let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
                self.lint_at(Rule::ExposeProtoCasing, at, message);
            }
            if port.names_the_host {
                let message = format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
                );
                self.lint_at(Rule::ExposeInvalidFormat, at, message);
            }
        }
    }

    /// WorkdirRelativePath: only the first of a stage and those below it depends on the base image.
    fn relative_workdir(&self, current: &mut Current, path: &str, at: &Written<'_>) {
        let Ok(path) = self.scope(current).expand(path) else { return };
        if !std::mem::replace(&mut current.end.workdir_set, true) && !path.starts_with('/') {
            let message =
                format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            self.lint_at(Rule::WorkdirRelativePath, at, message);
        }
    }

    /// CopyIgnoredFile. `verb` is `Copy` or `Add`.
    pub(super) fn lint_ignored(&self, verb: &str, sources: &[String], at: &Written<'_>) {
        for source in sources {
            if let Some(path) = self.world.left_out(source) {
                let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                self.lint_at(Rule::CopyIgnoredFile, at, message);
            }
        }
    }

    /// InvalidBaseImagePlatform.
    pub(super) fn lint_base(&self, stage: &Stage, base: &str, expected: &Platform, actual: &Platform) {
        if expected.os != actual.os || expected.architecture != actual.architecture {
            let message = format!(
                "Base image {base} was pulled with platform \"{actual}\", expected \"{expected}\" for current build"
            );
            self.lint(Rule::InvalidBaseImagePlatform, &[], stage.span, message);
        }
    }
}

/// The words of a COPY or ADD whose variables are replaced.
fn files_words<'a>(files: &'a FileCopy, checksum: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    let flags = [files.chown.as_deref(), files.chmod.as_deref(), checksum];
    let paths = files.sources.iter().chain([&files.dest]).map(String::as_str);
    flags.into_iter().flatten().chain(paths)
}

/// Whether a part of the name, parts being separated by `_`, speaks of secrets.
fn names_a_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let speaks_of = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
    speaks_of(&SECRET_WORDS) && !speaks_of(&HARMLESS_WORDS)
}
