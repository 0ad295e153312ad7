//! The order of the layers, and that every file is part of the program. Read from the source text, whatever features are on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::repository;

/// Modules of the crate and the modules that each may use. Programs do not use each other.
const LAYERS: &[(&str, &[&str])] = &[
    ("scope", &[]),
    ("policy", &["scope"]),
    ("wire", &["scope", "policy"]),
    ("api", &["scope"]),
    ("plan", &["scope", "policy", "api"]),
    ("drift", &["scope", "policy", "api", "plan"]),
    ("cluster", &["scope", "policy", "api", "plan"]),
    ("operator", &["scope", "policy", "api", "plan", "cluster"]),
    ("guard", &["scope", "policy", "wire"]),
    ("cli", &["scope", "policy", "api", "plan", "drift"]),
];

/// What brings the outside world in, and the first layers that may use it. Deciding is pure.
const HANDS: &[(&str, &[&str])] = &[
    ("kube::Client", &["cluster", "operator"]),
    ("kube::runtime", &["cluster", "operator"]),
    ("tokio::", &["cluster", "operator", "guard"]),
    ("async fn", &["cluster", "operator", "guard"]),
    ("std::env", &["operator", "cli"]),
    ("std::fs", &["cluster", "operator", "guard", "cli"]),
    ("std::net::Tcp", &["cluster", "operator", "guard"]),
    ("SystemTime::now", &["cluster", "operator", "guard"]),
    ("Timestamp::now", &["cluster", "operator", "cli"]),
    ("Instant::now", &["cluster", "operator", "guard"]),
];

#[test]
fn layers_use_only_earlier_ones() {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut breaches = Vec::new();
    for (file, layer) in sources() {
        let Some(mine) = allowed.get(layer.as_str()) else { continue };
        for used in used_modules(&code(&read(&file))) {
            if allowed.contains_key(used.as_str()) && used != layer && !mine.contains(&used.as_str()) {
                breaches.push(format!("{}: {layer} must not use {used}", shown(&file)));
            }
        }
    }
    assert_eq!(breaches, Vec::<String>::new());
}

#[test]
fn deciding_is_pure() {
    let mut breaches = Vec::new();
    for (file, layer) in sources() {
        if !LAYERS.iter().any(|(name, _)| *name == layer) {
            continue;
        }
        let code = code(&read(&file));
        for (word, layers) in HANDS {
            if code.contains(word) && !layers.contains(&layer.as_str()) {
                breaches.push(format!("{}: {layer} must not use {word}", shown(&file)));
            }
        }
    }
    assert_eq!(breaches, Vec::<String>::new());
}

#[test]
fn every_module_has_its_layer() {
    let layers: BTreeSet<String> = LAYERS.iter().map(|(name, _)| name.to_string()).collect();
    let found: BTreeSet<String> = sources().into_iter().map(|(_, layer)| layer).filter(|l| !["lib", "bin"].contains(&l.as_str())).collect();
    assert_eq!(found, layers);
}

#[test]
fn every_file_is_reached() {
    for (root, entries) in [("src", vec!["lib.rs".to_owned()]), ("tests/it", vec!["main.rs".to_owned()])] {
        let root = repository(root);
        let mut todo: Vec<PathBuf> = entries.iter().map(|e| root.join(e)).collect();
        todo.extend(files(&root.join("bin")));
        let mut reached = BTreeSet::new();
        while let Some(file) = todo.pop() {
            if file.is_file() && reached.insert(file.clone()) {
                todo.extend(declared(&file));
            }
        }
        let lost: Vec<String> = files(&root).into_iter().filter(|f| !reached.contains(f)).map(|f| shown(&f)).collect();
        assert_eq!(lost, Vec::<String>::new(), "no `mod` leads to these files");
    }
}

#[test]
fn the_reading_of_uses_is_right() {
    let uses = |text: &str| used_modules(&code(text)).into_iter().collect::<Vec<_>>();
    assert_eq!(uses("use crate::scope::{Scope, Mode};"), ["scope"]);
    assert_eq!(uses("use crate::{api::AIWorkload, plan::{Facts, Plan}, scope};"), ["api", "plan", "scope"]);
    assert_eq!(uses("fn f(x: crate::operator::Config) {}"), ["operator"]);
    assert_eq!(uses("let x = super::super::cluster::apply;"), ["cluster"]);
    assert_eq!(uses("// crate::operator is not used\nuse crate::scope;"), ["scope"]);
    assert_eq!(uses("use crate::scope;\n#[cfg(test)]\nmod tests {\n    use crate::operator;\n}\n"), ["scope"]);
}

/// Every source file with the module of the crate it belongs to.
fn sources() -> Vec<(PathBuf, String)> {
    let src = repository("src");
    let layer = |file: &Path| {
        let first = file.strip_prefix(&src).unwrap().iter().next().unwrap().to_string_lossy().into_owned();
        first.trim_end_matches(".rs").to_owned()
    };
    files(&src).into_iter().map(|file| (file.clone(), layer(&file))).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

fn shown(file: &Path) -> String {
    file.strip_prefix(repository("")).unwrap().display().to_string()
}

/// The text without comments and unit tests (which stand last).
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Modules named after `crate::`, or after enough `super::` to be out of a module of the crate; in brace groups as well.
fn used_modules(code: &str) -> BTreeSet<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::").chain(code.match_indices("super::super::")) {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => _ = found.insert(name(rest)),
            Some(group) => found.extend(parts(group).iter().map(|part| name(part))),
        }
    }
    found
}

/// The parts of a brace group, up to its end.
fn parts(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                return parts;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

/// Where the modules that this file declares could lie.
fn declared(file: &Path) -> Vec<PathBuf> {
    let directory = file.parent().unwrap();
    let stem = file.file_stem().unwrap().to_string_lossy();
    let base = match stem.as_ref() {
        "mod" | "lib" | "main" => directory.to_owned(),
        name => directory.join(name),
    };
    let mut found = Vec::new();
    for line in code(&read(file)).lines().map(str::trim) {
        let Some(rest) = line.strip_suffix(';') else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        if let [.., "mod", name] = words[..] {
            found.push(base.join(format!("{name}.rs")));
            found.push(base.join(name).join("mod.rs"));
        }
    }
    found
}
