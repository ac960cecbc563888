use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use dhow_engine::Engine;
use dhow_engine::containers::{ExecEnd, ExecError, ExecRequest, ExecStreams, SignalProxy};

use super::create_flags::environment;
use super::run::{detach_keys, window};
use crate::error::{CliError, EXIT_FAILURE};
use crate::ui::Ui;

/// What a program is said to have ended with that could not be started, and one that could not be executed.
const EXIT_NOT_STARTED: u8 = 125;
const EXIT_NOT_EXECUTABLE: u8 = 126;

/// Run a command in a running container
#[derive(clap::Args, Debug)]
pub(crate) struct ExecArgs {
    /// Do not wait for the command
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the command running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Set an environment variable (can be repeated)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file (can be repeated)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Keep nothing of the host from the command
    #[arg(long)]
    privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// User and optionally group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Container, and the program to run in it
    #[arg(value_name = "CONTAINER COMMAND [ARG…]", required = true, num_args = 2.., trailing_var_arg = true)]
    container_and_command: Vec<String>,
}

pub(crate) fn run(args: &ExecArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let keys = detach_keys(args.detach_keys.as_deref(), engine)?;
    let stdin = io::stdin();
    if args.tty && args.interactive && !args.detach && !io::IsTerminal::is_terminal(&stdin) {
        return Err(CliError::new("the input device is not a TTY"));
    }
    let (container, command) = args.container_and_command.split_first().expect("two arguments are required");
    let request = ExecRequest {
        args: command.to_vec(),
        env: environment(&args.env_file, &args.env)?,
        user: args.user.clone(),
        cwd: args.workdir.clone(),
        privileged: args.privileged,
        terminal: args.tty,
        window: window().filter(|_| args.tty),
        detach: args.detach,
    };
    ui.flush()?;
    // Only changes of the window are of interest: other signals end this command and with it the program.
    let signals = SignalProxy::install(false).map_err(|error| CliError::new(error.to_string()))?;
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let streams = ExecStreams {
        stdin: args.interactive.then(|| stdin.as_fd()),
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
        detach_keys: &keys,
        signals: Some(&signals),
    };
    match engine.containers().exec(container, &request, streams) {
        Ok(ExecEnd::Exited(code)) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        Ok(ExecEnd::Detached) => Ok(0),
        Err(ExecError::Runtime(error)) => {
            // Whatever else kept it from running, docker says that it could not be executed.
            let code = u8::try_from(error.exit_code()).unwrap_or(EXIT_FAILURE);
            let code = if code == EXIT_NOT_STARTED { EXIT_NOT_EXECUTABLE } else { code };
            Err(CliError::from(error).exit_code(code))
        }
        Err(error) => Err(error.into()),
    }
}
