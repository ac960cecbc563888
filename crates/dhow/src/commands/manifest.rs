use dhow_engine::{Engine, ListEntry, PlatformChange};
use dhow_oci::{Document, Reference};
use serde_json::{Value, json};

use crate::error::{CliError, EXIT_FAILURE};
use crate::ui::Ui;

/// Put together and look at lists of manifests for several platforms
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, subcommand_value_name = "COMMAND")]
pub(crate) struct ManifestArgs {
    #[command(subcommand)]
    command: ManifestCommand,
}

#[derive(clap::Subcommand, Debug)]
enum ManifestCommand {
    /// Say what a manifest of a list runs on
    Annotate(AnnotateArgs),
    /// Make a list of manifests that are in a registry
    Create(CreateArgs),
    /// Show a manifest or a list
    Inspect(InspectArgs),
    /// Push a list
    Push(PushArgs),
    /// Forget lists
    Rm(RmArgs),
}

#[derive(clap::Args, Debug)]
struct CreateArgs {
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// Image in a registry, by name (can be repeated)
    #[arg(value_name = "MANIFEST", required = true)]
    manifests: Vec<String>,
    /// Add to a list that is here
    #[arg(short, long)]
    amend: bool,
    /// Take the registry as it is: plain HTTP, any certificate
    #[arg(long)]
    insecure: bool,
}

#[derive(clap::Args, Debug)]
struct AnnotateArgs {
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// One of its manifests
    manifest: String,
    /// Set the architecture
    #[arg(long)]
    arch: Option<String>,
    /// Set the operating system
    #[arg(long)]
    os: Option<String>,
    /// Add features of the operating system
    #[arg(long, value_delimiter = ',')]
    os_features: Vec<String>,
    /// Set the version of the operating system
    #[arg(long)]
    os_version: Option<String>,
    /// Set the variant of the architecture
    #[arg(long)]
    variant: Option<String>,
}

#[derive(clap::Args, Debug)]
struct InspectArgs {
    /// Name of a list or an image; with two, of a list and one of its manifests
    #[arg(value_name = "MANIFEST", required = true, num_args = 1..=2)]
    names: Vec<String>,
    /// Take the registry as it is: plain HTTP, any certificate
    #[arg(long)]
    insecure: bool,
    /// Show descriptors and platforms as well
    #[arg(short, long)]
    verbose: bool,
}

#[derive(clap::Args, Debug)]
struct PushArgs {
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// Take the registry as it is: plain HTTP, any certificate
    #[arg(long)]
    insecure: bool,
    /// Forget the list when it is pushed
    #[arg(short, long)]
    purge: bool,
}

#[derive(clap::Args, Debug)]
struct RmArgs {
    /// Name of a list (can be repeated)
    #[arg(value_name = "MANIFEST_LIST", required = true)]
    lists: Vec<String>,
}

pub(crate) fn run(args: &ManifestArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    match &args.command {
        ManifestCommand::Annotate(args) => annotate(args, engine),
        ManifestCommand::Create(args) => create(args, engine, ui),
        ManifestCommand::Inspect(args) => inspect(args, engine, ui),
        ManifestCommand::Push(args) => push(args, engine, ui),
        ManifestCommand::Rm(args) => remove(args, engine, ui),
    }
}

fn create(args: &CreateArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let list: Reference = args.list.parse()?;
    let manifests: Vec<Reference> =
        args.manifests.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    engine.create_manifest_list(&list, &manifests, args.amend, args.insecure)?;
    ui.line(format_args!("Created manifest list {}", list.or_latest()))?;
    Ok(0)
}

fn annotate(args: &AnnotateArgs, engine: &Engine) -> Result<u8, CliError> {
    let change = PlatformChange {
        architecture: args.arch.clone(),
        os: args.os.clone(),
        os_features: args.os_features.clone(),
        os_version: args.os_version.clone(),
        variant: args.variant.clone(),
    };
    engine.annotate_manifest_list(&args.list.parse()?, &args.manifest.parse()?, &change)?;
    Ok(0)
}

fn push(args: &PushArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let pushed = |name: &str| ui.note(format_args!("Pushed ref {name}"));
    let digest = engine.push_manifest_list(&args.list.parse()?, args.purge, args.insecure, &pushed)?;
    ui.line(digest)?;
    Ok(0)
}

/// One mistake does not keep the others.
fn remove(args: &RmArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let mut status = 0;
    for text in &args.lists {
        let removed = text.parse::<Reference>().map_err(CliError::from);
        if let Err(error) = removed.and_then(|name| Ok(engine.remove_manifest_list(&name)?)) {
            ui.note(error);
            status = EXIT_FAILURE;
        }
    }
    Ok(status)
}

fn inspect(args: &InspectArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let name: Reference = args.names[0].parse()?;
    let list = engine.manifest_list(&name)?;
    let shown = match (&args.names[..], list) {
        ([_, wanted], list) => {
            let wanted = wanted.parse::<Reference>()?.or_latest().to_string();
            let entries = list.map(|list| list.entries).unwrap_or_default();
            let entry = entries.into_iter().find(|entry| entry.reference == wanted);
            let entry = entry.ok_or_else(|| CliError::new(format!("no such manifest: {wanted}")))?;
            if args.verbose { verbose(&entry)? } else { serde_json::from_str(&entry.text)? }
        }
        (_, Some(list)) if args.verbose => {
            Value::Array(list.entries.iter().map(verbose).collect::<Result<_, _>>()?)
        }
        (_, Some(list)) => serde_json::from_slice(&list.index_bytes())?,
        (_, None) => remote(&name, args, engine)?,
    };
    ui.line(tabbed(&shown))?;
    Ok(0)
}

/// What a registry has.
fn remote(name: &Reference, args: &InspectArgs, engine: &Engine) -> Result<Value, CliError> {
    let bytes = engine.remote_document(name, args.insecure)?;
    if !args.verbose {
        return Ok(serde_json::from_slice(&bytes)?);
    }
    match Document::parse(None, &bytes)? {
        Document::Manifest(_) => verbose(&engine.remote_manifest(name, args.insecure)?),
        Document::Index(index) => {
            let entry = |descriptor: &dhow_oci::Descriptor| {
                let own = name.with_digest(descriptor.digest);
                let bytes = engine.remote_document(&own, args.insecure)?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                verbose(&ListEntry { reference: own.to_string(), descriptor: descriptor.clone(), text })
            };
            Ok(Value::Array(index.manifests.iter().map(entry).collect::<Result<_, CliError>>()?))
        }
    }
}

fn verbose(entry: &ListEntry) -> Result<Value, CliError> {
    let manifest: Value = serde_json::from_str(&entry.text)?;
    let is_docker = dhow_oci::media_type::DOCKER_MANIFEST == entry.descriptor.media_type;
    let field = if is_docker { "SchemaV2Manifest" } else { "OCIManifest" };
    Ok(json!({ "Ref": entry.reference, "Descriptor": entry.descriptor, field: manifest }))
}

/// As docker indents here.
fn tabbed(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).expect("a value is JSON and memory takes it");
    String::from_utf8(bytes).expect("JSON is text")
}
