//! `SOURCE_DATE_EPOCH`: no time in the image is later than it, so that it does not matter when it is built.

use dhow_oci::ImageConfig;

use super::{Export, Made};
use crate::error::ExportError;
use crate::output::PackRequest;
use crate::request::BuildRequest;

pub(crate) const NAME: &str = "SOURCE_DATE_EPOCH";

/// What `SOURCE_DATE_EPOCH` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Epoch {
    /// This time, in seconds since 1970.
    At(i64),
    /// That of the build context: of its commit, or of what was downloaded. A folder has none.
    Context,
    /// That of a named context, or of what a stage adds.
    Named(String),
}

/// The value of `SOURCE_DATE_EPOCH` is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid {NAME} {value:?}: write seconds since 1970, `context`, or the name of a build context or stage"
)]
pub struct EpochError {
    value: String,
}

impl EpochError {
    pub(crate) fn new(value: &str) -> EpochError {
        EpochError { value: value.to_owned() }
    }
}

impl Epoch {
    /// What the build arguments say.
    pub(crate) fn of(request: &BuildRequest) -> Result<Option<Epoch>, EpochError> {
        match request.build_args.get(NAME).map(String::as_str) {
            None | Some("") => Ok(None),
            Some("context") => Ok(Some(Epoch::Context)),
            Some(value) => {
                let seconds =
                    value.parse().ok().filter(|seconds| jiff::Timestamp::from_second(*seconds).is_ok());
                // Names of stages begin with a letter; those of contexts are known.
                let is_name = request.sources.named.contains_key(value)
                    || value.starts_with(|first: char| first.is_ascii_alphabetic());
                let named = || is_name.then(|| Epoch::Named(value.to_owned()));
                seconds.map(Epoch::At).or_else(named).map(Some).ok_or_else(|| EpochError::new(value))
            }
        }
    }
}

impl Export<'_, '_> {
    /// The configuration with the times it is to have, and with layers whose files have them too.
    pub(super) fn timed(&self, made: &Made, pack: &PackRequest) -> Result<ImageConfig, ExportError> {
        let mut config = made.config.clone();
        let Some(epoch) = pack.epoch.or(self.epoch) else {
            if pack.rewrite_timestamp == Some(true) {
                let message = "rewrite-timestamp wants a time: set SOURCE_DATE_EPOCH";
                return Err(ExportError::Invalid(message.to_owned()));
            }
            return Ok(config);
        };
        date(&mut config, epoch);
        if pack.rewrite_timestamp.unwrap_or(true) {
            self.say("rewriting layers with SOURCE_DATE_EPOCH");
            let stack = made.config.rootfs.diff_ids.clone();
            for position in made.base_layers..stack.len() {
                let cut = self.images.cut_times(&stack, position, epoch, self.lease)?;
                config.rootfs.diff_ids[position] = cut;
            }
        }
        Ok(config)
    }
}

/// Puts `epoch` in the place of every later time, and of every time that is not known.
fn date(config: &mut ImageConfig, epoch: i64) {
    let Ok(at) = jiff::Timestamp::from_second(epoch) else { return };
    let text = at.to_string();
    let is_later = |created: &Option<String>| {
        let parsed = created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        parsed.is_none_or(|created| created > at)
    };
    for entry in config.history.iter_mut().filter(|entry| is_later(&entry.created)) {
        entry.created = Some(text.clone());
    }
    config.created = Some(text);
}

#[cfg(test)]
mod tests {
    use dhow_oci::History;

    use super::*;

    fn epoch(value: &str) -> Result<Option<Epoch>, EpochError> {
        let mut request = BuildRequest::new(std::path::PathBuf::from("."));
        request.build_args.insert(NAME.to_owned(), value.to_owned());
        request.sources.named.insert("vendor".to_owned(), "https://h/x.git".to_owned());
        Epoch::of(&request)
    }

    #[test]
    fn the_epoch_is_a_number_or_a_context() {
        assert_eq!(epoch("1700000000"), Ok(Some(Epoch::At(1_700_000_000))));
        assert_eq!(epoch("0"), Ok(Some(Epoch::At(0))));
        assert_eq!(epoch(""), Ok(None));
        assert_eq!(epoch("context"), Ok(Some(Epoch::Context)));
        assert_eq!(epoch("vendor"), Ok(Some(Epoch::Named("vendor".to_owned()))));
        assert_eq!(epoch("stage"), Ok(Some(Epoch::Named("stage".to_owned()))));
        for wrong in ["-", "99999999999999999", "1.5"] {
            assert!(epoch(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn earlier_times_stay() {
        let entry = |created: &str| History { created: Some(created.to_owned()), ..History::default() };
        let mut config = ImageConfig {
            created: Some("2026-01-01T00:00:00Z".to_owned()),
            history: vec![entry("1999-12-31T00:00:00Z"), entry("2026-01-01T00:00:00Z"), History::default()],
            ..ImageConfig::default()
        };
        date(&mut config, 1_000_000_000);
        let created: Vec<_> = config.history.iter().filter_map(|entry| entry.created.as_deref()).collect();
        assert_eq!(created, ["1999-12-31T00:00:00Z", "2001-09-09T01:46:40Z", "2001-09-09T01:46:40Z"]);
        assert_eq!(config.created.as_deref(), Some("2001-09-09T01:46:40Z"));
    }
}
