//! What is worked on: text that compresses like programs do, the same in every run.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// Of the random bytes so many are followed by as many repeated ones.
const WORD_BYTES: usize = 16;

/// Fills the new folder `folder` with `files` of `bytes` each.
pub(crate) fn folder(folder: &Path, seed: u64, files: u32, bytes: usize) -> anyhow::Result<()> {
    for number in 0..files {
        let path = folder.join(format!("{:02}/{number}", number % 50));
        let parent = path.parent().context("it is in a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        fs::write(&path, file(seed << 32 | u64::from(number), bytes))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Half of it is noise, half of it was there before.
fn file(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut content = Vec::with_capacity(bytes + 2 * WORD_BYTES);
    while content.len() < bytes {
        let word = [splitmix(&mut state), splitmix(&mut state)];
        content.extend(word.iter().flat_map(|number| number.to_le_bytes()));
        content.extend_from_within(..WORD_BYTES);
    }
    content.truncate(bytes);
    content
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
