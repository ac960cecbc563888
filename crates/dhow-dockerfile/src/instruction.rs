//! The tree of a Dockerfile. All values are as written: variables and quotes are still in place.
use std::time::Duration;

use crate::diagnostic::Span;
use crate::directive::Directives;
use crate::heredoc::Heredoc;
use crate::mount::MountSpec;

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// `# escape=` and its kin.
    pub directives: Directives,
    /// ARGs before the first FROM, which FROM lines may use.
    pub global_args: Vec<Instruction<ArgInstruction>>,
    /// The stages in order.
    pub stages: Vec<Stage>,
}

/// FROM and the instructions up to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name in lower case.
    pub name: Option<String>,
    /// The image or stage it builds on.
    pub base: String,
    /// `--platform`
    pub platform: Option<String>,
    /// The comment above that begins with the stage's name.
    pub description: Option<String>,
    /// What it does.
    pub instructions: Vec<Instruction>,
    /// `FROM` as typed.
    pub keyword: String,
    /// The FROM line with continuations joined.
    pub original: String,
    /// The comment lines above.
    pub comments: Vec<String>,
    /// Where the FROM stands.
    pub span: Span,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction<K = InstructionKind> {
    /// What it says.
    pub kind: K,
    /// Its name as typed.
    pub keyword: String,
    /// Its text with continuations joined, without the bodies of heredocs.
    pub original: String,
    /// The comment lines above.
    pub comments: Vec<String>,
    /// Where it stands, bodies of heredocs included.
    pub span: Span,
}

/// An instruction by its name. FROM is not among them, it begins a [`Stage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstructionKind {
    /// `ADD`
    Add(AddInstruction),
    /// `ARG`
    Arg(ArgInstruction),
    /// `CMD`
    Cmd(Command),
    /// `COPY`
    Copy(CopyInstruction),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`
    Env(Pairs),
    /// `EXPOSE`
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Pairs),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`
    Onbuild(Onbuild),
    /// `RUN`
    Run(RunInstruction),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A text for the shell.
    Shell(String),
    /// Words to execute as they are.
    Exec(Vec<String>),
}

/// `k=v …` of ENV and LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// In order; a key may come twice.
    pub pairs: Vec<KeyValue>,
    /// Written the old way, `k v`.
    pub legacy: bool,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, to be expanded like the value.
    pub key: String,
    /// The value.
    pub value: String,
}

/// `ARG name[=default] …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgInstruction {
    /// In order.
    pub args: Vec<BuildArg>,
}

/// One declared build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildArg {
    /// Its name.
    pub name: String,
    /// Its value when none is given.
    pub default: Option<String>,
    /// The comment above that begins with its name.
    pub description: Option<String>,
}

/// What COPY and ADD have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileCopy {
    /// Paths, patterns, and for ADD also URLs.
    pub sources: Vec<String>,
    /// Files given in place.
    pub heredocs: Vec<Heredoc>,
    /// Where to.
    pub dest: String,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--exclude`, patterns as in .dockerignore.
    pub excludes: Vec<String>,
    /// What the instruction probably means, when it ends in `# …`.
    pub trailing_comment: Option<TrailingComment>,
}

/// COPY and ADD have no comments at the end of a line: `#` and what follows are file names. When
/// there is no file of the name `#` the author did not know that, and this is what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailingComment {
    /// The supposed comment, from its `#` on.
    pub comment: String,
    /// The sources without it.
    pub sources: Vec<String>,
    /// The destination without it.
    pub dest: String,
    /// The instruction as it should be.
    pub fixed_line: String,
}

/// `COPY`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyInstruction {
    /// Sources, destination and the common flags.
    pub files: FileCopy,
    /// `--from`: a stage, its number, an image or a named context.
    pub from: Option<String>,
    /// `--parents`
    pub parents: bool,
}

/// `ADD`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddInstruction {
    /// Sources, destination and the common flags.
    pub files: FileCopy,
    /// `--checksum`
    pub checksum: Option<String>,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
    /// `--unpack`
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// Turns off an inherited check.
    None,
    /// Runs a command now and then.
    Test(HealthcheckTest),
}

/// How health is checked. What is not given is inherited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthcheckTest {
    /// The command.
    pub command: Command,
    /// `--interval`
    pub interval: Option<Duration>,
    /// `--timeout`
    pub timeout: Option<Duration>,
    /// `--start-period`
    pub start_period: Option<Duration>,
    /// `--start-interval`
    pub start_interval: Option<Duration>,
    /// `--retries`
    pub retries: Option<u32>,
}

/// `ONBUILD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// The instruction as it is kept in the image, bodies of heredocs included.
    pub trigger: String,
    /// The same, understood; nothing if it is wrong, which only matters to images built on this one.
    pub instruction: Option<Box<InstructionKind>>,
}

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInstruction {
    /// The command line.
    pub command: Command,
    /// Texts given in place.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, to be resolved with the environment of the step.
    pub mounts: Vec<MountSpec>,
    /// `--network`
    pub network: NetworkMode,
    /// `--security`
    pub security: Security,
    /// `--device`
    pub devices: Vec<Device>,
}

/// What a RUN reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// The network of the build.
    #[default]
    Default,
    /// Nothing.
    None,
    /// The network of the host.
    Host,
}

/// What a RUN may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// What any container may.
    #[default]
    Sandbox,
    /// Everything.
    Insecure,
}

/// A CDI device of `RUN --device`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `vendor/class=device`
    pub name: String,
    /// The step fails without it.
    pub required: bool,
}

/// What a RUN executes once its heredocs are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// Words to execute as they are.
    Exec(Vec<String>),
    /// A text for the shell.
    Shell(String),
    /// A file with a `#!` line, to be put at `/dev/pipes/<name>` with mode 0755 and named to the
    /// shell.
    File {
        /// Its name.
        name: String,
        /// Its text.
        content: String,
    },
}

impl Dockerfile {
    /// The stage of this name, whatever its case; the last one where a name comes twice.
    pub fn stage_index(&self, name: &str) -> Option<usize> {
        let is_named =
            |stage: &Stage| stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name));
        self.stages.iter().rposition(is_named)
    }
}

impl RunInstruction {
    /// What is to be executed. A heredoc alone is the script; any other is left to the shell.
    pub fn script(&self) -> Script {
        let text = match &self.command {
            Command::Exec(words) => return Script::Exec(words.clone()),
            Command::Shell(text) => text,
        };
        match self.heredocs.as_slice() {
            [] => Script::Shell(text.clone()),
            [heredoc, ..] if Heredoc::parse(text).is_some() => {
                let content = heredoc.body();
                if content.starts_with("#!") {
                    Script::File { name: heredoc.name.clone(), content }
                } else {
                    Script::Shell(content)
                }
            }
            heredocs => {
                let bodies = heredocs.iter().map(|doc| format!("\n{}{}", doc.content, doc.name));
                Script::Shell(std::iter::once(text.clone()).chain(bodies).collect())
            }
        }
    }
}

impl TrailingComment {
    /// What to tell the author when the comment is dropped.
    pub fn warning(&self) -> String {
        format!(
            "`{}` is not a comment in the middle of a line, Docker takes its words for file names; ignored",
            self.comment
        )
    }
}

impl InstructionKind {
    /// The name of the instruction in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}
