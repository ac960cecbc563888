//! What the result of a `RUN` depends on, apart from files.

use dhow_oci::Digest;
use dhow_solver::{FactKind, Facts};

use crate::facts::is_secret;
use crate::plan::{EnvVar, RunOp, Sandbox};

/// As in BuildKit: proxies, addresses of further hosts, limits of resources, secrets, and what is in caches do
/// not count.
pub(crate) fn run_facts(run: &RunOp, facts: &mut Facts) {
    facts.text(FactKind::Instruction, "", format!("RUN {}", run.args.join(" ")));
    // The words, since joined they may read the same.
    let words = Digest::sha256_of(run.args.join("\0").as_bytes());
    facts.content(FactKind::Option, "arguments", words);
    if let Some(script) = &run.script {
        facts.content(FactKind::Option, "script", Digest::sha256_of(script.content.as_bytes()));
    }
    facts.text(FactKind::Option, "working directory", run.cwd.as_str());
    facts.text(FactKind::Option, "user", run.user.as_str());
    facts.text(FactKind::Option, "network", run.network.name());
    if let Some(platform) = &run.foreign {
        facts.text(FactKind::Option, "platform", platform.to_string());
    }
    sandbox_facts(&run.sandbox, facts);
    for mount in &run.mounts {
        facts.text(FactKind::Option, mount.name(), mount.fact());
    }
    for EnvVar { name, value, is_arg } in &run.env {
        let kind = if *is_arg { FactKind::BuildArg } else { FactKind::Env };
        if is_secret(name) {
            facts.hidden(kind, name, value);
        } else {
            facts.text(kind, name, value);
        }
    }
}

fn sandbox_facts(sandbox: &Sandbox, facts: &mut Facts) {
    let mut option = |name: &str, value: String| {
        if !value.is_empty() {
            facts.text(FactKind::Option, name, value);
        }
    };
    option("host name", sandbox.hostname.clone());
    option("security", if sandbox.is_insecure { "insecure".to_owned() } else { String::new() });
    let mut names: Vec<&str> = sandbox.hosts.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    option("--add-host", names.join(" "));
    let limits = sandbox.rlimits.iter().map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard));
    option("--ulimit", limits.collect::<Vec<_>>().join(" "));
    option("--shm-size", sandbox.shm_bytes.map(|bytes| bytes.to_string()).unwrap_or_default());
    option("--cgroup-parent", sandbox.cgroup_parent.clone());
}
