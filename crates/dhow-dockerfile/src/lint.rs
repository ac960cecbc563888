//! What is legal but unwise, by the names and words of Docker's checks. Only rules that need no
//! more than the text are here; those about images and the build context belong to the builder.
use std::collections::{HashMap, HashSet};

use crate::diagnostic::{Diagnostic, Span};
use crate::directive::{CheckConfig, RuleSet, key_and_value};
use crate::expand::expand;
use crate::instruction::{Command, Dockerfile, Instruction, InstructionKind, Stage};
use crate::suggest::did_you_mean;

/// Arguments that every FROM may use without declaring them.
const AUTOMATIC_ARGS: [&str; 11] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETOSVERSION",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "BUILDOSVERSION",
    "TARGETSTAGE",
];
const SECRET_WORDS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const HARMLESS_WORDS: [&str; 3] = ["public", "file", "version"];

/// `check` with what a `check=` comment above an instruction adds.
pub(crate) fn config(check: &CheckConfig, comments: &[String]) -> CheckConfig {
    let mut config = check.clone();
    let line = |comment: &String| format!("# {comment}");
    for line in comments.iter().map(line) {
        if let Some((key, value)) = key_and_value(&line)
            && key == "check"
            && let Ok(local) = CheckConfig::parse(value)
        {
            merge(&mut config.skip, local.skip);
            merge(&mut config.experimental, local.experimental);
            break;
        }
    }
    config
}

fn merge(into: &mut RuleSet, more: RuleSet) {
    match (into, more) {
        (RuleSet::Named(rules), RuleSet::Named(more)) => rules.extend(more),
        (into, RuleSet::All) => *into = RuleSet::All,
        (RuleSet::All, _) => {}
    }
}

/// The findings about a whole file.
pub(crate) fn file(dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let mut lint = Lint { check: &dockerfile.directives.check, found: Vec::new() };
    lint.casing(dockerfile);
    lint.stage_names(&dockerfile.stages);
    lint.base_and_platform(dockerfile);
    let mut states: HashMap<&str, StageState> = HashMap::new();
    for stage in &dockerfile.stages {
        let parent = states.get(stage.base.to_lowercase().as_str()).copied();
        let state = lint.stage(stage, parent.unwrap_or_default());
        states.extend(stage.name.as_deref().map(|name| (name, state)));
    }
    for arg in dockerfile.global_args.iter() {
        lint.secret_args("ARG", arg.kind.args.iter().map(|arg| arg.name.as_str()), &arg.comments, arg.span);
        let names: Vec<&str> = arg.kind.args.iter().map(|arg| arg.name.as_str()).collect();
        lint.description("ARG", &names, &arg.comments, arg.span);
    }
    lint.found
}

/// What a stage hands to the stages built on it.
#[derive(Clone, Copy, Default)]
struct StageState {
    workdir_set: bool,
    shell_set: bool,
}

struct Lint<'a> {
    check: &'a CheckConfig,
    found: Vec<Diagnostic>,
}

