//! Whether a container does what it is for: what is asked how often, and what is made of the answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What of a probe's output is kept.
pub(crate) const OUTPUT_BYTES_MAX: usize = 4096;
/// How many probes are remembered.
const LOG_ENTRIES_MAX: usize = 5;

/// What is asked how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Program and arguments, run in the container; success is health.
    pub args: Vec<String>,
    /// From the end of one probe to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// How long after its start a container may fail without that counting.
    pub start_period: Duration,
    /// From one probe to the next in that time.
    pub start_interval: Duration,
    /// Failures in a row that are too many.
    pub retries: u32,
}

/// How a container's health is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nobody knows yet.
    #[default]
    Starting,
    /// The last probe succeeded, or not enough of them failed.
    Healthy,
    /// Too many probes failed.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word for it.
    pub fn word(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// When it was started, RFC 3339 with nanoseconds.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// What it ended with; -1 if it did not run or had to be ended.
    pub exit_code: i32,
    /// What it wrote, cut.
    pub output: String,
}

/// What is known of a container's health, as kept in `health.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// How many of the last probes failed in a row.
    pub failing_streak: u32,
    /// The last probes, oldest first.
    pub log: Vec<ProbeResult>,
}

impl Health {
    /// Takes note of a probe that began `since_start` after the container did. True: the verdict has changed.
    pub(crate) fn record(&mut self, check: &HealthCheck, result: ProbeResult, since_start: Duration) -> bool {
        let before = self.status;
        if result.exit_code == 0 {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if before != HealthStatus::Starting || since_start >= check.start_period {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= check.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        if self.log.len() >= LOG_ENTRIES_MAX {
            self.log.remove(0);
        }
        self.log.push(result);
        self.status != before
    }

    /// How long to wait until the next probe.
    pub(crate) fn wait(&self, check: &HealthCheck, since_start: Duration) -> Duration {
        match self.status {
            HealthStatus::Starting if since_start < check.start_period => {
                check.start_interval.min(check.interval)
            }
            _ => check.interval,
        }
    }
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `250ms`.
pub(crate) fn duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_micros() as f64 / 1e3);
    }
    let (minutes, seconds) = (duration.as_secs() / 60, (duration.as_millis() % 60_000) as f64 / 1e3);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// What is kept of a probe's output: its beginning, and a word if that is not all.
pub(crate) fn output(bytes: &[u8]) -> String {
    match bytes.get(..OUTPUT_BYTES_MAX) {
        Some(head) if bytes.len() > OUTPUT_BYTES_MAX => format!("{}...", String::from_utf8_lossy(head)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            args: vec!["true".into()],
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            start_period: Duration::from_secs(10),
            start_interval: Duration::from_secs(5),
            retries: 3,
        }
    }

    /// The verdicts after probes with these codes, each so many seconds after the start.
    fn verdicts(probes: &[(i32, u64)]) -> String {
        let mut health = Health::default();
        let verdict = |(exit_code, seconds): &(i32, u64)| {
            let (start, end, output) = Default::default();
            let result = ProbeResult { start, end, exit_code: *exit_code, output };
            let changed = health.record(&check(), result, Duration::from_secs(*seconds));
            format!("{}{}", health.status.word(), if changed { "!" } else { "" })
        };
        probes.iter().map(verdict).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_success_is_health_and_only_failures_in_a_row_are_not() {
        assert_eq!(verdicts(&[(0, 1), (1, 2), (1, 3), (0, 4)]), "healthy! healthy healthy healthy");
        assert_eq!(
            verdicts(&[(0, 1), (1, 2), (-1, 3), (1, 4), (0, 5)]),
            "healthy! healthy healthy unhealthy! healthy!"
        );
    }

    #[test]
    fn failures_while_starting_do_not_count() {
        assert_eq!(
            verdicts(&[(1, 1), (1, 5), (1, 9), (1, 10), (1, 11), (1, 12)]),
            "starting starting starting starting starting unhealthy!"
        );
    }

    #[test]
    fn five_probes_are_remembered() {
        let mut health = Health::default();
        for number in 0..7 {
            let (start, end, output) = Default::default();
            health.record(&check(), ProbeResult { start, end, exit_code: number, output }, Duration::ZERO);
        }
        assert_eq!(health.log.iter().map(|probe| probe.exit_code).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_duration_is_printed_as_go_does() {
        let texts = [250, 1500, 30_000, 90_000, 3_600_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(texts, ["250ms", "1.5s", "30s", "1m30s", "1h0m0s"]);
    }

    #[test]
    fn long_output_is_cut() {
        assert_eq!(output(b"ok\n"), "ok\n");
        assert_eq!(output(&[b'x'; OUTPUT_BYTES_MAX]).len(), OUTPUT_BYTES_MAX);
        assert!(output(&[b'x'; OUTPUT_BYTES_MAX + 1]).ends_with("x..."));
    }

    #[test]
    fn a_container_that_is_starting_is_asked_more_often() {
        let health = Health::default();
        assert_eq!(health.wait(&check(), Duration::from_secs(9)), Duration::from_secs(5));
        assert_eq!(health.wait(&check(), Duration::from_secs(10)), Duration::from_secs(30));
    }
}
