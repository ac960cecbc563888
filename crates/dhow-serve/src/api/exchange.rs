//! What an endpoint is given, and what it gives back.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use dhow_engine::Engine;
use hyper::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::body::{BodyReader, Out};
use super::error::{ApiError, chain};
use super::pending::Pending;
use super::query::Query;

/// The largest body of JSON.
const JSON_BYTES_MAX: u64 = 8 << 20;

/// A request.
pub(crate) struct Call {
    pub(crate) engine: Arc<Engine>,
    pub(crate) pending: Arc<Pending>,
    /// What the server says of itself.
    pub(crate) version: &'static str,
    /// What stands in the path's gap, decoded.
    pub(crate) name: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyReader,
}

impl Call {
    /// The body, which is JSON. An empty one is an empty object.
    pub(crate) fn json<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        let bytes = self.body.whole(JSON_BYTES_MAX).map_err(|error| ApiError::bad(chain(&error)))?;
        let too_large = || {
            ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {JSON_BYTES_MAX} bytes"),
            )
        };
        let bytes = bytes.ok_or_else(too_large)?;
        let bytes = if bytes.trim_ascii().is_empty() { b"{}".as_slice() } else { &bytes };
        let invalid = |error: serde_json::Error| ApiError::bad(format!("invalid JSON: {error}"));
        match serde_json::from_slice(bytes).map_err(invalid)? {
            // A list would do for a structure, field by field.
            object @ Value::Object(_) => serde_json::from_value(object).map_err(invalid),
            _ => Err(ApiError::bad("invalid JSON: expected an object")),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

type Write = Box<dyn FnOnce(&mut Out) + Send>;
type Talk = Box<dyn FnOnce(UnixStream) + Send>;

/// An answer.
pub(crate) enum Reply {
    Json(StatusCode, Value),
    Empty(StatusCode),
    /// One that grows, of this type; it is written on a thread of its own.
    Stream {
        content_type: &'static str,
        headers: Vec<(&'static str, String)>,
        write: Write,
    },
    /// The connection becomes a stream of bytes in both directions. It is talked over on a thread of its own.
    Hijack {
        content_type: &'static str,
        talk: Talk,
    },
}

impl Reply {
    pub(crate) fn ok(value: Value) -> Self {
        Self::Json(StatusCode::OK, value)
    }

    /// Nothing to say but that it is done.
    pub(crate) fn done() -> Self {
        Self::Empty(StatusCode::NO_CONTENT)
    }

    /// JSON objects that come one by one.
    pub(crate) fn objects(write: impl FnOnce(&mut Out) + Send + 'static) -> Self {
        Self::Stream { content_type: "application/json", headers: Vec::new(), write: Box::new(write) }
    }
}
