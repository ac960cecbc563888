//! What happens to containers when the host comes up and goes down.

use dhow_runtime::RestartPolicy;

use crate::containers::Containers;
use crate::error::FindError;
use crate::record::{Container, State};

impl Containers {
    /// The containers that are to run and do not, in the order in which they were made: those with the policy
    /// `always`, and with `unless-stopped` those that their user had not stopped. Who never ran is not among them.
    pub fn to_start_after_boot(&self) -> Result<Vec<Container>, FindError> {
        let mut containers = self.list()?;
        containers.retain(|container| {
            matches!(container.state, State::Exited { .. })
                && match container.record.host.restart {
                    RestartPolicy::Always => true,
                    RestartPolicy::UnlessStopped => !dhow_runtime::was_stopped(&self.bundle(&container.id)),
                    RestartPolicy::No | RestartPolicy::OnFailure { .. } => false,
                }
        });
        containers.reverse();
        Ok(containers)
    }
}
