//! RUN.
use super::{Typing, command};
use crate::csv;
use crate::diagnostic::Diagnostic;
use crate::flags::{FlagKind, FlagSpec};
use crate::instruction::{Device, NetworkMode, RunInstruction, Security};
use crate::mount::MountSpec;
use crate::suggest::did_you_mean;

const RUN_FLAGS: &FlagSpec = &[
    ("mount", FlagKind::List),
    ("network", FlagKind::Text),
    ("security", FlagKind::Text),
    ("device", FlagKind::List),
];

impl Typing<'_> {
    pub(super) fn run(&mut self) -> Option<RunInstruction> {
        let flags = self.flags(RUN_FLAGS)?;
        let mounts: Vec<MountSpec> = flags.list("mount").into_iter().map(|text| MountSpec { text }).collect();
        self.check_mounts(&mounts);
        let network = match flags.text("network").as_deref() {
            None | Some("default") => NetworkMode::Default,
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            Some(other) => return self.fail(format!("invalid network mode {other:?}")),
        };
        let security = match flags.text("security").as_deref() {
            None | Some("sandbox") => Security::Sandbox,
            Some("insecure") => Security::Insecure,
            Some(other) => return self.fail(format!("security {other:?} is not valid")),
        };
        let devices = flags.list("device").iter().map(|text| device(text)).collect::<Result<_, _>>();
        let devices = match devices {
            Ok(devices) => devices,
            Err(error) => return self.fail(error),
        };
        let heredocs = std::mem::take(&mut self.heredocs);
        Some(RunInstruction {
            command: command(self.operands()),
            heredocs,
            mounts,
            network,
            security,
            devices,
        })
    }

    fn check_mounts(&mut self, mounts: &[MountSpec]) {
        for mount in mounts {
            match (mount.check(), mount.problem()) {
                (Err(error), _) => self.diagnostics.push(Diagnostic::error(self.span, error.to_string())),
                (Ok(()), Some(problem)) => self.warn(format!("this step will fail: {problem}"), None),
                (Ok(()), None) => {}
            }
        }
    }
}

fn device(text: &str) -> Result<Device, String> {
    let mut device = Device::default();
    for field in csv::fields(text).map_err(|error| format!("failed to parse csv devices: {error}"))? {
        match field.split_once('=') {
            None if field.eq_ignore_ascii_case("required") => device.required = true,
            Some((key, value)) if key.eq_ignore_ascii_case("required") => {
                device.required =
                    value.parse().map_err(|_| format!("invalid value for required: {value}"))?;
            }
            Some((key, value)) if key.eq_ignore_ascii_case("name") => {
                if !device.name.is_empty() {
                    return Err(format!("device name already set to {}", device.name));
                }
                device.name = value.to_owned();
            }
            _ if device.name.is_empty() => device.name = field,
            Some((key, _)) => {
                let known = did_you_mean(key, &["name", "required"]);
                return Err(format!("unexpected key '{key}' in '{field}'{known}"));
            }
            None => return Err(format!("invalid field '{field}' must be a key=value pair")),
        }
    }
    Ok(device)
}
