//! Seccomp profiles as docker's users write them: what is allowed may depend on the container's capabilities, the machine
//! and the kernel. The result is that of the runtime specification, where nothing depends on anything.

use dhow_sys::capability::{Capabilities, Capability};
use serde::Deserialize;
use serde_json::{Value, json};

use super::SpecError;

/// This machine, in Go's words and in libseccomp's.
const MACHINE: (&str, &str) =
    if cfg!(target_arch = "x86_64") { ("amd64", "SCMP_ARCH_X86_64") } else { ("arm64", "SCMP_ARCH_AARCH64") };

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<ArchitectureMap>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Syscall>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscall {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Value>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

/// What a rule depends on.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// The profile for a container with `capabilities` on this machine.
pub(super) fn resolve(text: &str, capabilities: Capabilities) -> Result<Value, SpecError> {
    resolve_for(text, capabilities, kernel())
}

fn resolve_for(text: &str, capabilities: Capabilities, kernel: (u32, u32)) -> Result<Value, SpecError> {
    let wrong = |text: String| SpecError::Seccomp(text);
    let profile: Profile = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let mut architectures = profile.architectures.clone();
    if !architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(wrong("use either 'architectures' or 'archMap'".into()));
    }
    if let Some(map) = profile.arch_map.iter().find(|map| map.architecture == MACHINE.1) {
        architectures.push(map.architecture.clone());
        architectures.extend(map.sub_architectures.iter().flatten().cloned());
    }
    let host = Host { capabilities, kernel };
    let mut syscalls = Vec::new();
    for syscall in &profile.syscalls {
        if !syscall.name.is_empty() && !syscall.names.is_empty() {
            return Err(wrong("use either 'name' or 'names'".into()));
        }
        if host.excludes(&syscall.excludes)? || !host.includes(&syscall.includes)? {
            continue;
        }
        let names: Vec<&String> =
            syscall.names.iter().chain((!syscall.name.is_empty()).then_some(&syscall.name)).collect();
        let mut rule = json!({ "names": names, "action": syscall.action });
        if let Some(errno) = syscall.errno_ret {
            rule["errnoRet"] = errno.into();
        }
        if let Some(args) = syscall.args.as_ref().filter(|args| !args.is_empty()) {
            rule["args"] = json!(args);
        }
        syscalls.push(rule);
    }
    let mut resolved = json!({ "defaultAction": profile.default_action, "syscalls": syscalls });
    if let Some(errno) = profile.default_errno_ret {
        resolved["defaultErrnoRet"] = errno.into();
    }
    if !architectures.is_empty() {
        resolved["architectures"] = json!(architectures);
    }
    if !profile.flags.is_empty() {
        resolved["flags"] = json!(profile.flags);
    }
    Ok(resolved)
}

struct Host {
    capabilities: Capabilities,
    kernel: (u32, u32),
}

impl Host {
    /// One of the capabilities or machines is enough.
    fn excludes(&self, condition: &Condition) -> Result<bool, SpecError> {
        Ok(condition.arches.iter().any(|arch| arch == MACHINE.0)
            || condition.caps.iter().any(|name| self.has(name))
            || self.is_at_least(condition)?.unwrap_or(false))
    }

    /// All capabilities are needed.
    fn includes(&self, condition: &Condition) -> Result<bool, SpecError> {
        Ok((condition.arches.is_empty() || condition.arches.iter().any(|arch| arch == MACHINE.0))
            && condition.caps.iter().all(|name| self.has(name))
            && self.is_at_least(condition)?.unwrap_or(true))
    }

    /// Nobody has a capability that is none.
    fn has(&self, name: &str) -> bool {
        name.parse::<Capability>().is_ok_and(|capability| self.capabilities.contains(capability))
    }

    fn is_at_least(&self, condition: &Condition) -> Result<Option<bool>, SpecError> {
        let Some(text) = &condition.min_kernel else { return Ok(None) };
        let wrong = || SpecError::Seccomp(format!("invalid kernel version: {text}"));
        Ok(Some(self.kernel >= version(text).ok_or_else(wrong)?))
    }
}

/// The first two numbers of a kernel's version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel() -> (u32, u32) {
    rustix::system::uname().release().to_str().ok().and_then(version).unwrap_or((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{ "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"] },
                    { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] }],
        "syscalls": [
            { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
            { "name": "ptrace", "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } },
            { "names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "99.0" } },
            { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 5, "valueTwo": 0,
              "op": "SCMP_CMP_MASKED_EQ" }], "excludes": { "caps": ["CAP_SYS_ADMIN"], "arches": ["s390"] } }
        ] }"#;

    fn names(capabilities: Capabilities) -> String {
        let resolved = resolve_for(PROFILE, capabilities, (6, 1)).expect("a profile");
        let syscalls = resolved["syscalls"].as_array().expect("rules").clone();
        let names = syscalls.iter().flat_map(|rule| rule["names"].as_array().expect("names").clone());
        names.map(|name| name.as_str().expect("a name").to_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rules_depend_on_capabilities_and_kernel() {
        assert_eq!(names(Capabilities::default()), "read write ptrace clone");
        let admin: Capability = "SYS_ADMIN".parse().expect("a capability");
        assert_eq!(names([admin].into_iter().collect()), "read write ptrace mount");
    }

    #[test]
    fn machines_are_those_that_the_native_one_brings() {
        let resolved = resolve_for(PROFILE, Capabilities::default(), (6, 1)).expect("a profile");
        assert_eq!(resolved["architectures"][0], MACHINE.1);
        assert_eq!(resolved["defaultErrnoRet"], 1);
    }

    #[test]
    fn what_is_no_profile_is_said() {
        let error = |text: &str| resolve(text, Capabilities::default()).expect_err(text).to_string();
        assert!(error("{").starts_with("Decoding seccomp profile failed: EOF"));
        let twice = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_LOG"}]}"#;
        assert_eq!(error(twice), "Decoding seccomp profile failed: use either 'name' or 'names'");
    }
}
