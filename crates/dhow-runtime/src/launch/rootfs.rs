//! The file system a container sees, built inside its own mount namespace.
//!
//! The image is a stranger: every target is opened beneath the root by the kernel, and mounts are attached to
//! the descriptor that was opened. Where a kernel file system goes, nothing but a real directory will do, and
//! what is written to it on the container's behalf is written before the container's root is consulted at all.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_sys::beneath::{Owner, Root};
use dhow_sys::mount::{self, Attributes, Propagation};
use dhow_sys::{cgroup::Cgroup, overlay};
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use rustix::fs::FileType;
use rustix::mount::MountAttrFlags;

use super::device;
use super::step::Step;
use crate::spec::{MOUNT_NAMESPACE, SUBPATH};
use crate::{MemoryFile, RootMount, StartError};

/// What the root file system is made of.
pub(super) struct Plan<'a> {
    /// The configuration.
    pub spec: &'a Spec,
    /// The layers.
    pub root: &'a RootMount,
    /// An existing directory to mount on.
    pub mount_point: &'a Path,
    /// The container's group.
    pub cgroup: &'a Cgroup,
    /// Files that are written to no disk.
    pub memory: &'a [MemoryFile],
    /// In a user namespace: no device nodes, and overlay keeps its marks elsewhere.
    pub user_namespace: bool,
    /// Never sync the writable layer.
    pub volatile: bool,
}

/// The finished root file system.
pub(super) struct Rootfs {
    /// Its root directory.
    pub root: OwnedFd,
    /// The container's terminals, if it has any.
    pub devpts: Option<OwnedFd>,
}

