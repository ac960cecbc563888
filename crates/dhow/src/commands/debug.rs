use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;

use dhow_engine::containers::{ExecStreams, SignalProxy};
use dhow_engine::{DebugError, DebugRequest, DebugStep, Engine, RunOptions};

use super::build_proxies::add_proxies;
use super::build_run_flags::{each, secret, ssh};
use super::debug_ast::DebugCommand;
use crate::error::{CliError, EXIT_FAILURE};
use crate::ui::Ui;

/// Open a shell where a step of a build failed
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DebugArgs {
    #[command(subcommand)]
    command: Option<DebugCommand>,
    /// Build: an id, `^1` for the last but one, or the name of an image [default: the latest]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
    /// Step: its number, STAGE/NUMBER or the beginning of it [default: the one that failed]
    #[arg(long)]
    step: Option<String>,
    /// Stand where the step started from, not where it ended
    #[arg(long)]
    before: bool,
    /// Secret of the step; what was given to the build is not kept (can be repeated)
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]")]
    secrets: Vec<String>,
    /// ssh agent of the step, or private keys (can be repeated)
    #[arg(long = "ssh", value_name = "default|ID[=SOCKET|KEY[,KEY…]]")]
    ssh: Vec<String>,
}

pub(crate) fn run(args: &DebugArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    if let Some(command) = &args.command {
        return command.run(ui);
    }
    let variable = |name: &str| std::env::var_os(name);
    let mut env = BTreeMap::new();
    add_proxies(&engine.credentials_file(), &mut env)?;
    let stdin = io::stdin();
    let request = DebugRequest {
        build: args.build.clone(),
        step: args.step.clone(),
        before: args.before,
        options: RunOptions {
            secrets: each(&args.secrets, |text| secret(text, &variable))?,
            ssh: each(&args.ssh, |text| ssh(text, &variable))?,
            ..RunOptions::default()
        },
        env,
        terminal: io::IsTerminal::is_terminal(&stdin),
    };
    ui.flush()?;
    // Only changes of the window are of interest: other signals end this command and with it the shell.
    let signals = SignalProxy::install(false).map_err(|error| CliError::new(error.to_string()))?;
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let streams = ExecStreams {
        stdin: Some(stdin.as_fd()),
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
        detach_keys: &[],
        signals: Some(&signals),
    };
    let mut entering = |step: &DebugStep| ui.note(greeting(step, args.before));
    match engine.debug(&request, streams, &mut entering) {
        Ok(ended) => Ok(u8::try_from(ended.exit_code).unwrap_or(u8::MAX)),
        Err(DebugError::Start(error)) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(EXIT_FAILURE);
            Err(CliError::new(format!("cannot open a shell: {error}")).exit_code(code))
        }
        Err(error) => {
            let hint = match &error {
                DebugError::NotReached(_) => Some("--step names a step that the build reached".to_owned()),
                DebugError::Gone(_) | DebugError::Forgotten(_) => Some("build again".to_owned()),
                error => error.hint(),
            };
            let told = CliError::new(crate::error::chain(&error));
            Err(match hint {
                Some(hint) => told.hint(hint),
                None => told,
            })
        }
    }
}

fn greeting(step: &DebugStep, before: bool) -> String {
    let place = match (before, step.has_failed) {
        (true, _) => "before",
        (false, true) => "where it failed",
        (false, false) => "after",
    };
    let mut text = match place {
        "where it failed" => format!("Line {}, `{}`, where it failed.", step.line, step.text),
        place => format!("Line {}, {place} `{}`.", step.line, step.text),
    };
    text.push_str(" What you change here is thrown away.");
    for missing in &step.missing {
        text.push_str(&format!("\nNot here: {missing}."));
    }
    text
}
