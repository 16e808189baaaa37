//! The structure of the source tree, read from the sources themselves.
//!
//! | test | what it keeps |
//! | --- | --- |
//! | [`imports_go_one_way`] | modules of `broker/src` import only what [`ORDER`] allows; exceptions in [`KNOWN`] |
//! | [`cycles_between_files_only_shrink`] | [`FILES_IN_CYCLES`] and [`LARGEST_CYCLE`] |
//! | [`files_are_short`] | at most [`FILE_LINES`] lines without tests; exceptions in [`LONG_FILES`] |
//! | [`functions_are_short`] | at most [`FUNCTION_LINES`] lines outside tests; exceptions in [`LONG_FUNCTIONS`] |
//! | [`unsafe_is_only_in_ring`] | no `unsafe`, and no lifted ban on it, outside `broker/ring` |
//! | [`private_words_only_go`] | how often [`WORDS`] occur |
//!
//! How to read a failure: each line names a file, a line where there is one, and what to do. There are two kinds.
//! Something got worse: change the source, not the list. Something got better: lower the number or remove the entry
//! that the message names, so that it stays better. Lists and numbers here only ever get shorter and smaller.
//!
//! What counts. Tests do not, except for words and `unsafe`: files named `tests.rs`, files under `tests/`, and whatever
//! `#[cfg(test)]` stands before, modules in files of their own included. Comments and literals are no code. Imports are
//! `use` declarations and paths in the code that begin with `crate`, `self`, `super` or a child module's name; `mod`
//! declarations and `pub(in ...)` are none. Sources are read as tokens, not compiled: what a macro makes is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the broker. Each may import those before it, none after it.
const ORDER: &[&str] =
    &["message", "topics", "sequencer", "presence", "publishing", "session", "shard", "http", "server"];

/// Modules beside the order: every module may import them. They import no module of the order, and no two of them
/// import each other.
const BESIDE: &[&str] = &["access", "capacity", "config", "ids", "observe", "tls"];

/// Imports, (from, to), that are still against the order. Sorted. This list may only get shorter.
const KNOWN: &[(&str, &str)] = &[];

/// Files of the broker that import each other, directly or through others. May only get smaller.
const FILES_IN_CYCLES: usize = 8;

/// How many files the largest group has in which each file imports every other, directly or through others. May only
/// get smaller.
const LARGEST_CYCLE: usize = 3;

/// The longest a file may be, without its tests.
const FILE_LINES: usize = 400;

/// Longer files, and how long they are. Sorted. May only get shorter.
const LONG_FILES: &[(&str, usize)] = &[];

/// The longest a function may be, from the line with `fn` to the closing brace.
const FUNCTION_LINES: usize = 60;

/// Longer functions, and how long they are. Sorted. May only get shorter.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// Words that only this project understands, and how often code and comments use them, tests included. May only fall.
const WORDS: &[(&str, usize)] = &[
    ("bell", 0),
    ("crew", 0),
    ("dismiss", 0),
    ("doors", 0),
    ("errand", 0),
    ("guest", 0),
    ("herd", 0),
    ("homes", 0),
    ("lap", 0),
    ("let_in", 0),
    ("misspelt", 0),
    ("news", 0),
    ("pace", 0),
    ("say_no", 0),
    ("settled", 0),
    ("shortage", 0),
    ("siege", 0),
    ("starved", 0),
    ("sweep", 0),
    ("told", 0),
    ("welcome", 0),
];

/// Where lengths and words are counted.
const FOLDERS: &[&str] = &["bench/src", "broker/ring/src", "broker/src", "loadgen/src", "protocol/src"];

#[test]
fn imports_go_one_way() {
    let sources = read_folder("broker/src");
    let imports = imports_between_modules(&sources);
    let mut complaints = modules_without_a_place(&sources);
    complaints.extend(compare_imports(&imports, KNOWN));
    report(&complaints);
}

#[test]
fn cycles_between_files_only_shrink() {
    let imports = imports_between_files(&read_folder("broker/src"));
    let cycles = cycles(&imports);
    let mut complaints = Vec::new();
    complaints.extend(compare_constant("FILES_IN_CYCLES", cycles.iter().map(BTreeSet::len).sum(), FILES_IN_CYCLES));
    complaints.extend(compare_constant("LARGEST_CYCLE", cycles.first().map_or(0, BTreeSet::len), LARGEST_CYCLE));
    if !complaints.is_empty() {
        complaints.extend(cycles.iter().map(|cycle| describe_cycle(cycle, &imports)));
    }
    report(&complaints);
}

#[test]
fn files_are_short() {
    report(&compare_counts("LONG_FILES", &long_files(&read_folders()), LONG_FILES));
}

