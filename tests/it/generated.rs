//! Files made from the code: the custom resource definitions, the chart's copy, and the reference pages. `make generate` writes them.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use remit::plan::{self, Admission, Debugging, GuardSettings, Injection, Subject};
use remit::policy::pod::IDS;
use remit::policy::{ACCESS, RECORD, Reason};
use remit::scope::NEVER_GRANTABLE;
use serde_json::json;

use crate::assert_generated;

const HEAD: &str = "Generated from the code by `make generate`; do not edit.";

#[test]
fn custom_resource_definitions() {
    for crd in remit::api::definitions() {
        let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
        let yaml = format!("# {HEAD}\n{}", serde_saphyr::to_string(&crd).unwrap());
        let read: CustomResourceDefinition = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, crd, "{name}: the YAML says the same");
        assert_generated(&format!("crds/{name}"), &yaml);
        assert_generated(&format!("charts/remit/files/crds/{name}"), &yaml);
    }
}

#[test]
fn reference() {
    let mut page =
        format!("<!-- {HEAD} -->\n# API reference\n\nGroup `remit.dev`, version `v1alpha1`. Also: `kubectl explain aiworkload.spec`.\n");
    for crd in remit::api::definitions() {
        let version = &crd.spec.versions[0];
        let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let kind = &crd.spec.names.kind;
        let scope = if crd.spec.scope == "Namespaced" { "namespaced" } else { "of the cluster" };
        let short = crd.spec.names.short_names.iter().flatten().map(|s| format!(", short `{s}`")).collect::<String>();
        write!(page, "\n## {kind}\n\n{}\n\n`{}.{}`, {scope}{short}.\n\n", description(schema), crd.spec.names.plural, crd.spec.group)
            .unwrap();
        rules(&mut page, schema);
        for part in ["spec", "status"] {
            if let Some(schema) = schema.properties.as_ref().and_then(|p| p.get(part)) {
                section(&mut page, kind, part, schema);
            }
        }
    }
    assert_generated("docs/reference.md", &page);
}

#[test]
fn never_grantable() {
    let mut page = format!(
        "<!-- {HEAD} -->\n# What is never granted\n\n\
         No AIWorkload may declare these, whoever writes it and whatever a ScopeCeiling allows: each would be a way round the scope itself.\n\
         `NAME/*` means every subresource of NAME, `*` every resource of the group.\n\n\
         | API group | resource | what is refused | why |\n|---|---|---|---|\n"
    );
    for row in NEVER_GRANTABLE {
        let group = if row.group.is_empty() { "core" } else { row.group };
        let what = if row.reads_too { "everything" } else { "writing" };
        writeln!(page, "| {group} | `{}` | {what} | {} |", row.resource, row.why).unwrap();
    }
    assert_generated("docs/never-grantable.md", &page);
}

/// What tests/chart/pods.sh shows to the API server's own policies is what is injected. IMAGE and the AIWorkload's uid it fills in.
#[test]
fn guarded_pod() {
    let inspected = json!([{"name": "help", "type": "Host", "host": {"name": "help.example.com", "port": 443, "protocol": "HTTPS", "tlsInspection": "Enabled"}}]);
    for (name, sources) in [("guarded-pod", json!([])), ("inspecting-pod", inspected)] {
        assert_generated(&format!("tests/chart/{name}.json"), &guarded(sources));
    }
}

fn guarded(sources: serde_json::Value) -> String {
    let workload = json!({
        "apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": {"name": "bot", "namespace": "remit-chart-c", "uid": "UID"},
        "spec": {"mode": "Enforce", "selector": {"matchLabels": {"app": "bot"}}, "dataSources": sources},
    });
    let scope = plan::validate(&serde_json::from_value(workload).unwrap()).unwrap();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bot", "labels": {"app": "bot"}},
        "spec": {"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "app", "image": "registry.example.com/bot:1", "securityContext": {"runAsUser": 1000}}]},
    });
    let settings = GuardSettings {
        image: "IMAGE".into(),
        trust: "remit-policy+00000000+key".into(),
        image_pull_policy: "IfNotPresent".into(),
        cpu_request: "10m".into(),
        memory_request: "24Mi".into(),
        memory_limit: "96Mi".into(),
        allowed_devices: Vec::new(),
    };
    let injection = Injection { settings: &settings, scope: &scope, workload_uid: "UID", uid: IDS.start() + 7, gid: IDS.start() + 8 };
    let pod = plan::inject(&serde_json::from_value(pod).unwrap(), &injection);
    let admission = Admission { scope: &scope, workload_uid: "UID", settings: &settings, debugging: Debugging::Refused };
    assert_eq!(plan::admit(&pod.metadata, pod.spec.as_ref().unwrap(), Subject::Pod, &admission), []);
    serde_json::to_string_pretty(&pod).unwrap() + "\n"
}

