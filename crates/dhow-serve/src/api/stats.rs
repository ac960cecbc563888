//! What containers use.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dhow_engine::containers::{Container, DiskError, Sample};
use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::{ApiError, statuses};
use super::exchange::{Call, Reply};

/// How often a stream tells.
const EVERY: Duration = Duration::from_secs(1);
/// How often it looks meanwhile whether the client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const NS_PER_TICK: u64 = 10_000_000;

statuses! {
    DiskError {}
}

/// What was used at one moment, and how much the host's processors had done by then.
struct Moment {
    sample: Option<Sample>,
    host_cpu_ns: u64,
    read: Timestamp,
}

pub(super) fn stats(call: Call) -> Result<Reply, ApiError> {
    let found = call.engine.containers().find(&call.name)?;
    let memory_bytes = call.engine.system_info()?.memory_bytes;
    let (streams, one_shot) = (call.query.is_not_refused("stream"), call.query.is_set("one-shot"));
    let engine = Arc::clone(&call.engine);
    let moment = move |id: &str| -> Result<(Container, Moment), ApiError> {
        let containers = engine.containers();
        let container = containers.find(id)?;
        let sample = containers.sample(&container)?;
        Ok((container, Moment { sample, host_cpu_ns: host_cpu_ns(), read: Timestamp::now() }))
    };
    let (mut container, mut now) = moment(&found.id)?;
    if !streams {
        // Two moments tell how much was used in between.
        let before = match one_shot {
            true => None,
            false => {
                thread::sleep(EVERY);
                Some(std::mem::replace(&mut now, moment(&found.id)?.1))
            }
        };
        return Ok(Reply::ok(shape(&container, before.as_ref(), &now, memory_bytes)));
    }
    Ok(Reply::objects(move |out| {
        let mut before = None;
        loop {
            if out.line(&shape(&container, before.as_ref(), &now, memory_bytes)).is_err() {
                return;
            }
            for _ in 0..EVERY.as_millis() / LOOK_EVERY.as_millis() {
                if out.is_closed() {
                    return;
                }
                thread::sleep(LOOK_EVERY);
            }
            match moment(&container.id) {
                Ok((found, next)) => {
                    container = found;
                    before = Some(std::mem::replace(&mut now, next));
                }
                // It is gone.
                Err(error) if error.status == StatusCode::NOT_FOUND => return,
                Err(error) => {
                    let _ = out.line(&json!({ "message": error.message }));
                    return;
                }
            }
        }
    }))
}

/// Time that the host's processors have passed, working or not, in nanoseconds.
fn host_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    // What guests had is in the users' time already.
    let ticks = first.split_ascii_whitespace().skip(1).take(8).filter_map(|count| count.parse::<u64>().ok());
    ticks.sum::<u64>() * NS_PER_TICK
}

fn shape(container: &Container, before: Option<&Moment>, now: &Moment, memory_bytes: u64) -> Value {
    let Some(sample) = &now.sample else {
        return json!({ "name": format!("/{}", container.name), "id": container.id, "read": "0001-01-01T00:00:00Z" });
    };
    let usage = &sample.usage;
    let [received, sent] = sample.net_bytes;
    let io = |op: &str, bytes: u64| json!({ "major": 0, "minor": 0, "op": op, "value": bytes });
    let before_sample = before.and_then(|before| before.sample.as_ref());
    json!({
        "name": format!("/{}", container.name),
        "id": container.id,
        "read": now.read.to_string(),
        "preread": before.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |before| before.read.to_string()),
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": { "current": usage.pids },
        "blkio_stats": {
            "io_service_bytes_recursive": [io("read", usage.read_bytes), io("write", usage.written_bytes)],
        },
        "cpu_stats": cpu(Some(sample), now.host_cpu_ns),
        "precpu_stats": cpu(before_sample, before.map_or(0, |before| before.host_cpu_ns)),
        "memory_stats": {
            "usage": usage.memory_bytes,
            "limit": usage.memory_bytes_max.map_or(memory_bytes, |max| max.min(memory_bytes)),
            "stats": {},
        },
        "networks": { "eth0": { "rx_bytes": received, "tx_bytes": sent } },
    })
}

fn cpu(sample: Option<&Sample>, host_cpu_ns: u64) -> Value {
    json!({
        "cpu_usage": { "total_usage": sample.map_or(0, |sample| sample.usage.cpu_ns) },
        "system_cpu_usage": host_cpu_ns,
        "online_cpus": thread::available_parallelism().map_or(1, usize::from),
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    })
}