#[test]
fn functions_are_short() {
    report(&compare_counts("LONG_FUNCTIONS", &long_functions(&read_folders()), LONG_FUNCTIONS));
}

#[test]
fn unsafe_is_only_in_ring() {
    let mut complaints = Vec::new();
    for (path, text) in rust_files(&root()) {
        if !path.starts_with("broker/ring/") {
            complaints.extend(unsafe_lines(&tokens(&text)).iter().map(|line| {
                format!("{path}:{line}: unsafe outside broker/ring. Put what needs it behind a safe interface there.")
            }));
        }
    }
    complaints.extend(manifests_without_the_ban());
    report(&complaints);
}

#[test]
fn private_words_only_go() {
    report(&compare_counts("WORDS", &count_words(&read_folders()), WORDS));
}

/// Fails with the complaints, if there are any.
fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n\n{}\n", complaints.join("\n"));
}

// The workspace's files.

/// One source file.
struct Source {
    /// From the root of the workspace, with `/`.
    path: String,
    /// Everything, comments and tests too.
    tokens: Vec<Token>,
    /// Neither comments nor tests.
    code: Vec<Token>,
    /// Lines that are not tests.
    lines: usize,
    is_test: bool,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let tokens = tokens(text);
        let (code, test_lines) = without_tests(&tokens);
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        Self { path: path.to_owned(), tokens, code, lines: text.lines().count() - test_lines, is_test }
    }

    /// The file's module, from the root of its crate. A binary's is `main`.
    fn module(&self) -> Vec<String> {
        let inside = self.path.split_once("src/").map_or(&*self.path, |(_, inside)| inside).trim_end_matches(".rs");
        let mut module: Vec<String> = inside.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
            module.pop();
        }
        module
    }

    /// The folder of its child modules, with a `/` at the end.
    fn children_folder(&self) -> String {
        let stem = self.path.trim_end_matches(".rs");
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        if matches!(name, "mod" | "lib" | "main") { format!("{folder}/") } else { format!("{stem}/") }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace around the broker").to_owned()
}

/// Paths from the root and contents, sorted.
fn rust_files(folder: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry of the folder").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            if path.is_symlink() || name.starts_with('.') || matches!(name, "target" | "node_modules") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let path = path.strip_prefix(root()).expect("a file of the workspace");
                files.insert(path.to_str().expect("a path in UTF-8").replace('\\', "/"), text);
            }
        }
    }
    files
}

fn read_folder(folder: &str) -> Vec<Source> {
    let files = rust_files(&root().join(folder));
    assert!(!files.is_empty(), "no sources in {folder}");
    let mut sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    mark_test_modules(&mut sources);
    sources
}

fn read_folders() -> Vec<Source> {
    FOLDERS.iter().flat_map(|folder| read_folder(folder)).collect()
}

/// Marks files that another file declares with `#[cfg(test)] mod name;`.
fn mark_test_modules(sources: &mut [Source]) {
    let mut tests = Vec::new();
    for source in sources.iter() {
        let folder = source.children_folder();
        tests.extend(test_modules(&source.tokens).iter().map(|name| format!("{folder}{name}")));
    }
    for source in sources {
        let stem = source.path.trim_end_matches(".rs");
        source.is_test |= tests.iter().any(|test| stem == test || stem.starts_with(&format!("{test}/")));
    }
}

// Tokens.

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Word,
    Lifetime,
    /// A string, a character or a number.
    Literal,
    Comment,
    /// One character that is none of the others.
    Sign,
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    text: String,
    /// Where it begins, from 1.
    line: usize,
}

impl Token {
    fn last_line(&self) -> usize {
        self.line + self.text.matches('\n').count()
    }

    fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Sign) && self.text == text
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let rest = &text[at..];
        let space = rest.len() - rest.trim_start().len();
        let (kind, length) = if space > 0 { (None, space) } else { next_token(rest) };
        let part = &rest[..length];
        tokens.extend(kind.map(|kind| Token { kind, text: part.to_owned(), line }));
        line += part.matches('\n').count();
        at += length;
    }
    tokens
}

