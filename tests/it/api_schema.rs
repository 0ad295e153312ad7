//! The custom resources, as the real API server reads them. Needs the API tier.
//!
//! What the schema and its CEL rules refuse, and that each refusal says what to write instead; what `kubectl get` and `kubectl explain`
//! show; that server-side apply merges lists by name.

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::{Api, kind, run};

const SELECTOR: &str = "selector: {matchLabels: {app: a}}";

/// A namespace for the AIWorkloads of this file, which no operator of another test sees.
async fn place(api: &Api) -> String {
    let name = format!("rt-schema-{}", std::process::id());
    static MADE: OnceCell<()> = OnceCell::const_new();
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"remit.test/world": name}}});
    MADE.get_or_init(|| async { _ = api.apply(object).await.expect("a namespace") }).await;
    name
}

/// The spec of an AIWorkload with these additions, in Enforce.
fn spec(more: &str) -> Value {
    let text = if more.contains("selector:") { format!("mode: Enforce\n{more}") } else { format!("{SELECTOR}\nmode: Enforce\n{more}") };
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{e} in:\n{text}"))
}

/// What the API server says to it, without storing it. Ok: the object as it would be stored.
async fn judged(api: &Api, object: Value) -> Result<Value, String> {
    let kind = kind(object["kind"].as_str().unwrap());
    let path = format!("{}?dryRun=All", kind.path(&place(api).await, ""));
    api.request("POST", &path, None, Some(&object)).await.map_err(|refused| refused.message)
}

async fn judged_spec(api: &Api, name: &str, spec: Value) -> Result<Value, String> {
    judged(api, json!({"apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": {"name": name, "namespace": place(api).await}, "spec": spec})).await
}

async fn judged_ceiling(api: &Api, text: &str) -> Result<Value, String> {
    let spec: Value = serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"));
    judged(api, json!({"apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": "schema-test"}, "spec": spec}))
        .await
}

#[test]
fn good_aiworkloads_are_accepted_with_their_defaults() {
    run(async {
        let api = Api::admin().await;
        let good = [
            "",
            "purpose: Answers questions",
            "identity: {serviceAccountName: my.bot}",
            "dataSources: []\ncapabilities: {clients: []}",
            "dataSources: [{name: db, type: Service, access: ReadWrite, class: Internal, service: {name: orders, namespace: shop, port: 5432, protocol: TCP}}]",
            "dataSources: [{name: help, type: Host, access: ReadWrite, host: {name: help.example.com, port: 443}}]",
            "dataSources: [{name: help, type: Host, host: {name: help.example.com, port: 443, protocol: HTTPS}}]",
            "dataSources: [{name: help, type: Host, access: Read, host: {name: help.example.com, port: 80, protocol: HTTP, http: [{methods: [GET, POST], paths: [{type: Exact, value: /search}, {type: PathPrefix, value: /}]}, {}]}}]",
            "dataSources: [{name: help, type: Host, access: ReadWrite, host: {name: help.example.com, port: 443, protocol: HTTPS, tlsInspection: Enabled, baseURLEnv: [HELP_URL, HELP2], http: [{methods: [DELETE]}, {upgrades: [WebSocket]}]}}]",
            "dataSources: [{name: o, type: Service, service: {name: orders, port: 80, protocol: HTTP, baseURLEnv: [ORDERS]}}, {name: p, type: Service, access: ReadWrite, service: {name: pay, port: 443, protocol: HTTPS, tlsInspection: Disabled}}]",
            "dataSources: [{name: t, type: Host, access: ReadWrite, host: {name: t.example.com, port: 443, protocol: TLS, tlsInspection: Disabled, http: []}}]",
            "dataSources: [{name: k, type: Kubernetes, kubernetes: {apiGroups: [shop.example.com], resources: [orders, orders/status]}}]",
            "dataSources: [{name: k, type: Kubernetes, access: ReadWrite, kubernetes: {apiGroups: [''], resources: [configmaps], resourceNames: [a], namespace: b}}]",
            "dataSources: [{name: p, type: ConfigMap, configMap: {name: prompts}}, {name: s, type: Secret, secret: {name: key}}]",
            "dataSources: [{name: v, type: PersistentVolumeClaim, access: ReadWrite, persistentVolumeClaim: {name: disk}}]",
            "capabilities: {clients: [{name: web, namespace: web, podSelector: {}, port: 8080}, {name: lb, ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}, port: 8080}]}",
            "selector: {matchExpressions: [{key: app, operator: In, values: [a, b]}, {key: x, operator: Exists}]}",
            "suspend: true",
        ];
        for more in good {
            let stored = judged_spec(&api, "good", spec(more)).await.unwrap_or_else(|e| panic!("{more}: {e}"));
            assert!(stored["spec"]["suspend"].is_boolean(), "suspend is defaulted: {more}");
            for source in stored["spec"]["dataSources"].as_array().into_iter().flatten() {
                assert!(source["access"].is_string(), "access is defaulted to Read: {more}");
                assert_eq!(source["type"] == "Host", source["host"]["protocol"].is_string(), "protocol is defaulted to TLS: {more}");
            }
        }
    });
}

