//! A real registry, stores of our own, and images small enough to be written down.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dhow_image::{
    Images, LayoutTarget, LoadError, LoadSource, Loaded, PullError, PullEvent, PullRequest, Pulled,
    SaveRequest,
};
use dhow_oci::{Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, Platform, Reference, media_type};
use dhow_registry::{Client, Config, Keychain};
use dhow_snapshot::OverlaySnapshotter;
use dhow_store::Store;
use tempfile::TempDir;

const PROGRAM: &str = "/usr/bin/docker-registry";
pub(crate) const NOW: i64 = 1_000_000_000;

/// Debian's `docker-registry`, empty.
pub(crate) struct Registry {
    child: Child,
    pub(crate) authority: String,
    folder: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have died already, which its test will have noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// `None`, with the reason printed, where it cannot be had.
    pub(crate) fn start() -> Option<Registry> {
        if !Path::new(PROGRAM).exists() {
            eprintln!("skipped: {PROGRAM} is not installed");
            return None;
        }
        if std::fs::metadata("/proc/self").expect("a process").uid() != 0 {
            eprintln!("skipped: unpacking layers takes root");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        (0..5).find_map(|_| Registry::spawn(&folder)).map(|(child, authority)| Registry {
            child,
            authority,
            folder,
        })
    }

    fn spawn(folder: &TempDir) -> Option<(Child, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let authority = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let root = folder.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: panic, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{authority}', secret: x}}\n",
            root.display()
        );
        let config = folder.path().join("config.yml");
        std::fs::write(&config, text).expect("a configuration");
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a registry");
        for _ in 0..500 {
            if TcpStream::connect(&authority).is_ok() {
                return Some((child, authority));
            }
            if child.try_wait().expect("a status").is_some() {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
        child.kill().and_then(|()| child.wait()).expect("an end");
        None
    }

    pub(crate) fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.authority).parse().expect(rest)
    }

    /// The file that a blob is kept in.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let blobs = self.folder.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    fn push_bytes(&self, name: &Reference, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, bytes);
        let open = || -> std::io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(std::io::Cursor::new(bytes.to_vec())))
        };
        client().push_blob(name, &descriptor, None, &open).expect("a blob is pushed");
        descriptor
    }

    /// Pushes an image of plain tar layers, in docker's dialect, and says what it is known by.
    pub(crate) fn push_image(&self, rest: &str, layers: &[Vec<u8>], architecture: &str) -> Published {
        let name = self.name(rest);
        let config = config(layers, architecture);
        let descriptors: Vec<Descriptor> =
            layers.iter().map(|layer| self.push_bytes(&name, media_type::DOCKER_LAYER, layer)).collect();
        let config = self.push_bytes(&name, media_type::DOCKER_CONFIG, &config);
        let manifest = Manifest::new(media_type::DOCKER_MANIFEST, config.clone(), descriptors.clone());
        // Spaces that nobody who rewrites it would keep.
        let bytes = serde_json::to_vec_pretty(&manifest).expect("JSON");
        let digest =
            client().push_manifest(&name, media_type::DOCKER_MANIFEST, &bytes).expect("a manifest is pushed");
        let descriptor = Descriptor::new(media_type::DOCKER_MANIFEST, digest, bytes.len() as u64);
        Published { manifest: descriptor, id: config.digest, layers: descriptors }
    }

    /// Pushes an index of images that are in the repository already.
    pub(crate) fn push_index(&self, rest: &str, entries: &[(&Published, &str)]) -> Descriptor {
        let entry = |(published, platform): &(&Published, &str)| Descriptor {
            platform: Some(platform.parse::<Platform>().expect(platform)),
            ..published.manifest.clone()
        };
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.into()),
            manifests: entries.iter().map(entry).collect(),
            annotations: Default::default(),
            other: Default::default(),
        };
        self.push_index_of(rest, &index)
    }

    pub(crate) fn push_index_of(&self, rest: &str, index: &Index) -> Descriptor {
        let bytes = serde_json::to_vec(index).expect("JSON");
        client().push_manifest(&self.name(rest), media_type::OCI_INDEX, &bytes).expect("an index is pushed");
        Descriptor::of(media_type::OCI_INDEX, &bytes)
    }

    /// Pushes an artifact of one file.
    pub(crate) fn push_artifact(&self, rest: &str, content: &[u8]) -> Descriptor {
        let name = self.name(rest);
        let config = self.push_bytes(&name, "application/vnd.oci.empty.v1+json", b"{}");
        let layer = self.push_bytes(&name, "application/vnd.example.data", content);
        let mut manifest = Manifest::new(media_type::OCI_MANIFEST, config, vec![layer]);
        manifest.artifact_type = Some("application/vnd.example.thing".into());
        let bytes = serde_json::to_vec_pretty(&manifest).expect("JSON");
        client().push_manifest(&name, media_type::OCI_MANIFEST, &bytes).expect("an artifact is pushed");
        Descriptor::of(media_type::OCI_MANIFEST, &bytes)
    }
}

