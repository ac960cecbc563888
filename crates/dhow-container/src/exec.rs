//! One more process in a running container.

use dhow_runtime::{ExecEnd, ExecRequest, ExecStreams};

use crate::containers::Containers;
use crate::error::FindError;
use crate::record::State;

/// Why no process was started in a container.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// It is between two runs.
    #[error("Container {0} is restarting, wait until the container is running")]
    Restarting(String),
    /// It is held.
    #[error("Container {0} is paused, unpause the container before exec")]
    Paused(String),
    /// The program was not started.
    #[error(transparent)]
    Runtime(#[from] dhow_runtime::StartError),
}

impl Containers {
    /// Runs one more process in a running container, to its end unless it is detached.
    pub fn exec(
        &self,
        text: &str,
        request: &ExecRequest,
        streams: ExecStreams<'_>,
    ) -> Result<ExecEnd, ExecError> {
        let container = self.find(text)?;
        match container.state {
            State::Running { paused: true, .. } => return Err(ExecError::Paused(text.into())),
            State::Running { .. } => {}
            State::Restarting { .. } => return Err(ExecError::Restarting(container.id)),
            _ => return Err(ExecError::NotRunning(container.id)),
        }
        let (run_dir, bundle) = (self.run_dir(&container.id), self.bundle(&container.id));
        self.tell(&container, &format!("exec_start: {}", request.args.join(" ")), &[]);
        let end = dhow_runtime::exec(&run_dir, &bundle, request, streams)?;
        if let ExecEnd::Exited(code) = &end {
            self.tell(&container, "exec_die", &[("exitCode", code.to_string())]);
        }
        Ok(end)
    }
}
