use std::path::PathBuf;

use crate::error::CliError;
use crate::ui::Ui;

/// What is for those who work on dhow itself.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum DebugCommand {
    /// Print the syntax tree of a Dockerfile as BuildKit's parser prints it
    #[command(hide = true)]
    DockerfileAst {
        /// The Dockerfile
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

impl DebugCommand {
    pub(crate) fn run(&self, ui: &mut Ui) -> Result<u8, CliError> {
        let DebugCommand::DockerfileAst { file } = self;
        let text = std::fs::read(file)
            .map_err(|error| CliError::new(format!("cannot read {}: {error}", file.display())))?;
        let tree = dhow_engine::dockerfile_ast(&String::from_utf8_lossy(&text)).map_err(CliError::new)?;
        ui.line(tree)?;
        Ok(0)
    }
}
