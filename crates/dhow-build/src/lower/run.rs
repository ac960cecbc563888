//! What a `RUN` means.

use dhow_dockerfile::{NetworkMode, RunInstruction, Script, Security};

use super::{Current, Lowering, Written, layer_history};
use crate::configure;
use crate::error::BuildError;
use crate::plan::{Op, RunOp};
use crate::request::StepNetwork;

impl Lowering<'_> {
    pub(super) fn run(
        &mut self,
        current: &mut Current,
        run: &RunInstruction,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        self.refuse(at.span, !run.mounts.is_empty(), "RUN --mount")?;
        self.refuse(at.span, !run.devices.is_empty(), "RUN --device")?;
        self.refuse(at.span, run.security == Security::Insecure, "RUN --security=insecure")?;
        let scope = self.scope(current);
        let shell = configure::shell(scope.config);
        let args = match run.script() {
            Script::Exec(words) => words,
            Script::Shell(text) => shell.into_iter().chain([text]).collect(),
            Script::File { .. } => return self.refuse(at.span, true, "a heredoc that starts with #!"),
        };
        let env = scope.environment();
        let visible: Vec<String> = current
            .end
            .declared
            .visible(scope.config)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let config = &scope.config.config;
        let op = RunOp {
            args: args.clone(),
            env,
            proxies: self.arguments.proxies(),
            cwd: configure::join_path("/", &config.working_dir),
            user: config.user.clone(),
            network: match run.network {
                NetworkMode::Default => self.request.network,
                NetworkMode::None => StepNetwork::None,
                NetworkMode::Host => StepNetwork::Host,
            },
        };
        let count = if visible.is_empty() {
            String::new()
        } else {
            format!("|{} {} ", visible.len(), visible.join(" "))
        };
        let created_by = format!("RUN {count}{} # buildkit", args.join(" "));
        let inputs = vec![current.end.planned.vertex];
        let vertex = self.vertex(current, Op::Run(op), inputs, at.text);
        self.step(current, at, Some(vertex), Some(layer_history(created_by)));
        Ok(())
    }
}
