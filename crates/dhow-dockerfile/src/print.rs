//! Tree to text. Reading the text gives the same tree again, spans and spelling of keywords apart.
use std::fmt::{self, Display, Formatter, Write as _};
use std::time::Duration;

use crate::directive::{CheckConfig, RuleSet};
use crate::duration;
use crate::heredoc::Heredoc;
use crate::instruction::{
    AddInstruction, ArgInstruction, Command, CopyInstruction, Dockerfile, FileCopy, Healthcheck,
    HealthcheckTest, Instruction, InstructionKind, NetworkMode, Onbuild, Pairs, RunInstruction, Security,
    Stage,
};

impl Display for Dockerfile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let escape = self.directives.escape;
        if let Some(syntax) = &self.directives.syntax {
            writeln!(f, "# syntax={syntax}")?;
        }
        if escape != '\\' {
            writeln!(f, "# escape={escape}")?;
        }
        if self.directives.check != CheckConfig::default() {
            writeln!(f, "# check={}", check_text(&self.directives.check))?;
        }
        for arg in &self.global_args {
            let printed = printed(&InstructionKind::Arg(arg.kind.clone()), escape);
            write_with_comments(f, &arg.comments, &printed)?;
        }
        for stage in &self.stages {
            write_stage(f, stage, escape)?;
        }
        Ok(())
    }
}

impl Instruction {
    /// The instruction for a file whose escape character is `escape`.
    pub fn print(&self, escape: char) -> String {
        printed(&self.kind, escape)
    }
}

fn check_text(check: &CheckConfig) -> String {
    let rules = |key, skip: &RuleSet| match skip {
        RuleSet::All => Some(format!("{key}=all")),
        RuleSet::Named(rules) if rules.is_empty() => None,
        RuleSet::Named(rules) => Some(format!("{key}={}", rules.join(","))),
    };
    let error = check.error.then(|| "error=true".to_owned());
    let options = [rules("skip", &check.skip), rules("experimental", &check.experimental), error];
    options.into_iter().flatten().collect::<Vec<_>>().join(";")
}

fn write_stage(f: &mut Formatter<'_>, stage: &Stage, escape: char) -> fmt::Result {
    let mut line = Line::new("FROM", escape);
    line.text_flag("platform", stage.platform.as_deref());
    line.operands(&stage.base);
    if let Some(name) = &stage.name {
        line.push(&format!(" AS {name}"));
    }
    write_with_comments(f, &stage.comments, &line.finish(&[]))?;
    for instruction in &stage.instructions {
        write_with_comments(f, &instruction.comments, &printed(&instruction.kind, escape))?;
    }
    Ok(())
}

/// An empty comment first keeps directives and earlier comments apart from these.
fn write_with_comments(f: &mut Formatter<'_>, comments: &[String], printed: &str) -> fmt::Result {
    if !comments.is_empty() {
        writeln!(f, "#")?;
    }
    for comment in comments {
        writeln!(f, "# {comment}")?;
    }
    writeln!(f, "{printed}")
}

/// An instruction being written.
struct Line {
    text: String,
    escape: char,
}

impl Line {
    fn new(name: &str, escape: char) -> Self {
        Self { text: name.to_owned(), escape }
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn flag(&mut self, flag: &str) {
        self.push(" ");
        for c in flag.chars() {
            if c.is_whitespace() || c == self.escape || matches!(c, '"' | '\'') {
                self.text.push(self.escape);
            }
            self.text.push(c);
        }
    }

    fn text_flag(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.flag(&format!("--{name}={value}"));
        }
    }

    fn switch(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.flag(&format!("--{name}={value}"));
        }
    }

    /// Adds what follows the flags. Text that looks like one is set apart by `--`, and so is a heredoc
    /// behind a flag whose backslash would hide it: heredocs are found with the shell's escapes.
    fn operands(&mut self, text: &str) {
        if text.starts_with("--") || self.text.ends_with('\\') {
            self.push(" --");
        }
        if !text.is_empty() {
            self.push(" ");
            self.push(text);
        }
    }

    fn json(&mut self, words: &[String]) {
        let array = serde_json::Value::from(words.to_vec());
        self.operands(&array.to_string());
    }

    /// The line, guarded against an escape at its end that would join it with the next, and the
    /// bodies of its heredocs.
    fn finish(mut self, heredocs: &[Heredoc]) -> String {
        if self.text.trim_end_matches([' ', '\t']).ends_with(self.escape) {
            self.text.push('\u{b}');
        }
        for heredoc in heredocs {
            write!(self.text, "\n{}{}", heredoc.content, heredoc.name)
                .expect("writing to a String cannot fail");
        }
        self.text
    }
}

