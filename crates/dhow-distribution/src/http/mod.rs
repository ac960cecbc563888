//! Requests and answers of the distribution-spec.

mod blobs;
mod lists;
mod manifests;
mod query;
mod range;
mod route;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::auth::{Action, Auth, Caller};
use crate::error::{ApiError, Code};
use crate::registry::{Reference, Registry, manifest_unknown};
use crate::server::{Event, Log};
use query::Query;
use route::Route;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// What all requests share.
pub(crate) struct App {
    pub(crate) registry: Registry,
    pub(crate) auth: Auth,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    pub(crate) public_url: Option<String>,
    pub(crate) log: Log,
}

/// Everything this server answers.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new().fallback(handle).with_state(app)
}

async fn handle(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri().path());
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let outcome = if is_read {
        answer(&app, request).await
    } else {
        // A client that goes away ends the wait for the answer, not the work: what it sent is kept.
        let app = Arc::clone(&app);
        let work = tokio::spawn(async move { answer(&app, request).await });
        work.await.unwrap_or_else(|error| Err(ApiError::new(Code::Unknown, error.to_string())))
    };
    let mut response = outcome.unwrap_or_else(|error| {
        if let Some(failure) = error.failure() {
            (app.log)(Event::Failure(format!("{line}: {failure}")));
        }
        error.response()
    });
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    (app.log)(Event::Request(format!("{line} {}", response.status().as_u16())));
    response
}

/// A request whose path, query and caller are known.
struct Call<'a> {
    app: &'a App,
    headers: HeaderMap,
    query: Query,
    caller: Caller,
    home: String,
}

impl Call<'_> {
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn allow(&self, repository: &str, action: Action) -> Result<(), ApiError> {
        self.app.auth.authorize(&self.caller, repository, action, &self.home)
    }

    /// Whether the client has this content already.
    fn has(&self, etag: &str) -> bool {
        let known = self.header(IF_NONE_MATCH).unwrap_or_default();
        known.split(',').any(|known| known.trim().trim_start_matches("W/") == etag || known.trim() == "*")
    }
}

async fn answer(app: &App, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (head, body) = request.into_parts();
    let route = Route::parse(head.uri.path())?;
    let home = match &app.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let host = head.headers.get(hyper::header::HOST).and_then(|host| host.to_str().ok());
            let host = host
                .or_else(|| head.uri.authority().map(|authority| authority.as_str()))
                .unwrap_or("localhost");
            // It goes into a header of ours.
            let host: String =
                host.chars().filter(|c| c.is_ascii_alphanumeric() || "[]:.-_".contains(*c)).collect();
            format!("{}://{host}", app.scheme)
        }
    };
    let query = Query::parse(head.uri.query().unwrap_or_default());
    if route == Route::Health {
        return Ok(json(StatusCode::OK, &serde_json::json!({})));
    }
    if route == Route::Token {
        let shown = authorization(&head.headers);
        return token::answer(app, &head.method, shown, query, body).await;
    }
    let caller = app.auth.identify(authorization(&head.headers), &home).await?;
    let call = Call { app, headers: head.headers, query, caller, home };
    dispatch(&call, &head.method, route, body).await
}

/// What is no text is no credential of anybody.
fn authorization(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(AUTHORIZATION)?;
    Some(header.to_str().unwrap_or_default().to_owned())
}

async fn dispatch(
    call: &Call<'_>,
    method: &Method,
    route: Route,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let action = match (method.as_str(), &route) {
        ("GET" | "HEAD", Route::Upload(..)) => Action::Push,
        ("GET" | "HEAD", _) => Action::Pull,
        // An upload of one's own is no content yet.
        ("DELETE", Route::Upload(..)) => Action::Push,
        ("DELETE", _) => Action::Delete,
        _ => Action::Push,
    };
    if let Some(repository) = route.repository() {
        call.allow(repository, action)?;
    }
    match (method.as_str(), route) {
        ("GET" | "HEAD", Route::Base) => {
            call.app.auth.require_caller(&call.caller, &call.home)?;
            Ok(json(StatusCode::OK, &serde_json::json!({})))
        }
        ("GET" | "HEAD", Route::Catalog) => lists::catalog(call).await,
        ("GET" | "HEAD", Route::Search) => lists::search(call).await,
        ("GET" | "HEAD", Route::Tags(name)) => lists::tags(call, &name).await,
        ("GET" | "HEAD", Route::Referrers(name, digest)) => lists::referrers(call, &name, digest).await,
        ("HEAD", Route::Blob(name, digest)) => blobs::head(call, &name, digest).await,
        ("GET", Route::Blob(name, digest)) => blobs::get(call, &name, digest).await,
        ("DELETE", Route::Blob(name, digest)) => blobs::delete(call, &name, digest).await,
        ("POST", Route::Uploads(name)) => blobs::begin(call, &name, body).await,
        ("GET" | "HEAD", Route::Upload(name, upload)) => blobs::status(call, &name, &upload).await,
        ("PATCH", Route::Upload(name, upload)) => blobs::append(call, &name, &upload, body).await,
        ("PUT", Route::Upload(name, upload)) => blobs::finish(call, &name, &upload, body).await,
        ("DELETE", Route::Upload(name, upload)) => blobs::cancel(call, &name, &upload).await,
        ("GET" | "HEAD", Route::Manifest(name, reference)) => {
            manifests::get(call, &name, &existing(reference)?).await
        }
        ("PUT", Route::Manifest(name, reference)) => {
            let wrong = |tag| ApiError::new(Code::TagInvalid, format!("{tag:?} is no tag"));
            manifests::put(call, &name, &reference.map_err(wrong)?, body).await
        }
        ("DELETE", Route::Manifest(name, reference)) => {
            manifests::delete(call, &name, &existing(reference)?).await
        }
        (method, _) => Err(ApiError::new(Code::Unsupported, format!("{method} is not for this"))),
    }
}

/// What cannot be a tag is the tag of nothing.
fn existing(reference: Result<Reference, String>) -> Result<Reference, ApiError> {
    reference.map_err(|tag| manifest_unknown(&Reference::Tag(tag)))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let text = value.to_string();
    let mut response = empty(status);
    set(&mut response, CONTENT_TYPE, "application/json");
    set(&mut response, CONTENT_LENGTH, &text.len().to_string());
    *response.body_mut() = Body::from(text);
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Sets a header. What we put there is made of names and digests, which have been checked.
fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The headers of content, which never changes.
fn set_content(response: &mut Response<Body>, digest: dhow_oci::Digest, media_type: &str) {
    set(response, CONTENT_TYPE, media_type);
    set(response, CONTENT_DIGEST, &digest.to_string());
    set(response, ETAG, &etag(digest));
}

fn etag(digest: dhow_oci::Digest) -> String {
    format!("\"{digest}\"")
}
