//! Instructions that change an image's configuration and nothing else.

use std::time::Duration;

use dhow_dockerfile::{Command, Healthcheck, HealthcheckTest, InstructionKind, KeyValue};
use dhow_oci::{Empty, HealthConfig, ImageConfig};

use crate::ports::PortSpec;
use crate::scope::Scope;

/// The shell of shell forms.
pub(crate) fn shell(config: &ImageConfig) -> Vec<String> {
    let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
    config.config.shell.clone().unwrap_or_else(default)
}

/// Applies one instruction and returns its line of the history, if it has one. `scope` is the
/// environment before the instruction, which all its words see.
pub(crate) fn apply(
    config: &mut ImageConfig,
    scope: &Scope<'_>,
    kind: &InstructionKind,
    has_cmd: &mut bool,
) -> Result<Option<String>, String> {
    let expand = |word: &String| scope.expand(word).map_err(|error| error.to_string());
    let run = &mut config.config;
    match kind {
        InstructionKind::Env(pairs) => {
            let pairs = expand_pairs(&pairs.pairs, &expand)?;
            for (name, value) in &pairs {
                run.set_env(name, value);
            }
            Ok(Some(format!("ENV {}", join_pairs(&pairs))))
        }
        InstructionKind::Label(pairs) => {
            let pairs = expand_pairs(&pairs.pairs, &expand)?;
            run.labels.extend(pairs.iter().cloned());
            Ok(Some(format!("LABEL {}", join_pairs(&pairs))))
        }
        InstructionKind::Cmd(command) => {
            *has_cmd = true;
            // Docker sets it for either form.
            run.args_escaped = true;
            run.cmd = Some(words(command, &shell_of(scope)));
            Ok(Some(format!("CMD {}", json(run.cmd.as_deref().unwrap_or_default()))))
        }
        InstructionKind::Entrypoint(command) => {
            run.entrypoint = Some(words(command, &shell_of(scope))).filter(|words| !words.is_empty());
            if !*has_cmd {
                run.cmd = None;
            }
            Ok(Some(format!("ENTRYPOINT {}", json(run.entrypoint.as_deref().unwrap_or_default()))))
        }
        InstructionKind::Expose(ports) => expose(run, scope, ports).map(Some),
        InstructionKind::User(user) => {
            run.user = expand(user)?;
            Ok(Some(format!("USER {}", run.user)))
        }
        InstructionKind::Volume(paths) => {
            let paths = paths.iter().map(expand).collect::<Result<Vec<_>, _>>()?;
            if paths.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".to_owned());
            }
            run.volumes.extend(paths.iter().map(|path| (path.clone(), Empty {})));
            Ok(Some(format!("VOLUME [{}]", paths.join(" "))))
        }
        InstructionKind::StopSignal(signal) => {
            run.stop_signal = stop_signal(&expand(signal)?)?;
            Ok(Some(format!("STOPSIGNAL {}", run.stop_signal)))
        }
        InstructionKind::Shell(words) => {
            run.shell = Some(words.clone());
            Ok(Some(format!("SHELL [{}]", words.join(" "))))
        }
        InstructionKind::Healthcheck(check) => Ok(Some(healthcheck(run, check))),
        InstructionKind::Onbuild(onbuild) => {
            run.on_build.push(onbuild.trigger.clone());
            Ok(None)
        }
        InstructionKind::Maintainer(name) => {
            config.author.clone_from(name);
            Ok(Some(format!("MAINTAINER {}", config.author)))
        }
        InstructionKind::Add(_)
        | InstructionKind::Arg(_)
        | InstructionKind::Copy(_)
        | InstructionKind::Run(_)
        | InstructionKind::Workdir(_) => Err(format!("{} is not a matter of configuration", kind.name())),
    }
}

fn shell_of(scope: &Scope<'_>) -> Vec<String> {
    shell(scope.config)
}

fn words(command: &Command, shell: &[String]) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => shell.iter().cloned().chain([text.clone()]).collect(),
    }
}

