//! What the `--mount`s of a `RUN` mean.

use std::path::Path;

use dhow_dockerfile::{Mount, MountSpec, MountType, Sharing};
use dhow_solver::VertexId;

use super::{Current, Lowering, Written};
use crate::configure;
use crate::error::{BuildError, StepError};
use crate::mount::{Access, CacheMount, MountFrom, MountKind, MountSource, RunMount};

/// The build argument that keeps the caches of one user of a store apart from those of another.
const CACHE_NAMESPACE_ARG: &str = "BUILDKIT_CACHE_MOUNT_NS";
/// Where secrets without a target are.
const SECRETS_DIR: &str = "/run/secrets";
/// Where agents without a target are, by number.
const SSH_SOCKET: &str = "/run/buildkit/ssh_agent";
/// The agent of those who name none.
const SSH_ID: &str = "default";

impl Lowering<'_> {
    /// The mounts of a `RUN`. Stages and images they name are added to `inputs`.
    pub(super) fn mounts(
        &mut self,
        current: &Current,
        specs: &[MountSpec],
        at: &Written<'_>,
        inputs: &mut Vec<VertexId>,
    ) -> Result<Vec<RunMount>, BuildError> {
        let mut mounts = Vec::with_capacity(specs.len());
        let mut agents = 0;
        for spec in specs {
            let scope = self.scope(current);
            let mount = spec.resolve(scope.escape, |name| scope.lookup(name));
            let mount = mount.map_err(|error| self.fail(at.span, StepError::Invalid(error.to_string())))?;
            let from = match &mount.from {
                None => None,
                Some(name) => {
                    let vertex = self.copy_source(current.index, at.span, name)?;
                    let index = inputs.iter().position(|input| *input == vertex).unwrap_or_else(|| {
                        inputs.push(vertex);
                        inputs.len() - 1
                    });
                    Some(MountFrom::Input { index, name: name.clone() })
                }
            };
            let cwd = &current.end.planned.config.config.working_dir;
            let made = match mount.mount_type {
                MountType::Bind => bind(&mount, from),
                MountType::Cache => self.cache(current, &mount, from),
                MountType::Tmpfs => Ok(MountKind::Tmpfs { size_bytes: mount.size_bytes }),
                MountType::Secret => secret(&mount),
                MountType::Ssh => ssh(&mount),
            };
            let named = made.and_then(|kind| Ok((target(&mount, &kind, cwd, agents)?, kind)));
            let (target, kind) = named.map_err(|message| self.fail(at.span, StepError::Invalid(message)))?;
            agents += usize::from(mount.mount_type == MountType::Ssh);
            mounts.push(RunMount { target, kind });
        }
        Ok(mounts)
    }

    fn cache(&self, current: &Current, mount: &Mount, from: Option<MountFrom>) -> Result<MountKind, String> {
        let seed = match (from, &mount.source) {
            (Some(from), source) => Some(MountSource { from, path: source.clone().unwrap_or_default() }),
            (None, Some(_)) => return Err("a cache mount with a source needs a from".to_owned()),
            (None, None) => None,
        };
        let id = match (&mount.id, &mount.target) {
            (Some(id), _) => id.clone(),
            (None, Some(target)) => clean(target),
            (None, None) => return Err("a cache mount needs a target".to_owned()),
        };
        let namespace = self.request.build_args.get(CACHE_NAMESPACE_ARG).cloned().unwrap_or_default();
        Ok(MountKind::Cache(CacheMount {
            id: format!("{namespace}/{id}"),
            sharing: mount.sharing.unwrap_or(Sharing::Shared),
            seed,
            access: access(mount),
            readonly: mount.readonly,
            emptied: self.request.runs_again(self.stage_name(current.index), current.index),
        }))
    }
}

fn bind(mount: &Mount, from: Option<MountFrom>) -> Result<MountKind, String> {
    let source = MountSource {
        from: from.unwrap_or(MountFrom::Context),
        path: mount.source.clone().unwrap_or_default(),
    };
    Ok(MountKind::Bind { source, readonly: mount.readonly })
}

fn secret(mount: &Mount) -> Result<MountKind, String> {
    let named = mount.source.as_ref().or(mount.id.as_ref()).cloned();
    let by_target = || mount.target.as_deref().map(|target| base_name(target).to_owned());
    let id = named.or_else(by_target).ok_or("invalid secret mount. one of source, target required")?;
    let env = mount.env.as_ref().map(|env| if env.is_empty() { id.clone() } else { env.clone() });
    Ok(MountKind::Secret { id, env, required: mount.required, access: access(mount) })
}

fn ssh(mount: &Mount) -> Result<MountKind, String> {
    if mount.source.is_some() || mount.from.is_some() {
        return Err("an ssh mount takes neither from nor source, the agent is named by its id".to_owned());
    }
    let id = mount.id.clone().unwrap_or_else(|| SSH_ID.to_owned());
    Ok(MountKind::Ssh { id, required: mount.required, access: access(mount) })
}

/// Where it is mounted. A secret that is a variable is a file only if it is told where.
fn target(mount: &Mount, kind: &MountKind, cwd: &str, agents: usize) -> Result<String, String> {
    let target = match (kind, &mount.target) {
        (_, Some(target)) => target.clone(),
        (MountKind::Secret { env: Some(_), .. }, None) => return Ok(String::new()),
        (MountKind::Secret { id, .. }, None) => format!("{SECRETS_DIR}/{}", base_name(id)),
        (MountKind::Ssh { .. }, None) => format!("{SSH_SOCKET}.{agents}"),
        (_, None) => String::new(),
    };
    let target = configure::join_path(cwd, &target);
    if target == "/" { Err("invalid mount target \"/\"".to_owned()) } else { Ok(target) }
}

fn access(mount: &Mount) -> Access {
    Access { mode: mount.mode, uid: mount.uid, gid: mount.gid }
}

fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// A path without dots and doubled slashes, absolute if it was.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    let root = if Path::new(path).is_absolute() { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}
