//! Compresses the files that the broker carries in its binary, into the build's folder: `http::page` includes the results.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

/// From the top of the repository, without the folders in them.
const FOLDERS: [&str; 3] = ["broker/src/web", "broker/src/web/dashboard", "broker/src/web/demos"];
const FILES: [&str; 9] = [
    "README.md",
    "protocol/RINGYARD-V1.md",
    "protocol/js/README.md",
    "protocol/js/ringyard-sse.min.mjs",
    "protocol/js/ringyard-yjs.min.mjs",
    "protocol/js/ringyard.min.js",
    "protocol/js/ringyard.min.mjs",
    "protocol/js/vendor/yjs.min.mjs",
    "protocol/vectors/v1.json",
];

fn main() -> io::Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a folder of the repository");
    let built = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut files: Vec<PathBuf> = FILES.map(PathBuf::from).into();
    for folder in FOLDERS {
        println!("cargo::rerun-if-changed={}", top.join(folder).display());
        for entry in fs::read_dir(top.join(folder))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push(Path::new(folder).join(entry.file_name()));
            }
        }
    }
    for file in files {
        let (from, to) = (top.join(&file), built.join(format!("{}.gz", file.display())));
        fs::create_dir_all(to.parent().expect("it is in a folder"))?;
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&fs::read(&from)?)?;
        fs::write(to, packed.finish()?)?;
        println!("cargo::rerun-if-changed={}", from.display());
    }
    Ok(())
}