/// Words as Docker's history shows them.
fn json(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn expand_pairs(
    pairs: &[KeyValue],
    expand: &dyn Fn(&String) -> Result<String, String>,
) -> Result<Vec<(String, String)>, String> {
    pairs.iter().map(|pair| Ok((expand(&pair.key)?, expand(&pair.value)?))).collect()
}

fn join_pairs(pairs: &[(String, String)]) -> String {
    let texts: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    texts.join(" ")
}

/// The words of an `EXPOSE` in Docker's order, variables replaced: they are sorted before and not after.
pub(crate) fn exposed(scope: &Scope<'_>, ports: &[String]) -> Result<Vec<String>, String> {
    let mut ports: Vec<&String> = ports.iter().collect();
    ports.sort();
    let words = ports.into_iter().map(|port| scope.expand_words(port).map_err(|error| error.to_string()));
    Ok(words.collect::<Result<Vec<_>, _>>()?.concat())
}

fn expose(
    run: &mut dhow_oci::ContainerConfig,
    scope: &Scope<'_>,
    ports: &[String],
) -> Result<String, String> {
    let mut named = Vec::new();
    for word in exposed(scope, ports)? {
        named.extend(PortSpec::parse(&word)?.names());
    }
    run.exposed_ports.extend(named.iter().map(|port| (port.clone(), Empty {})));
    Ok(format!("EXPOSE [{}]", named.join(" ")))
}

/// Names of signals, without `SIG`, beside `RTMIN+n` and `RTMAX-n`.
const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];
/// How far a `RTMIN+n` and a `RTMAX-n` reach.
const RTMIN_STEPS_MAX: u8 = 15;
const RTMAX_STEPS_MAX: u8 = 14;

/// A signal by name in any case, with `SIG` or without, or by number. It is kept as it is written.
fn stop_signal(text: &str) -> Result<String, String> {
    if let Ok(number) = text.parse::<i64>() {
        return if number == 0 { Err(format!("invalid signal: {text}")) } else { Ok(text.to_owned()) };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let steps = |base: &str, max: u8| {
        let number = name.strip_prefix(base).filter(|text| !text.starts_with(['0', '+']))?;
        number.parse::<u8>().ok().filter(|number| *number <= max)
    };
    let is_real_time =
        steps("RTMIN+", RTMIN_STEPS_MAX).or_else(|| steps("RTMAX-", RTMAX_STEPS_MAX)).is_some();
    let is_known = is_real_time || SIGNALS.contains(&name);
    if is_known { Ok(text.to_owned()) } else { Err(format!("invalid signal: {text}")) }
}

fn healthcheck(run: &mut dhow_oci::ContainerConfig, check: &Healthcheck) -> String {
    let Healthcheck::Test(HealthcheckTest {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    }) = check
    else {
        let none = HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() };
        let text = healthcheck_history(&none);
        run.healthcheck = Some(none);
        return text;
    };
    let nanoseconds =
        |time: &Option<Duration>| time.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    let test = match command {
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Command::Exec(words) => ["CMD".to_owned()].into_iter().chain(words.iter().cloned()).collect(),
    };
    let check = HealthConfig {
        test,
        interval: nanoseconds(interval),
        timeout: nanoseconds(timeout),
        start_period: nanoseconds(start_period),
        start_interval: nanoseconds(start_interval),
        retries: retries.map_or(0, i64::from),
    };
    let text = healthcheck_history(&check);
    run.healthcheck = Some(check);
    text
}

/// A check as Go prints the struct.
fn healthcheck_history(check: &HealthConfig) -> String {
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        go_duration(check.interval),
        go_duration(check.timeout),
        go_duration(check.start_period),
        go_duration(check.start_interval),
        check.retries
    )
}

/// `1h2m3.5s`, `250ms`: a duration as Go prints it.
fn go_duration(nanoseconds: i64) -> String {
    const SECOND: f64 = 1e9;
    let value = nanoseconds as f64;
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => format!("{}µs", value / 1e3),
        1_000_000..1_000_000_000 => format!("{}ms", value / 1e6),
        _ => {
            let minutes = nanoseconds / 60_000_000_000;
            let seconds = (nanoseconds % 60_000_000_000) as f64 / SECOND;
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `path` seen from `base`, without dots and double slashes; always absolute.
pub(crate) fn join_path(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_those_of_linux() {
        for good in ["SIGTERM", "term", "9", "sigrtmin+3", "RTMAX-14", "SIGRTMAX", "64", "-1", "SigKill"] {
            assert_eq!(stop_signal(good).as_deref(), Ok(good));
        }
        for wrong in ["", "0", "SIGFOO", "SIG", "RTMIN+16", "RTMAX-15", "RTMIN+0", "TERM ", "SIGSIGTERM"] {
            assert!(stop_signal(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1_500_000, "1.5ms"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (2_500_000_000, "2.5s"),
        ] {
            assert_eq!(go_duration(nanoseconds), text);
        }
    }

    #[test]
    fn paths_are_joined_as_workdir_does() {
        for (base, path, joined) in
            [("/", "app", "/app"), ("/a", "../b/./c", "/b/c"), ("/a", "/x//y/", "/x/y"), ("", "..", "/")]
        {
            assert_eq!(join_path(base, path), joined);
        }
    }
}
