//! Containers.

use super::error::{ApiError, statuses};
use super::exchange::{Call, Reply};
use crate::container;
use dhow_engine::containers::FindError;

statuses! {
    FindError { FindError::NotFound(_) => NOT_FOUND }
    dhow_engine::containers::InspectContainerError {
        dhow_engine::containers::InspectContainerError::Find(FindError::NotFound(_)) => NOT_FOUND,
    }
}

pub(super) fn list(call: Call) -> Result<Reply, ApiError> {
    let all = call.query.is_set("all");
    let mut containers = call.engine.containers().list()?;
    containers.retain(|container| all || container.state.is_up());
    Ok(Reply::ok(containers.iter().map(container::summary).collect()))
}

pub(super) fn inspect(call: Call) -> Result<Reply, ApiError> {
    Ok(Reply::ok(container::inspect(&call.engine.inspect_container(&call.name)?)))
}
