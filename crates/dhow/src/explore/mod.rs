//! A terminal for looking through an image: its layers, its files at each of them, and what is wasted.
//!
//! [`model`] knows what is selected and what a key does, and no terminal; [`view`] draws it.

mod model;
mod view;

use std::io::{self, IsTerminal as _};

use dhow_engine::Inside;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

pub(crate) use model::Explorer;

/// Shows `inside` until the user has seen enough. Both ends must be a terminal.
pub(crate) fn run(title: String, inside: &Inside) -> io::Result<()> {
    let mut explorer = Explorer::new(title, &inside.layers, &inside.root);
    let mut terminal = ratatui::try_init()?;
    let result = explore(&mut terminal, &mut explorer);
    let restored = ratatui::try_restore();
    result.and(restored)
}

/// Whether there is a person at a terminal.
pub(crate) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn explore(terminal: &mut ratatui::DefaultTerminal, explorer: &mut Explorer<'_>) -> io::Result<()> {
    while !explorer.is_done() {
        terminal.draw(|frame| view::draw(frame, explorer))?;
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            explorer.key(key.code, key.modifiers);
        }
    }
    Ok(())
}
