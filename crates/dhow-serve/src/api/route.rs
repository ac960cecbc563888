//! Everything that is answered.

use std::fmt::Write as _;

use super::error::ApiError;
use super::exchange::{Call, Reply};
use super::{archive, attach, build, containers, create, exec, images, networks, stats, system, volumes};

/// One endpoint.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// With at most one gap: `{name}` takes a segment, `{name*}` takes several.
    pub(crate) path: &'static str,
    /// The parameters that are understood. Others are ignored, as Docker does.
    pub(crate) parameters: &'static [&'static str],
    pub(crate) handler: fn(Call) -> Result<Reply, ApiError>,
}

impl Route {
    /// What stands in the gap, if this is the path's route; nothing if there is no gap.
    pub(crate) fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        let Some((before, rest)) = self.path.split_once('{') else {
            return (self.path == path).then_some("");
        };
        let (gap, after) = rest.split_once('}')?;
        let name = path.strip_prefix(before)?.strip_suffix(after).filter(|name| !name.is_empty())?;
        (gap.ends_with('*') || !name.contains('/')).then_some(name)
    }
}

const fn route(
    method: &'static str,
    path: &'static str,
    parameters: &'static [&'static str],
    handler: fn(Call) -> Result<Reply, ApiError>,
) -> Route {
    Route { method, path, parameters, handler }
}

/// The first that matches answers.
pub(crate) const ROUTES: &[Route] = &[
    route("GET", "/_ping", &[], system::ping),
    route("GET", "/version", &[], system::version),
    route("GET", "/info", &[], system::info),
    route("GET", "/events", &["since", "until", "filters"], system::events),
    route("GET", "/system/df", &["type"], system::df),
    route(
        "POST",
        "/build",
        &[
            "dockerfile",
            "t",
            "extrahosts",
            "remote",
            "q",
            "nocache",
            "cachefrom",
            "pull",
            "memory",
            "memswap",
            "cpushares",
            "cpusetcpus",
            "cpusetmems",
            "cpuperiod",
            "cpuquota",
            "buildargs",
            "shmsize",
            "ulimits",
            "labels",
            "networkmode",
            "platform",
            "target",
            "version",
        ],
        build::build,
    ),
    route(
        "POST",
        "/build/prune",
        &["all", "filters", "keep-storage", "reserved-space", "max-used-space", "min-free-space"],
        system::prune_build_cache,
    ),
    route("POST", "/auth", &[], system::auth),
    route("GET", "/images/json", &["all", "filters", "shared-size", "digests"], images::list),
    route(
        "POST",
        "/images/create",
        &["fromImage", "fromSrc", "repo", "tag", "message", "changes", "platform"],
        images::create,
    ),
    route("POST", "/images/load", &["quiet", "platform"], images::load),
    route("POST", "/images/prune", &["filters"], images::prune),
    route("GET", "/images/search", &["term", "limit", "filters"], images::search),
    route("GET", "/images/get", &["names", "platform"], images::save),
    route("GET", "/images/{name*}/json", &["platform"], images::inspect),
    route("GET", "/images/{name*}/history", &["platform"], images::history),
    route("GET", "/images/{name*}/get", &["platform"], images::save),
    route("POST", "/images/{name*}/push", &["tag", "platform"], images::push),
    route("POST", "/images/{name*}/tag", &["repo", "tag"], images::tag),
    route("DELETE", "/images/{name*}", &["force", "noprune"], images::remove),
    route("GET", "/distribution/{name*}/json", &[], images::distribution),
    route("GET", "/containers/json", &["all", "limit", "size", "filters"], containers::list),
    route("POST", "/containers/create", &["name", "platform"], create::create),
    route("GET", "/containers/{id}/json", &["size"], containers::inspect),
    route("POST", "/containers/{id}/start", &["detachKeys"], containers::start),
    route("POST", "/containers/{id}/stop", &["signal", "t"], containers::stop),
    route("POST", "/containers/{id}/restart", &["signal", "t"], containers::restart),
    route("POST", "/containers/{id}/kill", &["signal"], containers::kill),
    route("POST", "/containers/{id}/pause", &[], containers::pause),
    route("POST", "/containers/{id}/unpause", &[], containers::unpause),
    route("POST", "/containers/{id}/rename", &["name"], containers::rename),
    route("POST", "/containers/{id}/resize", &["h", "w"], containers::resize),
    route("POST", "/containers/{id}/wait", &["condition"], attach::wait),
    route(
        "POST",
        "/containers/{id}/attach",
        &["detachKeys", "logs", "stream", "stdin", "stdout", "stderr"],
        attach::attach,
    ),
    route(
        "GET",
        "/containers/{id}/logs",
        &["follow", "stdout", "stderr", "since", "until", "timestamps", "tail"],
        attach::logs,
    ),
    route("GET", "/containers/{id}/stats", &["stream", "one-shot"], stats::stats),
    route("GET", "/containers/{id}/top", &["ps_args"], containers::top),
    route("GET", "/containers/{id}/export", &[], containers::export),
    route("GET", "/containers/{id}/archive", &["path"], archive::get),
    route("PUT", "/containers/{id}/archive", &["path", "noOverwriteDirNonDir", "copyUIDGID"], archive::put),
    route("GET", "/containers/{id}/changes", &[], archive::changes),
    route("POST", "/containers/{id}/update", &[], archive::update),
    route("POST", "/containers/{id}/exec", &[], exec::create),
    route("DELETE", "/containers/{id}", &["v", "force", "link"], containers::remove),
    route("POST", "/exec/{id}/start", &[], exec::start),
    route("GET", "/exec/{id}/json", &[], exec::inspect),
    route(
        "POST",
        "/commit",
        &["container", "repo", "tag", "comment", "author", "pause", "changes"],
        containers::commit,
    ),
    route("POST", "/containers/prune", &["filters"], volumes::prune_containers),
    route("GET", "/networks", &["filters"], networks::list),
    route("POST", "/networks/create", &[], networks::create),
    route("POST", "/networks/prune", &["filters"], networks::prune),
    route("GET", "/networks/{id}", &[], networks::inspect),
    route("POST", "/networks/{id}/connect", &[], networks::connect),
    route("POST", "/networks/{id}/disconnect", &[], networks::disconnect),
    route("DELETE", "/networks/{id}", &[], networks::remove),
    route("GET", "/volumes", &["filters"], volumes::list),
    route("POST", "/volumes/create", &[], volumes::create),
    route("POST", "/volumes/prune", &["filters"], volumes::prune),
    route("GET", "/volumes/{name}", &[], volumes::inspect),
    route("DELETE", "/volumes/{name}", &["force"], volumes::remove),
    route("GET", "/swarm", &[], system::no_swarm),
    route("GET", "/nodes", &[], system::no_swarm),
    route("GET", "/services", &[], system::no_swarm),
    route("GET", "/tasks", &[], system::no_swarm),
    route("GET", "/secrets", &[], system::no_swarm),
    route("GET", "/configs", &[], system::no_swarm),
    route("GET", "/plugins", &[], system::plugins),
];

