//! The earlier builds that are nearest to the present one, found without being told which.
//!
//! Those of the same Dockerfile are kin. If there are none, because it was renamed or its folder copied, the
//! builds whose steps read most like ours are. Steps are laid side by side as a diff of texts would: equal
//! ones first, then what is left between them by its kind, so that moved and changed lines find each other.

use dhow_solver::CacheKey;

use super::{BuildRecord, StepOutcome, StepRecord};
use crate::event::StepInfo;

/// Builds of the same Dockerfile that are looked at.
const SAME_MAX: usize = 8;
/// Builds of others.
const SIMILAR_MAX: usize = 2;
/// Steps of a stage that are laid side by side; of longer ones only equal beginnings are.
const STEPS_MAX: usize = 500;

/// An earlier attempt at a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It came to a result.
    Done(CacheKey),
    /// It failed.
    Failed(CacheKey),
    /// Its result stayed in this cache elsewhere. It has no key if what it was made of was not here either.
    Elsewhere(Option<CacheKey>, String),
}

impl Attempt {
    fn of(step: &StepRecord, is_same_text: bool) -> Option<Attempt> {
        match (step.outcome, step.key, &step.elsewhere) {
            (StepOutcome::Cached, key, Some(cache)) => {
                (key.is_some() || is_same_text).then(|| Attempt::Elsewhere(key, cache.clone()))
            }
            (StepOutcome::Cached | StepOutcome::Done, key, _) => key.map(Attempt::Done),
            (StepOutcome::Failed, key, _) => key.map(Attempt::Failed),
            (StepOutcome::NotReached | StepOutcome::Running | StepOutcome::Canceled, ..) => None,
        }
    }

    pub(crate) fn key(&self) -> Option<CacheKey> {
        match self {
            Attempt::Done(key) | Attempt::Failed(key) => Some(*key),
            Attempt::Elsewhere(key, _) => *key,
        }
    }
}

/// Earlier attempts by the place of the step in `steps`, the latest first. `builds` are all that are known,
/// the latest first.
pub(crate) fn attempts(steps: &[StepInfo], identity: &str, builds: &[BuildRecord]) -> Vec<Vec<Attempt>> {
    let same = builds.iter().filter(|build| build.request.identity == identity && !build.steps.is_empty());
    let mut kin: Vec<&BuildRecord> = same.take(SAME_MAX).collect();
    if kin.is_empty() {
        let mut similar: Vec<(usize, &BuildRecord)> =
            builds.iter().map(|build| (shared(steps, build), build)).collect();
        // At least half of the steps are the same, one that does something among them.
        similar.retain(|(count, build)| *count > 0 && count * 2 >= steps.len().min(build.steps.len()));
        // Sorting is stable: among equals the latest comes first.
        similar.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        kin = similar.into_iter().take(SIMILAR_MAX).map(|(_, build)| build).collect();
    }
    let mut attempts = vec![Vec::new(); steps.len()];
    for build in kin {
        for (ours, theirs) in beside(steps, build) {
            let step = &build.steps[theirs];
            attempts[ours].extend(Attempt::of(step, step.text == steps[ours].text));
        }
    }
    attempts
}

/// How many steps are the same word for word; none, if only bases are.
fn shared(steps: &[StepInfo], build: &BuildRecord) -> usize {
    let pairs = steps.iter().filter(|ours| build.steps.iter().any(|theirs| theirs.text == ours.text));
    let same: Vec<&StepInfo> = pairs.collect();
    if same.iter().any(|step| step.number > 1) { same.len() } else { 0 }
}

/// Pairs of places of ours and theirs, stage by stage.
fn beside(steps: &[StepInfo], build: &BuildRecord) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let their_stages = stages(build.steps.iter().map(|step| step.stage.as_str()));
    let our_stages = stages(steps.iter().map(|step| step.stage.as_str()));
    for (index, (name, ours)) in our_stages.iter().enumerate() {
        let by_name = their_stages.iter().find(|(their_name, _)| their_name == name);
        // A stage of another name in the same place, unless it is one that we have elsewhere.
        let by_place = || {
            let found = their_stages.get(index)?;
            our_stages.iter().all(|(our_name, _)| *our_name != found.0).then_some(found)
        };
        let Some((_, theirs)) = by_name.or_else(by_place) else { continue };
        let our_texts: Vec<&str> = ours.iter().map(|place| steps[*place].text.as_str()).collect();
        let their_texts: Vec<&str> = theirs.iter().map(|place| build.steps[*place].text.as_str()).collect();
        pairs.extend(align(&our_texts, &their_texts).into_iter().map(|(a, b)| (ours[a], theirs[b])));
    }
    pairs
}

