//! The flags of `dhow build` about where files come from.

use dhow_engine::{Modes, SourceRequest};

#[derive(clap::Args, Debug)]
pub(crate) struct SourceArgs {
    /// Modes of files in the build context: as on disk, or as git keeps them, so that the umask of a checkout
    /// makes no difference
    #[arg(long, value_enum, default_value = "exact")]
    context_mode: ContextModeArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ContextModeArg {
    /// As on disk
    Exact,
    /// 0755 for folders and what its owner may execute, 0644 for other files
    Git,
}

impl SourceArgs {
    pub(crate) fn request(self) -> SourceRequest {
        let modes = match self.context_mode {
            ContextModeArg::Exact => Modes::Exact,
            ContextModeArg::Git => Modes::Git,
        };
        SourceRequest { modes }
    }
}