#[test]
fn bad_aiworkloads_are_refused_and_the_message_says_what_to_write() {
    run(async {
        let api = Api::admin().await;
        // What is declared, the field in the message, words of the remedy.
        let bad = [
            ("selector: {}", "spec.selector", "name at least one label, for example matchLabels: {app: my-service}"),
            ("selector: {matchLabels: {}}", "spec.selector", "an empty selector would govern every pod"),
            ("selector: {matchExpressions: [{key: a, operator: In}]}", "spec.selector", "values: needed with In and NotIn"),
            ("selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}", "spec.selector", "not allowed with Exists"),
            ("mode: Audit", "spec.mode", "supported values: \"Observe\", \"Enforce\""),
            ("purpose: ''", "spec.purpose", "at least 1 char"),
            ("identity: {}", "serviceAccountName", "Required"),
            ("dataSources: [{name: A, type: Secret, secret: {name: s}}]", "dataSources[0].name", "should match"),
            (
                "dataSources: [{name: a, type: Secret, secret: {name: s}}, {name: a, type: Secret, secret: {name: t}}]",
                "dataSources[1]",
                "Duplicate value",
            ),
            ("dataSources: [{name: a, type: Bucket}]", "dataSources[0].type", "supported values"),
            (
                "dataSources: [{name: a, type: Service, access: ReadWrite}]",
                "dataSources[0]",
                "service: set it exactly when type is Service",
            ),
            ("dataSources: [{name: a, type: Host, access: ReadWrite}]", "dataSources[0]", "host: set it exactly when type is Host"),
            ("dataSources: [{name: a, type: Kubernetes}]", "dataSources[0]", "kubernetes: set it exactly when type is Kubernetes"),
            (
                "dataSources: [{name: k, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [pods], resourceNames: ['x; rm -rf ~']}}]",
                "resourceNames[0]",
                "should match",
            ),
            ("dataSources: [{name: a, type: ConfigMap}]", "dataSources[0]", "configMap: set it exactly when type is ConfigMap"),
            (
                "dataSources: [{name: a, type: Secret, secret: {name: s}, configMap: {name: c}}]",
                "dataSources[0]",
                "configMap: set it exactly when type is ConfigMap",
            ),
            ("dataSources: [{name: a, type: Secret}]", "dataSources[0]", "secret: set it exactly when type is Secret"),
            ("dataSources: [{name: a, type: PersistentVolumeClaim}]", "dataSources[0]", "persistentVolumeClaim: set it exactly when"),
            (
                "dataSources: [{name: a, type: Service, service: {name: x, port: 1, protocol: TCP}}]",
                "dataSources[0]",
                "nothing can hold a raw TCP connection to Read; declare access: ReadWrite",
            ),
            (
                "dataSources: [{name: a, type: Host, access: Read, host: {name: a.example.com, port: 1}}]",
                "dataSources[0]",
                "nothing can hold a raw TCP connection to Read; declare access: ReadWrite",
            ),
            (
                "dataSources: [{name: a, type: Secret, access: ReadWrite, secret: {name: s}}]",
                "dataSources[0]",
                "leave access out or declare Read",
            ),
            (
                "dataSources: [{name: a, type: Service, access: ReadWrite, service: {name: x, port: 0, protocol: TCP}}]",
                "service.port",
                "greater than or equal to 1",
            ),
            (
                "dataSources: [{name: a, type: Service, access: ReadWrite, service: {name: x, port: 65536, protocol: TCP}}]",
                "service.port",
                "less than or equal to 65535",
            ),
            (
                "dataSources: [{name: a, type: Service, access: ReadWrite, service: {name: x, port: 1, protocol: UDP}}]",
                "service.protocol",
                "supported values: \"TCP\", \"HTTP\", \"HTTPS\"",
            ),
            (
                "dataSources: [{name: a, type: Host, access: ReadWrite, host: {name: a.example.com, port: 1, protocol: TCP}}]",
                "host.protocol",
                "supported values: \"TLS\", \"HTTP\", \"HTTPS\"",
            ),
            (
                "dataSources: [{name: a, type: Host, access: Read, host: {name: a.example.com, port: 1, protocol: TLS}}]",
                "dataSources[0]",
                "nothing can hold a raw TCP connection to Read; declare access: ReadWrite",
            ),
            ("dataSources: [{name: a, type: Host, access: ReadWrite, host: {name: 203.0.113.1, port: 1}}]", "host.name", "should match"),
            (
                "dataSources: [{name: a, type: Host, access: ReadWrite, host: {name: '*.example.com', port: 1}}]",
                "host.name",
                "should match",
            ),
            (
                "dataSources: [{name: a, type: Kubernetes, kubernetes: {apiGroups: ['*'], resources: [pods]}}]",
                "apiGroups[0]",
                "should match",
            ),
            ("dataSources: [{name: a, type: Kubernetes, kubernetes: {apiGroups: [''], resources: ['*']}}]", "resources[0]", "should match"),
            ("dataSources: [{name: a, type: Kubernetes, kubernetes: {apiGroups: [], resources: [pods]}}]", "apiGroups", "at least 1 item"),
            ("dataSources: [{name: a, type: Kubernetes, kubernetes: {apiGroups: [''], resources: []}}]", "resources", "at least 1 item"),
            ("capabilities: {clients: [{name: c, port: 1}]}", "clients[0]", "give podSelector or ipBlock, and only one of them"),
            (
                "capabilities: {clients: [{name: c, port: 1, podSelector: {}, ipBlock: {cidr: 192.0.2.0/24}}]}",
                "clients[0]",
                "give podSelector or ipBlock",
            ),
            (
                "capabilities: {clients: [{name: c, port: 1, namespace: web, ipBlock: {cidr: 192.0.2.0/24}}]}",
                "clients[0]",
                "goes with podSelector, not with ipBlock",
            ),
            ("capabilities: {clients: [{name: c, podSelector: {}}]}", "clients[0].port", "Required"),
        ];
        for (more, field, remedy) in bad {
            let declared =
                if more.starts_with("mode") { serde_saphyr::from_str(&format!("{SELECTOR}\n{more}")).unwrap() } else { spec(more) };
            let message = judged_spec(&api, "bad", declared).await.expect_err(more);
            assert!(message.contains(field), "{more}: no `{field}` in: {message}");
            assert!(message.contains(remedy), "{more}: no `{remedy}` in: {message}");
        }
        let message = judged_spec(&api, &"n".repeat(53), spec("")).await.expect_err("a long name");
        assert!(message.contains("at most 52 lower-case letters"), "{message}");
        let message = judged_spec(&api, "with.dot", spec("")).await.expect_err("a dot in the name");
        assert!(message.contains("letters, digits and dashes"), "{message}");
        judged_spec(&api, &"n".repeat(52), spec("")).await.expect("52 characters are allowed");
        let message = judged_spec(&api, "bad", json!({"selector": {"matchLabels": {"app": "a"}}})).await.expect_err("no mode");
        assert!(message.contains("spec.mode: Required"), "nobody falls into a mode by leaving it out: {message}");
    });
}

