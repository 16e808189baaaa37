//! The bugs of `planted/` can be planted: each patch says what it breaks, and applies to the sources. Whether the simulation finds
//! them is what `planted.sh` tries, which takes long. Where there is no git, only the first is checked.

use std::path::Path;
use std::process::Command;

#[test]
fn every_planted_bug_says_what_it_breaks_and_applies() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).expect("the workspace");
    let has_git = Command::new("git").arg("--version").output().is_ok_and(|output| output.status.success());
    let mut found = 0;
    for entry in std::fs::read_dir(here.join("planted")).expect("planted bugs") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a patch");
        assert!(text.starts_with("Breaks: "), "{}: the first line says what it breaks", path.display());
        found += 1;
        if has_git {
            let output = Command::new("git").current_dir(root).args(["apply", "--check"]).arg(&path).output();
            let output = output.expect("git ran before");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{} does not apply: {said}", path.display());
        }
    }
    assert!(found > 10, "{found} planted bugs");
}
