//! RBAC as the API server decides it: roles and bindings drawn from a seed, written for real, and the same questions to both. Needs the API
//! tier.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use remit::drift::Snapshot;
use remit::drift::rbac::Query;
use serde_json::{Value, json};

use crate::draw::Draw;
use crate::support::{Api, check, eventually, run_within};

const QUESTIONS: u64 = 5_000;
/// Asked at once.
const AT_ONCE: usize = 32;

const VERBS: [&str; 6] = ["get", "list", "create", "delete", "patch", "impersonate"];
const GROUPS: [&str; 4] = ["", "apps", "batch", "example.com"];
const RESOURCES: [&str; 5] = ["pods", "secrets", "deployments", "jobs", "widgets"];
const SUBRESOURCES: [&str; 4] = ["log", "exec", "status", "scale"];
const NAMES: [&str; 3] = ["a", "b", "c"];
const PATHS: [&str; 5] = ["/healthz", "/healthz/etcd", "/logs", "/logs/a/b", "/metrics"];

/// Everything of one run bears this.
struct Place {
    tag: String,
}

impl Place {
    fn namespace(&self, draw: &mut Draw) -> String {
        format!("{}-n{}", self.tag, draw.below(3))
    }

    fn user(&self, draw: &mut Draw) -> String {
        match draw.below(2) {
            0 => format!("{}-u{}", self.tag, draw.below(4)),
            _ => format!("system:serviceaccount:{}:s{}", self.namespace(draw), draw.below(2)),
        }
    }

    fn group(&self, draw: &mut Draw) -> String {
        match draw.below(3) {
            0 => format!("system:serviceaccounts:{}", self.namespace(draw)),
            _ => format!("{}-g{}", self.tag, draw.below(3)),
        }
    }

    fn subject(&self, draw: &mut Draw) -> Value {
        const GROUP: &str = "rbac.authorization.k8s.io";
        match draw.below(3) {
            0 => json!({"kind": "User", "apiGroup": GROUP, "name": self.user(draw)}),
            1 => json!({"kind": "Group", "apiGroup": GROUP, "name": self.group(draw)}),
            _ => json!({"kind": "ServiceAccount", "namespace": self.namespace(draw), "name": format!("s{}", draw.below(2))}),
        }
    }

    fn object(&self, kind: &str, namespace: Option<&str>, name: &str, more: Value) -> Value {
        let mut object =
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": format!("{}-{name}", self.tag)}});
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = namespace.into();
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    }

    fn roles(&self, draw: &mut Draw) -> Vec<Value> {
        let mut all: Vec<Value> = (0..12)
            .map(|n| {
                let rules: Vec<Value> = (0..draw.below(4)).map(|_| rule(draw, true)).collect();
                let mut role = self.object("ClusterRole", None, &format!("c{n}"), json!({"rules": rules}));
                role["metadata"]["labels"] = json!({format!("{}/to", self.tag): format!("a{}", draw.below(5))});
                role
            })
            .collect();
        // Two that take over others; the second finds the first.
        for n in 0..2 {
            let wanted = format!("a{n}");
            let selectors = json!([{"matchLabels": {format!("{}/to", self.tag): wanted}}]);
            let mut role = self.object(
                "ClusterRole",
                None,
                &format!("c{}", 12 + n),
                json!({"aggregationRule": {"clusterRoleSelectors": selectors}, "rules": []}),
            );
            role["metadata"]["labels"] = json!({format!("{}/to", self.tag): "a1"});
            all.push(role);
        }
        for n in 0..9 {
            let rules: Vec<Value> = (0..draw.below(4)).map(|_| rule(draw, false)).collect();
            all.push(self.object("Role", Some(&format!("{}-n{}", self.tag, n % 3)), &format!("r{}", n / 3), json!({"rules": rules})));
        }
        all
    }

    fn bindings(&self, draw: &mut Draw) -> Vec<Value> {
        let refers = |kind: &str, name: String| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
        (0..24)
            .map(|n| {
                let subjects: Vec<Value> = (0..1 + draw.below(3)).map(|_| self.subject(draw)).collect();
                // Some refer to what is not there.
                let cluster = refers("ClusterRole", format!("{}-c{}", self.tag, draw.below(15)));
                if n % 4 == 0 {
                    return self.object("ClusterRoleBinding", None, &format!("b{n}"), json!({"roleRef": cluster, "subjects": subjects}));
                }
                let role = if draw.one_in(2) { cluster } else { refers("Role", format!("{}-r{}", self.tag, draw.below(4))) };
                self.object("RoleBinding", Some(&self.namespace(draw)), &format!("b{n}"), json!({"roleRef": role, "subjects": subjects}))
            })
            .collect()
    }

    fn question(&self, draw: &mut Draw) -> Query {
        let groups: BTreeSet<String> = (0..draw.below(3)).map(|_| self.group(draw)).collect();
        let mut query = Query { user: self.user(draw), groups, verb: (*draw.of(&VERBS)).into(), ..Query::default() };
        if draw.one_in(6) {
            query.path = (*draw.of(&PATHS)).into();
            return query;
        }
        (query.api_group, query.resource) = ((*draw.of(&GROUPS)).into(), (*draw.of(&RESOURCES)).into());
        if draw.one_in(3) {
            query.subresource = (*draw.of(&SUBRESOURCES)).into();
        }
        if draw.one_in(2) {
            query.name = (*draw.of(&NAMES)).into();
        }
        if !draw.one_in(5) {
            query.namespace = self.namespace(draw);
        }
        query
    }
}