/// Each case: the access, what the host has beside its name and port, the field, words of the remedy.
#[test]
fn bad_http_is_refused_and_the_message_says_what_to_write() {
    run(async {
        let api = Api::admin().await;
        let many = |n: usize, of: &str| vec![of; n].join(", ");
        let (rules, paths) = (many(33, "{}"), many(33, "{type: Exact, value: /a}"));
        let bad = [
            ("ReadWrite", "http: [{methods: [GET]}]".to_owned(), "host", "set protocol: HTTP or HTTPS, or leave them out"),
            ("ReadWrite", "protocol: TLS, baseURLEnv: [A]".into(), "host", "set protocol: HTTP or HTTPS, or leave them out"),
            ("ReadWrite", "tlsInspection: Enabled".into(), "host", "tlsInspection: there is TLS to look into with protocol HTTPS only"),
            ("Read", "protocol: HTTP, tlsInspection: Enabled".into(), "host", "with protocol HTTPS only; leave it out"),
            ("Read", "protocol: HTTPS, tlsInspection: true".into(), "tlsInspection", "must be of type string"),
            ("Read", "protocol: HTTPS, http: [{methods: [get]}]".into(), "methods[0]", "should match"),
            ("ReadWrite", "protocol: HTTPS, http: [{methods: [CONNECT]}]".into(), "methods", "never let through; leave them out"),
            ("ReadWrite", "protocol: HTTPS, http: [{methods: [GET, TRACE]}]".into(), "methods", "never let through"),
            ("Read", "protocol: HTTPS, http: [{methods: [PUT]}]".into(), "dataSources[0]", "declare access: ReadWrite"),
            ("Read", "protocol: HTTPS, http: [{}, {methods: [GET, DELETE]}]".into(), "dataSources[0]", "declare access: ReadWrite"),
            ("Read", "protocol: HTTPS, http: [{methods: [POST]}]".into(), "dataSources[0]", "POST and upgrades need the paths"),
            ("Read", "protocol: HTTPS, http: [{upgrades: [WebSocket]}]".into(), "dataSources[0]", "POST and upgrades need the paths"),
            ("ReadWrite", "protocol: HTTPS, http: [{upgrades: [h2c]}]".into(), "upgrades[0]", "supported values: \"WebSocket\""),
            (
                "ReadWrite",
                "protocol: HTTPS, http: [{methods: [POST], upgrades: [WebSocket]}]".into(),
                "http[0]",
                "name GET among the methods",
            ),
            ("Read", "protocol: HTTPS, http: [{paths: [{type: Regex, value: /a}]}]".into(), "paths[0].type", "supported values"),
            ("Read", "protocol: HTTPS, http: [{paths: [{type: Exact, value: a}]}]".into(), "paths[0].value", "should match"),
            ("Read", "protocol: HTTPS, http: [{paths: [{type: Exact, value: '/a?b'}]}]".into(), "paths[0].value", "should match"),
            ("Read", "protocol: HTTPS, http: [{paths: [{value: /a}]}]".into(), "paths[0].type", "Required"),
            ("Read", format!("protocol: HTTPS, http: [{rules}]"), "host.http", "at most 32 items"),
            ("Read", format!("protocol: HTTPS, http: [{{paths: [{paths}]}}]"), "http[0].paths", "at most 32 items"),
            ("Read", "protocol: HTTPS, baseURLEnv: [A-B]".into(), "baseURLEnv[0]", "should match"),
            ("Read", "protocol: HTTPS, baseURLEnv: [A, A]".into(), "baseURLEnv[1]", "Duplicate value"),
            ("Read", "protocol: HTTPS, baseURLEnv: [A, B, C, D, E, F, G, H, I]".into(), "baseURLEnv", "at most 8 items"),
            ("Read", "protocol: HTTPS, baseURLEnv: [LD_PRELOAD]".into(), "baseURLEnv", "name the one that your client reads"),
            ("Read", "protocol: HTTPS, baseURLEnv: [A, PYTHONPATH]".into(), "baseURLEnv", "programs take this variable"),
            ("Read", "protocol: HTTPS, baseURLEnv: [SSL_CERT_FILE]".into(), "baseURLEnv", "or Remit sets it"),
        ];
        for (access, more, field, remedy) in bad {
            let source = format!("{{name: a, type: Host, access: {access}, host: {{name: a.example.com, port: 443, {more}}}}}");
            let message = judged_spec(&api, "bad", spec(&format!("dataSources: [{source}]"))).await.expect_err(&more);
            assert!(message.contains(field), "{more}: no `{field}` in: {message}");
            assert!(message.contains(remedy), "{more}: no `{remedy}` in: {message}");
        }
        for name in remit::api::NEVER_A_BASE_URL {
            let name = name.replace('*', "X");
            let source = format!("{{name: a, type: Service, service: {{name: a, port: 80, protocol: HTTP, baseURLEnv: [{name}]}}}}");
            let message = judged_spec(&api, "bad", spec(&format!("dataSources: [{source}]"))).await.expect_err(&name);
            assert!(message.contains("baseURLEnv"), "{name}: {message}");
        }
    });
}

