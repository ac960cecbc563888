//! `POST /build`: docker's classic builder in words, dhow's in deed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dhow_engine::{
    BuildRequest, CacheElsewhere, CacheFrom, ContextSource, DockerfileSource, Engine, Resources, Rlimit,
    RunOptions, StepNetwork,
};
use dhow_oci::Platform;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::body::{BodyReader, Out};
use super::error::{ApiError, chain};
use super::exchange::{Call, Reply};
use super::images::{platform, reference};
use crate::classic::{Classic, Said};

/// How often it is looked whether the client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A parameter that is JSON; `null` and nothing are the same.
fn json_parameter<T: DeserializeOwned + Default>(call: &Call, name: &str) -> Result<T, ApiError> {
    let Some(text) = call.query.get(name) else { return Ok(T::default()) };
    let value: Option<T> = serde_json::from_str(text)
        .map_err(|error| ApiError::bad(format!("invalid value for the parameter {name}: {error}")))?;
    Ok(value.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Limit {
    name: String,
    soft: i64,
    hard: i64,
}

pub(super) fn build(call: Call) -> Result<Reply, ApiError> {
    let mut request = request(&call)?;
    let engine = Arc::clone(&call.engine);
    let quiet = call.query.is_set("q");
    let Call { body, .. } = call;
    let (context, feed) = match &request.context {
        ContextSource::Url(_) => (None, None),
        _ => {
            let (reader, writer) = io::pipe()
                .map_err(|error| ApiError::bad(format!("cannot take the context: {}", chain(&error))))?;
            (Some(Arc::new(File::from(OwnedFd::from(reader)))), Some(writer))
        }
    };
    if let Some(context) = context {
        request.context = ContextSource::Stream(context);
    }
    Ok(Reply::objects(move |out| {
        let over = AtomicBool::new(false);
        let Ok((cancel, cancelled)) = io::pipe() else { return };
        let closed = out.watch();
        let out = Mutex::new(out);
        thread::scope(|scope| {
            if let Some(feed) = feed {
                scope.spawn(|| feed_context(body, feed));
            }
            scope.spawn(|| {
                let mut cancelled = Some(cancelled);
                while !over.load(Ordering::Relaxed) {
                    if closed.is_closed()
                        && let Some(mut tell) = cancelled.take()
                    {
                        // The build ends as by Ctrl-C.
                        let _ = tell.write_all(&[0]);
                    }
                    thread::park_timeout(LOOK_EVERY);
                }
            });
            run(&engine, request, quiet, &cancel, &out);
            over.store(true, Ordering::Relaxed);
        });
    }))
}

/// Passes the context on. What the build does not want to see is read all the same: clients send it to its end.
fn feed_context(mut body: BodyReader, mut feed: io::PipeWriter) {
    if io::copy(&mut body, &mut feed).is_err() {
        drop(feed);
        let _ = io::copy(&mut body, &mut io::sink());
    }
}

fn run(
    engine: &Engine,
    mut request: BuildRequest,
    quiet: bool,
    cancel: &io::PipeReader,
    out: &Mutex<&mut Out>,
) {
    // A client that has gone is noticed elsewhere.
    let send = |value: Value| drop(out.lock().unwrap_or_else(PoisonError::into_inner).line(&value));
    let say = |said: Said<'_>| {
        let text = match said {
            Said::Line(text) | Said::Warning(text) => text.to_owned(),
            Said::Output(bytes) | Said::ErrorOutput(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        };
        if !quiet {
            send(json!({ "stream": text }));
        }
    };
    let classic = Mutex::new(Classic::new(None));
    let names = request.names.clone();
    request.jobs = NonZeroUsize::MIN;
    let built = engine.build(&request, Some(cancel.as_fd()), &|event| {
        classic.lock().unwrap_or_else(PoisonError::into_inner).event(&event, &mut |said| say(said));
    });
    match built {
        Ok(built) => {
            send(json!({ "aux": { "ID": built.image.to_string() } }));
            if quiet {
                send(json!({ "stream": format!("{}\n", built.image) }));
            } else {
                let classic = classic.into_inner().unwrap_or_else(PoisonError::into_inner);
                classic.built(&built.image, &names, &mut |said| say(said));
            }
        }
        Err(error) => {
            let message = chain(&error);
            send(json!({ "errorDetail": { "message": message }, "error": message }));
        }
    }
}

fn request(call: &Call) -> Result<BuildRequest, ApiError> {
    let query = &call.query;
    if query.get("version").is_some_and(|version| version != "1") {
        return Err(ApiError::unsupported("building by BuildKit's session (set DOCKER_BUILDKIT=0)"));
    }
    for name in ["squash", "outputs", "isolation", "cgroupparent"] {
        if query.get(name).is_some_and(|value| !matches!(value, "0" | "false" | "default" | "null" | "[]")) {
            return Err(ApiError::unsupported(format_args!("the parameter {name}")));
        }
    }
    let context = match query.get("remote") {
        Some(url) => ContextSource::Url(url.to_owned()),
        // It is put in its place once the body is at hand.
        None => ContextSource::Folder(Default::default()),
    };
    let mut request = BuildRequest::new(context);
    request.dockerfile = match query.get("dockerfile") {
        None => DockerfileSource::Default,
        Some(name) => DockerfileSource::File(name.into()),
    };
    request.names =
        query.all("t").filter(|name| !name.is_empty()).map(reference).collect::<Result<_, _>>()?;
    request.names = request.names.into_iter().map(|name| name.or_latest()).collect();
    let args: BTreeMap<String, Option<String>> = json_parameter(call, "buildargs")?;
    // A client that has no value for one has nothing to say of it.
    request.build_args = args.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    request.labels = json_parameter(call, "labels")?;
    request.target = query.get("target").map(str::to_owned);
    request.no_cache = query.is_set("nocache");
    request.pull = query.is_set("pull");
    request.platforms = platform(call)?.into_iter().collect::<Vec<Platform>>();
    request.network = match query.get("networkmode") {
        None | Some("default" | "bridge") => StepNetwork::Default,
        Some("host") => StepNetwork::Host,
        Some("none") => StepNetwork::None,
        Some(other) => return Err(ApiError::unsupported(format_args!("the network {other} of a build"))),
    };
    request.run = run_options(call)?;
    let caches: Vec<String> = json_parameter(call, "cachefrom")?;
    let from = caches.iter().map(|name| Ok(CacheFrom::Registry(reference(name)?.or_latest())));
    request.cache =
        CacheElsewhere { from: from.collect::<Result<_, ApiError>>()?, ..CacheElsewhere::default() };
    Ok(request)
}

fn run_options(call: &Call) -> Result<RunOptions, ApiError> {
    let query = &call.query;
    let set = |name: &str| -> Result<Option<i64>, ApiError> {
        Ok(query.number(name)?.filter(|number| *number != 0))
    };
    let hosts = query.all("extrahosts").flat_map(|text| text.split(',')).filter(|text| !text.is_empty());
    let host = |text: &str| -> Result<(String, Option<IpAddr>), ApiError> { super::create::extra_host(text) };
    let limits: Vec<Limit> = json_parameter(call, "ulimits")?;
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let rlimit = |each: Limit| Rlimit { name: each.name, soft: limit(each.soft), hard: limit(each.hard) };
    Ok(RunOptions {
        hosts: hosts.map(host).collect::<Result<_, _>>()?,
        rlimits: limits.into_iter().map(rlimit).collect(),
        shm_bytes: set("shmsize")?.and_then(|bytes| u64::try_from(bytes).ok()),
        resources: Resources {
            memory_bytes: set("memory")?,
            memory_swap_bytes: set("memswap")?,
            cpu_shares: set("cpushares")?.and_then(|shares| u64::try_from(shares).ok()),
            cpu_quota_us: set("cpuquota")?,
            cpu_period_us: set("cpuperiod")?.and_then(|period| u64::try_from(period).ok()),
            cpuset_cpus: query.get("cpusetcpus").map(str::to_owned),
            cpuset_mems: query.get("cpusetmems").map(str::to_owned),
            ..Resources::default()
        },
        ..RunOptions::default()
    })
}
