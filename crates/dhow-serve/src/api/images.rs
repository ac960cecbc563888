//! Images.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use dhow_engine::{
    Credential, Engine, FindError, ImageFilter, ImportImage, Label, LayoutTarget, LoadSource, PruneImages,
    PullEvent, PushEvent, Removed, Secret, server_key,
};
use dhow_oci::{Platform, Reference};
use dhow_template::units::human_size;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Out;
use super::error::{ApiError, chain, statuses};
use super::exchange::{Call, Reply};
use super::query::Filters;
use crate::image;

const LIST_FILTERS: &[&str] = &["dangling", "label", "label!", "before", "since", "reference", "until"];
/// As many characters as docker's bars have.
const BAR_WIDTH: u64 = 50;
const TAR: &str = "application/x-tar";

statuses! {
    dhow_engine::InspectImageError { dhow_engine::InspectImageError::Find(find) if find.is_not_found() => NOT_FOUND }
    dhow_engine::ListImagesError { dhow_engine::ListImagesError::Filter(_) => BAD_REQUEST }
    dhow_engine::PruneImagesError {}
    dhow_engine::TagImageError { dhow_engine::TagImageError::Find(find) if find.is_not_found() => NOT_FOUND }
    dhow_engine::RemoveError {
        dhow_engine::RemoveError::Find(find) if find.is_not_found() => NOT_FOUND,
        dhow_engine::RemoveError::InUse { .. } => CONFLICT,
        dhow_engine::RemoveError::NameInUse { .. } => CONFLICT,
        dhow_engine::RemoveError::ManyNames { .. } => CONFLICT,
    }
    FindError { find if find.is_not_found() => NOT_FOUND }
    dhow_engine::PullImageError {}
    dhow_engine::RegistryError {}
    dhow_engine::ImportImageError {}
}

pub(super) fn platform(call: &Call) -> Result<Option<Platform>, ApiError> {
    let parse = |text: &str| match text.starts_with('{') {
        // Newer clients send the whole description.
        true => {
            serde_json::from_str(text).map_err(|error| ApiError::bad(format!("invalid platform: {error}")))
        }
        false => text.parse().map_err(|error| ApiError::bad(format!("invalid platform: {error}"))),
    };
    call.query.get("platform").map(parse).transpose()
}

pub(super) fn reference(text: &str) -> Result<Reference, ApiError> {
    text.parse().map_err(|_| ApiError::bad("invalid reference format"))
}

/// The filters of lists and of `prune`.
fn image_filter(filters: &Filters) -> Result<ImageFilter, ApiError> {
    let last = |name| filters.get(name).last().cloned();
    let truth = |value: &String| match value.as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(ApiError::bad(format!("invalid filter 'dangling={other}'"))),
    };
    let until = |text: String| {
        crate::when::seconds(&text, Timestamp::now())
            .ok_or_else(|| ApiError::bad(format!("invalid filter 'until={text}'")))
    };
    Ok(ImageFilter {
        dangling: filters.get("dangling").last().map(truth).transpose()?,
        references: filters.get("reference").to_vec(),
        labels: filters.get("label").iter().map(|text| Label::parse(text)).collect(),
        without_labels: filters.get("label!").iter().map(|text| Label::parse(text)).collect(),
        before: last("before"),
        since: last("since"),
        until: last("until").map(until).transpose()?,
        other_platforms: false,
    })
}

pub(super) fn list(call: Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.check(LIST_FILTERS)?;
    let filter = ImageFilter { other_platforms: call.query.is_set("all"), ..image_filter(&filters)? };
    let images = call.engine.list_images(&filter)?;
    Ok(Reply::ok(images.iter().map(image::summary).collect()))
}

pub(super) fn inspect(call: Call) -> Result<Reply, ApiError> {
    Ok(Reply::ok(image::inspect(&call.engine.inspect_image(&call.name, platform(&call)?.as_ref())?)))
}

pub(super) fn history(call: Call) -> Result<Reply, ApiError> {
    let history = call.engine.image_history(&call.name, platform(&call)?.as_ref())?;
    let tags: Vec<String> = match call.engine.find_image(&call.name) {
        Ok(found) => found.names.iter().map(|name| image::familiar(&name.reference)).collect(),
        Err(_) => Vec::new(),
    };
    let entry = |entry: &dhow_engine::HistoryEntry| {
        let created = entry.created.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
        json!({
            "Id": entry.image.map_or_else(|| "<missing>".to_owned(), |id| id.to_string()),
            "Created": created.map_or(0, |time| time.as_second()),
            "CreatedBy": entry.created_by,
            "Tags": entry.image.filter(|_| !tags.is_empty()).map(|_| &tags),
            "Size": entry.size_bytes,
            "Comment": entry.comment,
        })
    };
    Ok(Reply::ok(history.iter().map(entry).collect()))
}

