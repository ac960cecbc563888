use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::Duration;

use crate::RegistryError;
use crate::error::Subject;
use crate::transport::{Reply, SendError};

/// How often, and how patiently, an exchange that failed is tried again.
///
/// Only failures that may pass are: a connection that broke, 408, 429 and the 5xx that mean "later". A
/// refused connection or an unknown host is reported at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all; 1 means never again.
    pub attempts_max: u32,
    /// The wait before the second try; it doubles from there.
    pub delay: Duration,
    /// No wait of our own choice is longer.
    pub delay_max: Duration,
    /// A registry that asks us (`Retry-After`) to stay away longer than this is not waited for.
    pub retry_after_max: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts_max: 5,
            delay: Duration::from_millis(250),
            delay_max: Duration::from_secs(8),
            retry_after_max: Duration::from_secs(60),
        }
    }
}

impl Retry {
    /// How long to wait after `failures` failures in a row; `None` means give up.
    pub(crate) fn pause(&self, failures: u32, asked: Option<Duration>) -> Option<Duration> {
        if failures >= self.attempts_max || asked.is_some_and(|asked| asked > self.retry_after_max) {
            return None;
        }
        let doubled = self.delay.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let own = doubled.min(self.delay_max).mul_f64(jitter());
        Some(own.max(asked.unwrap_or_default()))
    }
}

/// Between a half and one, so that clients that failed together do not return together.
fn jitter() -> f64 {
    // Each RandomState has its own keys: the cheapest randomness the standard library offers.
    let random = RandomState::new().hash_one(0);
    0.5 + (random % 1024) as f64 / 2048.0
}

pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Reads `Retry-After` in seconds. The form with a date would need a clock; our own delay serves instead.
pub(crate) fn retry_after(value: Option<&str>) -> Option<Duration> {
    value?.trim().parse().ok().map(Duration::from_secs)
}

/// Repeats an exchange while its failure may pass. The last answer is returned, good or bad.
pub(crate) fn persist(
    retry: &Retry,
    subject: &Subject,
    mut once: impl FnMut() -> Result<Reply, SendError>,
) -> Result<Reply, RegistryError> {
    for failures in 1.. {
        let outcome = once();
        let pause = match &outcome {
            Ok(reply) if is_passing(reply.status) => {
                retry.pause(failures, retry_after(reply.header("retry-after")))
            }
            Err(SendError::Failure(failure)) if failure.is_passing() => retry.pause(failures, None),
            _ => None,
        };
        let Some(pause) = pause else { return outcome.map_err(|error| error.about(subject)) };
        tracing::debug!(failures, subject = subject.text, "trying again");
        thread::sleep(pause);
    }
    unreachable!("a pause is refused after the last attempt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_bounded_and_end() {
        let retry = Retry { attempts_max: 10, ..Retry::default() };
        for failures in 1..10 {
            let pause = retry.pause(failures, None).expect("a pause");
            let whole = retry.delay.saturating_mul(1 << (failures - 1)).min(retry.delay_max);
            assert!(pause >= whole / 2 && pause <= whole, "{failures}: {pause:?}");
        }
        assert_eq!(retry.pause(10, None), None);
    }

    #[test]
    fn a_registry_is_obeyed_within_reason() {
        let retry = Retry::default();
        assert_eq!(retry.pause(1, retry_after(Some("7"))), Some(Duration::from_secs(7)));
        assert_eq!(retry.pause(1, retry_after(Some("3600"))), None);
        assert_eq!(retry_after(Some("Wed, 21 Oct 2026 07:28:00 GMT")), None);
    }
}
