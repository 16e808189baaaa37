//! The results of the floor, as tables and as JSON.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::{Cell, Matrix, Way};
use crate::results::{describe, remove_older};

/// One line while the matrix is measured.
pub(super) fn print_row(row: &[Cell]) {
    let Some(Cell { sockets, bytes, .. }) = row.first() else { return };
    let of = |cell: &Cell| format!("{} {:.0}", name(cell.way), cell.median_cpu_ns());
    println!("{sockets} sockets, {bytes} bytes: {} ns", row.iter().map(of).collect::<Vec<_>>().join(", "));
}

/// One table for each number of sockets, in Markdown.
pub(super) fn tables(matrix: &Matrix) -> String {
    let mut sockets: Vec<_> = matrix.cells.iter().map(|cell| cell.sockets).collect();
    sockets.dedup();
    sockets.iter().map(|sockets| table(&matrix.cells, *sockets)).collect::<Vec<_>>().join("\n")
}

fn table(cells: &[Cell], sockets: usize) -> String {
    let cells: Vec<_> = cells.iter().filter(|cell| cell.sockets == sockets).collect();
    let ways: Vec<_> = Way::value_variants().iter().filter(|way| cells.iter().any(|cell| cell.way == **way)).collect();
    let mut lengths: Vec<_> = cells.iter().map(|cell| cell.bytes).collect();
    lengths.dedup();
    let mut table = format!("{sockets} sockets, nanoseconds of processor time per send:\n\n| bytes |");
    for way in &ways {
        table += &format!(" {} |", name(**way));
    }
    table += "\n| ---: |";
    table += &" ---: |".repeat(ways.len());
    for bytes in lengths {
        table += &format!("\n| {bytes} |");
        for way in &ways {
            let cell = cells.iter().find(|cell| cell.way == **way && cell.bytes == bytes);
            table += &cell.map_or(" |".to_owned(), |cell| format!(" {:.0} |", cell.median_cpu_ns()));
        }
    }
    table + "\n"
}

/// As the command line has it.
fn name(way: Way) -> String {
    way.to_possible_value().expect("no way is hidden").get_name().to_owned()
}

/// Keeps the raw data as `floor/DATE.json`, in place of earlier runs, and the tables as `FLOOR.md`.
pub(super) fn keep(results: &Path, matrix: &Matrix) -> Result<()> {
    let directory = results.join("floor");
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{}.json", matrix.machine.date));
    fs::write(&path, serde_json::to_string_pretty(matrix)? + "\n")
        .with_context(|| format!("writing {}", path.display()))?;
    remove_older(&path)?;
    let mut page = String::from(
        "# Floor\n\nWhat the kernel alone takes to send one message to each of many sockets over loopback, made by \
         `cargo run --release -p ringyard-bench --bin bench -- floor`. The sender is one thread on one core; the receivers are \
         another process on another core, and throw everything away. The next round begins when every byte of the last \
         was received. `send` is send(2); the others are io_uring, 256 sends per system call: `uring` by ordinary \
         descriptors, all others by direct ones; `vectored` a sendmsg of four ranges; `zero-copy` SEND_ZC, waited for \
         until the kernel lets go of the bytes. Raw data: the folder `floor` \
         beside this page.\n\n",
    );
    write!(page, "{}\n## Machine\n\n- {}\n", tables(matrix), describe(&matrix.machine))?;
    fs::write(results.join("FLOOR.md"), page)?;
    Ok(())
}