impl Plan<'_> {
    /// Builds the file system. The calling process must be alone in its mount namespace.
    pub(super) fn build(&self) -> Result<Rootfs, StartError> {
        // Before this process's mounts are cut off from the host's: these stay peers of theirs.
        let shared = self.shared_binds()?;
        mount::isolate_mounts(Propagation::Slave).step("cannot isolate mounts")?;
        let mut rootfs = Rootfs { root: self.mount_root()?, devpts: None };
        // A file of the container's own /proc would do for masking too, but the image could have replaced it.
        let null = open_null()?;
        for entry in self.spec.mounts().iter().flatten() {
            let fd = self.mount(&rootfs, entry, &shared).map_err(|error| in_mount(entry, error))?;
            match entry.typ().as_deref() {
                Some("devpts") => rootfs.devpts = fd,
                Some("tmpfs") if entry.destination() == Path::new("/dev") => self.populate_dev(&rootfs)?,
                _ => {}
            }
        }
        self.mount_memory(&rootfs)?;
        self.restrict(&rootfs, &null)?;
        Ok(rootfs)
    }

    /// The sources of bind mounts that show mounts made later on both sides.
    fn shared_binds(&self) -> Result<Vec<(PathBuf, OwnedFd)>, StartError> {
        let mut shared = Vec::new();
        for entry in self.spec.mounts().iter().flatten() {
            let options = Options::parse(entry.options().as_deref().unwrap_or_default());
            let is_shared = matches!(options.propagation, Some((Propagation::Shared, _)));
            if options.bind && (is_shared || options.value(MOUNT_NAMESPACE).is_some()) {
                let tree = bind_source(entry, &options).map_err(|error| in_mount(entry, error))?;
                shared.push((entry.destination().clone(), tree));
            }
        }
        Ok(shared)
    }

    /// Stacks folders and shows what lies at `subpath`.
    fn stack(&self, subpath: &Path, options: &Options) -> io::Result<OwnedFd> {
        let folders = |key: &str| {
            let named = options.data.iter().filter(|(name, _)| name == key);
            named.filter_map(|(_, value)| value.as_deref().map(Path::new)).collect::<Vec<_>>()
        };
        let lowers: Vec<overlay::Layer<'_>> =
            folders("lowerdir+").into_iter().map(overlay::Layer::Path).collect();
        let (uppers, works) = (folders("upperdir"), folders("workdir"));
        let upper = uppers.first().zip(works.first()).map(|(upper, work)| overlay::Upper {
            upper: overlay::Layer::Path(upper),
            work: overlay::Layer::Path(work),
        });
        // What is written to such a mount does not outlive the container.
        let how = overlay::Options {
            userxattr: self.user_namespace,
            volatile: true,
            ..overlay::Options::default()
        };
        let stack: OwnedFd = overlay::mount(&lowers, upper, how).map_err(io::Error::other)?.into();
        let shown = match subpath.as_os_str().is_empty() {
            true => stack,
            false => self.parts_of(&stack, &[subpath])?.remove(0),
        };
        mount::set_attributes(shown.as_fd(), options.attributes, false)?;
        Ok(shown)
    }

    /// Copies of a detached mount that show but one file or directory each. The kernel copies only what is
    /// attached (before 6.15), so it is for a moment: on the root, where nobody else looks.
    fn parts_of(&self, mounted: &OwnedFd, paths: &[&Path]) -> io::Result<Vec<OwnedFd>> {
        mount::attach(mounted.as_fd(), File::open(self.mount_point)?.as_fd())?;
        let root = Root::from_fd(mounted.try_clone()?);
        let part = |path: &&Path| {
            let open = root.open_with(path, rustix::fs::OFlags::PATH)?;
            mount::copy_tree(open.as_fd(), false)
        };
        let parts: io::Result<Vec<OwnedFd>> = paths.iter().map(part).collect();
        mount::detach(self.mount_point)?;
        parts
    }

    /// Puts the files that no disk has into a file system of their own and shows each where it belongs.
    fn mount_memory(&self, rootfs: &Rootfs) -> Result<(), StartError> {
        if self.memory.is_empty() {
            return Ok(());
        }
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let made = || -> io::Result<Vec<OwnedFd>> {
            let memory = mount::new_filesystem("tmpfs", "tmpfs", &[("mode", Some("700"))], attributes)?;
            let root = Root::from_fd(memory.try_clone()?);
            let names: Vec<String> = (0..self.memory.len()).map(|number| number.to_string()).collect();
            for (file, name) in self.memory.iter().zip(&names) {
                write_memory(&root, Path::new(name), file)?;
            }
            let paths: Vec<&Path> = names.iter().map(Path::new).collect();
            self.parts_of(&memory, &paths)
        };
        let shown = made().step("cannot keep files in memory")?;
        let attributes = Attributes {
            propagation: Some(Propagation::Private),
            ..Attributes::set(attributes | MountAttrFlags::MOUNT_ATTR_RDONLY)
        };
        for (file, shown) in self.memory.iter().zip(shown) {
            let attach = || {
                mount::set_attributes(shown.as_fd(), attributes, false)?;
                let target = target(rootfs, Path::new(&file.target), false)?;
                mount::attach(shown.as_fd(), target.as_fd())
            };
            attach().step(format_args!("error mounting a file in memory to rootfs at {}", file.target))?;
        }
        Ok(())
    }

    fn mount_root(&self) -> Result<OwnedFd, StartError> {
        let mounted: OwnedFd = match self.root {
            RootMount::Directory(path) => mount::copy_tree_at(path, true)
                .step(format_args!("cannot bind root file system {}", path.display()))?,
            RootMount::Overlay { lowers, upper, work } => {
                let lowers: Vec<overlay::Layer<'_>> =
                    lowers.iter().map(|path| overlay::Layer::Path(path)).collect();
                let upper =
                    overlay::Upper { upper: overlay::Layer::Path(upper), work: overlay::Layer::Path(work) };
                let options = overlay::Options {
                    userxattr: self.user_namespace,
                    volatile: self.volatile,
                    ..overlay::Options::default()
                };
                forget_volatile(work);
                overlay::mount(&lowers, Some(upper), options).step("cannot mount root file system")?.into()
            }
        };
        let private = Attributes::propagation(Propagation::Private);
        mount::set_attributes(mounted.as_fd(), private, true).step("cannot make root file system private")?;
        let point = File::open(self.mount_point)
            .step(format_args!("cannot open mount point {}", self.mount_point.display()))?;
        mount::attach(mounted.as_fd(), point.as_fd()).step("cannot attach root file system")?;
        Ok(mounted)
    }

    /// Mounts one entry and returns the mounted file system's root.
    fn mount(
        &self,
        rootfs: &Rootfs,
        entry: &Mount,
        shared: &[(PathBuf, OwnedFd)],
    ) -> io::Result<Option<OwnedFd>> {
        let options = Options::parse(entry.options().as_deref().unwrap_or_default());
        let kind = entry.typ().as_deref().unwrap_or_default();
        if kind == "cgroup" || kind == "cgroup2" {
            return self.mount_cgroup(rootfs, entry.destination(), &options).map(|()| None);
        }
        let fd = match kind {
            _ if options.bind => {
                let opened = shared.iter().find(|(destination, _)| destination == entry.destination());
                let tree = match opened {
                    Some((_, tree)) => tree.try_clone()?,
                    None => bind_source(entry, &options)?,
                };
                options.set_on(&tree)?;
                tree
            }
            "proc" | "sysfs" if self.is_hosts(kind) => host_view(kind, &options)?,
            "proc" => self.mount_proc(&options)?,
            "overlay" => self.stack(entry.source().as_deref().unwrap_or(Path::new("")), &options)?,
            "sysfs" | "tmpfs" | "devpts" | "mqueue" => {
                let source = entry.source().as_deref().and_then(Path::to_str).unwrap_or(kind);
                let mut data = options.data();
                if self.user_namespace && kind == "devpts" {
                    // The group of terminals has no id in a namespace with a single one.
                    data.retain(|(key, _)| *key != "gid");
                }
                mount::new_filesystem(kind, source, &data, options.attributes.set)?
            }
            other => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("file system type {other:?} is not supported"),
                ));
            }
        };
        let is_dir = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::Directory;
        let target = match kind {
            "proc" | "sysfs" => kernel_target(rootfs, entry.destination())?,
            _ => target(rootfs, entry.destination(), is_dir)?,
        };
        mount::attach(fd.as_fd(), target.as_fd())?;
        Ok(Some(fd))
    }

    /// Whether a file system shows a namespace that belongs to the host. Root of a user namespace may not make
    /// one of those, but may show what the host has mounted.
    fn is_hosts(&self, kind: &str) -> bool {
        let namespace = match kind {
            "sysfs" => LinuxNamespaceType::Network,
            _ => LinuxNamespaceType::Pid,
        };
        self.user_namespace && !super::has_own(self.spec, namespace)
    }

    /// Makes the process file system and sets the kernel parameters through it: the one place that is
    /// certainly the kernel's and not something the image put there.
    fn mount_proc(&self, options: &Options) -> io::Result<OwnedFd> {
        let fd = mount::new_filesystem("proc", "proc", &options.data(), options.attributes.set)?;
        let sysctls = self.spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
        for (key, value) in sysctls.into_iter().flatten() {
            set_sysctl(&fd, key, value)
                .map_err(|error| io::Error::new(error.kind(), format!("cannot set sysctl {key}: {error}")))?;
        }
        Ok(fd)
    }

    /// v2: the file system itself, which the cgroup namespace cuts to size. v1: the container's directory of
    /// each hierarchy.
    fn mount_cgroup(&self, rootfs: &Rootfs, destination: &Path, options: &Options) -> io::Result<()> {
        let directories = self.cgroup.directories();
        let attributes = options.attributes.set;
        if let [("", directory)] = directories.as_slice() {
            let fd = match mount::new_filesystem("cgroup2", "cgroup", &[], attributes) {
                Ok(fd) => fd,
                // Not ours to mount, for example in a user namespace without a cgroup namespace.
                Err(_) => bind(directory, attributes)?,
            };
            return mount::attach(fd.as_fd(), target(rootfs, destination, true)?.as_fd());
        }
        let tmpfs = mount::new_filesystem(
            "tmpfs",
            "tmpfs",
            &[("mode", Some("755"))],
            attributes & !MountAttrFlags::MOUNT_ATTR_RDONLY,
        )?;
        mount::attach(tmpfs.as_fd(), target(rootfs, destination, true)?.as_fd())?;
        for (controller, directory) in directories {
            let point = target(rootfs, &destination.join(controller), true)?;
            mount::attach(bind(&directory, attributes)?.as_fd(), point.as_fd())?;
        }
        mount::set_attributes(tmpfs.as_fd(), Attributes::set(attributes), false)
    }

    fn populate_dev(&self, rootfs: &Rootfs) -> Result<(), StartError> {
        let dev = target(rootfs, Path::new("/dev"), true).step("cannot open /dev")?;
        let own = self.spec.linux().as_ref().and_then(|linux| linux.devices().clone()).unwrap_or_default();
        device::populate(dev.as_fd(), &own, self.user_namespace)
    }

    fn restrict(&self, rootfs: &Rootfs, null: &File) -> Result<(), StartError> {
        let Some(linux) = self.spec.linux() else { return Ok(()) };
        for path in linux.readonly_paths().iter().flatten() {
            make_readonly(rootfs, Path::new(path)).step(format_args!("cannot make {path} read-only"))?;
        }
        for path in linux.masked_paths().iter().flatten() {
            mask(rootfs, Path::new(path), null).step(format_args!("cannot mask {path}"))?;
        }
        if self.spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) {
            let readonly = Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY);
            mount::set_attributes(rootfs.root.as_fd(), readonly, false).step("cannot make / read-only")?;
        }
        Ok(())
    }
}

