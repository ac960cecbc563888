use dhow_engine::{Engine, ImageFilter, ImageSummary, Label};
use dhow_oci::Reference;
use dhow_template::format::{self, Columns};
use dhow_template::units::human_size;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::commands::images_tree;
use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;
use crate::when;

const NONE: &str = "<none>";
const FILTERS: &[&str] = &["dangling", "label", "label!", "before", "since", "reference", "until"];
const DEFAULT: &str = r"{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const WITH_DIGESTS: &str = r"{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];

/// List images
#[derive(clap::Args, Debug)]
pub(crate) struct ImagesArgs {
    /// Show only images of this repository, or with this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
    /// Show all images, also those of other platforms that came with one that has a name
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show only images that fit, such as dangling=true or label=a=b (can be repeated)
    #[arg(short, long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Format output by a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show whole IDs
    #[arg(long)]
    no_trunc: bool,
    /// Show only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Show each name with the platforms it is here for
    #[arg(long, conflicts_with_all = ["quiet", "format", "digests", "no_trunc"])]
    tree: bool,
}

pub(crate) fn run(args: ImagesArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let now = Timestamp::now();
    let filters = Filters::parse(&args.filters, FILTERS)?;
    let mut filter = image_filter(&filters, now)?;
    filter.references.extend(args.reference.clone());
    filter.other_platforms = args.all;
    let images = engine.list_images(&filter)?;
    if args.tree {
        images_tree::print(&images, engine, ui)?;
        return Ok(0);
    }
    // A digest is shown by the row of its image unless each is asked for.
    let wants_digests = args.digests || args.format.as_ref().is_some_and(|format| format.contains(".Digest"));
    if args.quiet {
        // One line for each row of the table, as in docker.
        for image in &images {
            names(image, wants_digests).iter().try_for_each(|_| ui.line(id(image, args.no_trunc)))?;
        }
        return Ok(0);
    }
    let rows: Vec<Value> =
        images.iter().flat_map(|image| rows(image, wants_digests, now, args.no_trunc)).collect();
    let default = if args.digests { WITH_DIGESTS } else { DEFAULT };
    let columns = Columns { default, headers: HEADERS };
    ui.text(&format::rows(args.format.as_deref(), columns, &rows, &|_, _, _| None)?)?;
    Ok(0)
}

/// The part of a filter that `prune` knows as well.
pub(crate) fn image_filter(filters: &Filters, now: Timestamp) -> Result<ImageFilter, CliError> {
    let until = filters.last("until").map(|text| when::parse(text, now)).transpose()?;
    Ok(ImageFilter {
        dangling: filters.truth("dangling")?,
        references: filters.all("reference").map(str::to_owned).collect(),
        labels: filters.all("label").map(Label::parse).collect(),
        without_labels: filters.all("label!").map(Label::parse).collect(),
        before: filters.last("before").map(str::to_owned),
        since: filters.last("since").map(str::to_owned),
        until,
        other_platforms: false,
    })
}

struct Name {
    repository: String,
    tag: String,
    digest: String,
}

/// The rows of an image: one per tag, and one per repository that has it by digest only.
fn names(summary: &ImageSummary, wants_digests: bool) -> Vec<Name> {
    let image = &summary.image;
    let tags: Vec<Reference> = image.names.iter().filter_map(|name| name.reference.parse().ok()).collect();
    let mut names = Vec::new();
    for tag in &tags {
        let digests = image.repo_digests.iter().filter(|digest| digest.repository == tag.name());
        let mut digests: Vec<String> = digests.map(|digest| digest.digest.to_string()).collect();
        if digests.is_empty() || !wants_digests {
            digests = vec![digests.into_iter().next().unwrap_or_else(|| NONE.to_owned())];
        }
        let (repository, tag) = (tag.familiar_name(), tag.tag().unwrap_or(NONE).to_owned());
        let name = |digest| Name { repository: repository.clone(), tag: tag.clone(), digest };
        names.extend(digests.into_iter().map(name));
    }
    for digest in &image.repo_digests {
        if tags.iter().all(|tag| tag.name() != digest.repository) {
            let repository = digest.repository.parse::<Reference>();
            let repository =
                repository.map_or_else(|_| digest.repository.clone(), |name| name.familiar_name());
            names.push(Name { repository, tag: NONE.to_owned(), digest: digest.digest.to_string() });
        }
    }
    if names.is_empty() {
        names.push(Name { repository: NONE.to_owned(), tag: NONE.to_owned(), digest: NONE.to_owned() });
    }
    names
}

/// The rows of an image.
pub(super) fn rows(
    summary: &ImageSummary,
    wants_digests: bool,
    now: Timestamp,
    no_trunc: bool,
) -> Vec<Value> {
    names(summary, wants_digests).iter().map(|name| row(summary, name, now, no_trunc)).collect()
}

fn row(summary: &ImageSummary, name: &Name, now: Timestamp, no_trunc: bool) -> Value {
    let record = &summary.image.record;
    let (since, at) = match record.created {
        0 => ("N/A".to_owned(), "N/A".to_owned()),
        created => (when::ago(created, now), when::local(created)),
    };
    let size = human_size(record.size_bytes);
    json!({
        "ID": id(summary, no_trunc),
        "Repository": name.repository,
        "Tag": name.tag,
        "Digest": name.digest,
        "CreatedSince": since,
        "CreatedAt": at,
        "Size": size,
        "Containers": summary.containers.to_string(),
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "VirtualSize": size,
    })
}

fn id(summary: &ImageSummary, whole: bool) -> String {
    let id = summary.image.record.id;
    if whole { id.to_string() } else { id.short() }
}