pub(super) fn tag(call: Call) -> Result<Reply, ApiError> {
    let repository = call.query.get("repo").ok_or_else(|| ApiError::bad("invalid reference format"))?;
    let mut name = reference(repository)?;
    if let Some(tag) = call.query.get("tag") {
        name = name.with_tag(tag).map_err(|_| ApiError::bad("invalid tag format"))?;
    }
    call.engine.tag_image(&call.name, &name)?;
    Ok(Reply::Empty(hyper::StatusCode::CREATED))
}

pub(super) fn remove(call: Call) -> Result<Reply, ApiError> {
    let removed = call.engine.remove_image(&call.name, call.query.is_set("force"), &[])?;
    Ok(Reply::ok(removed_json(&removed)))
}

fn removed_json(removed: &[Removed]) -> Value {
    let each = |removed: &Removed| match removed {
        Removed::Untagged(name) => json!({ "Untagged": name }),
        Removed::Deleted(digest) => json!({ "Deleted": digest.to_string() }),
    };
    removed.iter().map(each).collect()
}

pub(super) fn prune(call: Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.check(&["dangling", "label", "label!", "until"])?;
    let filter = image_filter(&filters)?;
    let prune =
        PruneImages { all: filter.dangling == Some(false), filter: ImageFilter { dangling: None, ..filter } };
    let pruned = call.engine.prune_images(&prune)?;
    Ok(Reply::ok(json!({ "ImagesDeleted": removed_json(&pruned.removed), "SpaceReclaimed": pruned.bytes })))
}

pub(super) fn search(call: Call) -> Result<Reply, ApiError> {
    const LIMIT: u32 = 25;
    let term = call.query.get("term").ok_or_else(|| ApiError::bad("the parameter term is missing"))?;
    let found = call.engine.search(term, call.query.number("limit")?.unwrap_or(LIMIT))?;
    let result = |result: &dhow_engine::SearchResult| {
        json!({
            "name": result.name,
            "description": result.description,
            "star_count": result.star_count,
            "is_official": result.is_official,
            "is_automated": result.is_automated,
        })
    };
    Ok(Reply::ok(found.iter().map(result).collect()))
}

/// Credentials in `X-Registry-Auth`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Credentials {
    username: String,
    password: String,
    identitytoken: String,
    serveraddress: String,
}

/// The engine as whoever asks: with the credentials that came along, if any did.
fn engine_of(call: &Call, registry: &str) -> Result<Arc<Engine>, ApiError> {
    const EITHER: GeneralPurpose = GeneralPurpose::new(
        &URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let Some(text) = call.header("x-registry-auth").filter(|text| !text.is_empty()) else {
        return Ok(Arc::clone(&call.engine));
    };
    let invalid = || ApiError::bad("invalid X-Registry-Auth header");
    let text = text.replace('+', "-").replace('/', "_");
    let json = EITHER.decode(text).map_err(|_| invalid())?;
    let given: Credentials = serde_json::from_slice(&json).map_err(|_| invalid())?;
    let server = if given.serveraddress.is_empty() { registry } else { server_key(&given.serveraddress) };
    if given.username.is_empty() && given.identitytoken.is_empty() {
        return Ok(Arc::clone(&call.engine));
    }
    let credential = match given.identitytoken.is_empty() {
        true => Credential::Basic { username: given.username, password: Secret::new(given.password) },
        false => Credential::IdentityToken {
            username: Some(given.username).filter(|name| !name.is_empty()),
            token: Secret::new(given.identitytoken),
        },
    };
    Ok(Arc::new(call.engine.on_behalf_of(server, credential)))
}

/// Progress as docker's clients show it. Called from several threads.
struct Progress<'a>(Mutex<&'a mut Out>);