impl Rootfs {
    /// A view of the root. Always a new one: what it remembers is wrong after the next mount.
    pub(super) fn view(&self) -> io::Result<Root> {
        Ok(Root::from_fd(self.root.try_clone()?))
    }
}

fn write_memory(root: &Root, path: &Path, file: &MemoryFile) -> io::Result<()> {
    io::Write::write_all(&mut root.create_file(path, 0o600)?, &file.content)?;
    root.chown(path, Owner { uid: file.uid, gid: file.gid })?;
    root.chmod(path, file.mode)
}

/// Removes overlayfs's mark that an earlier mount of this work directory was never synced. The mark is there for
/// those who would trust the layer after a power failure, and nobody trusts a volatile one.
fn forget_volatile(work: &Path) {
    // Without the mark there is nothing to remove; if it stays, the mount says so.
    let _ = std::fs::remove_dir_all(work.join("work/incompat/volatile"));
}

/// Mount options, taken apart.
#[derive(Debug)]
struct Options {
    bind: bool,
    recursive: bool,
    /// Read-only goes for what is mounted below, too.
    readonly_below: bool,
    attributes: Attributes,
    /// How later mounts show, and whether below as well.
    propagation: Option<(Propagation, bool)>,
    /// What the file system itself understands.
    data: Vec<(String, Option<String>)>,
}

