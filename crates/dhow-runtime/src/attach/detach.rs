//! The keys that leave a container without ending it.

/// Docker's default: ctrl-p, ctrl-q.
pub const DETACH_KEYS: [u8; 2] = [0x10, 0x11];

/// Not a sequence of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid detach keys {0:?}: expected letters or ctrl-<letter>, separated by commas")]
pub struct DetachKeysError(String);

/// Reads `ctrl-p,ctrl-q` or `a,b`.
pub fn parse_detach_keys(text: &str) -> Result<Vec<u8>, DetachKeysError> {
    let key = |key: &str| match (key.strip_prefix("ctrl-").map(str::as_bytes), key.as_bytes()) {
        (Some([letter @ (b'a'..=b'z' | b'A'..=b'Z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => {
            Some(letter.to_ascii_uppercase() & 0x1f)
        }
        (None, [letter]) if letter.is_ascii() => Some(*letter),
        _ => None,
    };
    text.split(',').map(|part| key(part).ok_or_else(|| DetachKeysError(text.into()))).collect()
}

/// Watches what is typed for the keys.
#[derive(Debug)]
pub(crate) struct DetachWatch {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachWatch {
    /// Watches for `keys`; none are never typed.
    pub(crate) fn new(keys: &[u8]) -> Self {
        DetachWatch { keys: keys.to_vec(), matched: 0 }
    }

    /// What of `typed` is to be passed on, and whether the keys were typed. A started sequence is held back until
    /// it turns out to be something else.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::new();
        for byte in typed {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(byte) && self.matched > 0);
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_docker_reads_them() {
        assert_eq!(parse_detach_keys("ctrl-p,ctrl-q").unwrap(), DETACH_KEYS);
        assert_eq!(parse_detach_keys("ctrl-@,a").unwrap(), [0, b'a']);
        for wrong in ["", "ctrl-", "ctrl-1", "ab", "a,,b"] {
            assert!(parse_detach_keys(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_keys_are_held_back_until_they_turn_out_to_be_others() {
        let mut watch = DetachWatch::new(&DETACH_KEYS);
        assert_eq!(watch.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(watch.filter(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(watch.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(watch.filter(b"\x11rest"), (Vec::new(), true));
        assert_eq!(DetachWatch::new(&[]).filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
