//! What is mounted in a container that is being made.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use dhow_oci::ContainerConfig;
use dhow_runtime::{BindHow, MountSpec as RuntimeMount, Propagation};
use dhow_snapshot::{MountSpec, SnapshotName, Snapshotter as _};
use dhow_store::Ref;

use crate::containers::Containers;
use crate::create::Draft;
use crate::error::{CreateError, disk};
use crate::local_driver::Backing;
use crate::mount::{
    BindOptions, BindPropagation, BindRecursion, MountRequest, MountSource, VolumeMount, check_target,
};
use crate::name::random_id;
use crate::record::{Mount, MountKind};
use crate::request::CreateRequest;
use crate::volume::Volumes;
use crate::volumes::{ANONYMOUS_LABEL, VolumeRequest};

/// There where SELinux decides what a container may read.
const SELINUX: &str = "/sys/fs/selinux/enforce";
const MOUNTINFO: &str = "/proc/self/mountinfo";

impl Draft<'_> {
    /// What is mounted: what the user asks for, then what other containers share, then the image's volumes.
    pub(crate) fn mounts(
        &mut self,
        request: &CreateRequest,
        config: &ContainerConfig,
        image: &MountSpec,
    ) -> Result<Vec<Mount>, CreateError> {
        let mut mounts: Vec<Mount> = Vec::new();
        let mut taken = BTreeSet::new();
        for mount in &request.mounts {
            if !taken.insert(mount.target.clone()) {
                return Err(CreateError::DuplicateMount(mount.target.clone()));
            }
            mounts.push(self.mount(mount, image)?);
        }
        for (from, readonly) in &request.volumes_from {
            let shared = self.containers.find(from)?.record.mounts;
            let is_shared =
                |mount: &Mount| matches!(mount.kind, MountKind::Bind { .. } | MountKind::Volume { .. });
            for mut mount in shared.into_iter().filter(is_shared) {
                if !taken.insert(mount.target.clone()) {
                    continue;
                }
                mount.readonly |= readonly;
                if let MountKind::Volume { anonymous, .. } = &mut mount.kind {
                    *anonymous = false;
                }
                mounts.push(mount);
            }
        }
        for target in config.volumes.keys() {
            let target = check_target(target)?;
            if taken.insert(target.clone()) {
                let source = MountSource::Volume(VolumeMount::default());
                mounts.push(self.mount(&MountRequest { target, readonly: false, source }, image)?);
            }
        }
        Ok(mounts)
    }

    fn mount(&mut self, request: &MountRequest, image: &MountSpec) -> Result<Mount, CreateError> {
        let kind = match &request.source {
            MountSource::Bind { path, create, how } => {
                ensure_source(path, *create)?;
                check_bind(path, how)?;
                MountKind::Bind { source: path.clone(), how: *how }
            }
            MountSource::Volume(volume) => self.volume(volume, &request.target, image)?,
            MountSource::Tmpfs { options } => MountKind::Tmpfs { options: options.clone() },
            MountSource::Image { image, subpath } => self.image(image, subpath)?,
        };
        Ok(Mount { target: request.target.clone(), readonly: request.readonly, kind })
    }

    fn volume(
        &mut self,
        wanted: &VolumeMount,
        target: &str,
        image: &MountSpec,
    ) -> Result<MountKind, CreateError> {
        let anonymous = wanted.name.is_none();
        let name = wanted.name.clone().map_or_else(random_id, Ok)?;
        let volumes = Volumes::new(self.containers.store());
        let mut labels = wanted.labels.clone();
        if anonymous {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
            self.volumes.push(name.clone());
        }
        let (driver, options) = (wanted.driver.clone(), wanted.options.clone());
        let request = VolumeRequest { name: None, driver, labels, options };
        self.containers.ensure_volume(&name, &request, anonymous.then_some(self.id))?;
        if !matches!(volumes.backing(&name)?, Backing::Mount(_)) {
            // Whether what is behind it is there at all.
            volumes.mount(&name)?;
        }
        if !wanted.no_copy && wanted.subpath.is_empty() {
            volumes.fill(&name, image, target, &self.containers.images.apply_options())?;
        }
        Ok(MountKind::Volume { name, anonymous, subpath: wanted.subpath.clone() })
    }

    fn image(&mut self, name: &str, subpath: &str) -> Result<MountKind, CreateError> {
        let images = &self.containers.images;
        let image = images.find_to_run(name, None, self.lease)?.record;
        let layers = images.layer_snapshots(&image.diff_ids)?;
        self.refs.push(Ref::Image(image.id));
        self.refs.extend(layers.iter().map(|layer| Ref::Snapshot(layer.to_string())));
        Ok(MountKind::Image { name: name.into(), image: image.id, subpath: subpath.into() })
    }
}

fn ensure_source(path: &Path, create: bool) -> Result<(), CreateError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match create {
            true => Ok(fs::create_dir_all(path).map_err(disk("create", path))?),
            false => Err(CreateError::BindSource(path.into())),
        },
        Err(error) => Err(disk("look at", path)(error).into()),
    }
}

