use std::collections::HashSet;
use std::path::{Path, PathBuf};

use dhow_engine::{FileChange, FileKind, FileMeta, FileNode, InsideLayer};
use ratatui::crossterm::event::{KeyCode, KeyModifiers};

/// What the keys move in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pane {
    Layers,
    Files,
}

/// Which files are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// All that there are once the layer is on top.
    Everything,
    /// Those that the layer changed.
    Changes,
    /// Those of which lower layers hold bytes in vain, worst first.
    Waste,
}

/// A line of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    pub(crate) path: PathBuf,
    pub(crate) depth: usize,
    pub(crate) change: Option<&'a FileChange>,
    /// What the layer did: added, changed or deleted it, or nothing.
    pub(crate) mark: char,
    /// Of the file, or of all files below; in vain, where waste is shown.
    pub(crate) bytes: u64,
    pub(crate) is_directory: bool,
    pub(crate) is_open: bool,
}

impl Row<'_> {
    pub(crate) fn file(&self) -> Option<&FileMeta> {
        self.change.and_then(|change| change.file.as_ref())
    }
}

/// What is looked at, and where.
pub(crate) struct Explorer<'a> {
    pub(crate) title: String,
    pub(crate) layers: &'a [InsideLayer],
    root: &'a FileNode,
    pub(crate) pane: Pane,
    /// The selected layer.
    pub(crate) layer: usize,
    pub(crate) show: Show,
    pub(crate) by_size: bool,
    /// Part of the paths that are shown; empty for all.
    pub(crate) filter: String,
    /// Whether keys are letters of the filter.
    pub(crate) typing: bool,
    pub(crate) rows: Vec<Row<'a>>,
    /// The selected row.
    pub(crate) row: usize,
    /// How many rows fit, told by the last drawing.
    pub(crate) page: usize,
    pub(crate) wasted: u64,
    pub(crate) total: u64,
    open: HashSet<PathBuf>,
    done: bool,
}

impl<'a> Explorer<'a> {
    pub(crate) fn new(title: String, layers: &'a [InsideLayer], root: &'a FileNode) -> Self {
        let mut wasted = 0;
        root.walk(&mut |_, node| wasted += node.wasted_bytes());
        let mut explorer = Self {
            title,
            layers,
            root,
            pane: Pane::Files,
            layer: layers.len().saturating_sub(1),
            show: Show::Everything,
            by_size: false,
            filter: String::new(),
            typing: false,
            rows: Vec::new(),
            row: 0,
            page: 1,
            wasted,
            total: layers.iter().map(|layer| layer.size_bytes).sum(),
            open: HashSet::new(),
            done: false,
        };
        explorer.list();
        explorer
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The selected line of the files.
    pub(crate) fn selected(&self) -> Option<&Row<'a>> {
        self.rows.get(self.row)
    }