/// What `rest` begins with, and how many bytes it has. `rest` begins with no space.
fn next_token(rest: &str) -> (Option<Kind>, usize) {
    let first = rest.chars().next().expect("not at the end");
    let (kind, length) = if rest.starts_with("//") {
        (Kind::Comment, rest.find('\n').unwrap_or(rest.len()))
    } else if rest.starts_with("/*") {
        (Kind::Comment, block_comment(rest))
    } else if let Some(length) = string(rest) {
        (Kind::Literal, length)
    } else if first == '\'' {
        quote(rest)
    } else if is_word(first) {
        let kind = if first.is_ascii_digit() { Kind::Literal } else { Kind::Word };
        (kind, rest.find(|c| !is_word(c)).unwrap_or(rest.len()))
    } else {
        (Kind::Sign, first.len_utf8())
    };
    (Some(kind), length)
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The length of the block comment that `rest` begins with. They nest.
fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of the string that `rest` begins with, if it does: plain, raw, of bytes or C's.
fn string(rest: &str) -> Option<usize> {
    ["", "b", "c", "r", "br", "cr"].iter().find_map(|prefix| {
        let after = rest.strip_prefix(prefix)?;
        let raw = prefix.ends_with('r');
        let hashes = if raw { after.len() - after.trim_start_matches('#').len() } else { 0 };
        let content = after[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let raw_length = || content.find(&end).map_or(content.len(), |at| at + end.len());
        let length = if raw { raw_length() } else { quoted(content, '"') };
        Some(prefix.len() + hashes + 1 + length)
    })
}

/// The length of `content` up to and with the closing quote.
fn quoted(content: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in content.char_indices() {
        if !escaped && c == quote {
            return at + c.len_utf8();
        }
        escaped = !escaped && c == '\\';
    }
    content.len()
}

/// A character or a lifetime, and its length.
fn quote(rest: &str) -> (Kind, usize) {
    let content = &rest[1..];
    let mut characters = content.chars();
    let (first, second) = (characters.next(), characters.next());
    if first == Some('\\') || second == Some('\'') {
        (Kind::Literal, 1 + quoted(content, '\''))
    } else {
        (Kind::Lifetime, 1 + content.find(|c| !is_word(c)).unwrap_or(content.len()))
    }
}

// Tests inside files.

const TEST_ATTRIBUTE: &[&str] = &["#", "[", "cfg", "(", "test", ")", "]"];

/// Whether the tokens at `at` are these.
fn are(code: &[Token], at: usize, texts: &[&str]) -> bool {
    code.len() >= at + texts.len() && texts.iter().zip(&code[at..]).all(|(text, token)| token.is(text))
}

/// Neither comments nor what `#[cfg(test)]` stands before, and how many lines the latter has.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, usize) {
    let all = without_comments(tokens);
    let (mut code, mut test_lines, mut at) = (Vec::new(), 0, 0);
    while at < all.len() {
        if are(&all, at, TEST_ATTRIBUTE) {
            let end = item_end(&all, at);
            test_lines += all[end - 1].last_line() - all[at].line + 1;
            at = end;
        } else {
            code.push(all[at].clone());
            at += 1;
        }
    }
    (code, test_lines)
}

fn without_comments(tokens: &[Token]) -> Vec<Token> {
    tokens.iter().filter(|token| token.kind != Kind::Comment).cloned().collect()
}

/// Where the item at `at`, with its attributes, has ended.
fn item_end(code: &[Token], at: usize) -> usize {
    let mut depth = 0;
    for (at, token) in code.iter().enumerate().skip(at) {
        if token.is("(") || token.is("[") || token.is("{") {
            depth += 1;
        } else if token.is(")") || token.is("]") || token.is("}") {
            depth -= 1;
        }
        if depth == 0 && (token.is("}") || token.is(";")) {
            return at + 1;
        }
    }
    code.len()
}

/// The names in `#[cfg(test)] mod name;`.
fn test_modules(tokens: &[Token]) -> Vec<String> {
    let code = without_comments(tokens);
    let tests = (0..code.len()).filter(|&at| are(&code, at, TEST_ATTRIBUTE));
    tests.flat_map(|at| declared_modules(&code[at..item_end(&code, at)])).collect()
}

/// The names in `mod name;`.
fn declared_modules(code: &[Token]) -> Vec<String> {
    let declarations = code.windows(3).filter(|window| window[0].is("mod") && window[2].is(";"));
    declarations.map(|window| window[1].text.clone()).collect()
}

// Imports.

/// A path in the code, as it is written.
#[derive(Debug)]
struct Import {
    segments: Vec<String>,
    line: usize,
}

/// All paths in `use` declarations, and all others of two segments or more.
fn paths(code: &[Token]) -> Vec<Import> {
    let (mut paths, mut at) = (Vec::new(), 0);
    while at < code.len() {
        if code[at].is("use") && !are(code, at + 1, &["<"]) {
            at = use_tree(code, at + 1, &[], &mut paths);
        } else if are(code, at, &["pub", "(", "in"]) {
            at = (at..code.len()).find(|&at| code[at].is(")")).unwrap_or(code.len());
        } else if code[at].kind == Kind::Word {
            let begun = at;
            let mut segments = vec![code[at].text.clone()];
            while are(code, at + 1, &[":", ":"]) && code.get(at + 3).is_some_and(|next| next.kind == Kind::Word) {
                at += 3;
                segments.push(code[at].text.clone());
            }
            let continues = begun > 1 && are(code, begun - 2, &[":", ":"]);
            if segments.len() > 1 && !continues {
                paths.push(Import { segments, line: code[begun].line });
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    paths
}

/// The paths of the tree at `at`, each after `prefix`. Says where the tree has ended.
fn use_tree(code: &[Token], mut at: usize, prefix: &[String], paths: &mut Vec<Import>) -> usize {
    let mut segments = prefix.to_vec();
    while let Some(token) = code.get(at) {
        if token.is("{") {
            at += 1;
            while code.get(at).is_some_and(|token| !token.is("}")) {
                at = use_tree(code, at, &segments, paths);
                at += usize::from(are(code, at, &[","]));
            }
            return at + 1;
        }
        if are(code, at, &[":", ":"]) {
            // `::name`: another crate.
            segments.push(String::new());
            at += 2;
            continue;
        }
        if token.kind == Kind::Word && (segments.is_empty() || !token.is("self")) || token.is("*") {
            segments.push(token.text.clone());
        }
        at += 1;
        if !are(code, at, &[":", ":"]) {
            paths.push(Import { segments, line: token.line });
            return if are(code, at, &["as"]) { at + 2 } else { at };
        }
        at += 2;
    }
    at
}

/// The path from the root of the broker, or none: another crate's, or a local name.
fn resolve(source: &Source, children: &[String], segments: &[String]) -> Option<Vec<String>> {
    let mut module = source.module();
    let mut rest = segments;
    match segments.first()?.as_str() {
        "crate" => module.clear(),
        "broker" if module == ["main"] => module.clear(),
        "self" => {}
        "super" => {
            while rest.get(1).is_some_and(|next| next == "super") {
                module.pop();
                rest = &rest[1..];
            }
            module.pop();
        }
        name if children.iter().any(|child| child == name) => module.push(name.to_owned()),
        _ => return None,
    }
    module.extend_from_slice(&rest[1..]);
    Some(module)
}

/// The broker's imports of itself in this file.
fn imports(source: &Source) -> Vec<Import> {
    let children = declared_modules(&source.code);
    let resolved = paths(&source.code).into_iter().filter_map(|path| {
        let segments = resolve(source, &children, &path.segments)?;
        Some(Import { segments, line: path.line })
    });
    resolved.collect()
}

/// Where a module imports another, per (from, to).
type ModuleImports = BTreeMap<(String, String), Vec<String>>;

/// The imports between modules at the top that have a place in the order.
fn imports_between_modules(sources: &[Source]) -> ModuleImports {
    let mut found = ModuleImports::new();
    let placed = |name: &String| ORDER.contains(&name.as_str()) || BESIDE.contains(&name.as_str());
    for source in sources.iter().filter(|source| !source.is_test) {
        let Some(from) = source.module().first().cloned().filter(placed) else { continue };
        for import in imports(source) {
            if let Some(to) = import.segments.first().filter(|to| placed(to) && **to != from) {
                let place = format!("{}:{}", source.path, import.line);
                found.entry((from.clone(), to.clone())).or_default().push(place);
            }
        }
    }
    found
}

fn modules_without_a_place(sources: &[Source]) -> Vec<String> {
    let modules: BTreeSet<String> = sources.iter().filter_map(|source| source.module().first().cloned()).collect();
    let placed = |name: &str| name == "main" || ORDER.contains(&name) || BESIDE.contains(&name);
    let strange = modules.iter().filter(|name| !placed(name));
    strange.map(|name| format!("broker/src/{name}: has no place in the order. Add it to ORDER or BESIDE.")).collect()
}

/// Whether the order forbids this import.
fn is_wrong(from: &str, to: &str, imports: &ModuleImports) -> bool {
    let place = |name| ORDER.iter().position(|module| *module == name);
    match (place(from), place(to)) {
        (Some(from), Some(to)) => to > from,
        (Some(_), None) => false,
        (None, Some(_)) => true,
        (None, None) => imports.contains_key(&(to.to_owned(), from.to_owned())),
    }
}

fn compare_imports(imports: &ModuleImports, known: &[(&str, &str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    if !known.is_sorted() {
        complaints.push("KNOWN is not sorted.".to_owned());
    }
    let wrong: Vec<_> = imports.iter().filter(|((from, to), _)| is_wrong(from, to, imports)).collect();
    for ((from, to), places) in &wrong {
        if !known.contains(&(from.as_str(), to.as_str())) {
            let places = first(places);
            complaints.push(format!("{places}: `{from}` imports `{to}`, against the order. Move what it needs."));
        }
    }
    for (from, to) in known {
        if !wrong.iter().any(|((a, b), _)| a == from && b == to) {
            complaints.push(format!("`{from}` imports `{to}` no longer. Remove it from KNOWN."));
        }
    }
    complaints
}

/// The first few, each once.
fn first(places: &[String]) -> String {
    let mut places = places.to_vec();
    places.dedup();
    let shown = places.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if places.len() > 5 { format!("{shown} and {} more", places.len() - 5) } else { shown }
}

// Cycles between files.

/// What each file imports, and the line where it first does.
type FileImports = BTreeMap<String, BTreeMap<String, usize>>;

/// The imports between files. A file that names a type or a constant of a module around it does not import that
/// module: it is a part of it. A function of a module around it is an import, and so is everything of a module.
fn imports_between_files(sources: &[Source]) -> FileImports {
    let sources: Vec<_> = sources.iter().filter(|source| !source.is_test).collect();
    let files: BTreeMap<_, _> = sources.iter().map(|source| (source.module(), &source.path)).collect();
    let mut found = FileImports::new();
    for source in sources {
        let from = source.module();
        let targets = found.entry(source.path.clone()).or_default();
        for import in imports(source) {
            let depth = (0..=import.segments.len()).rev().find(|&depth| files.contains_key(&import.segments[..depth]));
            let Some(depth) = depth else { continue };
            let (module, item) = import.segments.split_at(depth);
            let is_type = item.first().is_some_and(|name| name.starts_with(char::is_uppercase));
            if module != from && !(from.starts_with(module) && is_type) {
                targets.entry(files[module].clone()).or_insert(import.line);
            }
        }
    }
    found
}

/// All that `from` imports, directly or through others.
fn reach<'a>(imports: &'a FileImports, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut left = vec![from];
    while let Some(file) = left.pop() {
        for to in imports.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(to.as_str()) {
                left.push(to);
            }
        }
    }
    reached
}

/// The groups of files in which each reaches every other, the largest first.
fn cycles(imports: &FileImports) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&str, _> = imports.keys().map(|file| (file.as_str(), reach(imports, file))).collect();
    let mut cycles = BTreeSet::new();
    for (file, others) in &reached {
        let cycle = others.iter().filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)));
        let cycle: BTreeSet<String> = cycle.map(|other| (*other).to_owned()).collect();
        if !cycle.is_empty() {
            cycles.insert(cycle);
        }
    }
    let mut cycles: Vec<_> = cycles.into_iter().collect();
    cycles.sort_by_key(|cycle| std::cmp::Reverse(cycle.len()));
    cycles
}

