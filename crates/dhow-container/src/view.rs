//! The files of a container as its program sees them, from outside: those of a running one through its process, those of
//! another one put together for as long as they are needed, in a mount namespace that nobody else sees.
//!
//! What is in a container is a stranger's. Paths are resolved by the kernel beneath its root, so that a link that changes
//! while we look leads to other files of the container and never out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use dhow_snapshot::Snapshotter as _;
use dhow_sys::beneath::Root;
use dhow_sys::mount::{self, Attributes, Propagation};
use dhow_sys::overlay;
use dhow_sys::process::CloneNamespaces;
use rustix::fs::OFlags;
use rustix::mount::MountAttrFlags;

use crate::containers::{Containers, snapshot_key};
use crate::error::{ArchiveError, disk};
use crate::files::ContainerFiles;
use crate::record::{Container, State};
use dhow_runtime::MountSpec as RuntimeMount;

impl Containers {
    /// Calls `act` with the files of a container. One that does not run cannot be started meanwhile.
    pub(crate) fn with_files<T: Send>(
        &self,
        container: &Container,
        act: impl FnOnce(&Root) -> Result<T, ArchiveError> + Send,
    ) -> Result<T, ArchiveError> {
        if let State::Running { pid, .. } = container.state {
            let root = format!("/proc/{pid}/root");
            let opened = Root::open(Path::new(&root));
            // Looked at again: by then the number may have been given to somebody else.
            let still = matches!(self.state(&container.id)?, State::Running { pid: now, .. } if now == pid);
            return match opened {
                Ok(root) if still => act(&root),
                Ok(_) => Err(ArchiveError::Ended(container.id.clone())),
                Err(error) => Err(disk("open", Path::new(&root))(error).into()),
            };
        }
        let _lock = self.lock(&container.id)?;
        if self.state(&container.id)?.is_running() {
            return Err(ArchiveError::Started(container.id.clone()));
        }
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| act(&self.put_together(container)?));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Mounts the files of a container that does not run, for the calling thread alone.
    fn put_together(&self, container: &Container) -> Result<Root, ArchiveError> {
        let spec = self.images.snapshots().mount_spec(&snapshot_key(&container.id))?;
        let bundle = self.bundle(&container.id);
        let point = bundle.rootfs();
        let failed = |error: io::Error| disk("mount the files of the container on", &point)(error);
        CloneNamespaces::MOUNT.unshare().map_err(failed)?;
        mount::isolate_mounts(Propagation::Private).map_err(failed)?;
        let mounted: OwnedFd = spec.mount(overlay::Options::default())?.into();
        let attached = File::open(&point).and_then(|target| mount::attach(mounted.as_fd(), target.as_fd()));
        attached.map_err(failed)?;
        let files = ContainerFiles::new(&bundle, &container.id, &container.record);
        let mut mounts = files.mounts();
        for mount in &container.record.mounts {
            mounts.push(self.runtime_mount(mount).map_err(|error| ArchiveError::Mount(Box::new(error)))?);
        }
        mounts.sort_by_key(|mount| Path::new(mount.target()).components().count());
        for mount in &mounts {
            attach(&mounted, mount)
                .map_err(|error| disk("show what is mounted at", Path::new(mount.target()))(error))?;
        }
        if container.record.host.read_only {
            let readonly = Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY);
            mount::set_attributes(mounted.as_fd(), readonly, false).map_err(failed)?;
        }
        Ok(Root::from_fd(mounted))
    }
}

/// What is in memory only has nothing to show while the container does not run, and its image's files show.
fn attach(root: &OwnedFd, mount: &RuntimeMount) -> io::Result<()> {
    let (tree, readonly): (OwnedFd, bool) = match mount {
        RuntimeMount::Tmpfs { .. } => return Ok(()),
        RuntimeMount::Bind { source, readonly, how, .. } => {
            let tree = match how.subpath.as_str() {
                "" => mount::copy_tree_at(source, !how.flat),
                subpath => {
                    let part = Root::open(source)?.open_with(Path::new(subpath), OFlags::PATH)?;
                    mount::copy_tree(part.as_fd(), !how.flat)
                }
            };
            (tree?, *readonly)
        }
        RuntimeMount::Overlay { lowers, subpath, .. } if subpath.is_empty() => {
            let lowers: Vec<overlay::Layer<'_>> =
                lowers.iter().map(|path| overlay::Layer::Path(path)).collect();
            let stack =
                overlay::mount(&lowers, None, overlay::Options::default()).map_err(io::Error::other)?;
            (stack.into(), true)
        }
        // Part of an image: its files are better copied from the image.
        RuntimeMount::Overlay { .. } => return Ok(()),
    };
    if readonly {
        mount::set_attributes(tree.as_fd(), Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY), true)?;
    }
    let target = Path::new(mount.target());
    let is_dir = File::from(tree.try_clone()?).metadata()?.is_dir();
    // A new view for each: what one remembers is wrong after the next mount.
    let view = || root.try_clone().map(Root::from_fd);
    let point = match view()?.open_with(target, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let view = view()?;
            if is_dir {
                view.mkdirs(target, 0o755)?;
            } else {
                view.mkdirs(target.parent().unwrap_or(Path::new("/")), 0o755)?;
                view.create_file(target, 0o644)?;
            }
            view.open_with(target, OFlags::PATH)?
        }
        found => found?,
    };
    mount::attach(tree.as_fd(), point.as_fd())
}
