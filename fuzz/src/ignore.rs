//! Any bytes as an ignore file, the last line being a path to judge: whoever walks down to the path and whoever asks
//! for it at once get the same answer.

use dhow_dockerfile::{IgnoreRules, IgnoreState};

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (rules, path) = text.rsplit_once('\n').unwrap_or(("", &text));
    let Ok(rules) = IgnoreRules::parse(rules) else { return };
    drop(rules.leaves_out(path));
    let mut state = IgnoreState::default();
    let mut pruned = false;
    for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
        let (verdict, next) = rules.check_child(&state, &path[..end]);
        assert_eq!(verdict, rules.check(&path[..end]), "{path:?} up to {end}");
        // What is not entered has nothing that is wanted.
        assert!(verdict.ignored || !pruned, "{path:?} up to {end}");
        pruned |= verdict.ignored && !rules.may_have_reincluded_children(&path[..end]);
        state = next;
    }
}
