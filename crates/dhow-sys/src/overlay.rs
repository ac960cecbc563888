//! Overlay mounts through the new mount API, layer by layer.
//!
//! `mount(2)` cuts its options at 4096 bytes and can then succeed with fewer layers than asked for, so
//! it is not used. Here each layer is one `fsconfig` call, by descriptor where the kernel takes one
//! (6.13 and later), else by a short name under `/proc/self/fd`.
//!
//! The mount is made detached: nobody sees it until [`Detached::attach`].

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::beneath::proc_path;

/// The most lower layers one overlay takes; the kernel's own limit.
pub const LOWERS_MAX: usize = 500;
/// How much of the kernel's explanation of a refused mount is read.
const REASON_BYTES_MAX: usize = 512;

/// A directory that takes part in an overlay.
#[derive(Clone, Copy, Debug)]
pub enum Layer<'a> {
    /// By path.
    Path(&'a Path),
    /// By descriptor, which must not be `O_PATH`: older kernels refuse those here.
    Fd(BorrowedFd<'a>),
}

/// The writable part of an overlay: two directories on one file system.
#[derive(Clone, Copy, Debug)]
pub struct Upper<'a> {
    /// Receives the changes.
    pub upper: Layer<'a>,
    /// Overlayfs's own scratch space; empty before the first mount.
    pub work: Layer<'a>,
}

/// How an overlay is mounted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Never sync the upper directory. For work that is thrown away if the machine stops: after a crash
    /// the work directory must be removed before it can be mounted again.
    pub volatile: bool,
    /// Keep overlay's attributes in `user.`: needed, and only sensible, in a user namespace.
    pub userxattr: bool,
    /// No writes, even with an upper.
    pub read_only: bool,
}

/// Why an overlay was not mounted.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// More layers than the kernel stacks.
    #[error("{count} layers are more than the {LOWERS_MAX} that overlayfs can stack")]
    TooManyLayers {
        /// How many were asked for.
        count: usize,
    },
    /// Neither a lower nor an upper layer.
    #[error("an overlay needs at least one layer")]
    NoLayers,
    /// A layer's directory cannot be opened.
    #[error("cannot open layer {}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The kernel refused a step of the mount.
    #[error("cannot mount overlay: {step}{reason}")]
    Refused {
        /// Which option or step.
        step: String,
        /// What the kernel logged about it, with a leading `: `, or nothing.
        reason: String,
        /// The error number.
        source: io::Error,
    },
}

/// A mount that is in no directory tree yet. Files in it can be opened relative to its descriptor;
/// dropping it unattached unmounts it.
#[derive(Debug)]
pub struct Detached {
    fd: OwnedFd,
}

