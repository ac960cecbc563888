use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};

/// A registered digest algorithm (image-spec descriptor.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `sha256`, the one everybody uses.
    Sha256,
    /// `sha512`.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn size_bytes(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// The name of a blob: an algorithm and the hash of its bytes, `sha256:<64 hex>` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// Shorter hashes are padded with zeros, which keeps the type `Copy`.
    bytes: [u8; 64],
}

impl Digest {
    /// Hashes `bytes` with SHA-256.
    pub fn sha256_of(bytes: &[u8]) -> Digest {
        Digest::from_sha256(Sha256::digest(bytes).into())
    }

    /// Wraps a SHA-256 computed elsewhere.
    pub fn from_sha256(hash: [u8; 32]) -> Digest {
        Digest::from_hash(Algorithm::Sha256, &hash)
    }

    fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Digest {
        let mut bytes = [0; 64];
        bytes[..hash.len()].copy_from_slice(hash);
        Digest { algorithm, bytes }
    }

    /// The algorithm that made this digest.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash, 32 or 64 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.size_bytes()]
    }

    /// The hash in lower-case hexadecimal, without the algorithm.
    pub fn hex(&self) -> String {
        let mut hex = String::with_capacity(self.algorithm.size_bytes() * 2);
        push_hex(&mut hex, self.as_bytes());
        hex
    }

    /// The first twelve hexadecimal digits, as `docker images` shows an ID.
    pub fn short(&self) -> String {
        let mut hex = String::with_capacity(12);
        push_hex(&mut hex, &self.bytes[..6]);
        hex
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// There is no colon between algorithm and hash.
    #[error("invalid checksum digest format")]
    Format,
    /// The algorithm is neither sha256 nor sha512.
    #[error("unsupported digest algorithm")]
    Algorithm,
    /// The hash has the wrong number of digits.
    #[error("invalid checksum digest length")]
    Length,
    /// The hash holds something else than lower-case hexadecimal digits.
    #[error("invalid checksum digest format")]
    Digits,
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Digest, ParseDigestError> {
        let (name, hex) = text.split_once(':').ok_or(ParseDigestError::Format)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(ParseDigestError::Algorithm),
        };
        let size_bytes = algorithm.size_bytes();
        if hex.len() != size_bytes * 2 {
            return Err(ParseDigestError::Length);
        }
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
        }
        Ok(Digest { algorithm, bytes })
    }
}

fn hex_value(digit: u8) -> Result<u8, ParseDigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        // Upper case is refused: one content must have one name.
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParseDigestError::Digits),
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error| D::Error::custom(format_args!("{error}: {text:?}")))
    }
}

/// Computes a [`Digest`] of bytes that arrive in pieces.
#[derive(Clone, Debug)]
pub struct Digester(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Digester {
    /// Starts an empty digest.
    pub fn new(algorithm: Algorithm) -> Digester {
        Digester(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Starts an empty SHA-256.
    pub fn sha256() -> Digester {
        Digester::new(Algorithm::Sha256)
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::from_hash(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => Digest::from_hash(Algorithm::Sha512, &state.finalize()),
        }
    }

    /// How far it is, to be [resumed](Self::resume) later or elsewhere. The bytes are no hash and belong to this
    /// version of the program's hash functions.
    pub fn state(&self) -> Vec<u8> {
        match &self.0 {
            State::Sha256(state) => state.serialize().to_vec(),
            State::Sha512(state) => state.serialize().to_vec(),
        }
    }

    /// Goes on where [`state`](Self::state) was taken; `None` if that was not of `algorithm`.
    pub fn resume(algorithm: Algorithm, state: &[u8]) -> Option<Digester> {
        Some(Digester(match algorithm {
            Algorithm::Sha256 => {
                let state = SerializedState::<Sha256>::try_from(state).ok()?;
                State::Sha256(Sha256::deserialize(&state).ok()?)
            }
            Algorithm::Sha512 => {
                let state = SerializedState::<Sha512>::try_from(state).ok()?;
                State::Sha512(Sha512::deserialize(&state).ok()?)
            }
        }))
    }
}

/// The digest of a layer's *uncompressed* tar stream.
///
/// Image configs list layers by this value and unpacked layers are named by it. It is not the number a
/// registry knows the layer by: that one covers the compressed bytes and is a plain [`Digest`]. Both look
/// like `sha256:…` on the wire, which is why they are two types here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(Digest);

impl DiffId {
    /// Declares that `digest` is of an uncompressed layer.
    pub fn new(digest: Digest) -> DiffId {
        DiffId(digest)
    }

    /// The plain digest.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DiffId {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<DiffId, ParseDigestError> {
        text.parse().map(DiffId)
    }
}

/// The name of a stack of layers (image-spec config.md, "Layer ChainID").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(Digest);

impl ChainId {
    /// The stack that has `layer` on top of `parent`.
    pub fn of(parent: Option<ChainId>, layer: DiffId) -> ChainId {
        match parent {
            None => ChainId(layer.0),
            Some(parent) => ChainId(Digest::sha256_of(format!("{parent} {layer}").as_bytes())),
        }
    }

    /// The plain digest.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The chain id of every prefix of `layers`, lowest layer first.
pub fn chain_ids(layers: &[DiffId]) -> Vec<ChainId> {
    let mut parent = None;
    let mut ids = Vec::with_capacity(layers.len());
    for layer in layers {
        let id = ChainId::of(parent, *layer);
        ids.push(id);
        parent = Some(id);
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_prints_as_it_was_written() {
        assert_eq!(Digest::sha256_of(b"").to_string(), EMPTY);
        let digest: Digest = EMPTY.parse().expect("a digest");
        assert_eq!(digest, Digest::sha256_of(b""));
        assert_eq!(digest.short(), "e3b0c44298fc");
        let mut digester = Digester::new(Algorithm::Sha512);
        digester.update(b"a");
        let long = digester.finish();
        assert_eq!(long.to_string().parse(), Ok(long));
        assert_eq!(long.hex().len(), 128);
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        for (text, error) in [
            ("", ParseDigestError::Format),
            ("sha256", ParseDigestError::Format),
            ("md5:00", ParseDigestError::Algorithm),
            ("sha256:00", ParseDigestError::Length),
            (&EMPTY.to_uppercase().replace("SHA256", "sha256"), ParseDigestError::Digits),
            (&EMPTY.replace('e', "é").replacen("é", "e", 1)[..71], ParseDigestError::Digits),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_digest_goes_on_where_it_was_left() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut digester = Digester::new(algorithm);
            digester.update(b"some bytes, ");
            let mut resumed = Digester::resume(algorithm, &digester.state()).expect("its own state");
            for digester in [&mut digester, &mut resumed] {
                digester.update(b"and the rest");
            }
            assert_eq!(resumed.finish(), digester.finish());
        }
        assert!(Digester::resume(Algorithm::Sha256, b"something else").is_none());
        assert!(Digester::resume(Algorithm::Sha256, &Digester::new(Algorithm::Sha512).state()).is_none());
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let a = DiffId::new(Digest::sha256_of(b"a"));
        let b = DiffId::new(Digest::sha256_of(b"b"));
        let ids = chain_ids(&[a, b]);
        assert_eq!(ids[0].digest(), a.digest());
        assert_eq!(ids[1].digest(), Digest::sha256_of(format!("{a} {b}").as_bytes()));
    }
}