/// What this host cannot do with a bind mount.
fn check_bind(path: &Path, how: &BindOptions) -> Result<(), CreateError> {
    // Without SELinux files have no labels, and there is nothing to change.
    if how.relabel.is_some() && Path::new(SELINUX).exists() {
        return Err(CreateError::Relabel(path.into()));
    }
    let (word, fits): (_, &[&str]) = match how.propagation {
        BindPropagation::Private | BindPropagation::Rprivate => return Ok(()),
        BindPropagation::Slave | BindPropagation::Rslave => ("shared or slave", &["shared:", "master:"]),
        BindPropagation::Shared | BindPropagation::Rshared => ("shared", &["shared:"]),
    };
    let path = fs::canonicalize(path).map_err(disk("look at", path))?;
    let table = fs::read_to_string(MOUNTINFO).map_err(disk("read", Path::new(MOUNTINFO)))?;
    match mount_of(&table, &path) {
        Some((_, fields)) if fields.split(' ').any(|field| fits.iter().any(|fit| field.starts_with(fit))) => {
            Ok(())
        }
        found => {
            let mounted = found.map_or("/", |(mounted, _)| mounted).to_owned();
            Err(CreateError::Propagation { path, mounted, word })
        }
    }
}

/// Where the file system that holds `path` is mounted, and what is said of its propagation. The last line wins, as
/// the last mount covers others.
fn mount_of<'t>(table: &'t str, path: &Path) -> Option<(&'t str, &'t str)> {
    let lines = table.lines().filter_map(|line| {
        let (left, _) = line.split_once(" - ")?;
        let mut fields = left.splitn(7, ' ');
        let point = fields.nth(4)?;
        Some((point, fields.nth(1).unwrap_or_default()))
    });
    lines.filter(|(point, _)| path.starts_with(point)).max_by_key(|(point, _)| point.len())
}

impl Containers {
    /// A mount in the runtime's words.
    pub(crate) fn runtime_mount(&self, mount: &Mount) -> Result<RuntimeMount, CreateError> {
        let target = mount.target.clone();
        Ok(match &mount.kind {
            MountKind::Bind { source, how } => bind(mount, source.clone(), how, ""),
            MountKind::Volume { name, subpath, .. } => {
                let volumes = Volumes::new(self.store());
                let mut how = BindOptions::default();
                let mut mount = mount.clone();
                if let Backing::Bind(bind) = volumes.backing(name)? {
                    mount.readonly |= bind.readonly;
                    if !bind.recursive {
                        how.recursion = BindRecursion::Disabled;
                    }
                }
                bind(&mount, volumes.source(name)?, &how, subpath)
            }
            MountKind::Tmpfs { options } => {
                let mut options = options.clone();
                if mount.readonly {
                    options.push("ro".into());
                }
                RuntimeMount::Tmpfs { target, options }
            }
            MountKind::Image { image, subpath, .. } => {
                let config = self.images.config(image)?;
                let mut parents: Vec<SnapshotName> = self.images.layer_snapshots(&config.rootfs.diff_ids)?;
                parents.reverse();
                let view = self.images.snapshots().view(&parents)?;
                RuntimeMount::Overlay { lowers: view.lowers, upper: None, subpath: subpath.clone(), target }
            }
        })
    }
}

fn bind(mount: &Mount, source: std::path::PathBuf, how: &BindOptions, subpath: &str) -> RuntimeMount {
    let (propagation, flat) = match how.propagation {
        BindPropagation::Rprivate => (Propagation::Private, false),
        BindPropagation::Private => (Propagation::Private, true),
        BindPropagation::Rslave => (Propagation::Slave, false),
        BindPropagation::Slave => (Propagation::Slave, true),
        BindPropagation::Rshared => (Propagation::Shared, false),
        BindPropagation::Shared => (Propagation::Shared, true),
    };
    RuntimeMount::Bind {
        source,
        target: mount.target.clone(),
        readonly: mount.readonly,
        propagation,
        how: BindHow {
            flat: how.recursion == BindRecursion::Disabled,
            flat_readonly: how.recursion == BindRecursion::Writable,
            flat_propagation: flat,
            subpath: subpath.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_holds_a_path_says_how_it_propagates() {
        let table = "20 1 8:1 / / rw shared:1 - ext4 /dev/sda rw\n\
                     30 20 0:5 / /mnt rw - tmpfs t rw\n\
                     31 30 0:6 / /mnt/a rw shared:7 master:2 - tmpfs t rw\n";
        assert_eq!(mount_of(table, Path::new("/x")), Some(("/", "shared:1")));
        assert_eq!(mount_of(table, Path::new("/mnt/b")), Some(("/mnt", "")));
        assert_eq!(mount_of(table, Path::new("/mnt/a/c")), Some(("/mnt/a", "shared:7 master:2")));
    }
}