impl Options {
    fn parse(options: &[String]) -> Self {
        let attributes = Attributes::propagation(Propagation::Private);
        let mut parsed = Options {
            bind: false,
            recursive: false,
            readonly_below: false,
            attributes,
            propagation: None,
            data: Vec::new(),
        };
        options.iter().for_each(|option| parsed.add(option));
        parsed
    }

    /// The value of an option that is not the kernel's.
    fn value(&self, key: &str) -> Option<&str> {
        self.data.iter().find(|(known, _)| known == key)?.1.as_deref()
    }

    /// Gives the copy of a bind mount's source its attributes.
    fn set_on(&self, tree: &OwnedFd) -> io::Result<()> {
        let (propagation, deep) = self.propagation.unwrap_or((Propagation::Private, true));
        // A copy of a shared mount is shared, and making it so again would part it from its peers.
        if propagation != Propagation::Shared {
            mount::set_attributes(
                tree.as_fd(),
                Attributes::propagation(propagation),
                deep && self.recursive,
            )?;
        }
        let attributes = Attributes { propagation: None, ..self.attributes };
        mount::set_attributes(tree.as_fd(), attributes, self.readonly_below && self.recursive)
    }

    fn add(&mut self, option: &str) {
        use MountAttrFlags as Flags;
        let (flag, on) = match option {
            "ro" | "rro" => (Flags::MOUNT_ATTR_RDONLY, true),
            "rw" => (Flags::MOUNT_ATTR_RDONLY, false),
            "nosuid" => (Flags::MOUNT_ATTR_NOSUID, true),
            "suid" => (Flags::MOUNT_ATTR_NOSUID, false),
            "nodev" => (Flags::MOUNT_ATTR_NODEV, true),
            "dev" => (Flags::MOUNT_ATTR_NODEV, false),
            "noexec" => (Flags::MOUNT_ATTR_NOEXEC, true),
            "exec" => (Flags::MOUNT_ATTR_NOEXEC, false),
            "nosymfollow" => (Flags::MOUNT_ATTR_NOSYMFOLLOW, true),
            "noatime" => (Flags::MOUNT_ATTR_NOATIME, true),
            "strictatime" => (Flags::MOUNT_ATTR_STRICTATIME, true),
            "nodiratime" => (Flags::MOUNT_ATTR_NODIRATIME, true),
            "relatime" | "defaults" | "" => return,
            other => return self.add_other(other),
        };
        self.readonly_below |= option == "rro";
        self.attributes.set.set(flag, on);
    }

