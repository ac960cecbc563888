use dhow_engine::Engine;
use dhow_engine::containers::{Limits, RestartPolicy, UpdateRequest};

use super::create_flags::bytes;
use super::each::each;
use crate::error::CliError;
use crate::ui::Ui;

const NANOS_PER_CPU: f64 = 1e9;

/// Change the limits and the restart policy of containers, also while they run
#[derive(clap::Args, Debug)]
pub(crate) struct UpdateArgs {
    /// Relative weight of input and output, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Period of the processor time limit, in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Processor time in a period, in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Period of real-time processes, in microseconds
    #[arg(long)]
    cpu_rt_period: Option<i64>,
    /// Real-time processor time in a period, in microseconds
    #[arg(long)]
    cpu_rt_runtime: Option<i64>,
    /// Share of processor time, relative to 1024
    #[arg(short = 'c', long)]
    cpu_shares: Option<u64>,
    /// Processors' worth of time, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Processors to run on, such as 0-2,4
    #[arg(long, value_name = "PROCESSORS")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as 0-1
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,
    /// Memory limit, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory that is left to the container when it gets scarce
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Limit of processes and threads; -1 for none
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// When to start the container again: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Container, by name or id (can be repeated)
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: &UpdateArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let request = args.request()?;
    if request == UpdateRequest::default() {
        return Err(CliError::new("you must provide one or more flags when using this command"));
    }
    each(&args.containers, ui, |name| Ok(engine.containers().update(name, &request)?))
}

impl UpdateArgs {
    fn request(&self) -> Result<UpdateRequest, CliError> {
        let size = |flag: &str, text: &Option<String>| match text.as_deref() {
            None => Ok(None),
            Some("-1") => Ok(Some(-1)),
            Some(text) => {
                Ok::<Option<i64>, CliError>(said(i64::try_from(bytes(flag, text)?).unwrap_or(i64::MAX)))
            }
        };
        let limits = Limits {
            blkio_weight: self.blkio_weight.filter(|weight| *weight != 0),
            cpu_period_us: self.cpu_period.filter(|period| *period != 0),
            cpu_quota_us: self.cpu_quota.and_then(said),
            cpu_rt_period_us: self.cpu_rt_period.and_then(said),
            cpu_rt_runtime_us: self.cpu_rt_runtime.and_then(said),
            cpu_shares: self.cpu_shares.filter(|shares| *shares != 0),
            nano_cpus: self.cpus.map(|cpus| (cpus * NANOS_PER_CPU).round() as i64).and_then(said),
            cpuset_cpus: self.cpuset_cpus.clone().filter(|text| !text.is_empty()),
            cpuset_mems: self.cpuset_mems.clone().filter(|text| !text.is_empty()),
            memory_bytes: size("-m, --memory", &self.memory)?,
            memory_reservation_bytes: size("--memory-reservation", &self.memory_reservation)?,
            memory_swap_bytes: size("--memory-swap", &self.memory_swap)?,
            pids_max: self.pids_limit.and_then(said),
            ..Limits::default()
        };
        let restart = self.restart.as_deref().map(str::parse::<RestartPolicy>).transpose()?;
        Ok(UpdateRequest { limits, restart })
    }
}

/// In Docker, 0 is as good as nothing said.
fn said(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}
