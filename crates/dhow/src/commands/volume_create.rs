use dhow_engine::Engine;
use dhow_engine::containers::VolumeRequest;

use crate::error::CliError;
use crate::ui::Ui;

/// Create a volume
#[derive(clap::Args, Debug)]
pub(crate) struct VolumeCreateArgs {
    /// Name of the volume; without one it is anonymous
    #[arg(value_name = "VOLUME")]
    volume: Option<String>,
    /// Driver of the volume: local
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Label (can be repeated)
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Option of the driver: type, device and o, in the words of mount(8) (can be repeated)
    #[arg(short, long = "opt", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Name of the volume, as older dockers took it
    #[arg(long, hide = true, conflicts_with = "volume")]
    name: Option<String>,
}

pub(crate) fn run(args: &VolumeCreateArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    let volume = engine.create_volume(&VolumeRequest {
        name: args.volume.clone().or_else(|| args.name.clone()),
        driver: args.driver.clone(),
        labels: args.label.iter().map(pair).collect(),
        options: args.options.iter().map(pair).collect(),
    })?;
    ui.line(volume.name)?;
    Ok(0)
}