fn describe_cycle(cycle: &BTreeSet<String>, imports: &FileImports) -> String {
    let mut text = format!("a cycle of {} files:", cycle.len());
    for file in cycle {
        for (to, line) in imports[file].iter().filter(|(to, _)| cycle.contains(*to)) {
            text.push_str(&format!("\n  {file}:{line} -> {to}"));
        }
    }
    text
}

// Lengths.

/// How much of something there is, and where.
struct Count {
    number: usize,
    places: Vec<String>,
}

fn long_files(sources: &[Source]) -> BTreeMap<String, Count> {
    let long = sources.iter().filter(|source| !source.is_test && source.lines > FILE_LINES);
    let count = |source: &Source| Count { number: source.lines, places: vec![source.path.clone()] };
    long.map(|source| (source.path.clone(), count(source))).collect()
}

/// By file and name. Of several with the same name in one file, the longest.
fn long_functions(sources: &[Source]) -> BTreeMap<String, Count> {
    let mut long: BTreeMap<String, Count> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test) {
        for function in functions(&source.code).into_iter().filter(|function| function.lines > FUNCTION_LINES) {
            let count = long.entry(format!("{} {}", source.path, function.name));
            let count = count.or_insert(Count { number: 0, places: Vec::new() });
            count.number = count.number.max(function.lines);
            count.places.push(format!("{}:{}", source.path, function.line));
        }
    }
    long
}

