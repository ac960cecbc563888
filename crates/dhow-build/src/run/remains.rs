//! The mounts of a step that has ended, as far as they can be had again.

use std::collections::HashSet;
use std::path::Path;

use dhow_image::Images;
use dhow_runtime::{BindHow, MountSpec as ContainerMount, Propagation};
use dhow_snapshot::{MountSpec, SnapshotError, SnapshotKey, SnapshotName, Snapshotter as _};
use dhow_sys::userns::IdMap;

use super::cache_mounts::{Attempt, try_lock};
use super::mounts::{Agent, Aside, Ready};
use super::{RunError, secrets};
use crate::debug::{DebugError, SessionMount, names};
use crate::error::{StoreFailure, while_doing};
use crate::mount::Access;
use crate::run_options::RunOptions;

/// What is known of them.
pub(crate) struct MountRemains<'a> {
    pub images: &'a Images,
    /// Begins the names of its snapshots.
    pub name: &'a str,
    /// Secrets and agents, given again.
    pub options: &'a RunOptions,
    pub mounts: &'a [SessionMount],
    pub scratch: &'a Path,
}

impl<'a> MountRemains<'a> {
    /// What the launcher is told, and what cannot be had, for people.
    pub(crate) fn ready(&self) -> Result<(Ready<'a>, Vec<String>), DebugError> {
        let (mut ready, mut missing) = (Ready::default(), Vec::new());
        let mut locked = HashSet::new();
        for (number, mount) in self.mounts.iter().enumerate() {
            match mount {
                SessionMount::Tmpfs { target, size_bytes } => {
                    ready.container.push(super::mounts::tmpfs(target.clone(), *size_bytes));
                }
                SessionMount::Folder { target, path, readonly } if path.exists() => {
                    ready.container.push(ContainerMount::Bind {
                        source: path.clone(),
                        target: target.clone(),
                        readonly: *readonly,
                        propagation: Propagation::Private,
                        how: BindHow::default(),
                    });
                }
                SessionMount::Folder { target, .. } | SessionMount::Gone { target } => {
                    missing.push(format!("the files at {target}"));
                }
                SessionMount::Layers { target, snapshots, path, readonly } => {
                    let parents = names(snapshots)?;
                    let mounted = match readonly {
                        true => self.images.snapshots().view(&parents),
                        false => self.writable(&parents, number, &mut ready)?,
                    };
                    match mounted {
                        Ok(spec) => ready.container.push(ContainerMount::Overlay {
                            upper: spec.upper.zip(spec.work),
                            lowers: spec.lowers,
                            subpath: path.trim_matches('/').to_owned(),
                            target: target.clone(),
                        }),
                        Err(_) => missing.push(format!("the files at {target}, which gc has removed")),
                    }
                }
                SessionMount::Cache { target, id, folder, readonly, is_shared } => {
                    let is_ours = locked.contains(folder);
                    match try_lock(folder, !is_shared) {
                        _ if is_ours => {}
                        Ok(Attempt::Ours(lock)) => ready.hold(lock),
                        Ok(Attempt::Taken) => return Err(RunError::CacheInUse { id: id.clone() }.into()),
                        Ok(Attempt::Gone) => {}
                        Err(source) => return Err(RunError::Cache { id: id.clone(), source }.into()),
                    }
                    let path = folder.join("fs");
                    if !path.exists() {
                        missing.push(format!("the cache at {target}, which has been removed"));
                        continue;
                    }
                    locked.insert(folder);
                    ready.container.push(ContainerMount::Bind {
                        source: path,
                        target: target.clone(),
                        readonly: *readonly,
                        propagation: Propagation::Private,
                        how: BindHow::default(),
                    });
                }
                SessionMount::Secret { target, id, env, mode, uid, gid } => {
                    let access = self.access(Access { mode: *mode, uid: *uid, gid: *gid });
                    let env = env.as_deref();
                    let wanted = secrets::Wanted { id, target, env, required: false, access };
                    if !self.options.secrets.contains_key(id) {
                        missing.push(format!("secret {id}, give it again with --secret"));
                    }
                    wanted.add_to(&mut ready.memory, self.options)?;
                }
                SessionMount::Ssh { target, id, mode, uid, gid } => {
                    let Some(socket) = self.options.agent(id) else {
                        missing.push(format!("ssh agent {id}, give it again with --ssh"));
                        continue;
                    };
                    let access = self.access(Access { mode: *mode, uid: *uid, gid: *gid });
                    let name = format!("ssh-{number}");
                    let agent = Agent { id, socket, access, dir: self.scratch, name: &name };
                    agent.forward(target, &mut ready)?;
                }
            }
        }
        Ok((ready, missing))
    }

    /// Layers on which can be written; that is thrown away. The inner error is of layers that are gone.
    fn writable(
        &self,
        parents: &[SnapshotName],
        number: usize,
        ready: &mut Ready<'a>,
    ) -> Result<Result<MountSpec, SnapshotError>, StoreFailure> {
        let key: SnapshotKey =
            format!("{}-{number}-mount", self.name).parse().map_err(while_doing("cannot name a snapshot"))?;
        let snapshots = self.images.snapshots();
        Ok(snapshots.prepare(&key, parents).and_then(|prepared| {
            let aside = Aside::new(snapshots, key.clone(), prepared);
            let spec = snapshots.mount_spec(&key)?;
            ready.hold(aside);
            Ok(spec)
        }))
    }

    /// Where there is but one id, everything belongs to root.
    fn access(&self, access: Access) -> Access {
        match self.images.user_namespace().is_some_and(IdMap::has_one_id) {
            true => Access { uid: None, gid: None, ..access },
            false => access,
        }
    }
}
