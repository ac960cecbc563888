use axum::body::Body;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use hyper::{Response, StatusCode};

use super::{CONTENT_DIGEST, Call, OCI_SUBJECT, empty, etag, set, set_content};
use crate::error::ApiError;
use crate::registry::Reference;

pub(super) async fn get(
    call: &Call<'_>,
    name: &str,
    reference: &Reference,
) -> Result<Response<Body>, ApiError> {
    let manifest = call.app.registry.manifest(name, reference).await?;
    let is_known = call.has(&etag(manifest.digest));
    let mut response = empty(if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    set_content(&mut response, manifest.digest, &manifest.media_type);
    if !is_known {
        set(&mut response, CONTENT_LENGTH, &manifest.bytes.len().to_string());
        *response.body_mut() = Body::from(manifest.bytes);
    }
    Ok(response)
}

pub(super) async fn put(
    call: &Call<'_>,
    name: &str,
    reference: &Reference,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let bytes = call.app.registry.receive_manifest(body).await?;
    let declared = call.header(CONTENT_TYPE);
    let (digest, subject) = call.app.registry.put_manifest(name, reference, declared, bytes).await?;
    let mut response = empty(StatusCode::CREATED);
    set(&mut response, LOCATION, &format!("/v2/{name}/manifests/{digest}"));
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    if let Some(subject) = subject {
        set(&mut response, OCI_SUBJECT, &subject.to_string());
    }
    Ok(response)
}

pub(super) async fn delete(
    call: &Call<'_>,
    name: &str,
    reference: &Reference,
) -> Result<Response<Body>, ApiError> {
    call.app.registry.delete_manifest(name, reference).await?;
    Ok(empty(StatusCode::ACCEPTED))
}
