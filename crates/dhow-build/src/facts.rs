//! What may be written down.

/// Words in a name that say that its value is not for other people's eyes.
const SECRET_WORDS: [&str; 7] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "APIKEY", "API_KEY", "CREDENTIAL"];

/// Whether the value of an argument or variable of this name may be a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    // The address of a proxy may hold a password.
    upper.ends_with("_PROXY") || SECRET_WORDS.iter().any(|word| upper.contains(word))
}
