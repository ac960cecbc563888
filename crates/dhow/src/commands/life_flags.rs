//! Flags of `run` and `create` about what becomes of a container once it runs: restarts and health.

use std::time::Duration;

use clap::ArgAction;
use dhow_engine::containers::{HealthConfig, RestartPolicy};

use crate::error::CliError;

#[derive(clap::Args, Debug)]
pub(crate) struct LifeFlags {
    /// When to start the container again: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: String,
    /// Command that tells whether the container is well
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks, such as 30s
    #[arg(long, value_name = "TIME")]
    health_interval: Option<String>,
    /// Failures in a row that make the container unhealthy
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    health_retries: Option<i64>,
    /// Time between two checks while the container starts
    #[arg(long, value_name = "TIME")]
    health_start_interval: Option<String>,
    /// Time to start in which failures do not count
    #[arg(long, value_name = "TIME")]
    health_start_period: Option<String>,
    /// How long a check may take
    #[arg(long, value_name = "TIME")]
    health_timeout: Option<String>,
    /// Do not run the image's health check
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    no_healthcheck: bool,
}

impl LifeFlags {
    /// When the container is started again. `removed`: it goes when it ends.
    pub(crate) fn restart(&self, removed: bool) -> Result<RestartPolicy, CliError> {
        let policy: RestartPolicy = self.restart.parse()?;
        match removed && !policy.is_no() {
            true => Err(CliError::new("conflicting options: cannot specify both --restart and --rm")),
            false => Ok(policy),
        }
    }

    /// What replaces the image's health check.
    pub(crate) fn health(&self) -> Result<Option<HealthConfig>, CliError> {
        let time = |name: &str, text: &Option<String>| match text {
            None => Ok(0),
            Some(text) => nanoseconds(name, text),
        };
        let config = HealthConfig {
            test: self.health_cmd.iter().flat_map(|text| ["CMD-SHELL".to_owned(), text.clone()]).collect(),
            interval: time("--health-interval", &self.health_interval)?,
            timeout: time("--health-timeout", &self.health_timeout)?,
            start_period: time("--health-start-period", &self.health_start_period)?,
            start_interval: time("--health-start-interval", &self.health_start_interval)?,
            retries: self.health_retries.unwrap_or(0),
        };
        let said = config != HealthConfig::default();
        match (self.no_healthcheck, said) {
            (true, true) => Err(CliError::new("--no-healthcheck conflicts with --health-* options")),
            (true, false) => Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..config })),
            (false, _) if config.retries < 0 => Err(CliError::new("--health-retries cannot be negative")),
            (false, said) => Ok(said.then_some(config)),
        }
    }
}

/// A duration as Go reads it, `1m30s` or `250ms`, in nanoseconds.
fn nanoseconds(flag: &str, text: &str) -> Result<i64, CliError> {
    let invalid =
        |why: &str| CliError::new(format!("invalid argument \"{text}\" for \"{flag}\" flag: {why}"));
    if text.starts_with('-') {
        return Err(CliError::new(format!("{flag} cannot be negative")));
    }
    let duration: Duration = duration(text).ok_or_else(|| invalid("time: invalid duration"))?;
    i64::try_from(duration.as_nanos()).map_err(|_| invalid("time: it is too long"))
}

/// Numbers with units, one after the other; a lone `0` needs none.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * scale;
        rest = tail;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let ms = |text: &str| duration(text).map(|duration| duration.as_millis());
        assert_eq!(ms("1m30s"), Some(90_000));
        assert_eq!(ms("1.5s"), Some(1500));
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("0"), Some(0));
        for wrong in ["", "5", "s", "1x", "1s2"] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }
}
