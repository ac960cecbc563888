//! Containers: lists, and what is done to them.

use std::sync::Arc;

use dhow_engine::containers::{CommitContainer, ExportError};
use dhow_engine::containers::{
    CommitContainerError, CreateError, FindError, InspectContainerError, RemoveError, RemoveOptions,
    RenameError, RestartError, SignalError, StartError, StopOptions, TopError, WindowSize,
};
use hyper::StatusCode;
use serde_json::json;

use super::body::Out;
use super::error::{ApiError, statuses};
use super::exchange::{Call, Reply};
use crate::container;

statuses! {
    FindError {
        FindError::NotFound(_) => NOT_FOUND,
        FindError::Ambiguous(_) => BAD_REQUEST,
    }
    InspectContainerError { InspectContainerError::Find(FindError::NotFound(_)) => NOT_FOUND }
    CreateError {
        CreateError::Image(find) if find.is_not_found() => NOT_FOUND,
        CreateError::NameTaken { .. } => CONFLICT,
        CreateError::Find(FindError::NotFound(_)) => NOT_FOUND,
        CreateError::Name(_) => BAD_REQUEST,
        CreateError::Mount(_) => BAD_REQUEST,
        CreateError::DuplicateMount(_) => BAD_REQUEST,
        CreateError::BindSource(_) => BAD_REQUEST,
        CreateError::Limits(_) => BAD_REQUEST,
        CreateError::Conflict(_) => BAD_REQUEST,
        CreateError::RestartAndRemove => BAD_REQUEST,
        CreateError::Health(_) => BAD_REQUEST,
        CreateError::Signal(_) => BAD_REQUEST,
        CreateError::Spec(_) => BAD_REQUEST,
    }
    StartError {
        StartError::Find(FindError::NotFound(_)) => NOT_FOUND,
        StartError::Paused => CONFLICT,
        error if error.exit_code() != ENGINE_FAILED => BAD_REQUEST,
    }
    SignalError {
        SignalError::Find(FindError::NotFound(_)) => NOT_FOUND,
        SignalError::Invalid(_) => BAD_REQUEST,
        SignalError::NotRunning { .. } => CONFLICT,
        SignalError::Idle(_) => CONFLICT,
        SignalError::AlreadyPaused(_) => CONFLICT,
    }
    RestartError {
        RestartError::Stop(SignalError::Find(FindError::NotFound(_))) => NOT_FOUND,
    }
    RemoveError {
        error if error.is_not_found() => NOT_FOUND,
        RemoveError::Running { .. } => CONFLICT,
    }
    RenameError {
        RenameError::Find(FindError::NotFound(_)) => NOT_FOUND,
        RenameError::Name(_) => BAD_REQUEST,
        RenameError::Same => BAD_REQUEST,
        RenameError::NameTaken { .. } => CONFLICT,
    }
    CommitContainerError {
        CommitContainerError::Find(FindError::NotFound(_)) => NOT_FOUND,
        CommitContainerError::Change(_) => BAD_REQUEST,
    }
    TopError {
        TopError::Find(FindError::NotFound(_)) => NOT_FOUND,
        TopError::NotRunning(_) => CONFLICT,
        TopError::Restarting(_) => CONFLICT,
    }
    ExportError { ExportError::Find(FindError::NotFound(_)) => NOT_FOUND }
}

/// What `docker run` exits with if it is not the program's fault.
const ENGINE_FAILED: u8 = 125;