#[derive(Debug, PartialEq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// The functions with a body; those in others too.
fn functions(code: &[Token]) -> Vec<Function> {
    let begins = (0..code.len().saturating_sub(1)).filter(|&at| code[at].is("fn") && code[at + 1].kind == Kind::Word);
    let functions = begins.filter_map(|at| {
        let end = &code[item_end(code, at) - 1];
        let (name, line) = (code[at + 1].text.clone(), code[at].line);
        end.is("}").then(|| Function { name, line, lines: end.line - line + 1 })
    });
    functions.collect()
}

// Unsafe code.

/// The lines that have the keyword, or lift the ban on it.
fn unsafe_lines(tokens: &[Token]) -> Vec<usize> {
    let code = without_comments(tokens);
    let found = code.iter().enumerate().filter(|(at, token)| token.is("unsafe") || lifts_the_ban(&code, *at));
    found.map(|(_, token)| token.line).collect()
}

/// Whether an attribute begins here that makes the compiler accept unsafe code.
fn lifts_the_ban(code: &[Token], at: usize) -> bool {
    let lifts = ["allow", "expect", "warn"].iter().any(|level| are(code, at, &[level, "("]));
    lifts && code[at..].iter().take_while(|token| !token.is(")")).any(|token| token.is("unsafe_code"))
}

