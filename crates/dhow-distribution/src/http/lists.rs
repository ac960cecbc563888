use axum::body::Body;
use dhow_oci::{Digest, media_type};
use hyper::header::{CONTENT_TYPE, LINK};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::query::encode;
use super::{Call, OCI_FILTERS_APPLIED, json, set};
use crate::error::ApiError;
use crate::registry::Names;

/// What the Hub answers when it is not told how much, and what it answers at most.
const RESULTS_DEFAULT: usize = 25;
const RESULTS_MAX: usize = 100;

pub(super) async fn tags(call: &Call<'_>, name: &str) -> Result<Response<Body>, ApiError> {
    let tags = call.app.registry.tags(name, &call.query.page()?).await?;
    let mut response = json(StatusCode::OK, &json!({ "name": name, "tags": tags.names }));
    link(&mut response, &format!("/v2/{name}/tags/list"), &tags);
    Ok(response)
}

pub(super) async fn catalog(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    call.app.auth.require_caller(&call.caller, &call.home)?;
    let shows = |name: &str| call.app.auth.shows(&call.caller, name);
    let repositories = call.app.registry.catalog(&call.query.page()?, shows).await?;
    let mut response = json(StatusCode::OK, &json!({ "repositories": repositories.names }));
    link(&mut response, "/v2/_catalog", &repositories);
    Ok(response)
}

/// Says where the next page is. It is as long as this one.
fn link(response: &mut Response<Body>, path: &str, names: &Names) {
    if let (true, Some(last)) = (names.more, names.names.last()) {
        let target = format!("{path}?n={}&last={}", names.names.len(), encode(last));
        set(response, LINK, &format!("<{target}>; rel=\"next\""));
    }
}

pub(super) async fn referrers(
    call: &Call<'_>,
    name: &str,
    subject: Digest,
) -> Result<Response<Body>, ApiError> {
    let wanted = call.query.get("artifactType").filter(|wanted| !wanted.is_empty());
    let last = call.query.get("last");
    let found = call.app.registry.referrers(name, subject, wanted, last).await?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": found.descriptors,
    });
    let mut response = json(StatusCode::OK, &index);
    set(&mut response, CONTENT_TYPE, media_type::OCI_INDEX);
    if wanted.is_some() {
        set(&mut response, OCI_FILTERS_APPLIED, "artifactType");
    }
    if let Some(next) = found.next {
        let filter = wanted.map(|wanted| format!("artifactType={}&", encode(wanted))).unwrap_or_default();
        let target = format!("/v2/{name}/referrers/{subject}?{filter}last={}", encode(&next));
        set(&mut response, LINK, &format!("<{target}>; rel=\"next\""));
    }
    Ok(response)
}

/// The search of Docker's first registries, which docker still speaks.
pub(super) async fn search(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    call.app.auth.require_caller(&call.caller, &call.home)?;
    let term = call.query.get("q").unwrap_or_default();
    let limit = call.query.page()?.size.unwrap_or(RESULTS_DEFAULT).min(RESULTS_MAX);
    let shows = |name: &str| call.app.auth.shows(&call.caller, name);
    let found = call.app.registry.search(term, limit, shows).await?;
    let result = |found: &crate::registry::Found| {
        json!({
            "name": found.name,
            "description": found.description,
            "star_count": 0,
            "is_official": false,
            "is_automated": false,
            "is_trusted": false,
        })
    };
    let results: Vec<_> = found.iter().map(result).collect();
    let answer = json!({ "num_results": results.len(), "num_pages": 1, "page": 1, "page_size": limit, "query": term, "results": results });
    Ok(json(StatusCode::OK, &answer))
}
