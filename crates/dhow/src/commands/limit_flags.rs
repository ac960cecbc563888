//! Flags of `run` and `create` that limit what is asked for less often: input and output, real-time, swap.

use clap::ArgAction;
use dhow_engine::containers::{BlkioKind, BlkioLimit, Limits};

use super::create_flags::bytes;
use crate::error::CliError;

#[derive(clap::Args, Debug)]
pub(crate) struct LimitFlags {
    /// Relative weight of input and output, 10 to 1000; 0 for no change
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Relative weight of a device (can be repeated)
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    blkio_weight_device: Vec<String>,
    /// Bytes read from a device in a second (can be repeated)
    #[arg(long, value_name = "DEVICE:BYTES")]
    device_read_bps: Vec<String>,
    /// Reads from a device in a second (can be repeated)
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_read_iops: Vec<String>,
    /// Bytes written to a device in a second (can be repeated)
    #[arg(long, value_name = "DEVICE:BYTES")]
    device_write_bps: Vec<String>,
    /// Writes to a device in a second (can be repeated)
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_write_iops: Vec<String>,
    /// Period of real-time processes, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<i64>,
    /// Real-time processor time in a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,
    /// Memory nodes to use, such as 0-1
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,
    /// Memory that is left to the container when it gets scarce
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// How readily memory is swapped out, 0 to 100; -1 as the host does
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Let processes wait for memory instead of killing them
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    oom_kill_disable: bool,
}

impl LimitFlags {
    /// Adds them to those that are asked for more often.
    pub(crate) fn add_to(&self, limits: Limits) -> Result<Limits, CliError> {
        let mut blkio = Vec::new();
        for text in &self.blkio_weight_device {
            blkio.push(weight(text)?);
        }
        let rates = [
            ("--device-read-bps", BlkioKind::ReadBps, &self.device_read_bps),
            ("--device-write-bps", BlkioKind::WriteBps, &self.device_write_bps),
            ("--device-read-iops", BlkioKind::ReadIops, &self.device_read_iops),
            ("--device-write-iops", BlkioKind::WriteIops, &self.device_write_iops),
        ];
        for (flag, kind, texts) in rates {
            for text in texts {
                blkio.push(rate(flag, kind, text)?);
            }
        }
        let reservation =
            self.memory_reservation.as_deref().map(|text| bytes("--memory-reservation", text)).transpose()?;
        Ok(Limits {
            blkio_weight: self.blkio_weight.filter(|weight| *weight != 0),
            blkio,
            cpu_rt_period_us: self.cpu_rt_period.filter(|period| *period != 0),
            cpu_rt_runtime_us: self.cpu_rt_runtime.filter(|runtime| *runtime != 0),
            cpuset_mems: self.cpuset_mems.clone().filter(|text| !text.is_empty()),
            memory_reservation_bytes: reservation
                .filter(|bytes| *bytes != 0)
                .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            memory_swappiness: self.memory_swappiness.filter(|value| *value != -1),
            oom_kill_disable: self.oom_kill_disable,
            ..limits
        })
    }
}

fn invalid(flag: &str, text: &str, reason: String) -> CliError {
    CliError::new(format!("invalid argument \"{text}\" for \"{flag}\" flag: {reason}"))
}

fn split<'t>(flag: &str, text: &'t str) -> Result<(&'t str, &'t str), CliError> {
    let parts = text.split_once(':').ok_or_else(|| invalid(flag, text, format!("bad format: {text}")))?;
    match parts.0.starts_with("/dev/") {
        true => Ok(parts),
        false => Err(invalid(flag, text, format!("bad format for device path: {text}"))),
    }
}

fn weight(text: &str) -> Result<BlkioLimit, CliError> {
    const FLAG: &str = "--blkio-weight-device";
    let (path, weight) = split(FLAG, text)?;
    let value = weight.parse::<u64>().ok().filter(|weight| *weight == 0 || (10..=1000).contains(weight));
    let value = value.ok_or_else(|| invalid(FLAG, text, format!("invalid weight for device: {text}")))?;
    Ok(BlkioLimit { kind: BlkioKind::Weight, path: path.into(), value })
}

fn rate(flag: &str, kind: BlkioKind, text: &str) -> Result<BlkioLimit, CliError> {
    let (path, rate) = split(flag, text)?;
    let (value, form) = match kind {
        BlkioKind::ReadBps | BlkioKind::WriteBps => (
            dhow_template::units::ram_in_bytes(rate).ok(),
            "<device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb",
        ),
        _ => (rate.parse().ok(), "<device-path>:<number>. Number must be a positive integer"),
    };
    let value = value.ok_or_else(|| {
        invalid(flag, text, format!("invalid rate for device: {text}. The correct format is {form}"))
    })?;
    Ok(BlkioLimit { kind, path: path.into(), value })
}