/// An image in a registry.
pub(crate) struct Published {
    pub(crate) manifest: Descriptor,
    pub(crate) id: Digest,
    pub(crate) layers: Vec<Descriptor>,
}

fn config(layers: &[Vec<u8>], architecture: &str) -> Vec<u8> {
    let mut config = ImageConfig::scratch(&format!("linux/{architecture}").parse().expect(architecture));
    config.created = Some("2026-01-31T12:00:00Z".into());
    config.rootfs.diff_ids = layers.iter().map(|layer| DiffId::new(Digest::sha256_of(layer))).collect();
    serde_json::to_vec(&config).expect("JSON")
}

pub(crate) fn client() -> Client {
    Client::new(Config::default(), Keychain::anonymous())
}

/// A layer: folders end in a slash, files hold their own path `repeat` times.
pub(crate) fn layer(entries: &[(&str, u32)], repeat: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(*mode);
        header.set_mtime(1);
        let is_folder = path.ends_with('/');
        header.set_entry_type(if is_folder { tar::EntryType::Directory } else { tar::EntryType::Regular });
        let content = if is_folder { String::new() } else { path.repeat(repeat) };
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).expect("an entry");
    }
    tar.into_inner().expect("a tar")
}

/// A store with its snapshots.
pub(crate) struct Home {
    pub(crate) images: Images,
    pub(crate) folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Home {
        let folder = tempfile::tempdir().expect("a folder");
        Home { images: open(folder.path()), folder }
    }

    pub(crate) fn pull(&self, name: &Reference) -> Result<Pulled, PullError> {
        self.pull_for(name, "linux/amd64")
    }

    pub(crate) fn pull_for(&self, name: &Reference, platform: &str) -> Result<Pulled, PullError> {
        pull(&self.images, name, platform, &|_| {})
    }

    pub(crate) fn pull_all(&self, name: &Reference) -> Result<Pulled, PullError> {
        let lease = self.images.store().lease("test").expect("a lease");
        let platform = "linux/amd64".parse().expect("a platform");
        let request = PullRequest { reference: name, platform: &platform, all_platforms: true };
        self.images.pull(&client(), &request, &lease, NOW, &|_| {})
    }

    /// Saves what `texts` name as a layout that docker reads as well.
    pub(crate) fn save(&self, texts: &[String], platforms: &[Platform]) -> Vec<u8> {
        let items = self.images.save_items(texts).expect("images");
        let lease = self.images.store().lease("test").expect("a lease");
        let mut bytes = Vec::new();
        let request = SaveRequest { items: &items, platforms, docker: true };
        self.images.save(&request, &lease, LayoutTarget::Archive(&mut bytes)).expect("it is saved");
        bytes
    }

    pub(crate) fn load(&self, archive: impl Read) -> Result<Vec<Loaded>, LoadError> {
        self.load_for(archive, &[])
    }

    pub(crate) fn load_for(
        &self,
        archive: impl Read,
        platforms: &[Platform],
    ) -> Result<Vec<Loaded>, LoadError> {
        let lease = self.images.store().lease("test").expect("a lease");
        self.images.load(LoadSource::Archive(Box::new(archive)), platforms, &lease, NOW, &|_| {})
    }

    pub(crate) fn assert_sound(&self) {
        assert_eq!(self.images.fsck().expect("a check").problems, []);
    }
}

/// Opens a store as another process would.
pub(crate) fn open(folder: &Path) -> Images {
    let store = Store::open(folder).expect("a store");
    let snapshots = OverlaySnapshotter::open(&folder.join("snapshots")).expect("snapshots");
    Images::new(store, Arc::new(snapshots))
}

pub(crate) fn pull(
    images: &Images,
    name: &Reference,
    platform: &str,
    observer: &(dyn Fn(&PullEvent) + Sync),
) -> Result<Pulled, PullError> {
    let lease = images.store().lease("test").expect("a lease");
    let platform = platform.parse().expect(platform);
    let request = PullRequest { reference: name, platform: &platform, all_platforms: false };
    images.pull(&client(), &request, &lease, NOW, observer)
}
