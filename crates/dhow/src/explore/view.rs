use dhow_template::units::human_size;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, List, ListItem, ListState, Paragraph};

use crate::commands::layers::{describe, instruction, printable};
use crate::explore::model::{Explorer, Pane, Row, Show};

const KEYS: &str =
    "tab pane  ↑↓ move  ←→ close/open  a all  c changes  w waste  s size/name  / filter  q quit";
/// The last lines of the left side, for the selected entry.
const DETAIL_LINES: u16 = 9;

/// Draws all of it, and tells the explorer how many rows fit.
pub(crate) fn draw(frame: &mut Frame<'_>, explorer: &mut Explorer<'_>) {
    let [title, body, keys] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)])
            .areas(frame.area());
    let [left, files] =
        Layout::horizontal([Constraint::Percentage(45), Constraint::Percentage(55)]).areas(body);
    let [layers, detail] =
        Layout::vertical([Constraint::Min(3), Constraint::Length(DETAIL_LINES)]).areas(left);
    explorer.page = usize::from(files.height.saturating_sub(2)).max(1);
    frame.render_widget(heading(explorer), title);
    draw_layers(frame, layers, explorer);
    frame.render_widget(detail_of(explorer), detail);
    draw_files(frame, files, explorer);
    frame.render_widget(
        Paragraph::new(bottom(explorer)).style(Style::new().add_modifier(Modifier::DIM)),
        keys,
    );
}

fn heading(explorer: &Explorer<'_>) -> Paragraph<'static> {
    let wasted = match explorer.wasted {
        0 => "nothing wasted".to_owned(),
        bytes => format!("{} wasted", human_size(bytes)),
    };
    let text = format!(
        "{}  {} in {} layers, {wasted}",
        printable(&explorer.title),
        human_size(explorer.total),
        explorer.layers.len()
    );
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::BOLD))
}

fn bottom(explorer: &Explorer<'_>) -> String {
    match explorer.typing {
        true => format!("filter: {}▏ (enter: keep, esc: all)", printable(&explorer.filter)),
        false => KEYS.to_owned(),
    }
}

fn block(title: String, focused: bool) -> Block<'static> {
    let style = if focused { Style::new().fg(Color::Cyan) } else { Style::new() };
    Block::bordered().title(title).border_style(style)
}

fn draw_layers(frame: &mut Frame<'_>, area: Rect, explorer: &Explorer<'_>) {
    let item = |(index, layer): (usize, &dhow_engine::InsideLayer)| {
        let made_by = instruction(layer.created_by.as_deref().unwrap_or_default(), true);
        ListItem::new(format!(
            "{:>3} {:>8}  {}",
            index + 1,
            human_size(layer.size_bytes),
            printable(&made_by)
        ))
    };
    let items: Vec<ListItem<'_>> = explorer.layers.iter().enumerate().map(item).collect();
    let list = List::new(items)
        .block(block("Layers".to_owned(), explorer.pane == Pane::Layers))
        .highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = ListState::default().with_selected(Some(explorer.layer));
    frame.render_stateful_widget(list, area, &mut state);
}

fn draw_files(frame: &mut Frame<'_>, area: Rect, explorer: &Explorer<'_>) {
    let what = match explorer.show {
        Show::Everything => format!("Files up to layer {}", explorer.layer + 1),
        Show::Changes => format!("Changes of layer {}", explorer.layer + 1),
        Show::Waste => "Bytes of lower layers in vain".to_owned(),
    };
    let filter = match explorer.filter.is_empty() {
        true => String::new(),
        false => format!(", with {:?}", explorer.filter),
    };
    // Only what can be seen becomes text: an image may have a million files.
    let height = usize::from(area.height.saturating_sub(2));
    let first = explorer.row.saturating_sub(height.saturating_sub(1));
    let seen = explorer.rows.iter().skip(first).take(height);
    let items: Vec<ListItem<'_>> = seen.map(|row| ListItem::new(row_line(row))).collect();
    let list = List::new(items)
        .block(block(format!("{what}{filter}"), explorer.pane == Pane::Files))
        .highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let selected = (!explorer.rows.is_empty()).then(|| explorer.row - first);
    let mut state = ListState::default().with_selected(selected);
    frame.render_stateful_widget(list, area, &mut state);
}

fn row_line<'a>(row: &Row<'_>) -> Line<'a> {
    let name = match row.depth {
        0 => row.path.to_string_lossy(),
        _ => row.path.file_name().unwrap_or_default().to_string_lossy(),
    };
    let arrow = match (row.is_directory, row.is_open) {
        (true, true) => "▾ ",
        (true, false) => "▸ ",
        (false, _) => "  ",
    };
    let target = row.file().and_then(|file| file.target.as_ref());
    let target = target.map(|target| format!(" -> {}", target.display())).unwrap_or_default();
    let color = match row.mark {
        'A' => Color::Green,
        'C' => Color::Yellow,
        'D' => Color::Red,
        _ => Color::Reset,
    };
    let text = format!("{}{arrow}{}", "  ".repeat(row.depth), printable(&format!("{name}{target}")));
    Line::from(vec![
        Span::styled(format!("{} ", row.mark), Style::new().fg(color)),
        Span::raw(format!("{:>8} ", human_size(row.bytes))),
        Span::styled(text, Style::new().fg(color)),
    ])
}

/// What layers did to the selected entry.
fn detail_of(explorer: &Explorer<'_>) -> Paragraph<'static> {
    let Some(row) = explorer.selected() else {
        return Paragraph::new("nothing to show").block(block("Entry".to_owned(), false));
    };
    let mut lines = vec![Line::from(printable(&row.path.to_string_lossy()))];
    let room = usize::from(DETAIL_LINES).saturating_sub(3);
    for change in explorer.story().iter().rev().take(room) {
        let what = change.file.as_ref().map_or_else(|| "removed".to_owned(), describe);
        lines.push(Line::from(format!("{:>3} {}", change.layer + 1, printable(&what))));
    }
    Paragraph::new(lines).block(block("Entry, latest layer first".to_owned(), false))
}
