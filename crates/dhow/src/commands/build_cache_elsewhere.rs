use dhow_engine::{CacheElsewhere, CacheFrom, CacheTo};

use crate::error::CliError;

/// The build argument that asks for a cache within the image, as docker's users know it.
const INLINE_ARG: &str = "BUILDKIT_INLINE_CACHE";

/// Caches elsewhere
#[derive(clap::Args, Debug)]
pub(crate) struct CacheArgs {
    /// Cache that others wrote: an image, or type=registry,ref=... or type=local,src=... (can be repeated)
    #[arg(long = "cache-from", value_name = "NAME|ATTRIBUTES")]
    from: Vec<String>,
    /// Cache to write for others: type=inline, type=registry,ref=... or type=local,dest=..., with mode=max for
    /// all steps (can be repeated)
    #[arg(long = "cache-to", value_name = "NAME|ATTRIBUTES")]
    to: Vec<String>,
}

impl CacheArgs {
    /// The caches asked for; `build_arg` is the value of a build argument.
    pub(crate) fn caches<'a>(
        &self,
        build_arg: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<CacheElsewhere, CliError> {
        let bad = |flag: &str, text: &String, error| {
            CliError::new(format!("invalid argument \"{text}\" for \"{flag}\" flag: {error}"))
        };
        let from = self.from.iter().filter(|text| !text.is_empty());
        let from =
            from.map(|text| text.parse::<CacheFrom>().map_err(|error| bad("--cache-from", text, error)));
        let to = self.to.iter().filter(|text| !text.is_empty());
        let to = to.map(|text| text.parse::<CacheTo>().map_err(|error| bad("--cache-to", text, error)));
        let mut caches =
            CacheElsewhere { from: from.collect::<Result<_, _>>()?, to: to.collect::<Result<_, _>>()? };
        let is_wanted = build_arg(INLINE_ARG).is_some_and(|value| matches!(value, "1" | "true"));
        if is_wanted && !caches.is_inline() {
            caches.to.push(CacheTo::inline());
        }
        Ok(caches)
    }
}