fn printed(kind: &InstructionKind, escape: char) -> String {
    let mut line = Line::new(kind.name(), escape);
    let mut heredocs: &[Heredoc] = &[];
    match kind {
        InstructionKind::Add(add) => {
            add_flags(&mut line, add);
            file_copy(&mut line, &add.files);
            heredocs = &add.files.heredocs;
        }
        InstructionKind::Copy(copy) => {
            copy_flags(&mut line, copy);
            file_copy(&mut line, &copy.files);
            heredocs = &copy.files.heredocs;
        }
        InstructionKind::Run(run) => {
            run_flags(&mut line, run);
            command(&mut line, &run.command);
            heredocs = &run.heredocs;
        }
        InstructionKind::Arg(arg) => line.operands(&keep_end(args(arg), escape)),
        InstructionKind::Cmd(it) | InstructionKind::Entrypoint(it) => command(&mut line, it),
        InstructionKind::Env(it) | InstructionKind::Label(it) => {
            line.operands(&keep_end(pairs(it, escape), escape))
        }
        InstructionKind::Expose(ports) => line.operands(&ports.join(" ")),
        InstructionKind::Healthcheck(it) => healthcheck(&mut line, it),
        InstructionKind::Onbuild(Onbuild { trigger, .. }) => line.operands(trigger),
        InstructionKind::Shell(words) | InstructionKind::Volume(words) => line.json(words),
        InstructionKind::Maintainer(text)
        | InstructionKind::StopSignal(text)
        | InstructionKind::User(text)
        | InstructionKind::Workdir(text) => line.operands(text),
    }
    line.finish(heredocs)
}

fn args(arg: &ArgInstruction) -> String {
    let words = arg.args.iter().map(|arg| match &arg.default {
        Some(default) => format!("{}={default}", arg.name),
        None => arg.name.clone(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Quoted words whose last blank belongs to an open quote: a lone escape, which reading drops,
/// keeps it from being trimmed.
fn keep_end(mut words: String, escape: char) -> String {
    if words.ends_with(char::is_whitespace) {
        words.push(escape);
    }
    words
}

fn pairs(pairs: &Pairs, escape: char) -> String {
    let sign = |key: &str| match pairs.legacy {
        // A key that ends with an escape takes the first of the blanks behind it.
        true if key.ends_with(escape) => "  ",
        true => " ",
        false => "=",
    };
    let words = pairs.pairs.iter().map(|pair| format!("{}{}{}", pair.key, sign(&pair.key), pair.value));
    words.collect::<Vec<_>>().join(" ")
}

fn command(line: &mut Line, command: &Command) {
    match command {
        Command::Shell(text) => line.operands(text),
        Command::Exec(words) => line.json(words),
    }
}

fn run_flags(line: &mut Line, run: &RunInstruction) {
    for mount in &run.mounts {
        line.text_flag("mount", Some(&mount.text));
    }
    line.text_flag(
        "network",
        match run.network {
            NetworkMode::Default => None,
            NetworkMode::None => Some("none"),
            NetworkMode::Host => Some("host"),
        },
    );
    line.text_flag("security", (run.security == Security::Insecure).then_some("insecure"));
    for device in &run.devices {
        let required = if device.required { ",required" } else { "" };
        let name = format!("name={}", device.name).replace('"', "\"\"");
        line.text_flag("device", Some(&format!("\"{name}\"{required}")));
    }
}

fn add_flags(line: &mut Line, add: &AddInstruction) {
    line.text_flag("checksum", add.checksum.as_deref());
    line.switch("keep-git-dir", add.keep_git_dir);
    line.switch("unpack", add.unpack);
}

fn copy_flags(line: &mut Line, copy: &CopyInstruction) {
    line.text_flag("from", copy.from.as_deref());
    line.switch("parents", copy.parents.then_some(true));
}

fn file_copy(line: &mut Line, files: &FileCopy) {
    line.text_flag("chown", files.chown.as_deref());
    line.text_flag("chmod", files.chmod.as_deref());
    line.switch("link", files.link.then_some(true));
    for exclude in &files.excludes {
        line.text_flag("exclude", Some(exclude));
    }
    // Heredocs go first, where no quote in a path can hide them.
    let mut words: Vec<String> = files.heredocs.iter().map(Heredoc::opening).collect();
    words.extend(files.sources.iter().chain([&files.dest]).cloned());
    // Neither heredocs nor a supposed comment have a place in the JSON form: they came without it.
    let was_plain = !files.heredocs.is_empty() || files.trailing_comment.is_some();
    if was_plain || (words.iter().all(|word| is_plain(word)) && !words[0].starts_with('[')) {
        line.operands(&words.join(" "));
    } else {
        line.json(&words);
    }
}

/// Whether a path can be written without quotes, and mean the same.
fn is_plain(word: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    !word.is_empty() && !word.contains(odd) && !word.starts_with('#') && Heredoc::parse(word).is_none()
}

fn healthcheck(line: &mut Line, healthcheck: &Healthcheck) {
    let Healthcheck::Test(test) = healthcheck else {
        line.operands("NONE");
        return;
    };
    for (name, value) in intervals(test) {
        line.text_flag(name, value.map(duration::format).as_deref());
    }
    line.text_flag("retries", test.retries.map(|retries| retries.to_string()).as_deref());
    match &test.command {
        Command::Shell(text) => line.operands(&format!("CMD {text}")),
        Command::Exec(words) => {
            line.operands("CMD");
            line.json(words);
        }
    }
}

fn intervals(test: &HealthcheckTest) -> [(&'static str, Option<Duration>); 4] {
    [
        ("interval", test.interval),
        ("timeout", test.timeout),
        ("start-period", test.start_period),
        ("start-interval", test.start_interval),
    ]
}