pub(super) fn list(call: Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    // Clients say -1 for all.
    let limit = call
        .query
        .number::<i64>("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let lines = filters.lines();
    let filter =
        crate::container_filter::ContainerFilter::parse(&lines, &call.engine).map_err(ApiError::bad)?;
    let all = call.query.is_set("all") || limit.is_some() || filter.asks_for_state();
    let mut containers = call.engine.containers().list()?;
    containers.retain(|container| (all || container.state.is_up()) && filter.fits(container));
    containers.truncate(limit.unwrap_or(usize::MAX));
    Ok(Reply::ok(containers.iter().map(container::summary).collect()))
}

pub(super) fn inspect(call: Call) -> Result<Reply, ApiError> {
    Ok(Reply::ok(container::inspect(&call.engine.inspect_container(&call.name)?)))
}

/// Starts a container, for those who attached to it before if there are any.
pub(super) fn start(call: Call) -> Result<Reply, ApiError> {
    let containers = call.engine.containers();
    let found = containers.find(&call.name)?;
    if found.state.is_running() {
        return Ok(Reply::Empty(StatusCode::NOT_MODIFIED));
    }
    let mut waiting = call.pending.take(&found.id).into_iter();
    match waiting.next() {
        None => containers.start(&found.id)?,
        Some((first, size)) => {
            if let Some(attached) = containers.start_attached(&found.id, size)? {
                // One that has gone meanwhile misses nothing.
                let _ = first.send(attached);
            }
            for (other, _) in waiting {
                if let Ok((_, attached)) = containers.attach(&found.id) {
                    let _ = other.send(attached);
                }
            }
        }
    }
    Ok(Reply::done())
}

fn stop_options(call: &Call) -> Result<StopOptions, ApiError> {
    let signal = call.query.get("signal").map(str::to_owned);
    Ok(StopOptions { signal, timeout_s: call.query.number("t")? })
}

pub(super) fn stop(call: Call) -> Result<Reply, ApiError> {
    let containers = call.engine.containers();
    if !containers.find(&call.name)?.state.is_up() {
        return Ok(Reply::Empty(StatusCode::NOT_MODIFIED));
    }
    containers.stop(&call.name, &stop_options(&call)?)?;
    Ok(Reply::done())
}

pub(super) fn restart(call: Call) -> Result<Reply, ApiError> {
    call.engine.containers().restart(&call.name, &stop_options(&call)?)?;
    Ok(Reply::done())
}

pub(super) fn kill(call: Call) -> Result<Reply, ApiError> {
    call.engine.containers().kill(&call.name, call.query.get("signal").unwrap_or("KILL"))?;
    Ok(Reply::done())
}

pub(super) fn pause(call: Call) -> Result<Reply, ApiError> {
    call.engine.containers().pause(&call.name)?;
    Ok(Reply::done())
}

pub(super) fn unpause(call: Call) -> Result<Reply, ApiError> {
    call.engine.containers().unpause(&call.name)?;
    Ok(Reply::done())
}

pub(super) fn rename(call: Call) -> Result<Reply, ApiError> {
    let name =
        call.query.get("name").ok_or_else(|| ApiError::bad("Neither old nor new names may be empty"))?;
    call.engine.containers().rename(&call.name, name)?;
    Ok(Reply::done())
}

pub(super) fn resize(call: Call) -> Result<Reply, ApiError> {
    let size = window(&call)?.ok_or_else(|| ApiError::bad("the parameters h and w are missing"))?;
    let containers = call.engine.containers();
    let found = containers.find(&call.name)?;
    // Before it is started the size waits with whoever attached.
    if !call.pending.resize(&found.id, size) {
        containers.resize(&found.id, size).map_err(|error| ApiError::of(StatusCode::CONFLICT, &error))?;
    }
    Ok(Reply::Empty(StatusCode::OK))
}

/// `h` and `w`.
pub(super) fn window(call: &Call) -> Result<Option<WindowSize>, ApiError> {
    let (rows, columns) = (call.query.number("h")?, call.query.number("w")?);
    Ok(rows.zip(columns).map(|(rows, columns)| WindowSize { rows, columns }))
}

pub(super) fn remove(call: Call) -> Result<Reply, ApiError> {
    if call.query.is_set("link") {
        return Err(ApiError::unsupported("removing a link"));
    }
    let options = RemoveOptions { force: call.query.is_set("force"), volumes: call.query.is_set("v") };
    call.engine.containers().remove(&call.name, options)?;
    Ok(Reply::done())
}

pub(super) fn top(call: Call) -> Result<Reply, ApiError> {
    let args: Vec<String> =
        call.query.get("ps_args").unwrap_or("-ef").split_whitespace().map(str::to_owned).collect();
    let processes = call.engine.containers().top(&call.name, &args, call.engine.program_folders())?;
    Ok(Reply::ok(json!({ "Titles": processes.titles, "Processes": processes.rows })))
}

pub(super) fn export(call: Call) -> Result<Reply, ApiError> {
    call.engine.containers().find(&call.name)?;
    let (engine, name) = (Arc::clone(&call.engine), call.name);
    let write = Box::new(move |out: &mut Out| {
        // An archive that breaks off is refused by whoever reads it.
        let _ = engine.containers().export(&name, out);
    });
    Ok(Reply::Stream { content_type: "application/x-tar", headers: Vec::new(), write })
}

pub(super) fn commit(call: Call) -> Result<Reply, ApiError> {
    let container =
        call.query.get("container").ok_or_else(|| ApiError::bad("the parameter container is missing"))?;
    let text = |name: &str| call.query.get(name).unwrap_or_default().to_owned();
    let mut reference = call.query.get("repo").map(super::images::reference).transpose()?;
    if let (Some(name), Some(tag)) = (&reference, call.query.get("tag")) {
        reference = Some(name.with_tag(tag).map_err(|_| ApiError::bad("invalid tag format"))?);
    }
    let changes = call.query.all("changes").flat_map(str::lines).map(str::to_owned).collect();
    let commit = CommitContainer {
        reference,
        author: text("author"),
        message: text("comment"),
        no_pause: !call.query.is_not_refused("pause"),
        changes,
    };
    let id = call.engine.commit_container(container, commit)?;
    Ok(Reply::Json(StatusCode::CREATED, json!({ "Id": id.to_string() })))
}
