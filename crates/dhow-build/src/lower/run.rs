//! What a `RUN` means.

use dhow_dockerfile::{NetworkMode, RunInstruction, Script, Security};
use dhow_oci::Platform;
use dhow_runtime::Rlimit;

use super::{Current, Lowering, Written, layer_history};
use crate::configure;
use crate::error::BuildError;
use crate::plan::{HOSTNAME, Op, RunOp, Sandbox, ScriptFile};
use crate::request::StepNetwork;
use crate::run::RunError;

/// Where scripts given in place are.
const PIPES_DIR: &str = "/dev/pipes";
/// The build argument that calls it something else.
const HOSTNAME_ARG: &str = "BUILDKIT_SANDBOX_HOSTNAME";

impl Lowering<'_> {
    pub(super) fn run(
        &mut self,
        current: &mut Current,
        run: &RunInstruction,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        self.refuse(at.span, !run.devices.is_empty(), "RUN --device")?;
        self.check_entitlements(run, at)?;
        let mut inputs = vec![current.end.planned.vertex];
        let mounts = self.mounts(current, &run.mounts, at, &mut inputs)?;
        let scope = self.scope(current);
        let shell = configure::shell(scope.config);
        let mut script = None;
        let args: Vec<String> = match run.script() {
            Script::Exec(words) => words,
            Script::Shell(text) => shell.into_iter().chain([text]).collect(),
            Script::File { name, content } => {
                let path = format!("{PIPES_DIR}/{name}");
                script = Some(ScriptFile { path: path.clone(), content });
                shell.into_iter().chain([path]).collect()
            }
        };
        let env = scope.environment();
        let arguments = scope.arguments();
        let config = &scope.config.config;
        let op = RunOp {
            args: args.clone(),
            script,
            env,
            proxies: self.arguments.proxies(),
            cwd: configure::join_path("/", &config.working_dir),
            user: config.user.clone(),
            network: match run.network {
                NetworkMode::Default => self.request.network,
                NetworkMode::None => StepNetwork::None,
                NetworkMode::Host => StepNetwork::Host,
            },
            mounts,
            sandbox: self.sandbox(run),
            foreign: Some(scope.config.platform()).filter(|platform| !platform.runs_on(&Platform::host())),
        };
        let count = if arguments.is_empty() {
            String::new()
        } else {
            format!("|{} {} ", arguments.len(), arguments.join(" "))
        };
        let created_by = format!("RUN {count}{} # buildkit", args.join(" "));
        let vertex = self.vertex(current, Op::Run(Box::new(op)), inputs, at.text);
        self.step(current, at, Some(vertex), Some(layer_history(created_by)));
        Ok(())
    }

    /// What reaches beyond the container is done only if whoever builds allows it. `--network=host` for the
    /// whole build is such a permission.
    fn check_entitlements(&self, run: &RunInstruction, at: &Written<'_>) -> Result<(), BuildError> {
        let granted = self.request.run.entitlements;
        let has_host_network = granted.network_host || self.request.network == StepNetwork::Host;
        let missing = if run.network == NetworkMode::Host && !has_host_network {
            ("RUN --network=host", "network.host")
        } else if run.security == Security::Insecure && !granted.security_insecure {
            ("RUN --security=insecure", "security.insecure")
        } else {
            return Ok(());
        };
        let error = RunError::Entitlement { what: missing.0, name: missing.1 };
        Err(self.fail(at.span, error.into()))
    }

    fn sandbox(&self, run: &RunInstruction) -> Sandbox {
        let options = &self.request.run;
        let hostname = self.request.build_args.get(HOSTNAME_ARG).filter(|name| !name.is_empty());
        let mut rlimits: Vec<Rlimit> = options.rlimits.clone();
        rlimits.sort_by(|a, b| a.name.cmp(&b.name));
        Sandbox {
            hostname: hostname.cloned().unwrap_or_else(|| HOSTNAME.to_owned()),
            is_insecure: run.security == Security::Insecure,
            hosts: options.hosts.clone(),
            rlimits,
            shm_bytes: options.shm_bytes,
            cgroup_parent: options.cgroup_parent.clone(),
            resources: options.resources.clone(),
        }
    }
}