#[test]
fn unknown_fields_are_refused_by_strict_validation() {
    run(async {
        let api = Api::admin().await;
        let mut object = json!({"apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": {"name": "x", "namespace": place(&api).await}, "spec": spec("")});
        object["spec"]["dataSource"] = json!([]);
        let path = format!("{}?dryRun=All&fieldValidation=Strict", kind("AIWorkload").path(&place(&api).await, ""));
        let refused = api.request("POST", &path, None, Some(&object)).await.expect_err("a misspelt field");
        assert!(refused.message.contains("unknown field \"spec.dataSource\""), "{refused}");
    });
}

#[test]
fn ceilings_good_and_bad() {
    run(async {
        let api = Api::admin().await;
        let good = [
            "namespaceSelector: {}",
            "namespaceSelector: {matchLabels: {team: a}}\nunscopedPods: Allow\nclasses: [Public, Internal]",
            "namespaceSelector: {}\nhosts: [{name: a, host: '*.example.com', ports: [443]}]",
            "namespaceSelector: {}\nservices: [{name: own, services: ['*']}, {name: db, namespace: shop, services: [orders], ports: [5432], addresses: [192.0.2.0/24]}]",
            "namespaceSelector: {}\nkubernetes: [{name: k, apiGroups: [''], resources: [configmaps], access: ReadWrite}]",
        ];
        for text in good {
            let stored = judged_ceiling(&api, text).await.unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(stored["spec"]["unscopedPods"].is_string(), "unscopedPods is defaulted: {text}");
        }
        let stored = judged_ceiling(&api, "namespaceSelector: {}").await.unwrap();
        assert_eq!(stored["spec"]["unscopedPods"], "Isolate", "a ceiling isolates unless it says otherwise");
        let bad = [
            ("unscopedPods: Allow", "namespaceSelector", "Required"),
            ("namespaceSelector: {}\nunscopedPods: Refuse", "unscopedPods", "supported values"),
            ("namespaceSelector: {}\nclasses: [Secret]", "classes[0]", "supported values"),
            ("namespaceSelector: {}\nhosts: [{name: a, host: '*', ports: [443]}]", "hosts[0].host", "should"),
            ("namespaceSelector: {}\nhosts: [{name: a, host: a.example.com, ports: []}]", "hosts[0].ports", "at least 1 item"),
            ("namespaceSelector: {}\nservices: [{name: a, services: []}]", "services[0].services", "at least 1 item"),
            (
                "namespaceSelector: {}\nkubernetes: [{name: a, apiGroups: [''], resources: []}]",
                "kubernetes[0].resources",
                "at least 1 item",
            ),
        ];
        for (text, field, remedy) in bad {
            let message = judged_ceiling(&api, text).await.expect_err(text);
            assert!(message.contains(field) && message.contains(remedy), "{text}: no `{field}` or `{remedy}` in: {message}");
        }
    });
}

