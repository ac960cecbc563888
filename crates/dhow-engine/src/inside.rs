//! Looking inside images.

use std::path::Path;

use dhow_image::{Comparison, Inside, InsideError, PathStory, StoryError};
use dhow_oci::{DiffId, Platform};
use dhow_store::{DatabaseError, Image};

use crate::Engine;
use crate::images::{FindError, ReadImageError};

/// How an image was made, with the layers.
#[derive(Clone, Debug)]
pub struct ImageTree {
    /// The image.
    pub image: Image,
    /// What it runs on.
    pub platform: Platform,
    /// The instructions, first one first.
    pub steps: Vec<TreeStep>,
}

/// An instruction of an image's making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeStep {
    /// The instruction; empty where the image does not say.
    pub created_by: String,
    /// The layer it made, if it made one.
    pub layer: Option<TreeLayer>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeLayer {
    /// Its digest when uncompressed.
    pub diff_id: DiffId,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// Names of other images that end here: what this one was built from.
    pub images: Vec<String>,
    /// How many images here share it, this one included.
    pub shared_by: usize,
}

/// Why an image's layers are not shown.
#[derive(Debug, thiserror::Error)]
pub enum ImageTreeError {
    /// It cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadImageError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why an image's files are not shown.
#[derive(Debug, thiserror::Error)]
pub enum LookInsideError {
    /// It cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It cannot be read.
    #[error(transparent)]
    Inside(#[from] InsideError),
}

/// Why it is not said where a path comes from.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// The image cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It has no such path, or it cannot be read.
    #[error(transparent)]
    Story(#[from] StoryError),
}

impl Engine {
    /// How an image was made, with the layers and who else has them.
    pub fn image_tree(&self, text: &str) -> Result<ImageTree, ImageTreeError> {
        let image = self.images.find(text)?;
        let config = self.images.config(&image.record.id)?;
        let others = self.store().images().list()?;
        let diff_ids = &config.rootfs.diff_ids;
        let layer = |position: usize| {
            let snapshot = image.record.snapshots.get(position);
            let known = snapshot.map(|snapshot| self.store().layers().by_snapshot(snapshot)).transpose()?;
            let stack = &diff_ids[..=position];
            let ends_here =
                |other: &&Image| other.record.id != image.record.id && other.record.diff_ids == stack;
            let names = others.iter().filter(ends_here).flat_map(|other| &other.names);
            Ok::<_, DatabaseError>(TreeLayer {
                diff_id: diff_ids[position],
                size_bytes: known.flatten().map_or(0, |layer| layer.size_bytes),
                images: names.map(|name| name.reference.clone()).collect(),
                shared_by: others.iter().filter(|other| other.record.diff_ids.starts_with(stack)).count(),
            })
        };
        let mut position = 0..diff_ids.len();
        let mut steps = Vec::with_capacity(config.history.len());
        for history in &config.history {
            let made = if history.empty_layer { None } else { position.next() };
            steps.push(TreeStep {
                created_by: history.created_by.clone(),
                layer: made.map(layer).transpose()?,
            });
        }
        // An image need not say how its layers were made.
        for made in position {
            steps.push(TreeStep { created_by: String::new(), layer: Some(layer(made)?) });
        }
        Ok(ImageTree { platform: config.platform(), steps, image })
    }

    /// All files of an image, with what each layer made of them.
    pub fn look_inside(&self, text: &str) -> Result<(Image, Inside), LookInsideError> {
        let image = self.images.find(text)?;
        let inside = self.images.look_inside(&image.record.id, None)?;
        Ok((image, inside))
    }

    /// Which layer brought a path into an image, and which later ones changed it.
    pub fn why(&self, text: &str, path: &Path) -> Result<PathStory, WhyError> {
        let image = self.images.find(text)?;
        Ok(self.images.path_story(&image.record.id, path)?)
    }

    /// What differs between two images; `each` entry of a directory that only one has, or the directory.
    pub fn compare_images(&self, a: &str, b: &str, each: bool) -> Result<Comparison, LookInsideError> {
        let (a, b) = (self.images.find(a)?, self.images.find(b)?);
        Ok(self.images.compare(&a.record.id, &b.record.id, each)?)
    }
}

impl From<ReadImageError> for LookInsideError {
    fn from(error: ReadImageError) -> Self {
        Self::Inside(error.into())
    }
}