    /// All that layers did to the selected entry.
    pub(crate) fn story(&self) -> &'a [FileChange] {
        let node = self.selected().and_then(|row| self.root.get(&row.path));
        node.map_or(&[], |node| &node.changes)
    }

    /// What a key does.
    pub(crate) fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) {
        if modifiers.contains(KeyModifiers::CONTROL) && code == KeyCode::Char('c') {
            self.done = true;
        } else if self.typing {
            self.type_filter(code);
        } else {
            self.command(code);
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => return,
        }
        self.list();
    }

    fn command(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char('q') | KeyCode::Esc => self.done = true,
            KeyCode::Tab | KeyCode::BackTab => self.pane = other(self.pane),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-(self.page.cast_signed())),
            KeyCode::PageDown => self.step(self.page.cast_signed()),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Enter | KeyCode::Char(' ') if self.pane == Pane::Files => self.toggle(),
            KeyCode::Right | KeyCode::Char('l') if self.pane == Pane::Files => self.open_or_enter(),
            KeyCode::Left | KeyCode::Char('h') if self.pane == Pane::Files => self.close_or_leave(),
            KeyCode::Char('a') => self.change_show(Show::Everything),
            KeyCode::Char('c') => self.change_show(Show::Changes),
            KeyCode::Char('w') => self.change_show(Show::Waste),
            KeyCode::Char('s') => {
                self.by_size = !self.by_size;
                self.list();
            }
            KeyCode::Char('/') => {
                self.typing = true;
                self.pane = Pane::Files;
            }
            _ => {}
        }
    }

    fn step(&mut self, by: isize) {
        let (position, count) = match self.pane {
            Pane::Layers => (&mut self.layer, self.layers.len()),
            Pane::Files => (&mut self.row, self.rows.len()),
        };
        *position = position.saturating_add_signed(by).min(count.saturating_sub(1));
        if self.pane == Pane::Layers {
            self.list();
        }
    }

    fn change_show(&mut self, show: Show) {
        self.show = show;
        self.row = 0;
        self.list();
    }

    fn toggle(&mut self) {
        let Some(row) = self.rows.get(self.row).filter(|row| row.is_directory) else { return };
        if !self.open.remove(&row.path) {
            self.open.insert(row.path.clone());
        }
        self.list();
    }

    fn open_or_enter(&mut self) {
        match self.selected() {
            Some(row) if row.is_directory && !row.is_open => self.toggle(),
            Some(row) if row.is_directory => self.step(1),
            _ => {}
        }
    }

    fn close_or_leave(&mut self) {
        let Some(row) = self.selected() else { return };
        if row.is_open {
            return self.toggle();
        }
        let parent = row.path.parent().map(Path::to_path_buf);
        if let Some(above) = self.rows.iter().position(|row| Some(&row.path) == parent.as_ref()) {
            self.row = above;
        }
    }

    /// Makes the rows anew, and stays at the selected path where it is still shown.
    fn list(&mut self) {
        let at = self.selected().map(|row| row.path.clone());
        self.rows = match self.show {
            Show::Waste => self.waste(),
            _ if self.layers.is_empty() => Vec::new(),
            _ => {
                let mut rows = Vec::new();
                self.below(self.root, &mut PathBuf::from("/"), 0, &mut rows);
                rows
            }
        };
        let stays = at.and_then(|at| self.rows.iter().position(|row| row.path == at));
        self.row = stays.unwrap_or(self.row).min(self.rows.len().saturating_sub(1));
    }

    /// The rows below an open directory. Where a filter is set, all that it finds are open.
    fn below(&self, node: &'a FileNode, path: &mut PathBuf, depth: usize, rows: &mut Vec<Row<'a>>) {
        let mut listed: Vec<_> = Vec::new();
        for (name, child) in &node.children {
            path.push(name);
            if let Some(bytes) = self.shown_bytes(child, path) {
                listed.push((name, child, bytes));
            }
            path.pop();
        }
        if self.by_size {
            listed.sort_by_key(|(_, _, bytes)| std::cmp::Reverse(*bytes));
        }
        for (name, child, bytes) in listed {
            path.push(name);
            let row = self.row_of(child, path, depth, bytes);
            let is_open = row.is_open;
            rows.push(row);
            if is_open {
                self.below(child, path, depth + 1, rows);
            }
            path.pop();
        }
    }

    fn row_of(&self, node: &'a FileNode, path: &Path, depth: usize, bytes: u64) -> Row<'a> {
        let change = node.change_at(self.layer);
        let is_directory = change
            .and_then(|change| change.file.as_ref())
            .map_or(!node.children.is_empty(), |file| file.kind == FileKind::Directory);
        Row {
            path: path.to_path_buf(),
            depth,
            change,
            mark: mark(node, self.layer),
            bytes,
            is_directory,
            is_open: is_directory && (self.open.contains(path) || !self.filter.is_empty()),
        }
    }

    /// The bytes of an entry and those below it that are shown; `None` if none is.
    fn shown_bytes(&self, node: &FileNode, path: &mut PathBuf) -> Option<u64> {
        let change = match self.show {
            Show::Changes => node.in_layer(self.layer),
            _ => node.change_at(self.layer).filter(|change| change.file.is_some()),
        };
        let found = self.filter.is_empty() || path.to_string_lossy().contains(&self.filter);
        let own =
            change.filter(|_| found).map(|change| change.file.as_ref().map_or(0, |file| file.own_bytes));
        let mut shown = own;
        for (name, child) in &node.children {
            path.push(name);
            if let Some(bytes) = self.shown_bytes(child, path) {
                shown = Some(shown.unwrap_or(0) + bytes);
            }
            path.pop();
        }
        shown
    }

    fn waste(&self) -> Vec<Row<'a>> {
        let mut rows = Vec::new();
        self.root.walk(&mut |path, node| {
            let bytes = node.wasted_bytes();
            let found = self.filter.is_empty() || path.to_string_lossy().contains(&self.filter);
            if bytes > 0 && found {
                rows.push(Row {
                    path: path.to_path_buf(),
                    depth: 0,
                    change: node.changes.last(),
                    mark: if node.current().is_none() { 'D' } else { 'C' },
                    bytes,
                    is_directory: false,
                    is_open: false,
                });
            }
        });
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
        rows
    }
}

fn other(pane: Pane) -> Pane {
    match pane {
        Pane::Layers => Pane::Files,
        Pane::Files => Pane::Layers,
    }
}

fn mark(node: &FileNode, layer: usize) -> char {
    let Some(change) = node.in_layer(layer) else { return ' ' };
    let was_there = layer.checked_sub(1).and_then(|below| node.at(below)).is_some();
    match (&change.file, was_there) {
        (None, _) => 'D',
        (Some(_), false) => 'A',
        (Some(_), true) => 'C',
    }
}