#[test]
fn server_side_apply_merges_lists_by_name() {
    run(async {
        let api = Api::admin().await;
        let name = format!("merge-{}", std::process::id());
        let namespace = place(&api).await;
        let with = |sources: Value| {
            json!({
                "apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": {"matchLabels": {"app": name}}, "mode": "Observe", "dataSources": sources},
            })
        };
        api.apply_as("team", with(json!([{"name": "a", "type": "ConfigMap", "configMap": {"name": "a"}}]))).await.unwrap();
        let both = api.apply_as("platform", with(json!([{"name": "b", "type": "Secret", "secret": {"name": "b"}}]))).await.unwrap();
        let names = |object: &Value| -> Vec<String> {
            object["spec"]["dataSources"].as_array().into_iter().flatten().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&both), ["a", "b"], "two owners keep one item each");
        let one = api.apply_as("team", with(json!([]))).await.unwrap();
        assert_eq!(names(&one), ["b"], "whoever stops declaring an item takes out only that");
        api.delete("AIWorkload", &namespace, &name).await.unwrap();
    });
}

#[test]
fn kubectl_shows_the_columns_and_explains_every_field() {
    run(async {
        let api = Api::admin().await;
        let namespace = place(&api).await;
        let name = format!("columns-{}", std::process::id());
        api.apply(json!({
            "apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"matchLabels": {"app": name}}, "mode": "Observe", "purpose": "Shows columns"},
        }))
        .await
        .unwrap();
        let condition = json!({"type": "Ready", "status": "False", "reason": "TestReason", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        api.patch_status("AIWorkload", &namespace, &name, json!({"status": {"conditions": [condition]}})).await.unwrap();
        let table = api.kubectl(&["get", "aiw", &name, "-n", &namespace]).unwrap();
        let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["NAME", "MODE", "READY", "REASON", "GUARDED", "AGE"], "{table}");
        assert!(table.contains("Observe") && table.contains("TestReason"), "{table}");
        let wide = api.kubectl(&["get", "aiw", &name, "-n", &namespace, "-o", "wide"]).unwrap();
        assert!(wide.contains("PURPOSE") && wide.contains("Shows columns"), "{wide}");
        let selected = api.kubectl(&["get", "aiw", "-n", &namespace, "--field-selector", "spec.mode=Observe", "-o", "name"]).unwrap();
        assert!(selected.contains(&name), "{selected}");
        let category = api.kubectl(&["get", "remit", "-n", &namespace, "-o", "name"]).unwrap();
        assert!(category.contains(&name), "{category}");
        api.delete("AIWorkload", &namespace, &name).await.unwrap();

        let explained = api.kubectl(&["explain", "aiw.spec.dataSources.access"]).unwrap();
        assert!(explained.contains("Read is not write") && explained.contains("ReadWrite"), "{explained}");
        let explained = api.kubectl(&["explain", "scopeceilings.spec.unscopedPods"]).unwrap();
        assert!(explained.contains("no AIWorkload selects"), "{explained}");
    });
}

#[test]
fn every_field_of_both_kinds_has_a_description() {
    run(async {
        let api = Api::admin().await;
        for name in ["aiworkloads.remit.dev", "scopeceilings.remit.dev"] {
            let crd = api.get("CustomResourceDefinition", "", name).await.unwrap();
            for version in crd["spec"]["versions"].as_array().unwrap() {
                let schema = &version["schema"]["openAPIV3Schema"];
                assert!(schema["description"].is_string(), "{name} itself");
                let mut without = Vec::new();
                let mut seen = 0;
                for part in ["spec", "status"] {
                    let part_schema = &schema["properties"][part];
                    if part_schema.is_object() {
                        walk(part_schema, part, &mut without, &mut seen);
                    }
                }
                assert!(without.is_empty(), "{name}: no description for {without:?}");
                assert!(seen > 15, "{name}: only {seen} fields were looked at");
            }
        }
    });
}

fn walk(schema: &Value, at: &str, without: &mut Vec<String>, seen: &mut usize) {
    *seen += 1;
    if schema["description"].as_str().is_none_or(|d| d.len() <= 5) {
        without.push(at.to_owned());
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        walk(member, &format!("{at}.{name}"), without, seen);
    }
    // The items of a list are described by the list.
    for (name, member) in schema["items"]["properties"].as_object().into_iter().flatten() {
        walk(member, &format!("{at}[].{name}"), without, seen);
    }
}
