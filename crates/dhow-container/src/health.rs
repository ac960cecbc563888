//! What is asked of a container's health, and how often.

use std::time::Duration;

use dhow_oci::HealthConfig;
use dhow_runtime::HealthCheck;

use crate::record::ContainerRecord;

/// What holds where neither the image nor the user says anything.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// The shell of an image that names none.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// The shortest time there is.
const TIME_MIN_NS: i64 = 1_000_000;

/// A check that cannot be meant. The words are docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthError {
    /// Shorter than can be waited.
    #[error("{0} in Healthcheck cannot be less than 1ms")]
    TooShort(&'static str),
    /// Fewer than none.
    #[error("Retries in Healthcheck cannot be negative")]
    Negative,
}

/// Checks what a user wants to be asked.
pub(crate) fn validate(config: &HealthConfig) -> Result<(), HealthError> {
    for (name, time) in [
        ("Interval", config.interval),
        ("Timeout", config.timeout),
        ("StartPeriod", config.start_period),
        ("StartInterval", config.start_interval),
    ] {
        if time != 0 && time < TIME_MIN_NS {
            return Err(HealthError::TooShort(name));
        }
    }
    if config.retries < 0 { Err(HealthError::Negative) } else { Ok(()) }
}

/// What the image wants to be asked, with what the user says in its place.
pub(crate) fn merge(image: Option<HealthConfig>, user: Option<&HealthConfig>) -> Option<HealthConfig> {
    let Some(user) = user else { return image };
    let image = image.unwrap_or_default();
    let or = |user: i64, image: i64| if user == 0 { image } else { user };
    Some(HealthConfig {
        test: if user.test.is_empty() { image.test } else { user.test.clone() },
        interval: or(user.interval, image.interval),
        timeout: or(user.timeout, image.timeout),
        start_period: or(user.start_period, image.start_period),
        start_interval: or(user.start_interval, image.start_interval),
        retries: or(user.retries, image.retries),
    })
}

/// The same in the shim's words. `None`: nobody asks.
pub(crate) fn check(record: &ContainerRecord) -> Option<HealthCheck> {
    let config = record.config.healthcheck.as_ref()?;
    let (kind, words) = config.test.split_first()?;
    let mut args: Vec<String> = match kind.as_str() {
        "CMD" => Vec::new(),
        "CMD-SHELL" => record.config.shell.clone().unwrap_or_else(|| SHELL.map(String::from).to_vec()),
        _ => return None,
    };
    args.extend_from_slice(words);
    let time = |ns: i64, usual: Duration| match u64::try_from(ns) {
        Ok(ns @ 1..) => Duration::from_nanos(ns),
        _ => usual,
    };
    Some(HealthCheck {
        args,
        interval: time(config.interval, INTERVAL),
        timeout: time(config.timeout, TIMEOUT),
        start_period: time(config.start_period, Duration::ZERO),
        start_interval: time(config.start_interval, START_INTERVAL),
        retries: u32::try_from(config.retries).ok().filter(|retries| *retries > 0).unwrap_or(RETRIES),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_replaces_what_the_image_says_piece_by_piece() {
        let image = HealthConfig { test: vec!["CMD".into(), "a".into()], retries: 7, ..Default::default() };
        let user = HealthConfig { interval: 5_000_000_000, ..Default::default() };
        assert_eq!(merge(Some(image.clone()), None), Some(image.clone()));
        assert_eq!(
            merge(Some(image.clone()), Some(&user)),
            Some(HealthConfig { interval: 5_000_000_000, ..image })
        );
    }

    #[test]
    fn a_time_too_short_is_named() {
        let config = HealthConfig { timeout: 1000, ..Default::default() };
        assert_eq!(
            validate(&config).unwrap_err().to_string(),
            "Timeout in Healthcheck cannot be less than 1ms"
        );
    }
}
