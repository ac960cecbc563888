//! Instructions outside a Dockerfile: the `--change` of commit and import.

use dhow_dockerfile::{Instruction, InstructionKind};
use dhow_oci::ImageConfig;

use crate::configure::{apply, join_path};
use crate::scope::{Declared, Scope};

/// Why an instruction does not change an image's configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It cannot be read.
    #[error("{text}: {reason}")]
    Invalid {
        /// The instruction.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// It would need a build.
    #[error("{0} is not a valid change command")]
    NotAChange(&'static str),
}

/// Applies one instruction to an image's configuration.
pub fn change(config: &mut ImageConfig, text: &str) -> Result<(), ChangeError> {
    let invalid = |reason: String| ChangeError::Invalid { text: text.to_owned(), reason };
    let (instruction, diagnostics) = Instruction::parse(text);
    if let Some(error) = diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(invalid(error.message.clone()));
    }
    let Some(Instruction { kind, .. }) = instruction else {
        return Err(invalid("expected an instruction".to_owned()));
    };
    let before = config.clone();
    let scope = Scope { config: &before, declared: &Declared::default(), escape: '\\' };
    match &kind {
        InstructionKind::Workdir(path) => {
            let path = scope.expand(path).map_err(|error| invalid(error.to_string()))?;
            config.config.working_dir = join_path(&config.config.working_dir, &path);
        }
        InstructionKind::Add(_)
        | InstructionKind::Arg(_)
        | InstructionKind::Copy(_)
        | InstructionKind::Run(_) => {
            return Err(ChangeError::NotAChange(kind.name()));
        }
        // An ENTRYPOINT leaves the CMD of the container alone.
        kind => drop(apply(config, &scope, kind, &mut true).map_err(invalid)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<ImageConfig, String> {
        let mut config = ImageConfig::default();
        config.config.working_dir = "/app".into();
        config.config.cmd = Some(vec!["old".into()]);
        change(&mut config, text).map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_change_is_an_instruction_of_configuration() {
        assert_eq!(
            check("CMD [\"a\", \"b\"]").map(|config| config.config.cmd),
            Ok(Some(vec!["a".into(), "b".into()]))
        );
        assert_eq!(check("WORKDIR sub").map(|config| config.config.working_dir), Ok("/app/sub".into()));
        assert_eq!(check("ENV A=1").map(|config| config.config.env), Ok(vec!["A=1".to_owned()]));
        let entrypoint = check("ENTRYPOINT [\"x\"]").map(|config| config.config.cmd);
        assert_eq!(entrypoint, Ok(Some(vec!["old".into()])));
        assert_eq!(check("RUN true").unwrap_err(), "RUN is not a valid change command");
        assert!(check("PUSH x").is_err());
    }
}