impl Detached {
    /// Puts the mount over the directory `at`, where it stays after `self` is gone.
    pub fn attach(&self, at: &Path) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(rustix::mount::move_mount(&self.fd, "", CWD, at, flags)?)
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Detached> for OwnedFd {
    fn from(detached: Detached) -> OwnedFd {
        detached.fd
    }
}

/// Mounts `lowers`, topmost first, under `upper` if there is one.
///
/// Without `upper` the result is read-only. A single lower without an upper is no overlay to the kernel
/// and is bound read-only instead, which shows any whiteouts in it as the device nodes they are.
pub fn mount(
    lowers: &[Layer<'_>],
    upper: Option<Upper<'_>>,
    options: Options,
) -> Result<Detached, OverlayError> {
    match (lowers, upper) {
        ([], _) => Err(OverlayError::NoLayers),
        ([lower], None) => bind_read_only(*lower),
        (lowers, _) if lowers.len() > LOWERS_MAX => Err(OverlayError::TooManyLayers { count: lowers.len() }),
        (lowers, upper) => mount_stack(lowers, upper, options),
    }
}

fn mount_stack(
    lowers: &[Layer<'_>],
    upper: Option<Upper<'_>>,
    options: Options,
) -> Result<Detached, OverlayError> {
    let flags = FsOpenFlags::FSOPEN_CLOEXEC;
    let fs = rustix::mount::fsopen("overlay", flags).map_err(|error| refused(None, "fsopen", error))?;
    let step =
        |name: &str, result: Result<(), Errno>| result.map_err(|error| refused(Some(&fs), name, error));
    step("source", rustix::mount::fsconfig_set_string(&fs, "source", "overlay"))?;
    for lower in lowers {
        add_layer(&fs, "lowerdir+", *lower)?;
    }
    if let Some(upper) = upper {
        add_layer(&fs, "upperdir", upper.upper)?;
        add_layer(&fs, "workdir", upper.work)?;
    }
    // An upper folder is a layer in itself: whole files, and no pointers to elsewhere in the stack.
    // "nofollow" rather than "off": such pointers are not believed either, and userxattr allows it.
    step("redirect_dir", rustix::mount::fsconfig_set_string(&fs, "redirect_dir", "nofollow"))?;
    step("metacopy", rustix::mount::fsconfig_set_string(&fs, "metacopy", "off"))?;
    step("index", rustix::mount::fsconfig_set_string(&fs, "index", "off"))?;
    if options.userxattr {
        step("userxattr", rustix::mount::fsconfig_set_flag(&fs, "userxattr"))?;
    }
    if options.volatile && upper.is_some() {
        step("volatile", rustix::mount::fsconfig_set_flag(&fs, "volatile"))?;
    }
    step("create", rustix::mount::fsconfig_create(&fs))?;
    let attributes = match options.read_only || upper.is_none() {
        true => MountAttrFlags::MOUNT_ATTR_RDONLY,
        false => MountAttrFlags::empty(),
    };
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map(|fd| Detached { fd })
        .map_err(|error| refused(Some(&fs), "fsmount", error))
}

fn add_layer(fs: &OwnedFd, key: &str, layer: Layer<'_>) -> Result<(), OverlayError> {
    let opened;
    let fd = match layer {
        Layer::Fd(fd) => fd,
        Layer::Path(path) => {
            opened = open_layer(path, OFlags::RDONLY)?;
            opened.as_fd()
        }
    };
    // Descriptors are taken since 6.13. Before, a name under /proc/self/fd serves: it always stays
    // below the 256 bytes that fsconfig allows for a string. The kernel keeps the directory, not the fd.
    let result = match rustix::mount::fsconfig_set_fd(fs, key, fd) {
        Err(Errno::INVAL | Errno::BADF) => rustix::mount::fsconfig_set_string(fs, key, proc_path(&fd)),
        result => result,
    };
    result.map_err(|error| match layer {
        Layer::Path(path) => refused(Some(fs), &format!("{key} {}", path.display()), error),
        Layer::Fd(_) => refused(Some(fs), key, error),
    })
}

fn open_layer(path: &Path, access: OFlags) -> Result<OwnedFd, OverlayError> {
    let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|error| OverlayError::Open { path: path.to_path_buf(), source: error.into() })
}

fn bind_read_only(lower: Layer<'_>) -> Result<Detached, OverlayError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = match lower {
        Layer::Path(path) => rustix::mount::open_tree(CWD, path, flags),
        Layer::Fd(fd) => rustix::mount::open_tree(fd, "", flags | OpenTreeFlags::AT_EMPTY_PATH),
    };
    let fd = match (tree, lower) {
        (Ok(fd), _) => fd,
        (Err(error), Layer::Path(path)) => {
            return Err(OverlayError::Open { path: path.to_path_buf(), source: error.into() });
        }
        (Err(error), Layer::Fd(_)) => return Err(refused(None, "open_tree", error)),
    };
    set_read_only(&fd).map(|()| Detached { fd }).map_err(|source| OverlayError::Refused {
        step: "mount_setattr".into(),
        reason: String::new(),
        source,
    })
}

fn set_read_only(mount: &OwnedFd) -> io::Result<()> {
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let empty: &CStr = c"";
    // SAFETY: the descriptor is open for the whole call, `empty` is NUL-terminated, and the kernel reads
    // exactly the given size from `attributes`, a plain C struct that outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn refused(fs: Option<&OwnedFd>, step: &str, error: Errno) -> OverlayError {
    let reason = fs.map(kernel_reason).unwrap_or_default();
    OverlayError::Refused { step: step.to_owned(), reason, source: error.into() }
}

/// The first error message the kernel left in the mount's log. There may be none, which is no error.
fn kernel_reason(fs: &OwnedFd) -> String {
    let mut buffer = [0_u8; REASON_BYTES_MAX];
    while let Ok(length) = rustix::io::read(fs, &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        if let Some(message) = text.strip_prefix("e ") {
            return format!(": {}", message.trim_end());
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A scratch folder with layers `a` and `b` (b whites out `gone`), `upper` and `work`.
    fn scratch(name: &str) -> Option<PathBuf> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting an overlay needs root");
            return None;
        }
        let path = std::env::temp_dir().join(format!("dhow-overlay-{}-{name}", std::process::id()));
        for dir in ["a", "b", "upper", "work", "at"] {
            fs::create_dir_all(path.join(dir)).unwrap();
        }
        fs::write(path.join("a/gone"), "a").unwrap();
        fs::write(path.join("a/kept"), "a").unwrap();
        fs::write(path.join("b/new"), "b").unwrap();
        let root = crate::beneath::Root::open(&path).unwrap();
        crate::node::make_whiteout(&root, Path::new("b/gone")).unwrap();
        Some(path)
    }

    fn names(mount: &Detached) -> Vec<String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = rustix::fs::openat(mount, ".", flags, Mode::empty()).unwrap();
        let entries = crate::node::read_dir(&dir).unwrap();
        entries.iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn whiteouts_hide_and_writes_land_in_the_upper() {
        let Some(path) = scratch("stack") else { return };
        let (a, b, upper, work) = (path.join("a"), path.join("b"), path.join("upper"), path.join("work"));
        let lowers = [Layer::Path(&b), Layer::Path(&a)];
        let writable = Upper { upper: Layer::Path(&upper), work: Layer::Path(&work) };
        let mount = mount(&lowers, Some(writable), Options::default()).unwrap();
        assert_eq!(names(&mount), ["kept", "new"]);
        let root = crate::beneath::Root::from_fd(OwnedFd::from(mount));
        root.create_file(Path::new("fresh"), 0o600).unwrap();
        assert!(upper.join("fresh").is_file());
        drop(root);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn one_layer_alone_is_a_read_only_view() {
        let Some(path) = scratch("single") else { return };
        let layer = path.join("a");
        let mount = mount(&[Layer::Path(&layer)], None, Options::default()).unwrap();
        assert_eq!(names(&mount), ["gone", "kept"]);
        let root = crate::beneath::Root::from_fd(OwnedFd::from(mount));
        let error = root.create_file(Path::new("fresh"), 0o600).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        drop(root);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn the_limit_is_500_layers() {
        let Some(path) = scratch("many") else { return };
        let layers: Vec<PathBuf> = (0..=LOWERS_MAX).map(|i| path.join(format!("layer-{i}"))).collect();
        layers.iter().for_each(|layer| fs::create_dir(layer).unwrap());
        let lowers: Vec<Layer<'_>> = layers.iter().map(|layer| Layer::Path(layer)).collect();
        mount(&lowers[..LOWERS_MAX], None, Options::default()).expect("500 layers stack");
        let error = mount(&lowers, None, Options::default()).unwrap_err().to_string();
        assert_eq!(error, "501 layers are more than the 500 that overlayfs can stack");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn every_option_is_accepted_by_the_kernel() {
        let Some(path) = scratch("options") else { return };
        let (a, upper, work) = (path.join("a"), path.join("upper"), path.join("work"));
        let writable = Upper { upper: Layer::Path(&upper), work: Layer::Path(&work) };
        let options = Options { volatile: true, userxattr: true, read_only: true };
        let mount = mount(&[Layer::Path(&a)], Some(writable), options).unwrap();
        let root = crate::beneath::Root::from_fd(OwnedFd::from(mount));
        let error = root.create_file(Path::new("fresh"), 0o600).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        drop(root);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_missing_layer_is_named() {
        let layer = Path::new("/nonexistent/layer");
        let error = mount(&[Layer::Path(layer), Layer::Path(layer)], None, Options::default()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/layer"), "{error}");
    }
}
