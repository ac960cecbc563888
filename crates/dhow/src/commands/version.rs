use dhow_engine::Engine;
use dhow_template::{MissingKey, Template};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::ui::Ui;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Show the version of dhow, which is client and server in one
#[derive(clap::Args, Debug)]
pub(crate) struct VersionArgs {
    /// Format output by a Go template, or 'json'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: &VersionArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let info = engine.system_info()?;
    let value = value(&info.kernel);
    match args.format.as_deref() {
        None | Some("") => {
            let platform = dhow_oci::Platform::host();
            ui.line(format_args!("Client: dhow\n Version:           {VERSION}"))?;
            ui.line(format_args!(" OS/Arch:           {platform}\n Context:           default\n"))?;
            ui.line(format_args!("Server: dhow\n Engine:\n  Version:          {VERSION}"))?;
            ui.line(format_args!("  OS/Arch:          {platform}\n  Kernel:           {}", info.kernel))?;
        }
        Some("json") => ui.line(&value)?,
        Some(format) => ui.line(Template::parse(format)?.missing_key(MissingKey::Error).render(&value)?)?,
    }
    Ok(0)
}

fn value(kernel: &str) -> Value {
    let platform = dhow_oci::Platform::host();
    let (os, arch) = (&platform.os, &platform.architecture);
    json!({
        "Client": {
            "Platform": { "Name": "dhow" },
            "Version": VERSION,
            "Os": os,
            "Arch": arch,
            "Context": "default",
        },
        "Server": {
            "Platform": { "Name": "dhow" },
            "Components": [{
                "Name": "Engine",
                "Version": VERSION,
                "Details": { "Os": os, "Arch": arch, "KernelVersion": kernel },
            }],
            "Version": VERSION,
            "Os": os,
            "Arch": arch,
            "KernelVersion": kernel,
        },
    })
}
