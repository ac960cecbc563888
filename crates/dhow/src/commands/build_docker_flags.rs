//! Flags of docker's `build` that ask for another builder, or for what dhow does anyway. The form that asks for
//! nothing is accepted; any other is an error that names the flag.

use clap::ArgAction;

use crate::error::CliError;

#[derive(clap::Args, Debug, Default)]
pub(crate) struct DockerFlags {
    /// Builder to use; there is one, `default`
    #[arg(long, value_name = "NAME", hide = true)]
    builder: Option<String>,
    /// Log for debugging; not supported: dhow keeps no log of its own
    #[arg(short = 'D', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    debug: Option<bool>,
    /// Policy for sources; not supported
    #[arg(long, value_name = "POLICY", hide = true)]
    policy: Vec<String>,
    /// Compress the build context on its way to a daemon; dhow reads it where it lies and sends it nowhere
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide = true)]
    compress: bool,
    /// How steps are kept apart from the host; only `default`
    #[arg(long, value_name = "KIND", hide = true)]
    isolation: Option<String>,
    /// Security option of RUN steps; only what holds for them anyway
    #[arg(long, value_name = "OPTION", hide = true)]
    security_opt: Vec<String>,
    /// Do not verify signatures of base images by Docker's content trust; dhow never does
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    disable_content_trust: Option<bool>,
}

impl DockerFlags {
    /// Refuses what asks for something that is not done.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        let is_default = |value: &&String| matches!(value.as_str(), "" | "default");
        if let Some(name) = self.builder.as_ref().filter(|name| !is_default(name)) {
            return Err(CliError::new(format!("--builder {name}: there is no such builder"))
                .hint("dhow builds by itself: leave --builder out"));
        }
        if self.debug == Some(true) {
            return Err(CliError::new("--debug is not supported: dhow keeps no log of its own")
                .hint("--progress=plain shows all output, `dhow explain` says why steps ran"));
        }
        if let Some(policy) = self.policy.first() {
            return Err(CliError::new(format!("--policy {policy} is not supported: dhow knows no policies")));
        }
        if let Some(kind) = self.isolation.as_ref().filter(|kind| !is_default(kind)) {
            return Err(CliError::new(format!("--isolation {kind} is not supported, only `default`")));
        }
        self.security_opt.iter().try_for_each(|option| check_security(option))?;
        if self.disable_content_trust == Some(false) {
            return Err(CliError::new(
                "--disable-content-trust=false is not supported: dhow does not verify signatures",
            )
            .hint("name base images by digest, as in FROM image@sha256:…"));
        }
        Ok(())
    }
}

/// What holds for steps anyway is fine to ask for.
fn check_security(option: &str) -> Result<(), CliError> {
    match option.replacen(':', "=", 1).as_str() {
        "seccomp=builtin" | "no-new-privileges=false" | "apparmor=unconfined" | "label=disable" => Ok(()),
        _ => Err(CliError::new(format!("--security-opt {option} is not supported for a build"))
            .hint("RUN --security=insecure and `--allow security.insecure` lift the limits of one step")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;
    use crate::commands::build::BuildArgs;

    /// All that docker's `build` takes, without dashes; a letter is a short flag.
    const DOCKER: &str = "add-host allow annotation attest build-arg build-context builder cache-from cache-to call \
        cgroup-parent check compress cpu-period cpu-quota cpu-shares c cpuset-cpus cpuset-mems debug D disable-content-trust file f force-rm \
        iidfile isolation label load memory m memory-swap metadata-file network no-cache no-cache-filter output o \
        platform policy progress provenance pull push quiet q resource rm sbom secret security-opt shm-size squash \
        ssh tag t target ulimit";

    fn checked(words: &[&str]) -> Result<(), String> {
        let matches = DockerFlags::augment_args(Command::new("build").no_binary_name(true))
            .try_get_matches_from(words)
            .map_err(|error| format!("clap: {error}"))?;
        let flags = DockerFlags::from_arg_matches(&matches).map_err(|error| format!("clap: {error}"))?;
        flags.check().map_err(|error| error.to_string())
    }

    #[test]
    fn every_flag_of_docker_is_known() {
        let command = BuildArgs::augment_args(Command::new("build"));
        let is_known = |name: &&str| {
            command.get_arguments().any(|arg| {
                let longs = arg.get_long_and_visible_aliases().unwrap_or_default();
                let mut letters = arg.get_short_and_visible_aliases().unwrap_or_default().into_iter();
                longs.contains(name) || letters.any(|letter| *name == letter.to_string())
            })
        };
        let unknown: Vec<&str> = DOCKER.split_whitespace().filter(|name| !is_known(name)).collect();
        assert_eq!(unknown, [""; 0]);
    }

    #[test]
    fn what_asks_for_nothing_is_accepted() {
        for words in [
            &["--builder", "default", "--isolation=default", "--compress", "--disable-content-trust"][..],
            &[
                "--builder=",
                "--isolation=",
                "--compress=false",
                "--disable-content-trust=true",
                "--debug=false",
            ],
            &["--security-opt", "seccomp=builtin", "--security-opt=no-new-privileges:false"],
        ] {
            assert_eq!(checked(words), Ok(()), "{words:?}");
        }
    }

    #[test]
    fn what_asks_for_more_is_refused_by_name() {
        for (words, name) in [
            (&["--builder", "far"][..], "--builder far"),
            (&["-D"], "--debug"),
            (&["--debug"], "--debug"),
            (&["--policy", "filename=p.rego"], "--policy filename=p.rego"),
            (&["--isolation=hyperv"], "--isolation hyperv"),
            (&["--security-opt", "seccomp=p.json"], "--security-opt seccomp=p.json"),
            (&["--disable-content-trust=false"], "--disable-content-trust=false"),
        ] {
            let told = checked(words).expect_err(name);
            assert!(told.starts_with(&format!("Error: {name}")), "{words:?}: {told}");
        }
    }
}
