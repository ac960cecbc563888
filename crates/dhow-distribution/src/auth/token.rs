use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use super::Action;
use crate::registry::random_name;
use crate::storage::{Storage, StorageError};

/// Where all servers of a storage find the key.
const KEY: &str = "keys/token";
const KEY_BYTES: usize = 32;
/// Every token begins with it: JSON Web Tokens, by HMAC-SHA256. Any other is not ours.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// Clocks of two servers may differ by so much.
const CLOCK_SECONDS: u64 = 30;

/// Signs tokens and knows its own, and those of other servers on the same storage.
pub(crate) struct Tokens {
    key: hmac::Key,
    service: String,
    life: Duration,
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
}

impl Access {
    pub(crate) fn allows(&self, repository: &str, action: Action) -> bool {
        self.kind == "repository"
            && self.name == repository
            && self.actions.iter().any(|word| word == action.word())
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: Vec<Access>,
}

impl Tokens {
    /// Takes the key of the storage, or gives it one.
    pub(crate) async fn open(
        storage: &dyn Storage,
        service: &str,
        life: Duration,
    ) -> Result<Tokens, StorageError> {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).expect("the kernel has random bytes");
        storage.create(KEY, Bytes::copy_from_slice(&bytes)).await?;
        let key = storage.get(KEY).await?.filter(|key| key.len() == KEY_BYTES);
        let key = key.ok_or_else(|| StorageError::failed("understand", KEY, "it is no key of 32 bytes"))?;
        Ok(Tokens { key: hmac::Key::new(hmac::HMAC_SHA256, &key), service: service.to_owned(), life })
    }

    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    pub(crate) fn life(&self) -> Duration {
        self.life
    }

    pub(crate) fn sign(&self, user: Option<&str>, access: Vec<Access>) -> String {
        let now = unix_seconds();
        let claims = Claims {
            iss: self.service.clone(),
            sub: user.unwrap_or_default().to_owned(),
            aud: self.service.clone(),
            exp: now + self.life.as_secs(),
            nbf: now.saturating_sub(CLOCK_SECONDS),
            iat: now,
            jti: random_name(),
            access,
        };
        let claims = serde_json::to_vec(&claims).expect("our own types are JSON");
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
        let mac = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// Who showed a token and what for; `None` if it is not one of ours, or has run out.
    pub(crate) fn verify(&self, token: &str) -> Option<(Option<String>, Vec<Access>)> {
        let (signed, mac) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        hmac::verify(&self.key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(mac).ok()?).ok()?;
        if URL_SAFE_NO_PAD.decode(header).ok()? != HEADER.as_bytes() {
            return None;
        }
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let now = unix_seconds();
        let is_ours = claims.aud == self.service && (claims.nbf..claims.exp).contains(&now);
        is_ours.then(|| (Some(claims.sub).filter(|user| !user.is_empty()), claims.access))
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Bucket;

    #[tokio::test]
    async fn a_token_is_good_at_every_server_of_its_storage_while_it_lasts() {
        let storage = Bucket::in_memory();
        let open = async |life| Tokens::open(&storage, "registry", Duration::from_secs(life)).await.unwrap();
        let (one, two) = (open(60).await, open(0).await);
        let access =
            Access { kind: "repository".to_owned(), name: "a".to_owned(), actions: vec!["pull".to_owned()] };
        let token = one.sign(Some("ada"), vec![access.clone()]);
        assert_eq!(two.verify(&token), Some((Some("ada".to_owned()), vec![access])));
        assert_eq!(one.verify(&two.sign(None, Vec::new())), None, "it has run out");
        let strange = Tokens::open(&Bucket::in_memory(), "registry", Duration::from_secs(60)).await.unwrap();
        assert_eq!(strange.verify(&token), None, "another key");
        let mut forged = token.clone();
        forged.replace_range(token.len() / 2..token.len() / 2 + 1, "!");
        for bad in ["", ".", "..", "a.b.c", forged.as_str()] {
            assert_eq!(one.verify(bad), None, "{bad}");
        }
    }
}
