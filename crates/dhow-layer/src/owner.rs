//! Whose the files of a layer are, inside an image and on this machine.

/// A run of consecutive ids and what they are called on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the layer.
    pub inside: u32,
    /// First id on disk.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// How ids in a layer correspond to ids on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

/// What happens to user and group ids between layer and disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// The same numbers on both sides.
    #[default]
    Keep,
    /// Translated; an id without a translation is an error.
    Map(IdMap),
    /// On disk everything belongs to whoever writes it; in a layer everything belongs to root.
    Ignore,
    /// On disk everything belongs to this user and group; in a layer to root.
    Force(u32, u32),
}

impl Ownership {
    /// Where a layer's owner goes on disk. `Ok(None)` leaves it alone, the error is the id without a place.
    pub(crate) fn to_disk(&self, uid: u32, gid: u32) -> Result<Option<(u32, u32)>, u32> {
        match self {
            Ownership::Keep => Ok(Some((uid, gid))),
            Ownership::Ignore => Ok(None),
            Ownership::Force(uid, gid) => Ok(Some((*uid, *gid))),
            Ownership::Map(map) => Ok(Some((
                translate(&map.uids, uid, |range| (range.inside, range.outside))?,
                translate(&map.gids, gid, |range| (range.inside, range.outside))?,
            ))),
        }
    }

    /// How a layer calls an owner on disk; the error is the id without a name.
    pub(crate) fn to_layer(&self, uid: u32, gid: u32) -> Result<(u32, u32), u32> {
        match self {
            Ownership::Keep => Ok((uid, gid)),
            Ownership::Ignore | Ownership::Force(..) => Ok((0, 0)),
            Ownership::Map(map) => Ok((
                translate(&map.uids, uid, |range| (range.outside, range.inside))?,
                translate(&map.gids, gid, |range| (range.outside, range.inside))?,
            )),
        }
    }
}

fn translate(ranges: &[IdRange], id: u32, ends: impl Fn(&IdRange) -> (u32, u32)) -> Result<u32, u32> {
    ranges
        .iter()
        .find_map(|range| {
            let (from, to) = ends(range);
            let offset = id.checked_sub(from).filter(|offset| *offset < range.size)?;
            to.checked_add(offset)
        })
        .ok_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_ids_come_back_and_unmapped_ones_are_named() {
        let ranges = vec![
            IdRange { inside: 0, outside: 1000, size: 1 },
            IdRange { inside: 1, outside: 100_000, size: 65_535 },
        ];
        let map = Ownership::Map(IdMap { uids: ranges.clone(), gids: ranges });
        assert_eq!(map.to_disk(0, 33), Ok(Some((1000, 100_032))));
        assert_eq!(map.to_layer(1000, 100_032), Ok((0, 33)));
        assert_eq!(map.to_disk(0, 65_536), Err(65_536));
        assert_eq!(map.to_layer(0, 1000), Err(0));
    }
}