impl Lint<'_> {
    fn report(&mut self, rule: &'static str, comments: &[String], span: Span, message: String) {
        if !config(self.check, comments).skip.contains(rule) {
            self.found.push(Diagnostic::lint(rule, span, message));
        }
    }

    /// ConsistentInstructionCasing.
    fn casing(&mut self, dockerfile: &Dockerfile) {
        let mut words: Vec<(&str, &[String], Span)> = Vec::new();
        for stage in &dockerfile.stages {
            words.push((&stage.keyword, &stage.comments, stage.span));
            let instructions = stage.instructions.iter();
            words.extend(instructions.map(|one| (one.keyword.as_str(), one.comments.as_slice(), one.span)));
        }
        let lower = words.iter().filter(|(word, ..)| *word == word.to_lowercase()).count();
        let upper = words.iter().filter(|(word, ..)| *word == word.to_uppercase()).count();
        let (case, wanted): (_, fn(&str) -> String) = if lower > upper {
            ("lowercase", |word| word.to_lowercase())
        } else {
            ("uppercase", |word| word.to_uppercase())
        };
        for (word, comments, span) in words.into_iter().filter(|(word, ..)| *word != wanted(word)) {
            let message = format!("Command '{word}' should match the case of the command majority ({case})");
            self.report("ConsistentInstructionCasing", comments, span, message);
        }
    }

    /// DuplicateStageName and ReservedStageName.
    fn stage_names(&mut self, stages: &[Stage]) {
        let mut seen = HashSet::new();
        for stage in stages {
            let Some(name) = stage.name.as_deref() else { continue };
            if matches!(name, "scratch" | "context") {
                let message = format!("Stage name should not use the same name as reserved stage {name:?}");
                self.report("ReservedStageName", &stage.comments, stage.span, message);
            }
            if !seen.insert(name) {
                let message = format!("Duplicate stage name {name:?}, stage names should be unique");
                self.report("DuplicateStageName", &stage.comments, stage.span, message);
            }
        }
    }

    /// UndefinedArgInFrom, RedundantTargetPlatform and FromPlatformFlagConstDisallowed.
    fn base_and_platform(&mut self, dockerfile: &Dockerfile) {
        let declared = dockerfile.global_args.iter().flat_map(|arg| &arg.kind.args);
        let mut known: Vec<&str> = declared.map(|arg| arg.name.as_str()).collect();
        known.extend(AUTOMATIC_ARGS);
        let escape = dockerfile.directives.escape;
        for stage in &dockerfile.stages {
            for word in [Some(stage.base.as_str()), stage.platform.as_deref()].into_iter().flatten() {
                let lookup = |name: &str| known.contains(&name).then(|| "x".to_owned());
                let Ok(expanded) = expand(word, escape, lookup) else { continue };
                for name in &expanded.unset {
                    let message =
                        format!("FROM argument '{name}' is not declared{}", did_you_mean(name, &known));
                    self.report("UndefinedArgInFrom", &stage.comments, stage.span, message);
                }
            }
            if let Some(platform) = &stage.platform {
                self.platform(stage, platform);
            }
        }
    }

    fn platform(&mut self, stage: &Stage, platform: &str) {
        if matches!(platform, "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            let message = format!(
                "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
            );
            self.report("RedundantTargetPlatform", &stage.comments, stage.span, message);
        }
        let name = stage.name.as_deref().unwrap_or_default();
        let told_by_name = platform.split('/').take(2).any(|part| !part.is_empty() && name.contains(part));
        if !platform.contains('$') && !told_by_name {
            let message = format!("FROM --platform flag should not use constant value {platform:?}");
            self.report("FromPlatformFlagConstDisallowed", &stage.comments, stage.span, message);
        }
    }

    fn stage(&mut self, stage: &Stage, mut state: StageState) -> StageState {
        if let Some(name) = stage.name.as_deref() {
            self.description("FROM", &[name], &stage.comments, stage.span);
        }
        self.used_once(stage);
        for instruction in &stage.instructions {
            self.instruction(instruction, &mut state);
        }
        state
    }

    /// MultipleInstructionsDisallowed: the earlier ones are reported, they are in vain.
    fn used_once(&mut self, stage: &Stage) {
        for name in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
            let uses: Vec<&Instruction> =
                stage.instructions.iter().filter(|instruction| instruction.kind.name() == name).collect();
            let Some((_, earlier)) = uses.split_last() else { continue };
            for instruction in earlier {
                let message = format!(
                    "Multiple {name} instructions should not be used in the same stage because only the last \
                     one will be used"
                );
                let comments = &instruction.comments;
                self.report("MultipleInstructionsDisallowed", comments, instruction.span, message);
            }
        }
    }

    fn instruction(&mut self, instruction: &Instruction, state: &mut StageState) {
        let Instruction { kind, comments, span, .. } = instruction;
        match kind {
            InstructionKind::Arg(arg) => {
                let names: Vec<&str> = arg.args.iter().map(|arg| arg.name.as_str()).collect();
                self.secret_args("ARG", names.iter().copied(), comments, *span);
                self.description("ARG", &names, comments, *span);
            }
            InstructionKind::Env(env) => {
                self.secret_args("ENV", env.pairs.iter().map(|pair| pair.key.as_str()), comments, *span);
            }
            InstructionKind::Cmd(Command::Shell(_)) | InstructionKind::Entrypoint(Command::Shell(_))
                if !state.shell_set =>
            {
                let message = format!(
                    "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                    kind.name()
                );
                self.report("JSONArgsRecommended", comments, *span, message);
            }
            InstructionKind::Expose(ports) => self.ports(ports, comments, *span),
            InstructionKind::Maintainer(_) => {
                let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
                self.report("MaintainerDeprecated", comments, *span, message);
            }
            InstructionKind::Shell(_) => state.shell_set = true,
            InstructionKind::Workdir(path) => self.workdir(path, state, comments, *span),
            _ => {}
        }
    }

    fn workdir(&mut self, path: &str, state: &mut StageState, comments: &[String], span: Span) {
        let relative = !path.trim_start_matches(['"', '\'']).starts_with(['/', '$']);
        if !std::mem::replace(&mut state.workdir_set, true) && relative {
            let message =
                format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            self.report("WorkdirRelativePath", comments, span, message);
        }
    }

    /// ExposeProtoCasing and ExposeInvalidFormat.
    fn ports(&mut self, ports: &[String], comments: &[String], span: Span) {
        for port in ports.iter().filter(|port| !port.contains('$')) {
            let (address, protocol) = port.split_once('/').unwrap_or((port, ""));
            if protocol != protocol.to_lowercase() {
                let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                self.report("ExposeProtoCasing", comments, span, message);
            }
            if address.contains(':') {
                let message = format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                );
                self.report("ExposeInvalidFormat", comments, span, message);
            }
        }
    }

    /// SecretsUsedInArgOrEnv.
    fn secret_args<'n>(
        &mut self,
        instruction: &str,
        names: impl Iterator<Item = &'n str>,
        comments: &[String],
        span: Span,
    ) {
        for name in names.filter(|name| names_a_secret(name)) {
            let message =
                format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
            self.report("SecretsUsedInArgOrEnv", comments, span, message);
        }
    }

    /// InvalidDefinitionDescription, an experimental rule.
    fn description(&mut self, instruction: &str, names: &[&str], comments: &[String], span: Span) {
        let rule = "InvalidDefinitionDescription";
        let Some(comment) = comments.last() else { return };
        let first = comment.split(' ').next().unwrap_or_default();
        if names.contains(&first) || !config(self.check, comments).experimental.contains(rule) {
            return;
        }
        let example = if let [name] = names { name } else { "<arg_key>" };
        let message =
            format!("Comment for {instruction} should follow the format: `# {example} <description>`");
        self.found.push(Diagnostic::lint(rule, span, message));
    }
}

/// Whether a part of the name, parts being separated by `_`, speaks of secrets.
fn names_a_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let speaks_of = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
    speaks_of(&SECRET_WORDS) && !speaks_of(&HARMLESS_WORDS)
}