#[test]
fn reasons() {
    let mut page = format!(
        "<!-- {HEAD} -->\n# Why a guard refused\n\n\
         A guard gives one of these reasons whenever it refuses something, or, in the mode `Observe`, lets it through that `Enforce` would refuse.\n\
         They stand in its log, in refused DNS answers, in its answers over HTTP (status and problem document) and gRPC, in `kubectl remit explain` and in the metric `remit_guard_denials_total`. A code never changes its meaning.\n\n\
         Retryable: the same may succeed later without a change of the scope. Declarable: a data source would be an answer; the record and `kubectl remit explain` then show\n\
         its lines, but for plain addresses.\n\n\
         | code | what it means | HTTP | retryable | declarable | what to do |\n|---|---|---|---|---|---|\n"
    );
    let yes = |holds| if holds { "yes" } else { "" };
    for reason in Reason::ALL {
        let (retryable, declarable) = (yes(reason.retryable()), yes(reason.declarable()));
        let status = reason.status();
        writeln!(page, "| `{reason}` | {} | {status} | {retryable} | {declarable} | {} |", reason.means(), reason.remedy()).unwrap();
    }
    page.push_str(
        "\n## The record\n\n\
         One line of JSON in the log of the container `remit-guard`. Of a flood not every one is written; how many more there were, a line with the event `left_out` says.\n\n\
         | field | meaning |\n|---|---|\n",
    );
    for (field, meaning) in RECORD {
        writeln!(page, "| `{field}` | {meaning} |").unwrap();
    }
    page.push_str(
        "\n## The record of a request\n\n\
         One line for each request of HTTP that was let through. Written within a tenth of a second, many together.\n\n\
         | field | meaning |\n|---|---|\n",
    );
    for (field, meaning) in ACCESS {
        writeln!(page, "| `{field}` | {meaning} |").unwrap();
    }
    assert_generated("docs/reasons.md", &page);
}

/// A table of the fields of one object, then the same for each object below it.
fn section(page: &mut String, kind: &str, path: &str, schema: &JSONSchemaProps) {
    let Some(properties) = schema.properties.as_ref().filter(|p| !p.is_empty()) else { return };
    write!(page, "{}### {kind} `{path}`\n\n", if page.ends_with("\n\n") { "" } else { "\n" }).unwrap();
    rules(page, schema);
    page.push_str("| field | type | | |\n|---|---|---|---|\n");
    for (name, field) in properties {
        let required = if schema.required.iter().flatten().any(|r| r == name) { "required" } else { "" };
        writeln!(page, "| `{name}` | {} | {required} | {} |", type_of(field), cell(&description(field), field)).unwrap();
    }
    for (name, field) in properties {
        match &field.items {
            Some(JSONSchemaPropsOrArray::Schema(item)) => section(page, kind, &format!("{path}.{name}[]"), item),
            _ => section(page, kind, &format!("{path}.{name}"), field),
        }
    }
}

fn rules(page: &mut String, schema: &JSONSchemaProps) {
    let messages: Vec<&String> = schema.x_kubernetes_validations.iter().flatten().filter_map(|rule| rule.message.as_ref()).collect();
    if !messages.is_empty() {
        page.push_str("Rules:\n\n");
        messages.iter().for_each(|message| writeln!(page, "- {message}").unwrap());
        page.push('\n');
    }
}

fn type_of(schema: &JSONSchemaProps) -> String {
    let plain = schema.type_.clone().unwrap_or_default();
    match (&schema.items, &schema.additional_properties, &schema.enum_) {
        (Some(JSONSchemaPropsOrArray::Schema(item)), _, _) => format!("list of {}", type_of(item)),
        (_, Some(JSONSchemaPropsOrBool::Schema(value)), _) => format!("map of {}", type_of(value)),
        (_, _, Some(words)) => words.iter().filter_map(|w| w.0.as_str()).map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        _ => plain,
    }
}

fn description(schema: &JSONSchemaProps) -> String {
    schema.description.clone().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The description with the bounds that the schema sets.
fn cell(description: &str, schema: &JSONSchemaProps) -> String {
    let mut bounds = Vec::new();
    match (schema.minimum, schema.maximum) {
        (Some(low), Some(high)) => bounds.push(format!("{low} to {high}")),
        (Some(low), None) => bounds.push(format!("from {low}")),
        (None, Some(high)) => bounds.push(format!("up to {high}")),
        (None, None) => {}
    }
    bounds.extend(schema.max_items.map(|most| format!("at most {most}")));
    bounds.extend(schema.max_length.map(|most| format!("at most {most} characters")));
    bounds.extend(schema.default.as_ref().map(|value| format!("default `{}`", value.0)));
    let bounds = if bounds.is_empty() { String::new() } else { format!(" ({})", bounds.join(", ")) };
    format!("{description}{bounds}").replace('|', "\\|")
}