/// The places of the steps of each stage, in order.
fn stages<'t>(names: impl Iterator<Item = &'t str>) -> Vec<(&'t str, Vec<usize>)> {
    let mut stages: Vec<(&str, Vec<usize>)> = Vec::new();
    for (place, name) in names.enumerate() {
        match stages.last_mut() {
            Some((last, places)) if *last == name => places.push(place),
            _ => stages.push((name, vec![place])),
        }
    }
    stages
}

/// Lays two lists side by side: a longest common subsequence, and in each gap what has the same first word.
fn align(ours: &[&str], theirs: &[&str]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let (mut a, mut b) = (0, 0);
    for (next_a, next_b) in common(ours, theirs).into_iter().chain([(ours.len(), theirs.len())]) {
        let mut free: Vec<usize> = (b..next_b).collect();
        let word = |text: &str| text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        for (place, our_text) in ours.iter().enumerate().take(next_a).skip(a) {
            let found = free.iter().position(|theirs_at| word(theirs[*theirs_at]) == word(our_text));
            if let Some(found) = found {
                pairs.push((place, free.remove(found)));
            }
        }
        if next_a < ours.len() {
            pairs.push((next_a, next_b));
        }
        (a, b) = (next_a + 1, next_b + 1);
    }
    // What moved past others is what it was.
    for (place, text) in ours.iter().enumerate() {
        let is_free = |theirs_at: &usize| pairs.iter().all(|(_, taken)| taken != theirs_at);
        let found = || (0..theirs.len()).find(|at| theirs[*at] == *text && is_free(at));
        if pairs.iter().all(|(taken, _)| *taken != place)
            && let Some(found) = found()
        {
            pairs.push((place, found));
        }
    }
    pairs.sort_unstable();
    pairs
}

/// The places of a longest common subsequence.
fn common(ours: &[&str], theirs: &[&str]) -> Vec<(usize, usize)> {
    let start = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let mut pairs: Vec<(usize, usize)> = (0..start).map(|place| (place, place)).collect();
    let (rest, other) = (&ours[start..], &theirs[start..]);
    if rest.len() > STEPS_MAX || other.len() > STEPS_MAX {
        return pairs;
    }
    // length[a][b]: of the longest common subsequence of what follows a and b.
    let mut length = vec![vec![0_usize; other.len() + 1]; rest.len() + 1];
    for a in (0..rest.len()).rev() {
        for b in (0..other.len()).rev() {
            length[a][b] = match rest[a] == other[b] {
                true => length[a + 1][b + 1] + 1,
                false => length[a + 1][b].max(length[a][b + 1]),
            };
        }
    }
    let (mut a, mut b) = (0, 0);
    while a < rest.len() && b < other.len() {
        if rest[a] == other[b] {
            pairs.push((start + a, start + b));
            (a, b) = (a + 1, b + 1);
        } else if length[a + 1][b] >= length[a][b + 1] {
            a += 1;
        } else {
            b += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ours: &str, theirs: &str, expected: &[(usize, usize)]) {
        let [ours, theirs] = [ours, theirs].map(|text| text.split(", ").collect::<Vec<_>>());
        assert_eq!(align(&ours, &theirs), expected, "{ours:?} beside {theirs:?}");
    }

    #[test]
    fn steps_are_laid_side_by_side_however_they_moved() {
        let app = "FROM a, COPY r, RUN pip, COPY ., CMD x";
        check(app, app, &[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]);
        // One in front, one changed, one gone.
        check("FROM a, ENV x, COPY r, RUN pip", "FROM a, COPY r, RUN pip", &[(0, 0), (2, 1), (3, 2)]);
        check("FROM a, COPY r, RUN pip3", "FROM a, COPY r, RUN pip", &[(0, 0), (1, 1), (2, 2)]);
        check("FROM a, COPY r", "FROM a, ENV x, COPY r", &[(0, 0), (1, 2)]);
        check("FROM b, run PIP", "FROM a, ENV x, RUN pip", &[(0, 0), (1, 2)]);
        check("FROM a", "RUN x", &[]);
        check(
            "FROM a, COPY b, COPY a, RUN x",
            "FROM a, COPY a, RUN x, COPY b",
            &[(0, 0), (1, 3), (2, 1), (3, 2)],
        );
    }
}
