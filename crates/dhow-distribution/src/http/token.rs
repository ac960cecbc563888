//! `/token`, as Docker's token specification has it: GET with name and password in a header, POST with them in a form.

use axum::body::Body;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::CACHE_CONTROL;
use hyper::{Method, Response, StatusCode};
use serde_json::json;

use super::query::Query;
use super::{App, json, set};
use crate::auth::{Access, Action, Auth, Htpasswd, Rules, Tokens, basic};
use crate::error::{ApiError, Code};

const FORM_BYTES_MAX: usize = 64 << 10;
/// A token is for what one command needs.
const SCOPES_MAX: usize = 100;

/// What there is to answer with.
struct Server<'a> {
    users: &'a Htpasswd,
    rules: &'a Rules,
    tokens: &'a Tokens,
}

pub(super) async fn answer(
    app: &App,
    method: &Method,
    shown: Option<String>,
    query: Query,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let Auth::Token { users, rules, tokens } = &app.auth else {
        let error = ApiError::new(Code::Unsupported, "this registry gives no tokens");
        return Err(error.status(StatusCode::NOT_FOUND));
    };
    let server = Server { users, rules, tokens };
    match method.as_str() {
        "GET" | "HEAD" => server.get(shown, &query).await,
        "POST" => {
            let body = Limited::new(body, FORM_BYTES_MAX).collect().await;
            let body = body.map_err(|error| {
                ApiError::new(Code::Unsupported, error.to_string()).status(StatusCode::BAD_REQUEST)
            })?;
            server.post(&Query::parse(&String::from_utf8_lossy(&body.to_bytes()))).await
        }
        _ => Err(ApiError::new(Code::Unsupported, "tokens are got by GET or POST")),
    }
}

impl Server<'_> {
    async fn get(&self, shown: Option<String>, query: &Query) -> Result<Response<Body>, ApiError> {
        let pair = match shown {
            None => None,
            Some(header) => Some(basic(&header).ok_or_else(wrong)?),
        };
        let user = match pair {
            None => None,
            Some((user, password)) => Some(self.check(user, &password).await?),
        };
        let (token, _) = self.token(user.as_deref(), query)?;
        let life = self.tokens.life().as_secs();
        Ok(secret(StatusCode::OK, &json!({ "token": token, "access_token": token, "expires_in": life })))
    }

    /// The words of errors are those of OAuth 2.
    async fn post(&self, form: &Query) -> Result<Response<Body>, ApiError> {
        let refuse = |error| Ok(secret(StatusCode::BAD_REQUEST, &json!({ "error": error })));
        if form.get("grant_type") != Some("password") {
            return refuse("unsupported_grant_type");
        }
        let (Some(user), Some(password)) = (form.get("username"), form.get("password")) else {
            return refuse("invalid_request");
        };
        let user = self.check(user.to_owned(), password).await?;
        let (token, scope) = self.token(Some(&user), form)?;
        let life = self.tokens.life().as_secs();
        let answer =
            json!({ "access_token": token, "token_type": "Bearer", "expires_in": life, "scope": scope });
        Ok(secret(StatusCode::OK, &answer))
    }

    async fn check(&self, user: String, password: &str) -> Result<String, ApiError> {
        if self.users.verify(&user, password).await { Ok(user) } else { Err(wrong()) }
    }

    /// A token for what was asked for, as far as it is allowed, and the scope it has.
    fn token(&self, user: Option<&str>, query: &Query) -> Result<(String, String), ApiError> {
        if let Some(service) = query.get("service").filter(|service| *service != self.tokens.service()) {
            let message = format!("there is no service {service:?} here, only {:?}", self.tokens.service());
            return Err(ApiError::new(Code::Unsupported, message).status(StatusCode::BAD_REQUEST));
        }
        let asked = query.all("scope").flat_map(str::split_whitespace).take(SCOPES_MAX);
        let access: Vec<Access> = asked.filter_map(|scope| self.access(user, scope)).collect();
        let granted = access
            .iter()
            .map(|access| format!("{}:{}:{}", access.kind, access.name, access.actions.join(",")));
        let scope = granted.collect::<Vec<_>>().join(" ");
        Ok((self.tokens.sign(user, access), scope))
    }

    /// What is allowed of `repository:a/b:pull,push`.
    fn access(&self, user: Option<&str>, scope: &str) -> Option<Access> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        if kind != "repository" || !dhow_oci::is_repository(name) {
            return None;
        }
        let asked: Vec<&str> = actions.split(',').collect();
        let is_asked = |action: &Action| asked.contains(&action.word()) || asked.contains(&"*");
        let all = [Action::Pull, Action::Push, Action::Delete];
        let allowed = all.into_iter().filter(is_asked).filter(|action| self.rules.allow(user, name, *action));
        let actions = allowed.map(|action| action.word().to_owned()).collect();
        Some(Access { kind: kind.to_owned(), name: name.to_owned(), actions })
    }
}

fn wrong() -> ApiError {
    ApiError::unauthorized("wrong user name or password", "Basic realm=\"dhow registry\"".to_owned())
}

fn secret(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = json(status, value);
    set(&mut response, CACHE_CONTROL, "no-store");
    response
}
