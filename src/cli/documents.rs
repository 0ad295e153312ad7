//! Files → documents: each object with the place it came from, so that every complaint can say where to look.

use std::fmt;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_saphyr::Spanned;

/// Where a document stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub file: String,
    /// From 1.
    pub document: usize,
    pub line: u64,
    /// Which item of a List, from 0.
    pub item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, document, line, item } = self;
        write!(f, "{file}: document {document} (line {line})")?;
        match item {
            Some(item) => write!(f, ", items[{item}]"),
            None => Ok(()),
        }
    }
}

/// One object as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    pub place: Place,
    pub api_version: String,
    pub kind: String,
    pub value: Value,
}

/// The documents of a file, of a directory's files (`*.yaml`, `*.yml`, `*.json`, not below it), or of stdin (`-`). Lists are taken apart.
pub(super) fn read(path: &Path, stdin: &mut dyn Read) -> (Vec<Document>, Vec<String>) {
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        match stdin.read_to_end(&mut bytes) {
            Ok(_) => parse("stdin", &bytes, &mut documents, &mut errors),
            Err(error) => errors.push(format!("stdin: {error}")),
        }
        return (documents, errors);
    }
    match files(path) {
        Err(error) => errors.push(format!("{}: {error}", path.display())),
        Ok(files) => {
            for file in files {
                match std::fs::read(&file) {
                    Ok(bytes) => parse(&file.display().to_string(), &bytes, &mut documents, &mut errors),
                    Err(error) => errors.push(format!("{}: {error}", file.display())),
                }
            }
        }
    }
    (documents, errors)
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let known = file.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known));
        if known && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn parse(file: &str, bytes: &[u8], documents: &mut Vec<Document>, errors: &mut Vec<String>) {
    for (index, result) in serde_saphyr::read::<_, Spanned<Value>>(&mut Cursor::new(bytes)).enumerate() {
        match result {
            Ok(Spanned { value, referenced, .. }) => {
                let place = Place { file: file.to_owned(), document: index + 1, line: referenced.line(), item: None };
                document(place, value, None, documents, errors);
            }
            Err(error) => errors.push(format!("{file}: document {}: {error}", index + 1)),
        }
    }
}

/// `of` is the kind and version which the items of a typed list do not repeat.
fn document(place: Place, value: Value, of: Option<(&str, &str)>, documents: &mut Vec<Document>, errors: &mut Vec<String>) {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let (Some(api_version), Some(kind)) = (text("apiVersion").or(of.map(|o| o.0.to_owned())), text("kind").or(of.map(|o| o.1.to_owned())))
    else {
        errors.push(format!("{place}: apiVersion and kind are missing; every Kubernetes object begins with them"));
        return;
    };
    match (kind.strip_suffix("List"), value.get("items").and_then(Value::as_array)) {
        (Some(of), Some(items)) if place.item.is_none() => {
            let of = (!of.is_empty()).then_some((api_version.as_str(), of));
            for (index, item) in items.iter().enumerate() {
                document(Place { item: Some(index), ..place.clone() }, item.clone(), of, documents, errors);
            }
        }
        _ => documents.push(Document { place, api_version, kind, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Vec<(usize, u64, Option<usize>, String)>, Vec<String>) {
        let (mut documents, mut errors) = (vec![], vec![]);
        parse("f.yaml", text.as_bytes(), &mut documents, &mut errors);
        (
            documents
                .into_iter()
                .map(|d| (d.place.document, d.place.line, d.place.item, format!("{}/{}", d.api_version, d.kind)))
                .collect(),
            errors,
        )
    }

    #[test]
    fn documents_and_their_places() {
        let (documents, errors) = parsed("# a comment\napiVersion: v1\nkind: Service\n---\napiVersion: v1\nkind: Node\n");
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(documents, [(1, 2, None, "v1/Service".into()), (2, 5, None, "v1/Node".into())]);
    }

    #[test]
    fn lists_are_taken_apart() {
        let (documents, errors) = parsed(r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Node"}]}"#);
        assert_eq!((documents, errors), (vec![(1, 1, Some(0), "v1/Node".into())], vec![]));
        let (documents, _) = parsed(r#"{"apiVersion": "v1", "kind": "ServiceList", "items": [{"metadata": {"name": "a"}}]}"#);
        assert_eq!(documents, [(1, 1, Some(0), "v1/Service".into())]);
    }

    #[test]
    fn errors_say_where() {
        let (_, errors) = parsed("apiVersion: v1\nkind: Node\n---\nname: nobody\n");
        assert_eq!(errors, ["f.yaml: document 2 (line 4): apiVersion and kind are missing; every Kubernetes object begins with them"]);
        let (_, errors) = parsed("apiVersion: v1\nkind: Node\nkind: Service\n");
        assert!(errors[0].starts_with("f.yaml: document 1: ") && errors[0].contains("duplicate"), "{errors:?}");
        let (_, errors) = parsed("a: [\n");
        assert!(errors[0].starts_with("f.yaml: document 1: "), "{errors:?}");
    }
}
