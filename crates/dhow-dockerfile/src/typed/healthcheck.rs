//! HEALTHCHECK.
use std::time::Duration;

use super::{Typing, command};
use crate::duration;
use crate::flags::{FlagKind, FlagSpec, Flags};
use crate::form::Operands;
use crate::instruction::{Command, Healthcheck, HealthcheckTest};

const HEALTHCHECK_FLAGS: &FlagSpec = &[
    ("interval", FlagKind::Text),
    ("timeout", FlagKind::Text),
    ("start-period", FlagKind::Text),
    ("start-interval", FlagKind::Text),
    ("retries", FlagKind::Text),
];

impl Typing<'_> {
    pub(super) fn healthcheck(&mut self) -> Option<Healthcheck> {
        let Operands::Typed(kind, operands) = self.operands() else {
            return self.fail("HEALTHCHECK requires at least one argument");
        };
        match kind.to_uppercase().as_str() {
            "NONE" => {
                if !self.form.flags.is_empty() {
                    self.warn("HEALTHCHECK NONE takes no flags; ignored", None);
                }
                match *operands {
                    Operands::Words(words) if words.is_empty() => Some(Healthcheck::None),
                    _ => self.fail("HEALTHCHECK NONE takes no arguments"),
                }
            }
            "CMD" => self.healthcheck_test(*operands).map(Healthcheck::Test),
            kind => self.fail(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")),
        }
    }

    fn healthcheck_test(&mut self, operands: Operands) -> Option<HealthcheckTest> {
        let flags = self.flags(HEALTHCHECK_FLAGS)?;
        let command = command(operands);
        if matches!(&command, Command::Shell(text) if text.is_empty())
            || matches!(&command, Command::Exec(words) if words.is_empty())
        {
            return self.fail("Missing command after HEALTHCHECK CMD");
        }
        Some(HealthcheckTest {
            command,
            interval: self.interval(&flags, "interval")?,
            timeout: self.interval(&flags, "timeout")?,
            start_period: self.interval(&flags, "start-period")?,
            start_interval: self.interval(&flags, "start-interval")?,
            retries: self.retries(&flags)?,
        })
    }

    /// A duration; zero says the same as nothing. The outer `None` is an error.
    fn interval(&mut self, flags: &Flags, name: &str) -> Option<Option<Duration>> {
        let Some(text) = flags.text(name) else { return Some(None) };
        match duration::parse(&text) {
            Ok(Duration::ZERO) => Some(None),
            Ok(duration) if duration < Duration::from_millis(1) => {
                self.fail(format!("Interval {name:?} cannot be less than 1ms"))
            }
            Ok(duration) => Some(Some(duration)),
            Err(error) => self.fail(error),
        }
    }

    fn retries(&mut self, flags: &Flags) -> Option<Option<u32>> {
        let Some(text) = flags.text("retries") else { return Some(None) };
        match text.parse::<i32>() {
            Ok(0) => Some(None),
            Ok(retries) => match u32::try_from(retries) {
                Ok(retries) => Some(Some(retries)),
                Err(_) => self.fail(format!("--retries cannot be negative ({retries})")),
            },
            Err(_) => self.fail(format!("--retries must be a number, not {text:?}")),
        }
    }
}
