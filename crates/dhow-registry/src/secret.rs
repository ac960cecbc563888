use std::fmt;

use base64::Engine as _;

/// A password or token: usable, but never printed by accident.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The value of an `Authorization` header for `user:password`.
    pub fn basic(user_info: &str) -> Secret {
        Secret::basic_of(user_info.as_bytes())
    }

    /// The value of an `Authorization` header for what stands before the `@` of a URL.
    pub fn of_user_info(user_info: &str) -> Secret {
        let mut bytes = unescape(user_info);
        if !user_info.contains(':') {
            bytes.push(b':');
        }
        Secret::basic_of(&bytes)
    }

    fn basic_of(bytes: &[u8]) -> Secret {
        Secret(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(bytes)))
    }

    /// The text itself, for the wire and for credential stores only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// `%41` is `A`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}
