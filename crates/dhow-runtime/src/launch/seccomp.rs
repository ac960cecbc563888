//! From the seccomp section of a runtime configuration to a filter.

use dhow_sys::seccomp::{Action, Compare, Condition, Filter, Program, Rule};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::step::Step;
use crate::StartError;

const EPERM: u32 = 1;

/// Compiles the profile for this machine.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Program, StartError> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut rules = Vec::new();
    for syscall in profile.syscalls().iter().flatten() {
        let conditions = conditions(syscall)?;
        let action = action(syscall.action(), syscall.errno_ret())?;
        // A rule that says what happens anyway would only hide a later one.
        if action == default {
            continue;
        }
        let names = syscall.names().iter();
        rules.extend(names.map(|name| Rule { name: name.clone(), conditions: conditions.clone(), action }));
    }
    Filter { default, rules }.compile().step("cannot compile the seccomp profile")
}

fn conditions(syscall: &LinuxSyscall) -> Result<Vec<Condition>, StartError> {
    syscall.args().iter().flatten().map(condition).collect()
}

fn condition(arg: &LinuxSeccompArg) -> Result<Condition, StartError> {
    let value = arg.value();
    let compare = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => Compare::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Compare::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Compare::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpEq => Compare::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Compare::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Compare::Greater(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Compare::Masked { mask: value, value: arg.value_two().unwrap_or(0) }
        }
    };
    match u8::try_from(arg.index()) {
        Ok(argument @ 0..=5) => Ok(Condition { argument, compare }),
        _ => Err(StartError::Setup(
            "the seccomp profile names an argument that system calls do not have".into(),
        )),
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Action, StartError> {
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
        LinuxSeccompAction::ScmpActErrno => Action::Errno(errno.unwrap_or(EPERM) as u16),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Action::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => Action::KillProcess,
        LinuxSeccompAction::ScmpActTrap => Action::Trap,
        LinuxSeccompAction::ScmpActLog => Action::Log,
        other @ (LinuxSeccompAction::ScmpActNotify | LinuxSeccompAction::ScmpActTrace) => {
            return Err(StartError::Setup(format!("the seccomp action {other:?} is not supported")));
        }
    })
}
