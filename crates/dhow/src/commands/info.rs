use dhow_engine::{Engine, SystemInfo};
use dhow_template::units::bytes_size;
use dhow_template::{MissingKey, Template};

use crate::error::CliError;
use crate::ui::Ui;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Show what there is to know about this machine and this dhow
#[derive(clap::Args, Debug)]
pub(crate) struct InfoArgs {
    /// Format output by a Go template, or 'json'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: &InfoArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let info = engine.system_info()?;
    let value = dhow_serve::system::info(&info, VERSION);
    match args.format.as_deref() {
        None | Some("") => print(&info, ui)?,
        Some("json") => ui.line(&value)?,
        Some(format) => ui.line(Template::parse(format)?.missing_key(MissingKey::Error).render(&value)?)?,
    }
    Ok(0)
}

fn print(info: &SystemInfo, ui: &mut Ui) -> Result<(), CliError> {
    let [running, paused, stopped] = info.containers;
    ui.line(format_args!("Client:\n Version:    {VERSION}\n Context:    default\n Debug Mode: false\n"))?;
    ui.line("Server:")?;
    ui.line(format_args!(" Containers: {}", running + paused + stopped))?;
    ui.line(format_args!("  Running: {running}\n  Paused: {paused}\n  Stopped: {stopped}"))?;
    ui.line(format_args!(" Images: {}\n Server Version: {VERSION}", info.images))?;
    ui.line(" Storage Driver: overlay2\n Logging Driver: json-file")?;
    match info.cgroup_version {
        Some(version) => ui.line(format_args!(" Cgroup Driver: cgroupfs\n Cgroup Version: {version}"))?,
        None => ui.line(" Cgroup Driver: none")?,
    }
    ui.line(" Plugins:\n  Volume: local\n  Network: bridge host null\n  Log: json-file none")?;
    ui.line(" Swarm: inactive\n Runtimes: dhow\n Default Runtime: dhow")?;
    ui.line(" Security Options:\n  seccomp\n   Profile: builtin\n  cgroupns")?;
    if info.is_rootless {
        ui.line("  rootless")?;
    }
    ui.line(format_args!(" Kernel Version: {}", info.kernel))?;
    ui.line(format_args!(" Operating System: {}\n OSType: linux", info.operating_system))?;
    ui.line(format_args!(" Architecture: {}\n CPUs: {}", info.architecture, info.cpus))?;
    ui.line(format_args!(" Total Memory: {}\n Name: {}", bytes_size(info.memory_bytes), info.name))?;
    ui.line(format_args!(" Docker Root Dir: {}\n Debug Mode: false", info.root.display()))?;
    for (name, proxy) in ["HTTP Proxy", "HTTPS Proxy", "No Proxy"].iter().zip(&info.proxies) {
        if !proxy.is_empty() {
            ui.line(format_args!(" {name}: {proxy}"))?;
        }
    }
    ui.line(" Experimental: false\n Insecure Registries:\n  ::1/128\n  127.0.0.0/8")?;
    info.insecure_registries.iter().try_for_each(|name| ui.line(format_args!("  {name}")))?;
    if !info.mirrors.is_empty() {
        ui.line(" Registry Mirrors:")?;
        info.mirrors.iter().try_for_each(|mirror| ui.line(format_args!("  {mirror}")))?;
    }
    ui.line(" Live Restore Enabled: true")
}
