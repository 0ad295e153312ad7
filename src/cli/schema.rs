//! An object against the schema of its custom resource definition: unknown fields, missing fields, wrong types and unknown words, each with
//! the path of the field. The API server does the same with what is applied; offline there is nobody else to notice a misspelt field.
//!
//! Lengths, patterns and rules across fields are judged by [`crate::plan::validate`].

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

/// What does not fit the schema of the definition's first version, as `path: what and what to do`.
pub(super) fn misfits(definition: &CustomResourceDefinition, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let schema = definition.spec.versions.first().and_then(|v| v.schema.as_ref()).and_then(|s| s.open_api_v3_schema.as_ref());
    let fields = object.as_object().into_iter().flatten();
    for (key, value) in fields {
        match (key.as_str(), schema.and_then(|s| s.properties.as_ref()).and_then(|p| p.get(key))) {
            // Status is the operator's; metadata are read by their own type.
            ("apiVersion" | "kind" | "metadata" | "status", _) => {}
            (_, Some(schema)) => walk(key, schema, value, &mut found),
            (_, None) => found.push(format!("{key}: unknown field; known are spec and metadata")),
        }
    }
    if object.get("spec").is_none() {
        found.push("spec: is missing".to_owned());
    }
    found
}

fn walk(path: &str, schema: &JSONSchemaProps, value: &Value, found: &mut Vec<String>) {
    if value.is_null() && schema.nullable == Some(true) {
        return;
    }
    let wanted = schema.type_.as_deref().unwrap_or("object");
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => true,
    };
    if !fits {
        found.push(format!("{path}: must be {}, is {}", article(wanted), shown(value)));
        return;
    }
    if let Some(words) = schema.enum_.as_ref().filter(|words| !words.iter().any(|word| word.0 == *value)) {
        let words: Vec<String> = words.iter().filter(|w| !w.0.is_null()).map(|w| shown(&w.0)).collect();
        found.push(format!("{path}: must be one of {}, is {}", words.join(", "), shown(value)));
    }
    match value {
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    walk(&format!("{path}[{}]", named(item).unwrap_or(index.to_string())), schema, item, found);
                }
            }
        }
        Value::Object(fields) => {
            for name in schema.required.iter().flatten().filter(|name| !fields.contains_key(*name)) {
                found.push(format!("{path}.{name}: is missing"));
            }
            for (name, value) in fields {
                let at = format!("{path}.{name}");
                match (schema.properties.as_ref().and_then(|p| p.get(name)), &schema.additional_properties) {
                    (Some(schema), _) => walk(&at, schema, value, found),
                    (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => walk(&at, schema, value, found),
                    (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
                    _ => {
                        let known: Vec<&str> = schema.properties.iter().flatten().map(|(name, _)| name.as_str()).collect();
                        found.push(format!("{at}: unknown field; known are {}", known.join(", ")));
                    }
                }
            }
        }
        _ => {}
    }
}

/// Items of our lists bear names, which say more than numbers.
fn named(item: &Value) -> Option<String> {
    item.get("name").and_then(Value::as_str).map(|name| format!("name={name}"))
}

fn article(wanted: &str) -> &str {
    match wanted {
        "object" => "a map",
        "array" => "a list",
        "string" => "text",
        "integer" => "a whole number",
        "boolean" => "true or false",
        other => other,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AIWorkload;
    use kube::CustomResourceExt;
    use serde_json::json;

    #[test]
    fn misfits_table() {
        let spec = |extra: Value| {
            let mut spec = json!({"selector": {"matchLabels": {"app": "bot"}}, "mode": "Enforce"});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            json!({"apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": {"name": "bot"}, "spec": spec})
        };
        let source = |extra: Value| {
            let mut source = json!({"name": "db", "type": "Service", "access": "ReadWrite"});
            source.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            spec(json!({"dataSources": [source]}))
        };
        let cases = [
            (spec(json!({})), None),
            (spec(json!({"identity": null})), None),
            (json!({"metadata": {}}), Some("spec: is missing")),
            (json!({"spec": {"mode": "Enforce"}}), Some("spec.selector: is missing")),
            (
                spec(json!({"datasources": []})),
                Some("spec.datasources: unknown field; known are capabilities, dataSources, identity, mode"),
            ),
            (spec(json!({"mode": "enforce"})), Some("spec.mode: must be one of `Observe`, `Enforce`, is `enforce`")),
            (spec(json!({"suspend": "yes"})), Some("spec.suspend: must be true or false, is `yes`")),
            (spec(json!({"selector": {"matchLabels": {"app": 1}}})), Some("spec.selector.matchLabels.app: must be text, is 1")),
            (
                source(json!({"class": "Secret"})),
                Some("spec.dataSources[name=db].class: must be one of `Public`, `Internal`, `Restricted`, is"),
            ),
            (
                source(json!({"service": {"name": "db", "port": "5432", "protocol": "TCP"}})),
                Some("spec.dataSources[name=db].service.port: must be a whole number, is `5432`"),
            ),
            (source(json!({"service": {"name": "db", "port": 5432}})), Some("spec.dataSources[name=db].service.protocol: is missing")),
        ];
        for (object, expected) in cases {
            let found = misfits(&AIWorkload::crd(), &object);
            match expected {
                None => assert_eq!(found, Vec::<String>::new(), "{object}"),
                Some(text) => assert!(found.len() == 1 && found[0].starts_with(text), "{object}: {found:?}"),
            }
        }
    }
}