/// `docs/api-coverage.md`.
pub fn coverage() -> String {
    let mut text = format!(
        "# The Docker Engine API in dhow\n\n\
         Version {}.{} and those down to {}.{}. Made of the table of routes by a test; parameters that are not named are \
         ignored, and paths that are not named are answered with 404.\n\n\
         | endpoint | parameters |\n|---|---|\n",
        super::API_VERSION.0,
        super::API_VERSION.1,
        super::API_VERSION_MIN.0,
        super::API_VERSION_MIN.1
    );
    for Route { method, path, parameters, .. } in ROUTES {
        let parameters: Vec<String> = parameters.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(text, "| `{method} {path}` | {} |", parameters.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Option<(&'static str, String)> {
        let mut routes = ROUTES.iter().filter(|route| route.method == method);
        routes.find_map(|route| Some((route.path, route.matches(path)?.to_owned())))
    }

    #[test]
    fn names_of_images_have_slashes_and_those_of_containers_have_not() {
        let expect = |path, name: &str| Some((path, name.to_owned()));
        assert_eq!(found("GET", "/images/json"), expect("/images/json", ""));
        assert_eq!(found("GET", "/images/a/b:c/json"), expect("/images/{name*}/json", "a/b:c"));
        assert_eq!(found("DELETE", "/images/a/b"), expect("/images/{name*}", "a/b"));
        assert_eq!(found("GET", "/containers/x/json"), expect("/containers/{id}/json", "x"));
        assert_eq!(found("GET", "/containers/a/b/json"), None);
        assert_eq!(found("GET", "/images//json"), None);
    }

    #[test]
    fn the_page_about_coverage_is_up_to_date() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api-coverage.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(page, coverage()).unwrap();
        }
        let written = std::fs::read_to_string(page).unwrap_or_default();
        assert!(written == coverage(), "run the tests of dhow-serve with UPDATE_EXPECT=1");
    }
}
