//! Gives a form its meaning: operands counted, flags checked, values of the right type.
use std::time::Duration;

use crate::csv;
use crate::diagnostic::{Diagnostic, Span};
use crate::duration;
use crate::flags::{FlagKind, FlagSpec, Flags};
use crate::form::{Form, Keyword, Operands, cut_comment, is_from};
use crate::heredoc::Heredoc;
use crate::instruction::{
    AddInstruction, ArgInstruction, BuildArg, Command, CopyInstruction, Device, FileCopy, Healthcheck,
    HealthcheckTest, InstructionKind, KeyValue, NetworkMode, Onbuild, Pairs, RunInstruction, Security, Stage,
    TrailingComment,
};
use crate::mount::MountSpec;
use crate::suggest::did_you_mean;

const COPY_FLAGS: &FlagSpec = &[
    ("chown", FlagKind::Text),
    ("from", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Switch),
    ("exclude", FlagKind::List),
    ("parents", FlagKind::Switch),
];
const ADD_FLAGS: &FlagSpec = &[
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Switch),
    ("keep-git-dir", FlagKind::Switch),
    ("checksum", FlagKind::Text),
    ("unpack", FlagKind::Switch),
    ("exclude", FlagKind::List),
];
const RUN_FLAGS: &FlagSpec = &[
    ("mount", FlagKind::List),
    ("network", FlagKind::Text),
    ("security", FlagKind::Text),
    ("device", FlagKind::List),
];
const HEALTHCHECK_FLAGS: &FlagSpec = &[
    ("interval", FlagKind::Text),
    ("timeout", FlagKind::Text),
    ("start-period", FlagKind::Text),
    ("start-interval", FlagKind::Text),
    ("retries", FlagKind::Text),
];

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
            let word = &self.form.word;
            let message =
                format!("\"{word} key=value\" should be used instead of legacy \"{word} key value\" format");
            let hint = self.legacy_fix(&pairs);
            let lint = Diagnostic::lint("LegacyKeyValueFormat", self.span, message).with_hint(hint);
            self.diagnostics.push(lint);
            self.mention_comment_in_value(name);
        }
        let pairs = pairs.into_iter().map(|(key, value)| KeyValue { key, value }).collect();
        Some(Pairs { pairs, legacy })
    }

    fn legacy_fix(&self, pairs: &[(String, String)]) -> String {
        let quote = |value: &str| {
            let plain = !value.contains(char::is_whitespace) || value.contains(['"', '\'', '\\']);
            if plain { value.to_owned() } else { format!("\"{value}\"") }
        };
        let fixed = pairs.iter().map(|(key, value)| format!(" {key}={}", quote(value)));
        format!("write `{}{}`", self.form.word, fixed.collect::<String>())
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

    fn run(&mut self) -> Option<RunInstruction> {
        let flags = self.flags(RUN_FLAGS)?;
        let mounts: Vec<MountSpec> = flags.list("mount").into_iter().map(|text| MountSpec { text }).collect();
        self.check_mounts(&mounts);
        let network = match flags.text("network").as_deref() {
            None | Some("default") => NetworkMode::Default,
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            Some(other) => return self.fail(format!("invalid network mode {other:?}")),
        };
        let security = match flags.text("security").as_deref() {
            None | Some("sandbox") => Security::Sandbox,
            Some("insecure") => Security::Insecure,
            Some(other) => return self.fail(format!("security {other:?} is not valid")),
        };
        let devices = flags.list("device").iter().map(|text| device(text)).collect::<Result<_, _>>();
        let devices = match devices {
            Ok(devices) => devices,
            Err(error) => return self.fail(error),
        };
        let heredocs = std::mem::take(&mut self.heredocs);
        Some(RunInstruction {
            command: command(self.operands()),
            heredocs,
            mounts,
            network,
            security,
            devices,
        })
    }

    fn check_mounts(&mut self, mounts: &[MountSpec]) {
        for mount in mounts {
            match (mount.check(), mount.problem()) {
                (Err(error), _) => self.diagnostics.push(Diagnostic::error(self.span, error.to_string())),
                (Ok(()), Some(problem)) => self.warn(format!("this step will fail: {problem}"), None),
                (Ok(()), None) => {}
            }
        }
    }

    fn copy(&mut self) -> Option<CopyInstruction> {
        let (files, flags) = self.file_copy("COPY", COPY_FLAGS)?;
        Some(CopyInstruction {
            files,
            from: flags.text("from"),
            parents: flags.switch("parents").unwrap_or(false),
        })
    }

    fn add(&mut self) -> Option<AddInstruction> {
        let (files, flags) = self.file_copy("ADD", ADD_FLAGS)?;
        Some(AddInstruction {
            files,
            checksum: flags.text("checksum"),
            keep_git_dir: flags.switch("keep-git-dir"),
            unpack: flags.switch("unpack"),
        })
    }

    fn file_copy(&mut self, name: &str, spec: &FlagSpec) -> Option<(FileCopy, Flags)> {
        let flags = self.flags(spec);
        let is_json = self.form.operands.is_json();
        let mut words = self.operands().words();
        if words.len() < 2 {
            return self.fail(format!(
                "{name} requires at least two arguments, but only one was provided. Destination could not be \
                 determined"
            ));
        }
        let dest = words.pop()?;
        let flags = flags?;
        if !is_json && Heredoc::parse(&dest).is_some() {
            return self.fail(format!("{name} cannot accept a heredoc as a destination"));
        }
        let (sources, heredocs) = if is_json { (words, Vec::new()) } else { self.sources(words)? };
        let files = FileCopy {
            sources,
            heredocs,
            dest,
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.switch("link").unwrap_or(false),
            excludes: flags.list("exclude"),
            trailing_comment: if is_json { None } else { self.trailing_comment() },
        };
        Some((files, flags))
    }

    /// Tells the heredocs among the words from the paths, and gives them their bodies.
    fn sources(&mut self, words: Vec<String>) -> Option<(Vec<String>, Vec<Heredoc>)> {
        let mut sources = Vec::new();
        let mut heredocs = Vec::new();
        for word in words {
            let Some(opening) = Heredoc::parse(&word) else {
                sources.push(word);
                continue;
            };
            match self.heredocs.iter().find(|known| known.name == opening.name) {
                Some(heredoc) => heredocs.push(heredoc.clone()),
                None => return self.fail(format!("heredoc {word} has no text")),
            }
        }
        Some((sources, heredocs))
    }

    fn trailing_comment(&self) -> Option<TrailingComment> {
        let (kept, comment) = cut_comment(&self.form.rest)?;
        let words = kept.split_whitespace();
        let mut paths: Vec<String> =
            words.clone().filter(|word| Heredoc::parse(word).is_none()).map(str::to_owned).collect();
        let dest = paths.pop().filter(|_| words.count() >= 2)?;
        let fixed_line = self.without(comment)?;
        Some(TrailingComment { comment: comment.to_owned(), sources: paths, dest, fixed_line })
    }

    fn healthcheck(&mut self) -> Option<Healthcheck> {
        let Operands::Typed(kind, operands) = self.operands() else {
            return self.fail("HEALTHCHECK requires at least one argument");
        };
        match kind.to_uppercase().as_str() {
            "NONE" => {
                if !self.form.flags.is_empty() {
                    self.warn("HEALTHCHECK NONE takes no flags; ignored", None);
                }
                match *operands {
                    Operands::Words(words) if words.is_empty() => Some(Healthcheck::None),
                    _ => self.fail("HEALTHCHECK NONE takes no arguments"),
                }
            }
            "CMD" => self.healthcheck_test(*operands).map(Healthcheck::Test),
            kind => self.fail(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")),
        }
    }

    fn healthcheck_test(&mut self, operands: Operands) -> Option<HealthcheckTest> {
        let flags = self.flags(HEALTHCHECK_FLAGS)?;
        let command = command(operands);
        if matches!(&command, Command::Shell(text) if text.is_empty())
            || matches!(&command, Command::Exec(words) if words.is_empty())
        {
            return self.fail("Missing command after HEALTHCHECK CMD");
        }
        Some(HealthcheckTest {
            command,
            interval: self.interval(&flags, "interval")?,
            timeout: self.interval(&flags, "timeout")?,
            start_period: self.interval(&flags, "start-period")?,
            start_interval: self.interval(&flags, "start-interval")?,
            retries: self.retries(&flags)?,
        })
    }

    /// A duration; zero says the same as nothing. The outer `None` is an error.
    fn interval(&mut self, flags: &Flags, name: &str) -> Option<Option<Duration>> {
        let Some(text) = flags.text(name) else { return Some(None) };
        match duration::parse(&text) {
            Ok(Duration::ZERO) => Some(None),
            Ok(duration) if duration < Duration::from_millis(1) => {
                self.fail(format!("Interval {name:?} cannot be less than 1ms"))
            }
            Ok(duration) => Some(Some(duration)),
            Err(error) => self.fail(error),
        }
    }

    fn retries(&mut self, flags: &Flags) -> Option<Option<u32>> {
        let Some(text) = flags.text("retries") else { return Some(None) };
        match text.parse::<i32>() {
            Ok(0) => Some(None),
            Ok(retries) => match u32::try_from(retries) {
                Ok(retries) => Some(Some(retries)),
                Err(_) => self.fail(format!("--retries cannot be negative ({retries})")),
            },
            Err(_) => self.fail(format!("--retries must be a number, not {text:?}")),
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
        let mut trigger = self.form.rest.clone();
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
            self.diagnostics.push(Diagnostic::lint("StageNameCasing", self.span, message));
        }
        let from = &self.form.word;
        let matches = (*from == from.to_lowercase() && keyword_as == keyword_as.to_lowercase())
            || (*from == from.to_uppercase() && keyword_as == keyword_as.to_uppercase())
            || (*from != from.to_lowercase() && *from != from.to_uppercase());
        if !matches {
            let message = format!("'{keyword_as}' and '{from}' keywords' casing do not match");
            self.diagnostics.push(Diagnostic::lint("FromAsCasing", self.span, message));
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

fn command(operands: Operands) -> Command {
    match operands {
        Operands::Json(words) => Command::Exec(words),
        operands => Command::Shell(operands.words().join(" ")),
    }
}

fn device(text: &str) -> Result<Device, String> {
    let mut device = Device::default();
    for field in csv::fields(text).map_err(|error| format!("failed to parse csv devices: {error}"))? {
        match field.split_once('=') {
            None if field.eq_ignore_ascii_case("required") => device.required = true,
            Some((key, value)) if key.eq_ignore_ascii_case("required") => {
                device.required =
                    value.parse().map_err(|_| format!("invalid value for required: {value}"))?;
            }
            Some((key, value)) if key.eq_ignore_ascii_case("name") => {
                if !device.name.is_empty() {
                    return Err(format!("device name already set to {}", device.name));
                }
                device.name = value.to_owned();
            }
            _ if device.name.is_empty() => device.name = field,
            Some((key, _)) => {
                let known = did_you_mean(key, &["name", "required"]);
                return Err(format!("unexpected key '{key}' in '{field}'{known}"));
            }
            None => return Err(format!("invalid field '{field}' must be a key=value pair")),
        }
    }
    Ok(device)
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
