//! Any bytes as a tar: it ends, by itself or by an error, and no entry has more data than it says.

use std::io::Read;

use dhow_layer::TarReader;

/// A file with holes says a size that no machine could hold; of such no more is read.
const DATA_BYTES_MAX: u64 = 1 << 20;

pub(crate) fn run(data: &[u8]) {
    let mut tar = TarReader::new(data);
    let mut entries = 0;
    while let Ok(Some(_)) = tar.next_entry() {
        entries += 1;
        assert!(entries <= data.len() / 512, "more entries than headers");
        let mut content = Vec::new();
        if (&mut tar).take(DATA_BYTES_MAX).read_to_end(&mut content).is_err() {
            return;
        }
        assert!(content.len() <= data.len(), "more data than there is");
    }
}
