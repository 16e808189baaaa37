//! A panic anywhere ends the process at once, with one line of the log that says where: a broker with a dead shard
//! would look alive and be silent.

use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::process;
use std::thread;

use tracing::{dispatcher, error};

use crate::server::log;

/// From now on every panic, on any thread and in any build profile, is logged in one line and aborts.
pub fn abort_on_panic() {
    panic::set_hook(Box::new(|panic| {
        let line = line(thread::current().name(), panic);
        if dispatcher::has_been_set() {
            error!("{line}");
            log::finish();
        } else {
            // The log has not begun. `eprintln!` would panic where standard error is full or closed.
            let _ = writeln!(io::stderr(), "ringyard: {line}");
        }
        process::abort();
    }));
}

fn line(thread: Option<&str>, panic: &PanicHookInfo<'_>) -> String {
    let who = match thread {
        Some("main") => "the control plane".to_owned(),
        Some(name) => name.replace('-', " "),
        None => "a thread".to_owned(),
    };
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let what = panic.payload_as_str().unwrap_or("no message").replace('\n', " ");
    format!("{who} panicked at {place}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hook is the process's own, so this test shares it with whatever panics meanwhile.
    #[test]
    fn the_line_says_who_where_and_what() {
        let (lines, logged) = std::sync::mpsc::channel();
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let _ = lines.send(line(thread::current().name(), panic));
        }));
        let shard = thread::Builder::new().name("shard-3".to_owned());
        let _ = shard.spawn(|| panic!("a slot\nis {}", "lost")).unwrap().join();
        panic::set_hook(before);
        let logged: Vec<String> = logged.try_iter().collect();
        let line = logged.iter().find(|line| line.contains("shard 3")).expect("a line for shard 3");
        assert!(line.starts_with("shard 3 panicked at "), "{line}");
        assert!(line.contains("crash.rs:") && line.ends_with(": a slot is lost"), "{line}");
    }
}
