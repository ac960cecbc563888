//! Where the checkout and its by-products are.

use std::env;
use std::path::{Path, PathBuf};

/// The checkout.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// Cargo's folder for by-products, which is also ours.
pub(crate) fn target() -> PathBuf {
    // Joining an absolute path replaces the base, which is what cargo does with this variable.
    workspace().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
