use dhow_engine::containers::{FindError as FindContainerError, FindVolumeError, InspectContainerError};
use dhow_engine::networks::{FindNetworkError, InspectNetworkError};
use dhow_engine::{Engine, FindError, InspectImageError};
use dhow_oci::Platform;
use dhow_serve::{container, image, network};
use dhow_template::{MissingKey, Template};
use serde_json::Value;

use crate::error::{CliError, EXIT_FAILURE};
use crate::ui::Ui;

/// Show everything about containers, images, networks and volumes
#[derive(clap::Args, Debug)]
pub(crate) struct InspectArgs {
    /// Container, image, network or volume, by name or ID (can be repeated)
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
    /// Format output by a Go template, or 'json'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Look only among objects of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

/// Show everything about images
#[derive(clap::Args, Debug)]
pub(crate) struct ImageInspectArgs {
    /// Image, by name or ID (can be repeated)
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Format output by a Go template, or 'json'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show what they are on this platform, such as linux/amd64
    #[arg(long)]
    platform: Option<Platform>,
}

pub(crate) fn run(args: InspectArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let missing = match args.kind {
        None => "object",
        Some(Kind::Volume) => "volume",
        Some(Kind::Container) => "container",
        Some(Kind::Image) => "image",
        Some(Kind::Network) => "network",
    };
    show(&args.names, args.format.as_deref(), ui, &|name| {
        let wants = |kind| args.kind.is_none_or(|wanted| wanted == kind);
        let mut found = if wants(Kind::Container) { find_container(engine, name)? } else { None };
        if found.is_none() && wants(Kind::Image) {
            found = find_image(engine, name, None)?;
        }
        if found.is_none() && wants(Kind::Volume) {
            found = find_volume(engine, name)?;
        }
        if found.is_none() && wants(Kind::Network) {
            found = find_network(engine, name)?;
        }
        found.ok_or_else(|| not_found(missing, name))
    })
}

pub(crate) fn run_image(args: ImageInspectArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    show(&args.images, args.format.as_deref(), ui, &|name| {
        find_image(engine, name, args.platform.as_ref())?.ok_or_else(|| not_found("image", name))
    })
}

fn not_found(kind: &str, name: &str) -> CliError {
    CliError::new(format!("No such {kind}: {name}"))
}

/// A container as docker's JSON, `None` if there is none of this name.
fn find_container(engine: &Engine, name: &str) -> Result<Option<Value>, CliError> {
    match engine.inspect_container(name) {
        Ok(details) => Ok(Some(container::inspect(&details))),
        Err(InspectContainerError::Find(FindContainerError::NotFound(_))) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A volume as docker's JSON, `None` if there is none of this name.
fn find_volume(engine: &Engine, name: &str) -> Result<Option<Value>, CliError> {
    match engine.inspect_volume(name) {
        Ok(volume) => Ok(Some(dhow_serve::volume::inspect(&volume))),
        Err(FindVolumeError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// An image as docker's JSON, `None` if there is none of this name.
fn find_image(engine: &Engine, name: &str, platform: Option<&Platform>) -> Result<Option<Value>, CliError> {
    match engine.inspect_image(name, platform) {
        Ok(details) => Ok(Some(image::inspect(&details))),
        // A name that no image can have may be a container's.
        Err(InspectImageError::Find(FindError::NotFound(_) | FindError::Invalid { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A network as docker's JSON, `None` if there is none of this name.
fn find_network(engine: &Engine, name: &str) -> Result<Option<Value>, CliError> {
    match engine.inspect_network(name) {
        Ok(details) => Ok(Some(network::inspect(&details))),
        Err(InspectNetworkError::Find(FindNetworkError::NotFound(_))) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Prints what is found, and then what is not: one mistake does not hide the rest.
pub(crate) fn show(
    names: &[String],
    format: Option<&str>,
    ui: &mut Ui,
    find: &dyn Fn(&str) -> Result<Value, CliError>,
) -> Result<u8, CliError> {
    let template = match format {
        None | Some("" | "json") => None,
        Some(format) => Some(Template::parse(format)?.missing_key(MissingKey::Error)),
    };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match find(name) {
            Ok(value) => found.push(value),
            Err(error) => errors.push(error),
        }
    }
    match (&template, format) {
        (Some(template), _) => found.iter().try_for_each(|value| ui.line(template.render(value)?))?,
        (None, Some("json")) => found.iter().try_for_each(ui_line(ui))?,
        (None, _) => ui.line(pretty(&Value::Array(found)))?,
    }
    ui.flush()?;
    errors.iter().for_each(|error| ui.note(error));
    Ok(if errors.is_empty() { 0 } else { EXIT_FAILURE })
}

fn ui_line<'a>(ui: &'a mut Ui) -> impl FnMut(&Value) -> Result<(), CliError> + 'a {
    move |value| ui.line(value)
}

/// Four spaces, as docker indents.
fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).expect("a value is JSON and memory takes it");
    String::from_utf8(bytes).expect("JSON is text")
}