/// The ban itself: the workspace has it, and every package but `broker/ring` takes it.
fn manifests_without_the_ban() -> Vec<String> {
    let read = |path: &str| {
        let path = root().join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let mut complaints = Vec::new();
    if !read("Cargo.toml").contains("\nunsafe_code = \"forbid\"\n") {
        complaints.push("Cargo.toml: does not forbid unsafe code in the workspace.".to_owned());
    }
    for package in ["bench", "broker", "broker/sim", "loadgen", "protocol"] {
        let manifest = format!("{package}/Cargo.toml");
        if !read(&manifest).contains("\n[lints]\nworkspace = true\n") {
            complaints.push(format!("{manifest}: does not take the lints of the workspace."));
        }
    }
    complaints
}

// Words.

/// How often each of [`WORDS`] occurs in code and comments. What is in strings does not count.
fn count_words(sources: &[Source]) -> BTreeMap<String, Count> {
    let mut counts: BTreeMap<String, Count> =
        WORDS.iter().map(|(word, _)| ((*word).to_owned(), Count { number: 0, places: Vec::new() })).collect();
    for source in sources {
        for (word, line) in words(&source.tokens) {
            if let Some(count) = counts.get_mut(&word) {
                count.number += 1;
                count.places.push(format!("{}:{line}", source.path));
            }
        }
    }
    counts
}

/// The words of code and comments in small letters, with their lines.
fn words(tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for token in tokens.iter().filter(|token| token.kind != Kind::Literal) {
        for (offset, line) in token.text.split('\n').enumerate() {
            found.extend(split_words(line).into_iter().map(|word| (word, token.line + offset)));
        }
    }
    found
}

/// Words end at whatever is no letter, and where a capital begins the next: `aBCDee` has `a`, `bc` and `dee`.
fn split_words(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let (mut words, mut word) = (Vec::new(), String::new());
    for (at, c) in letters.iter().enumerate() {
        let after_small = at > 0 && letters[at - 1].is_lowercase();
        let before_small = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if !c.is_alphabetic() || c.is_uppercase() && (after_small || before_small) {
            words.push(std::mem::take(&mut word));
        }
        if c.is_alphabetic() {
            word.extend(c.to_lowercase());
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

// Ceilings.

/// Complains of what is above its ceiling in `list`, has none, is below it, or is gone.
fn compare_counts(list: &str, found: &BTreeMap<String, Count>, known: &[(&str, usize)]) -> Vec<String> {
    let mut complaints = Vec::new();
    if !known.is_sorted() {
        complaints.push(format!("{list} is not sorted."));
    }
    for (name, Count { number, places }) in found {
        let places = first(places);
        match known.iter().find(|(known, _)| known == name) {
            None => complaints.push(format!("{places}: `{name}` has {number} lines, too many. Divide it.")),
            Some((_, ceiling)) if number > ceiling => {
                complaints.push(format!("`{name}`: {number}, and {list} allows {ceiling}. It is at {places}."));
            }
            Some((_, ceiling)) if number < ceiling => {
                complaints.push(format!("`{name}`: {number}, fewer than before. Lower its {ceiling} in {list}."));
            }
            Some(_) => {}
        }
    }
    let gone = known.iter().filter(|(name, _)| !found.contains_key(*name));
    complaints.extend(gone.map(|(name, _)| format!("`{name}` is gone or short now. Remove it from {list}.")));
    complaints
}

fn compare_constant(name: &str, found: usize, known: usize) -> Option<String> {
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Some(format!("{name} allows {known}, and there are {found}. Undo the import.")),
        std::cmp::Ordering::Less => Some(format!("{found}, fewer than before. Lower {name} from {known}.")),
        std::cmp::Ordering::Equal => None,
    }
}

/// Each check finds what it looks for, and nothing else.
mod parsers {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        let mut sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        mark_test_modules(&mut sources);
        sources
    }

    fn code(text: &str) -> Vec<Token> {
        without_tests(&tokens(text)).0
    }

    fn written(text: &str) -> Vec<String> {
        paths(&code(text)).iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn tokens_know_strings_characters_lifetimes_and_comments() {
        let text = "let a = \"x \\\" // y\"; /* b /* c */ d */ 'e' '\\'' &'f r#\"g\" h\"# br\"i\" // j\nk r#l";
        let of = |kind| {
            let tokens = tokens(text).into_iter().filter(move |token| token.kind == kind);
            tokens.map(|token| token.text).collect::<Vec<_>>()
        };
        assert_eq!(of(Kind::Literal), ["\"x \\\" // y\"", "'e'", "'\\''", "r#\"g\" h\"#", "br\"i\""]);
        assert_eq!(of(Kind::Comment), ["/* b /* c */ d */", "// j"]);
        assert_eq!(of(Kind::Lifetime), ["'f"]);
        assert_eq!(of(Kind::Word), ["let", "a", "k", "r", "l"]);
        assert_eq!(tokens(text).last().map(|token| token.line), Some(2));
    }

    #[test]
    fn tests_are_left_out() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n#[cfg(test)]\nmod c;\nfn d() {}\n";
        let source = Source::new("x/src/e.rs", text);
        let names: Vec<_> = functions(&source.code).into_iter().map(|function| function.name).collect();
        assert_eq!((names, source.lines), (vec!["a".to_owned(), "d".to_owned()], 2));
        assert_eq!(test_modules(&source.tokens), ["c"]);

        let files = [("x/src/e.rs", text), ("x/src/e/c.rs", ""), ("x/src/e/d.rs", ""), ("x/src/e/tests.rs", "")];
        let tests: Vec<_> = sources(&files).iter().map(|source| source.is_test).collect();
        assert_eq!(tests, [false, true, false, true]);
    }

    #[test]
    fn paths_are_found_in_declarations_and_code() {
        let text = "use crate::{a::{self, B as C}, d::*};\nuse ::e::f;\npub(in crate::g) fn h() { crate::i::j::<K>() }";
        assert_eq!(written(text), ["crate::a", "crate::a::B", "crate::d::*", "::e::f", "crate::i::j"]);
        assert_eq!(written("// crate::a::b\nlet c = \"crate::d::e\";"), [""; 0]);
        assert_eq!(written("#[cfg(test)]\nmod tests { use crate::a::b; }"), [""; 0]);
    }

    #[test]
    fn paths_are_resolved_from_the_file() {
        let source = Source::new("broker/src/a/b.rs", "");
        let absolute = |path: &str| {
            let segments: Vec<_> = path.split("::").map(str::to_owned).collect();
            resolve(&source, &["c".to_owned()], &segments).map(|segments| segments.join("::"))
        };
        assert_eq!(absolute("crate::d::e").as_deref(), Some("d::e"));
        assert_eq!(absolute("self::e").as_deref(), Some("a::b::e"));
        assert_eq!(absolute("super::e").as_deref(), Some("a::e"));
        assert_eq!(absolute("super::super::e").as_deref(), Some("e"));
        assert_eq!(absolute("c::e").as_deref(), Some("a::b::c::e"));
        assert_eq!(absolute("std::io"), None);
    }

    #[test]
    fn a_wrong_import_is_found() {
        let files = [
            ("broker/src/topics/mod.rs", "\nuse crate::shard::Shard;\nuse crate::config::Config;"),
            ("broker/src/shard/mod.rs", "use crate::topics::Topic;"),
            ("broker/src/config/mod.rs", "fn a() { crate::message::b() }"),
            ("broker/src/access/mod.rs", "use crate::observe::A;"),
            ("broker/src/observe/mod.rs", "use crate::access::B;"),
        ];
        let imports = imports_between_modules(&sources(&files));
        let complaints = compare_imports(&imports, &[("access", "observe"), ("session", "shard")]);
        let begins = ["broker/src/config/mod.rs:1: ", "broker/src/observe/mod.rs:1: ", "broker/src/topics/mod.rs:2: "];
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        assert!(
            begins.iter().zip(&complaints).all(|(begin, complaint)| complaint.starts_with(begin)),
            "{complaints:?}"
        );
        assert!(complaints[3].starts_with("`session` imports `shard` no longer"), "{complaints:?}");
    }

    #[test]
    fn a_module_without_a_place_is_found() {
        let files = [("broker/src/strange.rs", ""), ("broker/src/topics/a.rs", ""), ("broker/src/lib.rs", "")];
        assert_eq!(modules_without_a_place(&sources(&files)).len(), 1);
    }

    #[test]
    fn a_cycle_is_found() {
        let files = [
            ("broker/src/a.rs", "mod b; use b::run;"),
            ("broker/src/a/b.rs", "use crate::a::Type; use crate::c::d;"),
            ("broker/src/c.rs", "use crate::e::f;"),
            ("broker/src/e.rs", "use crate::c::{Type, LIMIT};"),
        ];
        let imports = imports_between_files(&sources(&files));
        let cycle = BTreeSet::from(["broker/src/c.rs".to_owned(), "broker/src/e.rs".to_owned()]);
        assert_eq!(cycles(&imports), std::slice::from_ref(&cycle), "a type of the parent makes no cycle");
        assert!(describe_cycle(&cycle, &imports).contains("broker/src/e.rs:1 -> broker/src/c.rs"));

        let files = [files[0], ("broker/src/a/b.rs", "use crate::a::function;")];
        let cycles = cycles(&imports_between_files(&sources(&files)));
        assert_eq!(cycles.first().map(BTreeSet::len), Some(2), "a function of the parent does");
    }

    #[test]
    fn a_long_function_is_found() {
        let body = |lines| {
            format!("fn short() {{}}\nfn long(a: [u8; 2]) {{\n{}}}\ntrait T {{ fn no(); }}", "\n".repeat(lines))
        };
        let lines = |text: &str| functions(&code(text)).iter().map(|function| function.lines).collect::<Vec<_>>();
        assert_eq!(lines(&body(3)), [1, 5]);
        assert_eq!(lines("fn a() {\n    \"}\"; '}'; // }\n}"), [3], "braces in strings and comments are none");
        let found = |lines| long_functions(&sources(&[("a/src/b.rs", &*body(lines))])).into_keys().collect::<Vec<_>>();
        assert_eq!(found(FUNCTION_LINES - 2), [""; 0]);
        assert_eq!(found(FUNCTION_LINES - 1), ["a/src/b.rs long"]);
    }

    #[test]
    fn a_long_file_is_found() {
        let found = |lines| long_files(&sources(&[("a/src/b.rs", &*"\n".repeat(lines))])).len();
        assert_eq!((found(FILE_LINES), found(FILE_LINES + 1)), (0, 1));
    }

    #[test]
    fn unsafe_is_found_in_code_alone() {
        let lines = |text: &str| unsafe_lines(&tokens(text));
        assert_eq!(lines("fn a() {\n unsafe\n{} }"), [2]);
        assert_eq!(lines("#![allow(dead_code, unsafe_code)]"), [1]);
        assert_eq!(lines("#![forbid(unsafe_code)]"), [0; 0]);
        assert_eq!(lines("// unsafe\n\"unsafe\"; r#\"unsafe\"#; not_unsafe();"), [0; 0]);
    }

    #[test]
    fn words_are_found_in_identifiers_and_comments() {
        let found = |text: &str| words(&tokens(text)).into_iter().map(|(word, _)| word).collect::<Vec<_>>();
        assert_eq!(
            found("open_doors HTTPDoors BELL_2 newspaper"),
            ["open", "doors", "http", "doors", "bell", "newspaper"]
        );
        assert_eq!(found("\"a bell\""), [""; 0]);
        assert_eq!(words(&tokens("/*\n a bell */")).last(), Some(&("bell".to_owned(), 2)));
        let counts = count_words(&sources(&[("a/src/b.rs", "// A guest.\nstruct GuestList; // guests")]));
        assert_eq!((counts["guest"].number, counts["bell"].number), (2, 0));
        assert_eq!(counts["guest"].places, ["a/src/b.rs:1", "a/src/b.rs:2"]);
    }

    #[test]
    fn ceilings_hold_from_both_sides() {
        let found = |number| BTreeMap::from([("a".to_owned(), Count { number, places: vec!["a.rs:1".to_owned()] })]);
        let complaints = |number, known: &[_]| compare_counts("LIST", &found(number), known);
        assert_eq!(complaints(3, &[("a", 3)]), [""; 0]);
        assert!(complaints(4, &[("a", 3)])[0].contains("a.rs:1"));
        assert!(complaints(2, &[("a", 3)])[0].contains("Lower"));
        assert!(complaints(3, &[])[0].contains("too many"));
        assert!(complaints(3, &[("a", 3), ("b", 1)])[0].contains("Remove"));
        assert!(complaints(3, &[("b", 1), ("a", 3)])[0].contains("not sorted"));

        assert_eq!(compare_constant("N", 3, 3), None);
        assert!(compare_constant("N", 4, 3).is_some_and(|complaint| complaint.contains("allows 3")));
        assert!(compare_constant("N", 2, 3).is_some_and(|complaint| complaint.contains("Lower")));
    }
}
