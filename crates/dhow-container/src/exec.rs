//! One more process in a running container.

use dhow_runtime::{ExecEnd, ExecRequest, ExecStreams};

use crate::containers::Containers;
use crate::error::FindError;
use crate::name::random_id;
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
    /// The system has no random numbers.
    #[error("cannot make an id: {0}")]
    Random(#[from] getrandom::Error),
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
        let exec_id = random_id()?;
        let (id, command) = (("execID", exec_id), request.args.join(" "));
        self.tell(&container, &format!("exec_create: {command}"), std::slice::from_ref(&id));
        self.tell(&container, &format!("exec_start: {command}"), std::slice::from_ref(&id));
        let end = dhow_runtime::exec(&run_dir, &bundle, request, streams)?;
        match &end {
            ExecEnd::Exited(code) => {
                self.tell(&container, "exec_die", &[id, ("exitCode", code.to_string())]);
            }
            // Who was not attached cannot have left.
            ExecEnd::Detached if request.detach => {}
            ExecEnd::Detached => self.tell(&container, "exec_detach", &[id]),
        }
        Ok(end)
    }
}