    fn add_other(&mut self, option: &str) {
        let mut propagate = |propagation| {
            self.propagation = Some((propagation, option.starts_with("rp") || option.starts_with("rs")));
        };
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "private" | "rprivate" => propagate(Propagation::Private),
            "slave" | "rslave" => propagate(Propagation::Slave),
            "shared" | "rshared" => propagate(Propagation::Shared),
            option => match option.split_once('=') {
                Some((key, value)) => self.data.push((key.into(), Some(value.into()))),
                None => self.data.push((option.into(), None)),
            },
        }
    }

    fn data(&self) -> Vec<(&str, Option<&str>)> {
        self.data.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect()
    }
}

fn in_mount(entry: &Mount, error: io::Error) -> StartError {
    let source = entry.source().as_deref().unwrap_or(Path::new("none")).display();
    StartError::Setup(format!(
        "error mounting {source} to rootfs at {}: {error}",
        entry.destination().display()
    ))
}

/// The host's own mount of a kernel file system, with all below: nothing that is covered there shows here.
fn host_view(kind: &str, options: &Options) -> io::Result<OwnedFd> {
    let path = if kind == "sysfs" { "/sys" } else { "/proc" };
    let tree = mount::copy_tree_at(Path::new(path), true)?;
    mount::set_attributes(tree.as_fd(), options.attributes, true)?;
    Ok(tree)
}

fn bind(directory: &Path, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let tree = mount::copy_tree_at(directory, false)?;
    mount::set_attributes(tree.as_fd(), Attributes::set(attributes), false)?;
    Ok(tree)
}

/// What a mount shows of which only we know how, and those of its options that everybody knows. `None`: nothing special
/// about it. `point` is a folder of our own mount namespace where nobody looks.
pub(super) fn special(entry: &Mount, point: &Path) -> io::Result<Option<(OwnedFd, Vec<String>)>> {
    let texts = entry.options().clone().unwrap_or_default();
    let options = Options::parse(&texts);
    if options.bind && texts.iter().any(|option| option.starts_with("x-dhow.")) {
        let plain = texts.into_iter().filter(|option| !option.starts_with("x-dhow.")).collect();
        return Ok(Some((bind_source(entry, &options)?, plain)));
    }
    if entry.typ().as_deref() != Some("overlay") {
        return Ok(None);
    }
    let lowers = options.data.iter().filter(|(key, _)| key == "lowerdir+");
    let lowers: Vec<overlay::Layer<'_>> = lowers
        .filter_map(|(_, value)| value.as_deref())
        .map(|path| overlay::Layer::Path(Path::new(path)))
        .collect();
    let stack: OwnedFd =
        overlay::mount(&lowers, None, overlay::Options::default()).map_err(io::Error::other)?.into();
    mount::attach(stack.as_fd(), File::open(point)?.as_fd())?;
    let subpath = entry.source().as_deref().unwrap_or(Path::new(""));
    let part = Root::from_fd(stack).open_with(subpath, rustix::fs::OFlags::PATH)?;
    Ok(Some((mount::copy_tree(part.as_fd(), false)?, vec!["bind".into(), "ro".into(), "rprivate".into()])))
}

/// A copy of what a bind mount shows.
fn bind_source(entry: &Mount, options: &Options) -> io::Result<OwnedFd> {
    let source = entry.source().as_deref().unwrap_or(Path::new(""));
    if let Some(namespace) = options.value(MOUNT_NAMESPACE) {
        return mount::copy_tree_in(Path::new(namespace), source, options.recursive);
    }
    match options.value(SUBPATH) {
        None => mount::copy_tree_at(source, options.recursive),
        Some(subpath) => {
            let open = Root::open(source)?.open_with(Path::new(subpath), rustix::fs::OFlags::PATH)?;
            mount::copy_tree(open.as_fd(), options.recursive)
        }
    }
}