fn rule(draw: &mut Draw, cluster: bool) -> Value {
    let some = |draw: &mut Draw, all: &[&str]| -> Vec<String> {
        if draw.one_in(5) { vec!["*".into()] } else { (0..=draw.below(2)).map(|_| (*draw.of(all)).to_owned()).collect() }
    };
    let verbs = some(draw, &VERBS);
    if cluster && draw.one_in(5) {
        let paths: Vec<&str> = (0..=draw.below(2)).map(|_| *draw.of(&["/healthz", "/healthz/*", "/logs*", "/logs/*", "*"])).collect();
        return json!({"verbs": verbs, "nonResourceURLs": paths});
    }
    let resources: Vec<String> = some(draw, &RESOURCES)
        .into_iter()
        .map(|resource| match draw.below(4) {
            0 => format!("{resource}/{}", draw.of(&SUBRESOURCES)),
            _ => resource,
        })
        .collect();
    let mut rule = json!({"verbs": verbs, "apiGroups": some(draw, &GROUPS), "resources": resources});
    if draw.one_in(4) {
        rule["resourceNames"] = (0..=draw.below(2)).map(|_| *draw.of(&NAMES)).collect();
    }
    rule
}

/// The API server's answer, as somebody's.
async fn asked(api: &Api, query: &Query) -> bool {
    let Query { user, groups, verb, api_group, resource, subresource, name, namespace, path } = query;
    let mut spec = json!({"user": user, "groups": groups});
    if path.is_empty() {
        spec["resourceAttributes"] = json!({"verb": verb, "group": api_group, "resource": resource, "subresource": subresource, "name": name, "namespace": namespace});
    } else {
        spec["nonResourceAttributes"] = json!({"verb": verb, "path": path});
    }
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    let answer = api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", None, Some(&review)).await;
    answer.expect("an answer")["status"]["allowed"] == true
}

async fn snapshot(api: &Api) -> Snapshot {
    let mut all = Vec::new();
    for plural in ["roles", "clusterroles", "rolebindings", "clusterrolebindings"] {
        all.push(api.request("GET", &format!("/apis/rbac.authorization.k8s.io/v1/{plural}"), None, None).await.expect("a list"));
    }
    let (snapshot, problems) = Snapshot::read(all);
    assert_eq!(problems, [""; 0]);
    snapshot
}

#[test]
fn rbac_means_what_the_api_server_says() {
    run_within(std::time::Duration::from_secs(240), async {
        let api = Api::admin().await;
        let (mut draw, place) = (Draw::new(42), Place { tag: format!("rt-access-{}", std::process::id()) });
        for n in 0..3 {
            let name = format!("{}-n{n}", place.tag);
            let labels = json!({"remit.test/world": name});
            api.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}))
                .await
                .expect("a namespace");
        }
        let mut written = [place.roles(&mut draw), place.bindings(&mut draw)].concat();
        // The last that is written: once it holds, the API server has heard of all before it of its kind.
        for kind in ["ClusterRole", "Role"] {
            let namespace = (kind == "Role").then(|| format!("{}-n0", place.tag));
            let rules = json!([{"apiGroups": ["last"], "resources": ["last"], "verbs": ["get"]}]);
            written.push(place.object(kind, namespace.as_deref(), "last", json!({"rules": rules})));
            let refers = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": format!("{}-last", place.tag)});
            let subjects = json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": format!("{}-{kind}", place.tag)}]);
            written.push(place.object(
                if kind == "Role" { "RoleBinding" } else { "ClusterRoleBinding" },
                namespace.as_deref(),
                "last",
                json!({"roleRef": refers, "subjects": subjects}),
            ));
        }
        for object in &written {
            api.apply(object.clone()).await.unwrap_or_else(|refused| panic!("{refused}: {object}"));
        }
        eventually("the API server has heard of all", || async {
            let last = |kind: &str| Query {
                user: format!("{}-{kind}", place.tag),
                verb: "get".into(),
                api_group: "last".into(),
                resource: "last".into(),
                namespace: format!("{}-n0", place.tag),
                ..Query::default()
            };
            check(asked(&api, &last("Role")).await && asked(&api, &last("ClusterRole")).await, || "not yet".to_owned())
        })
        .await;
        // Aggregated rules are written by a controller; here they are computed as well.
        eventually("the controller has aggregated", || async {
            let name = format!("{}-c12", place.tag);
            let found =
                |objects: &Value| objects["items"].as_array().into_iter().flatten().find(|o| o["metadata"]["name"] == *name).cloned();
            let list = api.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", None, None).await.expect("a list");
            let empty = found(&list).is_none_or(|role| role["rules"].as_array().is_none_or(Vec::is_empty));
            check(!empty, || "not yet".to_owned())
        })
        .await;
        let snapshot = snapshot(&api).await;
        let questions: Vec<Query> = (0..QUESTIONS).map(|_| place.question(&mut draw)).collect();
        let said: Vec<bool> = stream::iter(&questions).map(|query| asked(&api, query)).buffered(AT_ONCE).collect().await;
        let (mut allowed, mut wrong) = (0, Vec::new());
        for (query, said) in questions.iter().zip(&said) {
            let ours = snapshot.rbac.answer(query);
            allowed += usize::from(*said);
            if ours.allowed != *said {
                wrong.push(format!("the API server says {said}, we {ours:?}: {query:?}"));
            }
        }
        println!("access: {} questions, {allowed} allowed, {} answers differ", questions.len(), wrong.len());
        assert!(allowed * 20 > questions.len() && allowed * 20 < 19 * questions.len(), "{allowed}: the questions say little");
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
        for object in &written {
            let word = |field: &Value| field.as_str().unwrap_or_default().to_owned();
            let metadata = &object["metadata"];
            _ = api.delete(&word(&object["kind"]), &word(&metadata["namespace"]), &word(&metadata["name"])).await;
        }
    });
}
