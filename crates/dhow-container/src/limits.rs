//! The limits that are asked for less often: checked against this machine, and put in the runtime's words.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use dhow_runtime::{IoKind, IoLimit, Resources};

use crate::error::{CreateError, disk};
use crate::request::{BlkioKind, Limits, LimitsError};

const MEMORY_BYTES_MIN: i64 = 6 << 20;
const CPUS: &str = "/sys/devices/system/cpu/online";
const NODES: &str = "/sys/devices/system/node/online";
/// More than any machine has; a list is not longer than that.
const CPUS_MAX: u32 = 8192;

impl Limits {
    pub(crate) fn check_more(&self) -> Result<(), LimitsError> {
        if self.cpu_period_us.is_some_and(|period| !(1000..=1_000_000).contains(&period)) {
            return Err(LimitsError::CpuPeriod);
        }
        if self.cpu_quota_us.is_some_and(|quota| quota > 0 && quota < 1000) {
            return Err(LimitsError::CpuQuota);
        }
        if let (Some(runtime), Some(period)) = (self.cpu_rt_runtime_us, self.cpu_rt_period_us)
            && runtime > period
        {
            return Err(LimitsError::RealTime);
        }
        if let Some(reservation) = self.memory_reservation_bytes {
            if reservation > 0 && reservation < MEMORY_BYTES_MIN {
                return Err(LimitsError::ReservationTooSmall);
            }
            if self.memory_bytes.is_some_and(|memory| memory > 0 && memory < reservation) {
                return Err(LimitsError::ReservationAboveMemory);
            }
        }
        match self.memory_swappiness {
            Some(value) if !(0..=100).contains(&value) => return Err(LimitsError::Swappiness(value)),
            _ => {}
        }
        if self.blkio_weight.is_some_and(|weight| !(10..=1000).contains(&weight)) {
            return Err(LimitsError::BlkioWeight);
        }
        check_set("cpus", self.cpuset_cpus.as_deref(), CPUS)?;
        check_set("mems", self.cpuset_mems.as_deref(), NODES)
    }

    /// Those fields that [`to_resources`](Self::to_resources) leaves; devices come with [`io_limits`].
    pub(crate) fn to_more_resources(&self) -> Resources {
        Resources {
            memory_reservation_bytes: self.memory_reservation_bytes,
            memory_swappiness: self.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
            oom_kill_disable: self.oom_kill_disable,
            cpu_rt_runtime_us: self.cpu_rt_runtime_us,
            cpu_rt_period_us: self.cpu_rt_period_us.and_then(|value| u64::try_from(value).ok()),
            io_weight: self.blkio_weight,
            ..Resources::default()
        }
    }
}

/// A list of numbers, all of which this machine has.
fn check_set(of: &'static str, text: Option<&str>, online: &str) -> Result<(), LimitsError> {
    let Some(text) = text else { return Ok(()) };
    let wanted = numbers(text).ok_or_else(|| LimitsError::Cpuset { of, text: text.to_owned() })?;
    // Without a list there is one of it.
    let available = fs::read_to_string(online).map_or_else(|_| "0".to_owned(), |list| list.trim().to_owned());
    let known = numbers(&available).unwrap_or_default();
    if wanted.iter().all(|number| known.contains(number)) {
        return Ok(());
    }
    let requested = text.to_owned();
    Err(match of {
        "cpus" => LimitsError::CpusNotAvailable { requested, available },
        _ => LimitsError::MemsNotAvailable { requested, available },
    })
}

/// Reads `0-2,4`.
fn numbers(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// The limits of block devices, with the numbers the devices have now.
pub(crate) fn io_limits(limits: &Limits) -> Result<Vec<IoLimit>, CreateError> {
    let number = |path: &Path| {
        let metadata = fs::metadata(path).map_err(disk("look at the device", path))?;
        match metadata.file_type().is_block_device() {
            true => Ok(metadata.rdev()),
            false => Err(CreateError::NoBlockDevice(path.into())),
        }
    };
    let limit = |limit: &crate::request::BlkioLimit| {
        let device = number(&limit.path)?;
        let kind = match limit.kind {
            BlkioKind::Weight => IoKind::Weight,
            BlkioKind::ReadBps => IoKind::ReadBps,
            BlkioKind::WriteBps => IoKind::WriteBps,
            BlkioKind::ReadIops => IoKind::ReadIops,
            BlkioKind::WriteIops => IoKind::WriteIops,
        };
        let (major, minor) = dhow_sys::node::device_numbers(device);
        Ok(IoLimit { kind, major, minor, value: limit.value })
    };
    limits.blkio.iter().map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_numbers_and_ranges() {
        assert_eq!(numbers("0-2,4"), Some(vec![0, 1, 2, 4]));
        assert_eq!(numbers("2-1"), None);
        assert_eq!(numbers("a"), None);
        assert_eq!(numbers(""), None);
    }

    #[test]
    fn what_cannot_be_is_said_in_dockers_words() {
        let check = |limits: Limits| limits.check_more().expect_err("nonsense").to_string();
        let swappiness = Limits { memory_swappiness: Some(101), ..Limits::default() };
        assert_eq!(check(swappiness), "Invalid value: 101, valid memory swappiness range is 0-100");
        let weight = Limits { blkio_weight: Some(5), ..Limits::default() };
        assert_eq!(check(weight), "Range of blkio weight is from 10 to 1000");
        let reservation = Limits {
            memory_bytes: Some(8 << 20),
            memory_reservation_bytes: Some(9 << 20),
            ..Limits::default()
        };
        assert!(
            check(reservation).starts_with("Minimum memory limit can not be less than memory reservation")
        );
        let cpus = Limits { cpuset_cpus: Some("0,8000".into()), ..Limits::default() };
        assert!(check(cpus).starts_with("Requested CPUs are not available - requested 0,8000, available: 0"));
    }
}
