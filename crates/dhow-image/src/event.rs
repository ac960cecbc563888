use dhow_oci::Digest;

/// What happens while an image arrives. Layers are known by the digest they travel under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// The image is not here, or may be out of date: its registry is asked.
    Started,
    /// A layer is about to be fetched.
    LayerStarted {
        /// The layer.
        digest: Digest,
        /// Bytes it will take.
        size_bytes: u64,
    },
    /// More of a layer has come.
    LayerProgress {
        /// The layer.
        digest: Digest,
        /// Bytes so far.
        bytes: u64,
    },
    /// A layer is here already.
    LayerExists {
        /// The layer.
        digest: Digest,
    },
    /// A layer is fetched, checked and unpacked.
    LayerDone {
        /// The layer.
        digest: Digest,
    },
    /// Something the user should know, though the work goes on.
    Warning(String),
}

/// Who is told what happens; several threads call it.
pub type PullObserver<'a> = dyn Fn(&PullEvent) + Sync + 'a;