impl Progress<'_> {
    fn say(&self, value: &Value) {
        // The work goes on when nobody listens.
        let _ = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).line(value);
    }

    fn status(&self, id: &str, status: &str) {
        self.say(&json!({ "status": status, "progressDetail": {}, "id": id }));
    }

    fn bar(&self, id: &str, status: &str, current: u64, total: u64) {
        let filled = (current.min(total) * BAR_WIDTH).checked_div(total).unwrap_or(BAR_WIDTH);
        let bar = match filled {
            BAR_WIDTH => "=".repeat(BAR_WIDTH as usize),
            filled => {
                format!("{}>{}", "=".repeat(filled as usize), " ".repeat((BAR_WIDTH - filled - 1) as usize))
            }
        };
        self.say(&json!({
            "status": status,
            "progressDetail": { "current": current, "total": total },
            "progress": format!("[{bar}]  {}/{}", human_size(current), human_size(total)),
            "id": id,
        }));
    }

    fn failed(&self, error: &dyn std::error::Error) {
        let message = chain(error);
        self.say(&json!({ "errorDetail": { "message": message }, "error": message }));
    }

    /// Tells of a pull.
    fn pull(&self, sizes: &Mutex<BTreeMap<dhow_oci::Digest, u64>>, event: &PullEvent) {
        let sizes = || sizes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            PullEvent::LayerStarted { digest, size_bytes } => {
                sizes().insert(*digest, *size_bytes);
                self.status(&digest.short(), "Pulling fs layer");
            }
            PullEvent::LayerProgress { digest, bytes } => {
                let total = sizes().get(digest).copied().unwrap_or(*bytes);
                self.bar(&digest.short(), "Downloading", *bytes, total);
            }
            PullEvent::LayerExists { digest } => self.status(&digest.short(), "Already exists"),
            PullEvent::LayerDone { digest } => self.status(&digest.short(), "Pull complete"),
            PullEvent::Warning(text) => self.say(&json!({ "status": format!("WARNING: {text}") })),
            PullEvent::Started => {}
        }
    }
}

pub(super) fn create(call: Call) -> Result<Reply, ApiError> {
    match call.query.get("fromSrc") {
        Some(_) => import(call),
        None => pull(call),
    }
}

fn pull(call: Call) -> Result<Reply, ApiError> {
    let from =
        call.query.get("fromImage").ok_or_else(|| ApiError::bad("the parameter fromImage is missing"))?;
    let mut name = reference(from)?;
    let tag = call.query.get("tag");
    if let Some(tag) = tag {
        name = match tag.parse() {
            Ok(digest) => name.with_digest(digest),
            Err(_) => name.with_tag(tag).map_err(|_| ApiError::bad("invalid tag format"))?,
        };
    }
    let platform = platform(&call)?;
    let engine = engine_of(&call, name.registry())?;
    // Without tag and digest all tags are meant.
    let names = match name.tag().is_none() && name.digest().is_none() {
        false => vec![name],
        true => {
            let tags = engine.remote_tags(&name)?;
            let each = |tag: &String| name.with_tag(tag).map_err(|_| ApiError::bad("invalid tag format"));
            tags.iter().map(each).collect::<Result<_, _>>()?
        }
    };
    Ok(Reply::objects(move |out| {
        let progress = Progress(Mutex::new(out));
        for name in names {
            if let Err(error) = pull_one(&engine, &name, platform.as_ref(), &progress) {
                progress.failed(&error);
                return;
            }
        }
    }))
}

fn pull_one(
    engine: &Engine,
    name: &Reference,
    platform: Option<&Platform>,
    progress: &Progress<'_>,
) -> Result<(), dhow_engine::PullImageError> {
    let digest = name.digest().map(|digest| digest.to_string());
    let version = digest.as_deref().or(name.tag()).unwrap_or(dhow_oci::DEFAULT_TAG);
    progress.say(&json!({ "status": format!("Pulling from {}", name.repository()), "id": version }));
    let sizes = Mutex::default();
    let pulled = engine.pull_image(name, platform, false, &|event| progress.pull(&sizes, event))?;
    progress.say(&json!({ "status": format!("Digest: {}", pulled.digest) }));
    let what = if pulled.is_new { "Downloaded newer image" } else { "Image is up to date" };
    progress.say(&json!({ "status": format!("Status: {what} for {}", name.familiar()) }));
    Ok(())
}

fn import(mut call: Call) -> Result<Reply, ApiError> {
    let source = call.query.get("fromSrc").unwrap_or_default().to_owned();
    let mut name = call.query.get("repo").map(reference).transpose()?;
    if let (Some(repository), Some(tag)) = (&name, call.query.get("tag")) {
        name = Some(repository.with_tag(tag).map_err(|_| ApiError::bad("invalid tag format"))?);
    }
    let message = match call.query.get("message") {
        Some(message) => message.to_owned(),
        None => format!("Imported from {source}"),
    };
    let changes = call.query.all("changes").map(str::to_owned).collect();
    let import = ImportImage { reference: name, platform: platform(&call)?, message, changes };
    let id = match source.as_str() {
        "-" => call.engine.import_image(&mut call.body, &import)?,
        url => call.engine.import_url(url, &import)?,
    };
    Ok(Reply::objects(move |out| drop(out.line(&json!({ "status": id.to_string() })))))
}

