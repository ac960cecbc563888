use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use dhow_engine::{Engine, Secret, SignedIn};

use crate::error::CliError;
use crate::ui::Ui;

const DOCKER_HUB: &str = "docker.io";
/// The longest password or token read.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// Sign in to a registry
#[derive(clap::Args, Debug)]
pub(crate) struct LoginArgs {
    /// Registry to sign in to [default: Docker Hub]
    server: Option<String>,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password or access token
    #[arg(short, long)]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

pub(crate) fn run(args: LoginArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let registry = registry(args.server.as_deref());
    if args.password.is_some() {
        if args.password_stdin {
            return Err(CliError::new("--password and --password-stdin are mutually exclusive"));
        }
        ui.warn("Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if args.password_stdin && args.username.is_none() {
        return Err(CliError::new("Must provide --username with --password-stdin"));
    }
    if args.username.is_none()
        && args.password.is_none()
        && let Some(signed_in) = again(&registry, engine, ui)?
    {
        return report(&signed_in, engine, ui);
    }
    let username = match args.username {
        Some(username) => username,
        None => ask_username(&registry, ui)?,
    };
    let password = match args.password {
        Some(password) => password,
        None if args.password_stdin => read_password()?,
        None => ask_password()?,
    };
    if password.is_empty() {
        return Err(CliError::new("password is empty"));
    }
    let signed_in = engine.login(&registry, &username, Secret::new(password))?;
    report(&signed_in, engine, ui)
}

/// Credentials that are kept may be good enough. If not, new ones are asked for.
fn again(registry: &str, engine: &Engine, ui: &mut Ui) -> Result<Option<SignedIn>, CliError> {
    match engine.login_again(registry) {
        Ok(None) => Ok(None),
        Ok(Some(signed_in)) => {
            ui.line("Authenticating with existing credentials...")?;
            Ok(Some(signed_in))
        }
        Err(error) => {
            ui.note(format_args!("Login did not succeed, error: {}", crate::error::chain(&error)));
            Ok(None)
        }
    }
}

fn report(signed_in: &SignedIn, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    if !signed_in.in_helper {
        let path = engine.credentials_file();
        ui.note(format_args!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            path.display()
        ));
    }
    ui.line(&signed_in.status)?;
    Ok(0)
}

/// The registry that a server argument, which may be a URL, stands for.
pub(crate) fn registry(server: Option<&str>) -> String {
    let server = server.unwrap_or(DOCKER_HUB);
    let host = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    match host.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    }
}

fn ask_username(registry: &str, ui: &mut Ui) -> Result<String, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::new("Cannot perform an interactive login from a non TTY device"));
    }
    if registry == DOCKER_HUB {
        ui.line(
            "Log in with your Docker ID or email address to push and pull images from Docker Hub. \
             If you don't have a Docker ID, head over to https://hub.docker.com/ to create one.",
        )?;
    }
    ui.text("Username: ")?;
    ui.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| cannot_read("user name", &error))?;
    match line.trim() {
        "" => Err(CliError::new("username is required")),
        username => Ok(username.to_owned()),
    }
}

fn ask_password() -> Result<String, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::new("Cannot perform an interactive login from a non TTY device"));
    }
    let mut out = io::stdout();
    let prompted = out.write_all(b"Password: ").and_then(|()| out.flush());
    let password = prompted.and_then(|()| rpassword::read_password());
    password.map_err(|error| cannot_read("password", &error))
}

fn read_password() -> Result<String, CliError> {
    let mut text = String::new();
    let read = io::stdin().lock().take(PASSWORD_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| cannot_read("password", &error))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn cannot_read(what: &str, error: &io::Error) -> CliError {
    CliError::new(format!("cannot read the {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_be_written_as_a_url() {
        let check = |server: Option<&str>, host: &str| assert_eq!(registry(server), host);
        check(None, "docker.io");
        check(Some("https://index.docker.io/v1/"), "docker.io");
        check(Some("registry.corp:5000"), "registry.corp:5000");
        check(Some("http://registry.corp/v2/"), "registry.corp");
    }
}
