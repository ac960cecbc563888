//! COPY and ADD.
use super::Typing;
use crate::flags::{FlagKind, FlagSpec, Flags};
use crate::form::cut_comment;
use crate::heredoc::Heredoc;
use crate::instruction::{AddInstruction, CopyInstruction, FileCopy, TrailingComment};

const COPY_FLAGS: &FlagSpec = &[
    ("chown", FlagKind::Text),
    ("from", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Switch),
    ("exclude", FlagKind::List),
    ("parents", FlagKind::Switch),
];
const ADD_FLAGS: &FlagSpec = &[
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Switch),
    ("keep-git-dir", FlagKind::Switch),
    ("checksum", FlagKind::Text),
    ("unpack", FlagKind::Switch),
    ("exclude", FlagKind::List),
];

impl Typing<'_> {
    pub(super) fn copy(&mut self) -> Option<CopyInstruction> {
        let (files, flags) = self.file_copy("COPY", COPY_FLAGS)?;
        Some(CopyInstruction {
            files,
            from: flags.text("from"),
            parents: flags.switch("parents").unwrap_or(false),
        })
    }

    pub(super) fn add(&mut self) -> Option<AddInstruction> {
        let (files, flags) = self.file_copy("ADD", ADD_FLAGS)?;
        Some(AddInstruction {
            files,
            checksum: flags.text("checksum"),
            keep_git_dir: flags.switch("keep-git-dir"),
            unpack: flags.switch("unpack"),
        })
    }

    fn file_copy(&mut self, name: &str, spec: &FlagSpec) -> Option<(FileCopy, Flags)> {
        let flags = self.flags(spec);
        let is_json = self.form.operands.is_json();
        let mut words = self.operands().words();
        if words.len() < 2 {
            return self.fail(format!(
                "{name} requires at least two arguments, but only one was provided. Destination could not be \
                 determined"
            ));
        }
        let dest = words.pop()?;
        let flags = flags?;
        if !is_json && Heredoc::parse(&dest).is_some() {
            return self.fail(format!("{name} cannot accept a heredoc as a destination"));
        }
        let (sources, heredocs) = if is_json { (words, Vec::new()) } else { self.sources(words)? };
        let files = FileCopy {
            sources,
            heredocs,
            dest,
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.switch("link").unwrap_or(false),
            excludes: flags.list("exclude"),
            trailing_comment: if is_json { None } else { self.trailing_comment() },
        };
        Some((files, flags))
    }

    /// Tells the heredocs among the words from the paths, and gives them their bodies.
    fn sources(&mut self, words: Vec<String>) -> Option<(Vec<String>, Vec<Heredoc>)> {
        let mut sources = Vec::new();
        let mut heredocs = Vec::new();
        for word in words {
            let Some(opening) = Heredoc::parse(&word) else {
                sources.push(word);
                continue;
            };
            match self.heredocs.iter().find(|known| known.name == opening.name) {
                Some(heredoc) => heredocs.push(heredoc.clone()),
                None => return self.fail(format!("heredoc {word} has no text")),
            }
        }
        Some((sources, heredocs))
    }

    fn trailing_comment(&self) -> Option<TrailingComment> {
        let (kept, comment) = cut_comment(&self.form.rest)?;
        let words = kept.split_whitespace();
        let mut paths: Vec<String> =
            words.clone().filter(|word| Heredoc::parse(word).is_none()).map(str::to_owned).collect();
        let dest = paths.pop().filter(|_| words.count() >= 2)?;
        let fixed_line = self.without(comment)?;
        Some(TrailingComment { comment: comment.to_owned(), sources: paths, dest, fixed_line })
    }
}
