//! Volumes.

use std::collections::BTreeMap;

use dhow_engine::containers::{FindVolumeError, RemoveVolumesError, VolumeError, VolumeRequest};
use dhow_engine::{PruneContainers, PruneVolumes};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::create_body::or_default;
use super::error::{ApiError, statuses};
use super::exchange::{Call, Reply};
use super::networks::prune_filters;
use crate::volume;

statuses! {
    FindVolumeError { FindVolumeError::NotFound(_) => NOT_FOUND }
    VolumeError {
        VolumeError::Driver(_) => NOT_FOUND,
        VolumeError::Options { .. } => BAD_REQUEST,
        VolumeError::ShortName => BAD_REQUEST,
        VolumeError::Name { .. } => BAD_REQUEST,
    }
    RemoveVolumesError {
        RemoveVolumesError::Find(FindVolumeError::NotFound(_)) => NOT_FOUND,
        RemoveVolumesError::InUse { .. } => CONFLICT,
    }
}

pub(super) fn list(call: Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.check(&["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.get("dangling").last().map(|text| matches!(text.as_str(), "1" | "true"));
    let values = |name: &str| filters.get(name).to_vec();
    let mut volumes = call.engine.list_volumes()?;
    volumes.retain(|volume| {
        dangling.is_none_or(|dangling| dangling == volume.users.is_empty()) && volume::fits(volume, &values)
    });
    Ok(Reply::ok(json!({
        "Volumes": volumes.iter().map(volume::inspect).collect::<Vec<_>>(),
        "Warnings": null,
    })))
}

pub(super) fn inspect(call: Call) -> Result<Reply, ApiError> {
    Ok(Reply::ok(volume::inspect(&call.engine.inspect_volume(&call.name)?)))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Create {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    driver: String,
    #[serde(deserialize_with = "or_default")]
    driver_opts: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

pub(super) fn create(mut call: Call) -> Result<Reply, ApiError> {
    let body: Create = call.json()?;
    let volume = call.engine.create_volume(&VolumeRequest {
        name: Some(body.name).filter(|name| !name.is_empty()),
        driver: body.driver,
        labels: body.labels,
        options: body.driver_opts,
    })?;
    Ok(Reply::Json(StatusCode::CREATED, volume::inspect(&volume)))
}

pub(super) fn remove(call: Call) -> Result<Reply, ApiError> {
    call.engine.remove_volume(&call.name, call.query.is_set("force"))?;
    Ok(Reply::done())
}

pub(super) fn prune(call: Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.check(&["all", "label", "label!"])?;
    let (_, labels, without_labels) = prune_filters(&filters)?;
    let all = filters.get("all").last().is_some_and(|text| matches!(text.as_str(), "1" | "true"));
    let pruned = call.engine.prune_volumes(&PruneVolumes { all, labels, without_labels })?;
    Ok(Reply::ok(json!({ "VolumesDeleted": Value::from(pruned.removed), "SpaceReclaimed": pruned.bytes })))
}

pub(super) fn prune_containers(call: Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.check(&["until", "label", "label!"])?;
    let (until, labels, without_labels) = prune_filters(&filters)?;
    let pruned = call.engine.prune_containers(&PruneContainers { until, labels, without_labels })?;
    Ok(Reply::ok(json!({ "ContainersDeleted": Value::from(pruned.removed), "SpaceReclaimed": pruned.bytes })))
}