pub(super) fn push(call: Call) -> Result<Reply, ApiError> {
    let name = reference(&call.name)?;
    let platform = platform(&call)?;
    let engine = engine_of(&call, name.registry())?;
    let names = match call.query.get("tag") {
        Some(tag) => vec![name.with_tag(tag).map_err(|_| ApiError::bad("invalid tag format"))?],
        None if name.tag().is_some() => vec![name.clone()],
        None => engine
            .local_tags(&name)
            .map_err(|error| ApiError::of(hyper::StatusCode::INTERNAL_SERVER_ERROR, &error))?,
    };
    if names.is_empty() {
        return Err(ApiError::not_found(format!(
            "An image does not exist locally with the tag: {}",
            name.familiar_name()
        )));
    }
    Ok(Reply::objects(move |out| {
        let progress = Progress(Mutex::new(out));
        progress.say(&json!({ "status": format!("The push refers to repository [{}]", name.name()) }));
        for name in names {
            if let Err(error) = push_one(&engine, &name, platform.as_ref(), &progress) {
                progress.failed(&error);
                return;
            }
        }
    }))
}

fn push_one(
    engine: &Engine,
    name: &Reference,
    platform: Option<&Platform>,
    progress: &Progress<'_>,
) -> Result<(), dhow_engine::PushImageError> {
    let pushed = engine.push_image(name, platform, &|event| match event {
        PushEvent::LayerStarted { diff_id } => progress.status(&diff_id.digest().short(), "Preparing"),
        PushEvent::LayerProgress { diff_id, bytes, size_bytes } => {
            progress.bar(&diff_id.digest().short(), "Pushing", *bytes, *size_bytes);
        }
        PushEvent::LayerExists { diff_id } => {
            progress.status(&diff_id.digest().short(), "Layer already exists")
        }
        PushEvent::LayerMounted { diff_id, from } => {
            progress.status(&diff_id.digest().short(), &format!("Mounted from {from}"));
        }
        PushEvent::LayerPushed { diff_id } => progress.status(&diff_id.digest().short(), "Pushed"),
    })?;
    let tag = name.tag().unwrap_or(dhow_oci::DEFAULT_TAG);
    let (digest, size) = (pushed.digest, pushed.size_bytes);
    progress.say(&json!({ "status": format!("{tag}: digest: {digest} size: {size}") }));
    progress.say(&json!({
        "progressDetail": {},
        "aux": { "Tag": tag, "Digest": digest.to_string(), "Size": size },
    }));
    Ok(())
}

pub(super) fn save(call: Call) -> Result<Reply, ApiError> {
    let mut names: Vec<String> = call.query.all("names").map(str::to_owned).collect();
    if !call.name.is_empty() {
        names.push(call.name.clone());
    }
    let platforms: Vec<Platform> = platform(&call)?.into_iter().collect();
    // What is not there is told before anything is sent.
    names.iter().try_for_each(|name| call.engine.find_image(name).map(drop))?;
    let engine = call.engine;
    let write = Box::new(move |out: &mut Out| {
        // An archive that breaks off is refused by whoever loads it.
        let _ = engine.save_images(&names, &platforms, true, LayoutTarget::Archive(out));
    });
    Ok(Reply::Stream { content_type: TAR, headers: Vec::new(), write })
}

pub(super) fn load(call: Call) -> Result<Reply, ApiError> {
    let platforms: Vec<Platform> = platform(&call)?.into_iter().collect();
    let quiet = call.query.is_set("quiet");
    let Call { engine, mut body, .. } = call;
    Ok(Reply::objects(move |out| {
        let progress = Progress(Mutex::new(out));
        let sizes = Mutex::default();
        let observe = |event: &PullEvent| {
            if !quiet {
                progress.pull(&sizes, event);
            }
        };
        match engine.load_images(LoadSource::Archive(Box::new(&mut body)), &platforms, &observe) {
            Ok(loaded) => {
                for image in loaded {
                    let text = match image.names.is_empty() {
                        true => format!("Loaded image ID: {}\n", image.id),
                        false => image
                            .names
                            .iter()
                            .map(|name| format!("Loaded image: {}\n", name.familiar()))
                            .collect(),
                    };
                    progress.say(&json!({ "stream": text }));
                }
            }
            Err(error) => progress.failed(&error),
        }
        // What a client still sends is of no use, but it may not read before it has sent it.
        let _ = io::copy(&mut body, &mut io::sink());
        let _ = progress.0.into_inner().map(|out| out.flush());
    }))
}

pub(super) fn distribution(call: Call) -> Result<Reply, ApiError> {
    let name = reference(&call.name)?;
    let engine = engine_of(&call, name.registry())?;
    let entry = engine
        .remote_manifest(&name.or_latest(), false)
        .map_err(|error| ApiError::of(hyper::StatusCode::UNAUTHORIZED, &error))?;
    Ok(Reply::ok(image::distribution(&entry)))
}
