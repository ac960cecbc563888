//! A world that several platforms are built for.

use std::cell::RefCell;
use std::collections::BTreeMap;

use dhow_dockerfile::{Diagnostic, Span};
use dhow_image::Layout;
use dhow_oci::{Platform, Reference};

use super::World;
use crate::error::StepError;
use crate::plan::BaseImage;

/// A world that does not tell again what it told for another platform, since each comes across the same mistakes.
pub(super) struct Once<'a> {
    world: &'a dyn World,
    /// The number of the present platform.
    platform: usize,
    /// What was told, by line and message, and the number of the platform it was told for.
    told: RefCell<BTreeMap<(usize, String), usize>>,
}

impl<'a> Once<'a> {
    pub(super) fn new(world: &'a dyn World) -> Once<'a> {
        Once { world, platform: 0, told: RefCell::default() }
    }

    /// From now on it is told of another platform.
    pub(super) fn at_platform(&mut self, number: usize) {
        self.platform = number;
    }

    fn is_new(&self, span: Span, message: &str) -> bool {
        let mut told = self.told.borrow_mut();
        *told.entry((span.start_line, message.to_owned())).or_insert(self.platform) == self.platform
    }
}

impl World for Once<'_> {
    fn base(&self, reference: &Reference, platform: &Platform) -> Result<BaseImage, StepError> {
        self.world.base(reference, platform)
    }

    fn layout(&self, layout: &Layout, platform: &Platform) -> Result<BaseImage, StepError> {
        self.world.layout(layout, platform)
    }

    fn context_has(&self, name: &str) -> bool {
        self.world.context_has(name)
    }

    fn left_out(&self, source: &str) -> Option<String> {
        self.world.left_out(source)
    }

    fn warn(&self, span: Span, message: String, hint: Option<String>) {
        if self.is_new(span, &message) {
            self.world.warn(span, message, hint);
        }
    }

    fn lint(&self, diagnostic: Diagnostic) {
        if self.is_new(diagnostic.span, &diagnostic.message) {
            self.world.lint(diagnostic);
        }
    }

    fn only_asks(&self) -> bool {
        self.world.only_asks()
    }
}
