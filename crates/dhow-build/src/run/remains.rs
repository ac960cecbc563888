//! The mounts of a step that has ended, as far as they can be had again.

use std::path::Path;

use dhow_image::Images;
use dhow_runtime::{MountSpec as ContainerMount, Propagation};
use dhow_snapshot::Snapshotter as _;
use dhow_sys::userns::IdMap;

use super::mounts::{Agent, Ready};
use super::secrets;
use crate::debug::{DebugError, SessionMount, names};
use crate::mount::Access;
use crate::run_options::RunOptions;

/// What is known of them.
pub(crate) struct MountRemains<'a> {
    pub images: &'a Images,
    /// Secrets and agents, given again.
    pub options: &'a RunOptions,
    pub mounts: &'a [SessionMount],
    pub scratch: &'a Path,
}

impl MountRemains<'_> {
    /// What the launcher is told, and what cannot be had, for people.
    pub(crate) fn ready(&self) -> Result<(Ready<'static>, Vec<String>), DebugError> {
        let (mut ready, mut missing) = (Ready::default(), Vec::new());
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
                    });
                }
                SessionMount::Folder { target, .. } | SessionMount::Gone { target } => {
                    missing.push(format!("the files at {target}"));
                }
                SessionMount::Layers { target, snapshots, path } => {
                    let view = self.images.snapshots().view(&names(snapshots)?);
                    match view {
                        Ok(spec) => ready.container.push(ContainerMount::Overlay {
                            lowers: spec.lowers,
                            upper: None,
                            subpath: path.trim_matches('/').to_owned(),
                            target: target.clone(),
                        }),
                        Err(_) => missing.push(format!("the files at {target}, which gc has removed")),
                    }
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
                    let Some(socket) = self.options.ssh.get(id) else {
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

    /// Where there is but one id, everything belongs to root.
    fn access(&self, access: Access) -> Access {
        match self.images.user_namespace().is_some_and(IdMap::has_one_id) {
            true => Access { uid: None, gid: None, ..access },
            false => access,
        }
    }
}
