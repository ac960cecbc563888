//! The system: what it is, what happens on it, what it takes.

use std::cell::RefCell;

use dhow_engine::{CacheTotals, EventRange, PruneBuildCache, Secret};
use hyper::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::error::{ApiError, statuses};
use super::exchange::{Call, Reply};
use super::{API_VERSION, API_VERSION_MIN};
use crate::{event, system};

statuses! {
    dhow_engine::SystemInfoError {}
    dhow_engine::BuildCacheError {}
    dhow_engine::DiskUsageError {}
}

pub(super) fn ping(_: Call) -> Result<Reply, ApiError> {
    let headers = [
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    let write = Box::new(|out: &mut super::body::Out| {
        // A client that has gone has had its answer.
        let _ = std::io::Write::write_all(out, b"OK");
    });
    Ok(Reply::Stream { content_type: "text/plain; charset=utf-8", headers, write })
}

pub(super) fn version(call: Call) -> Result<Reply, ApiError> {
    let info = call.engine.system_info()?;
    let platform = dhow_oci::Platform::host();
    let text = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    let details = json!({
        "ApiVersion": text(API_VERSION),
        "MinAPIVersion": text(API_VERSION_MIN),
        "Os": platform.os,
        "Arch": platform.architecture,
        "KernelVersion": info.kernel,
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "",
        "BuildTime": "",
    });
    Ok(Reply::ok(json!({
        "Platform": { "Name": "dhow" },
        "Components": [{ "Name": "Engine", "Version": call.version, "Details": details }],
        "Version": call.version,
        "ApiVersion": text(API_VERSION),
        "MinAPIVersion": text(API_VERSION_MIN),
        "GitCommit": "",
        "GoVersion": "",
        "Os": platform.os,
        "Arch": platform.architecture,
        "KernelVersion": info.kernel,
        "BuildTime": "",
    })))
}

pub(super) fn info(call: Call) -> Result<Reply, ApiError> {
    Ok(Reply::ok(system::info(&call.engine.system_info()?, call.version)))
}

pub(super) fn events(call: Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.check(event::FILTERS)?;
    let time = |name| -> Result<Option<i64>, ApiError> { call.query.get(name).map(nanoseconds).transpose() };
    let until_ns = time("until")?;
    // Who asks for an end only means what has been.
    let since_ns = time("since")?.or(until_ns.map(|_| 0));
    let engine = call.engine;
    Ok(Reply::objects(move |out| {
        let values = |name: &str| filters.get(name).to_vec();
        let range = EventRange { since_ns, until_ns };
        let out = RefCell::new(out);
        let goes_on = || !out.borrow().is_closed();
        // A client that has gone, or a store that is, ends it; nobody is left to be told.
        let _ = engine.events_while(range, &goes_on, &mut |happened| {
            !event::fits(happened, &values) || out.borrow_mut().line(&event::message(happened)).is_ok()
        });
    }))
}

/// A point in time, in nanoseconds since 1970.
pub(super) fn nanoseconds(text: &str) -> Result<i64, ApiError> {
    let now = Timestamp::now();
    crate::when::nanoseconds(text, now).ok_or_else(|| ApiError::bad(format!("invalid time {text:?}")))
}

pub(super) fn prune_build_cache(call: Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.check(&["until", "id", "unused-for"])?;
    let now = Timestamp::now();
    let before = |name: &str| -> Result<Option<i64>, ApiError> {
        let read = |text: &String| {
            crate::when::seconds(text, now)
                .ok_or_else(|| ApiError::bad(format!("invalid filter '{name}={text}'")))
        };
        filters.get(name).last().map(read).transpose()
    };
    let until = before("until")?.or(before("unused-for")?);
    let ids = filters.get("id");
    let pruned = call.engine.prune_build_cache(&PruneBuildCache {
        all: call.query.is_set("all"),
        fits: &|entry| {
            until.is_none_or(|until| entry.last_used < until)
                && (ids.is_empty() || ids.iter().any(|id| entry.id.starts_with(id.as_str())))
        },
        reserved_bytes: call.query.number("reserved-space")?.or(call.query.number("keep-storage")?),
        bytes_max: call.query.number("max-used-space")?,
        free_bytes_min: call.query.number("min-free-space")?,
    })?;
    let ids: Vec<&str> = pruned.iter().map(|entry| entry.id.as_str()).collect();
    Ok(Reply::ok(json!({ "CachesDeleted": ids, "SpaceReclaimed": CacheTotals::of(&pruned).bytes })))
}

pub(super) fn df(call: Call) -> Result<Reply, ApiError> {
    Ok(Reply::ok(system::disk_usage(&call.engine.disk_usage()?)))
}

/// Credentials as clients send them.
#[derive(Deserialize)]
#[serde(default, rename_all = "lowercase")]
#[derive(Default)]
struct Credentials {
    username: String,
    password: String,
    serveraddress: String,
}

pub(super) fn auth(mut call: Call) -> Result<Reply, ApiError> {
    let Credentials { username, password, serveraddress } = call.json()?;
    let server = if serveraddress.is_empty() { "docker.io" } else { &serveraddress };
    let status = call
        .engine
        .check_login(server, &username, &Secret::new(password))
        .map_err(|error| ApiError::of(StatusCode::UNAUTHORIZED, &error))?;
    Ok(Reply::ok(json!({ "Status": status, "IdentityToken": "" })))
}

pub(super) fn no_swarm(_: Call) -> Result<Reply, ApiError> {
    let message = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node \
                   to swarm and try again.";
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
}

pub(super) fn plugins(_: Call) -> Result<Reply, ApiError> {
    Ok(Reply::ok(json!([])))
}