/// Opens what `path` leads to inside the container, making it (and the directories above) if it is missing.
fn target(rootfs: &Rootfs, path: &Path, is_dir: bool) -> io::Result<OwnedFd> {
    let root = rootfs.view()?;
    match root.open_with(path, rustix::fs::OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    if is_dir {
        root.mkdirs(path, 0o755)?;
    } else {
        root.mkdirs(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        root.create_file(path, 0o644)?;
    }
    rootfs.view()?.open_with(path, rustix::fs::OFlags::PATH)
}

/// Opens the directory for a kernel file system: a symbolic link there, or on the way, is refused, because
/// other paths of the configuration assume where it is (CVE-2019-19921).
fn kernel_target(rootfs: &Rootfs, path: &Path) -> io::Result<OwnedFd> {
    let root = rootfs.view()?;
    root.mkdirs(path, 0o755)?;
    let mut ancestors: Vec<&Path> = path.ancestors().filter(|ancestor| *ancestor != Path::new("/")).collect();
    ancestors.reverse();
    for ancestor in ancestors {
        let mode = root.stat(ancestor)?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::Directory {
            return Err(io::Error::other(format!("{} is not an ordinary directory", ancestor.display())));
        }
    }
    root.open_path(path)
}

fn make_readonly(rootfs: &Rootfs, path: &Path) -> io::Result<()> {
    let Some(target) = existing(rootfs, path)? else { return Ok(()) };
    let tree = mount::copy_tree(target.as_fd(), true)?;
    mount::set_attributes(tree.as_fd(), Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY), true)?;
    mount::attach(tree.as_fd(), target.as_fd())
}

fn mask(rootfs: &Rootfs, path: &Path, null: &File) -> io::Result<()> {
    let Some(target) = existing(rootfs, path)? else { return Ok(()) };
    let is_dir = FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode) == FileType::Directory;
    let cover = if is_dir {
        mount::new_filesystem(
            "tmpfs",
            "tmpfs",
            &[("size", Some("0k")), ("nr_inodes", Some("1"))],
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )?
    } else {
        mount::copy_tree(null.as_fd(), false)?
    };
    mount::attach(cover.as_fd(), target.as_fd())
}

/// Opens the path itself, a symbolic link not followed. What does not exist needs no protection.
fn existing(rootfs: &Rootfs, path: &Path) -> io::Result<Option<OwnedFd>> {
    match rootfs.view()?.open_path(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Opens the host's null device and makes sure that it is one (CVE-2025-31133).
fn open_null() -> Result<File, StartError> {
    let null = File::open("/dev/null").step("cannot open /dev/null")?;
    let stat = rustix::fs::fstat(&null).step("cannot stat /dev/null")?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (1, 3);
    match is_null {
        true => Ok(null),
        false => Err(StartError::Setup("/dev/null is not the null device".into())),
    }
}

/// Writes `/proc/sys/<key>` of a fresh process file system (CVE-2025-52881). Only parameters that belong to the
/// container's namespaces show the container's values; the kernel keeps the others read-only to it.
fn set_sysctl(proc: &OwnedFd, key: &str, value: &str) -> io::Result<()> {
    let path = PathBuf::from("sys").join(key.replace('.', "/"));
    if !is_namespaced(key) {
        return Err(io::Error::other("it is not in a separate kernel namespace"));
    }
    let file = Root::from_fd(proc.try_clone()?).open_with(&path, rustix::fs::OFlags::WRONLY)?;
    io::Write::write_all(&mut File::from(file), value.as_bytes())
}

fn is_namespaced(key: &str) -> bool {
    const KERNEL: [&str; 10] = [
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
        "domainname",
        "hostname",
    ];
    match key.split_once('.') {
        Some(("net", _)) => true,
        Some(("fs", rest)) => rest.starts_with("mqueue."),
        Some(("kernel", rest)) => KERNEL.contains(&rest),
        _ => false,
    }
}

/// Makes `path` a directory of the container if it is missing, as Docker does with the working directory.
pub(super) fn make_cwd(rootfs: &Rootfs, path: &Path) -> Result<(), StartError> {
    let root = rootfs.view().step("cannot open root file system")?;
    match root.open_with(path, rustix::fs::OFlags::PATH) {
        Ok(_) => Ok(()),
        Err(_) => root
            .mkdirs(path, 0o755)
            .map(drop)
            .step(format_args!("cannot create working directory {}", path.display())),
    }
}

/// Puts the container's terminal at /dev/console.
pub(super) fn mount_console(rootfs: &Rootfs, slave: &OwnedFd) -> Result<(), StartError> {
    let step = || -> io::Result<()> {
        let console = target(rootfs, Path::new("/dev/console"), false)?;
        let is_link = FileType::from_raw_mode(rustix::fs::fstat(&console)?.st_mode) == FileType::Symlink;
        if is_link {
            return Err(io::Error::other("it is a symbolic link"));
        }
        mount::attach(mount::copy_tree(slave.as_fd(), false)?.as_fd(), console.as_fd())
    };
    step().step("cannot set up /dev/console")
}
