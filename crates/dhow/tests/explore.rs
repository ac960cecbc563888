//! Looking through an image on a terminal.

use crate::rig::{CTRL_C, Rig};

#[test]
fn layers_and_files_are_walked_through_by_keyboard() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile = "FROM busybox\nCOPY big /data/big\nRUN rm /data/big && echo small > /data/small\n";
    let big = "0123456789".repeat(5000);
    rig.context("app", &[("Dockerfile", dockerfile), ("big", &big)]).ok("dhow build -q -t app .");
    let mut terminal = rig.terminal("dhow explore app");
    terminal.shows("in 3 layers, 50kB wasted");
    terminal.shows("Files up to layer 3");
    terminal.shows("▸ /data");
    // The lowest layer has no /data.
    terminal.type_in("\tg");
    terminal.shows("Files up to layer 1");
    // What the last layer did.
    terminal.type_in("Gc\t");
    terminal.shows("Changes of layer 3");
    terminal.type_in("g\r");
    terminal.shows("A       6B     small");
    terminal.shows("D       0B     big");
    // Bytes in vain, and who is to blame.
    terminal.type_in("w");
    terminal.shows("D     50kB   /data/big");
    terminal.shows("3 removed");
    terminal.shows("2 file 0644 0:0 50kB");
    terminal.type_in("a/smal\r");
    terminal.shows("Files up to layer 3, with \"smal\"");
    terminal.type_in("q");
    let (status, screen) = terminal.finish();
    assert_eq!(status, 0, "{screen}");
    assert!(screen.contains("\u{1b}[?1049l"), "the screen is given back");
}

#[test]
fn ctrl_c_leaves_and_no_terminal_is_an_error() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("dhow pull -q busybox");
    let mut terminal = rig.terminal("dhow explore busybox");
    terminal.shows("Files up to layer 1");
    terminal.type_in(CTRL_C);
    assert_eq!(terminal.finish().0, 0);
    let said = rig.fails("dhow explore busybox", 1);
    assert!(said.contains("explore needs a terminal"), "{said}");
}
