use crate::auth::{Scope, TokenRequest, basic, bearer, fetch_token};
use crate::client::Ask;
use crate::endpoint::Endpoint;
use crate::error::Subject;
use crate::retry::persist;
use crate::transport::Reply;
use crate::{Action, Challenge, Client, Credential, RegistryError, Secret};

/// A login that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginOutcome {
    /// What to tell the user.
    pub status: String,
    /// What to keep: an identity token if the registry gave one, else user name and password.
    pub credential: Credential,
}

impl Client {
    /// Checks a user name and password with a registry. Keeping them is up to the caller
    /// ([`Keychain::store`](crate::Keychain::store)).
    pub fn login(
        &self,
        registry: &str,
        username: &str,
        password: &Secret,
    ) -> Result<LoginOutcome, RegistryError> {
        let subject = Subject::registry(Action::Login, registry, registry);
        let endpoint = self.config().endpoint(registry);
        let credential = Credential::Basic { username: username.to_owned(), password: password.clone() };
        let reply = self.knock(&endpoint, None, &subject)?;
        if reply.status != 401 {
            return accept(reply, credential, &subject);
        }
        match Challenge::choose(reply.headers("www-authenticate")) {
            None => Err(subject.refused(reply)),
            Some(Challenge::Basic { .. }) => {
                let reply = self.knock(&endpoint, basic(&credential).as_ref(), &subject)?;
                accept(reply, credential, &subject)
            }
            Some(Challenge::Bearer { realm, service, .. }) => {
                let request = TokenRequest {
                    realm: &realm,
                    service: service.as_deref(),
                    scope: &Scope::none(),
                    credential: Some(&credential),
                    offline: true,
                };
                let grant = fetch_token(self.transport(), &endpoint, &request, &subject)?;
                let reply = self.knock(&endpoint, Some(&bearer(&grant.token)), &subject)?;
                let credential = match grant.refresh {
                    Some(token) => Credential::IdentityToken { username: Some(username.to_owned()), token },
                    None => credential,
                };
                accept(reply, credential, &subject)
            }
        }
    }

    fn knock(
        &self,
        endpoint: &Endpoint,
        authorization: Option<&Secret>,
        subject: &Subject,
    ) -> Result<Reply, RegistryError> {
        let ask = Ask::get("/v2/".into(), Scope::none());
        persist(&self.config().retry, subject, || self.send(endpoint, &ask, authorization))
    }
}

fn accept(reply: Reply, credential: Credential, subject: &Subject) -> Result<LoginOutcome, RegistryError> {
    match reply.status {
        200 => Ok(LoginOutcome { status: "Login Succeeded".to_owned(), credential }),
        _ => Err(subject.refused(reply)),
    }
}
