//! When a container that ended is started again, and how long that waits.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The first wait before a container is started again.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest wait: each one is twice the one before.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// Who ran this long is not taken for one that cannot start.
const LASTING_RUN: Duration = Duration::from_secs(10);

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When its program failed, this often; 0 is without end.
    OnFailure {
        /// How often.
        retries_max: u32,
    },
    /// However it ended.
    Always,
    /// The same, and after the host started unless its user had stopped it.
    UnlessStopped,
}

/// Why a text is no policy. The words are docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestartPolicyError {
    /// No such policy.
    #[error("invalid restart policy '{0}'")]
    Unknown(String),
    /// Not a number behind the colon.
    #[error("invalid restart policy format: maximum retry count must be an integer")]
    NoNumber,
    /// Nothing before the colon.
    #[error("invalid restart policy format: no policy provided before colon")]
    NoName,
    /// A number that counts nothing.
    #[error("maximum retry count cannot be negative")]
    Negative,
    /// A number for a policy that does not count.
    #[error("maximum retry count cannot be used with restart policy '{0}'")]
    Countless(String),
}

impl FromStr for RestartPolicy {
    type Err = RestartPolicyError;

    fn from_str(text: &str) -> Result<Self, RestartPolicyError> {
        let (name, count) = match text.split_once(':') {
            Some(("", _)) => return Err(RestartPolicyError::NoName),
            Some((name, count)) => {
                (name, Some(count.parse::<i64>().map_err(|_| RestartPolicyError::NoNumber)?))
            }
            None => (text, None),
        };
        let policy = match name {
            "" | "no" => RestartPolicy::No,
            "always" => RestartPolicy::Always,
            "unless-stopped" => RestartPolicy::UnlessStopped,
            "on-failure" => {
                let retries_max = u32::try_from(count.unwrap_or(0));
                return Ok(RestartPolicy::OnFailure {
                    retries_max: retries_max.map_err(|_| RestartPolicyError::Negative)?,
                });
            }
            _ => return Err(RestartPolicyError::Unknown(name.into())),
        };
        match count {
            None | Some(0) => Ok(policy),
            Some(_) => Err(RestartPolicyError::Countless(name.into())),
        }
    }
}

impl RestartPolicy {
    /// Its name, without the count.
    pub fn name(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::OnFailure { .. } => "on-failure",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
        }
    }

    /// How often a failed program is started again; 0 is without end.
    pub fn retries_max(self) -> u32 {
        match self {
            RestartPolicy::OnFailure { retries_max } => retries_max,
            _ => 0,
        }
    }

    /// Whether it never starts anything.
    pub fn is_no(self) -> bool {
        self == RestartPolicy::No
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retries_max() {
            0 => f.write_str(self.name()),
            count => write!(f, "{}:{count}", self.name()),
        }
    }
}

/// What a shim remembers between two runs of its container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restarts {
    /// How often it was started again.
    pub count: u32,
    /// The wait before the last time, in milliseconds.
    delay_ms: u64,
}

/// How a run ended, as far as the next one depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunEnd {
    pub exit_code: i32,
    pub lasted: Duration,
    /// Its user told it to stop.
    pub was_stopped: bool,
}

impl Restarts {
    /// How long to wait before the next run. `None`: there is none.
    pub(crate) fn next(&mut self, policy: RestartPolicy, end: RunEnd) -> Option<Duration> {
        let again = match policy {
            RestartPolicy::No => false,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !end.was_stopped,
            RestartPolicy::OnFailure { retries_max } => {
                end.exit_code != 0 && (retries_max == 0 || self.count < retries_max)
            }
        };
        if !again {
            return None;
        }
        let last =
            if end.lasted >= LASTING_RUN { Duration::ZERO } else { Duration::from_millis(self.delay_ms) };
        let delay = (last * 2).clamp(DELAY_MIN, DELAY_MAX);
        self.delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.count += 1;
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_as_docker_writes_it() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let parsed = text.parse::<RestartPolicy>();
            let parsed = parsed.map(|policy| policy.to_string()).map_err(|error| error.to_string());
            assert_eq!(parsed, expected.map(String::from).map_err(String::from), "{text}");
        };
        check("no", Ok("no"));
        check("", Ok("no"));
        check("always", Ok("always"));
        check("unless-stopped", Ok("unless-stopped"));
        check("on-failure", Ok("on-failure"));
        check("on-failure:3", Ok("on-failure:3"));
        check("bogus", Err("invalid restart policy 'bogus'"));
        check("on-failure:x", Err("invalid restart policy format: maximum retry count must be an integer"));
        check(":3", Err("invalid restart policy format: no policy provided before colon"));
        check("on-failure:-1", Err("maximum retry count cannot be negative"));
        check("always:3", Err("maximum retry count cannot be used with restart policy 'always'"));
        check("no:4", Err("maximum retry count cannot be used with restart policy 'no'"));
    }

    fn end(exit_code: i32, seconds: u64) -> RunEnd {
        RunEnd { exit_code, lasted: Duration::from_secs(seconds), was_stopped: false }
    }

    fn delays(policy: RestartPolicy, ends: &[RunEnd]) -> Vec<Option<u128>> {
        let mut restarts = Restarts::default();
        ends.iter().map(|end| restarts.next(policy, *end).map(|delay| delay.as_millis())).collect()
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_lasting_run() {
        let mut ends = vec![end(1, 0); 12];
        ends.push(end(1, 10));
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000, 100];
        assert_eq!(delays(RestartPolicy::Always, &ends), expected.map(Some));
    }

    #[test]
    fn on_failure_counts_failures_only() {
        let policy = RestartPolicy::OnFailure { retries_max: 2 };
        assert_eq!(delays(policy, &[end(1, 0), end(1, 0), end(1, 0)]), [Some(100), Some(200), None]);
        assert_eq!(delays(policy, &[end(0, 0)]), [None]);
        assert_eq!(delays(RestartPolicy::No, &[end(1, 0)]), [None]);
    }

    #[test]
    fn what_its_user_stopped_stays_so_unless_it_is_to_run_always() {
        let stopped = RunEnd { was_stopped: true, ..end(137, 0) };
        assert_eq!(delays(RestartPolicy::UnlessStopped, &[stopped]), [None]);
        assert_eq!(delays(RestartPolicy::Always, &[stopped]), [Some(100)]);
    }
}
