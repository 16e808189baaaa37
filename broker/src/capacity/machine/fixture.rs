//! A machine made of files, for tests.

use std::fs;

use tempfile::TempDir;

use crate::capacity::machine::Machine;

/// A folder with /proc and /sys of a machine. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Fixture(TempDir);

impl Fixture {
    /// A machine that has these files and no others; of two with one name the later.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let root = TempDir::new().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(root)
    }

    pub(crate) fn machine(&self) -> Machine {
        Machine::at(self.0.path())
    }
}
