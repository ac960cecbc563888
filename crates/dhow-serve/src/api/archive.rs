//! Files of containers, in archives.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_engine::containers::{ArchiveError, ArchiveIn, FindError, PathStat, UpdateError, UpdateRequest};
use hyper::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Out;
use super::error::{ApiError, statuses};
use super::exchange::{Call, Reply};

const TAR: &str = "application/x-tar";
/// Go's bits for kinds of files (`os.FileMode`).
const GO_DIR: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_PIPE: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHAR_DEVICE: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;

statuses! {
    ArchiveError {
        ArchiveError::Find(FindError::NotFound(_)) => NOT_FOUND,
        ArchiveError::NotFound { .. } => NOT_FOUND,
        ArchiveError::NotDirectory(_) => BAD_REQUEST,
        ArchiveError::Ended(_) => CONFLICT,
        ArchiveError::Started(_) => CONFLICT,
        ArchiveError::User(_) => BAD_REQUEST,
        ArchiveError::Rule(_) => BAD_REQUEST,
        ArchiveError::Apply(_) => BAD_REQUEST,
    }
    UpdateError {
        UpdateError::Find(FindError::NotFound(_)) => NOT_FOUND,
        UpdateError::Limits(_) => BAD_REQUEST,
    }
}

fn path(call: &Call) -> Result<&str, ApiError> {
    call.query.get("path").ok_or_else(|| ApiError::bad("missing parameter: path"))
}

/// A mode as Go has it.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => GO_DIR,
        0o120_000 => GO_SYMLINK,
        0o060_000 => GO_DEVICE,
        0o020_000 => GO_DEVICE | GO_CHAR_DEVICE,
        0o010_000 => GO_PIPE,
        0o140_000 => GO_SOCKET,
        _ => 0,
    };
    let bits = [(0o4000, GO_SETUID), (0o2000, GO_SETGID), (0o1000, GO_STICKY)];
    let special = bits.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go).sum::<u32>();
    kind | special | (mode & 0o777)
}

/// `X-Docker-Container-Path-Stat`.
fn stat_header(stat: &PathStat) -> String {
    let (seconds, nanoseconds) = stat.modified;
    let time =
        Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH);
    let shown = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": time.to_string(),
        "linkTarget": stat.link_target,
    });
    STANDARD.encode(shown.to_string())
}

/// `GET` and `HEAD`: of the latter only the head is sent.
pub(super) fn get(call: Call) -> Result<Reply, ApiError> {
    let path = path(&call)?.to_owned();
    let stat = call.engine.archive_stat(&call.name, &path)?;
    let headers = vec![("x-docker-container-path-stat", stat_header(&stat))];
    let (engine, name) = (Arc::clone(&call.engine), call.name);
    let write = Box::new(move |out: &mut Out| {
        // An archive that breaks off is refused by whoever reads it.
        let _ = engine.archive_out(&name, &path, None, out);
    });
    Ok(Reply::Stream { content_type: TAR, headers, write })
}

pub(super) fn put(mut call: Call) -> Result<Reply, ApiError> {
    let path = path(&call)?.to_owned();
    let how = ArchiveIn {
        keep_kinds: call.query.is_set("noOverwriteDirNonDir"),
        to_user: call.query.is_set("copyUIDGID"),
    };
    call.engine.archive_in(&call.name, &path, &mut call.body, how)?;
    Ok(Reply::Empty(StatusCode::OK))
}

pub(super) fn changes(call: Call) -> Result<Reply, ApiError> {
    let changes = call.engine.container_changes(&call.name)?;
    let kind = |letter| match letter {
        'C' => 0,
        'A' => 1,
        _ => 2,
    };
    let each =
        changes.iter().map(|change| json!({ "Path": change.path, "Kind": kind(change.kind.letter()) }));
    Ok(Reply::ok(each.collect::<Value>()))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Update {
    memory: i64,
    memory_swap: i64,
    memory_reservation: i64,
    cpu_shares: u64,
    cpu_period: u64,
    cpu_quota: i64,
    nano_cpus: i64,
    cpuset_cpus: String,
    cpuset_mems: String,
    pids_limit: Option<i64>,
    restart_policy: Option<super::create_body::Restart>,
}

pub(super) fn update(mut call: Call) -> Result<Reply, ApiError> {
    let body: Update = call.json()?;
    let set = |number: i64| Some(number).filter(|number| *number != 0);
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let limits = dhow_engine::containers::Limits {
        memory_bytes: set(body.memory),
        memory_swap_bytes: set(body.memory_swap),
        memory_reservation_bytes: set(body.memory_reservation),
        cpu_shares: Some(body.cpu_shares).filter(|shares| *shares != 0),
        cpu_period_us: Some(body.cpu_period).filter(|period| *period != 0),
        cpu_quota_us: set(body.cpu_quota),
        nano_cpus: set(body.nano_cpus),
        cpuset_cpus: text(body.cpuset_cpus),
        cpuset_mems: text(body.cpuset_mems),
        pids_max: body.pids_limit.filter(|pids| *pids != 0),
        ..Default::default()
    };
    let restart =
        body.restart_policy.filter(|policy| !policy.is_empty()).map(|policy| policy.parse()).transpose()?;
    call.engine.containers().update(&call.name, &UpdateRequest { limits, restart })?;
    Ok(Reply::ok(json!({ "Warnings": null })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), GO_DIR | 0o755);
        assert_eq!(go_mode(0o104_755), GO_SETUID | 0o755);
        assert_eq!(go_mode(0o041_777), GO_DIR | GO_STICKY | 0o777);
    }
}
