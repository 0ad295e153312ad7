//! Where the kinds that make pods keep the template of their pods.

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// A kind that makes pods, as webhooks name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    pub group: &'static str,
    pub resource: &'static str,
    /// The members that lead to it.
    path: &'static [&'static str],
}

const SPEC: &[&str] = &["spec", "template"];

/// All of them. The webhook configuration names the same (`tests/it/chart.rs`).
pub const TEMPLATES: [Template; 8] = [
    Template { group: "apps", resource: "deployments", path: SPEC },
    Template { group: "apps", resource: "replicasets", path: SPEC },
    Template { group: "apps", resource: "statefulsets", path: SPEC },
    Template { group: "apps", resource: "daemonsets", path: SPEC },
    Template { group: "batch", resource: "jobs", path: SPEC },
    Template { group: "batch", resource: "cronjobs", path: &["spec", "jobTemplate", "spec", "template"] },
    Template { group: "", resource: "replicationcontrollers", path: SPEC },
    Template { group: "", resource: "podtemplates", path: &["template"] },
];

impl Template {
    pub fn of(group: &str, resource: &str) -> Option<Self> {
        TEMPLATES.into_iter().find(|t| t.group == group && t.resource == resource)
    }

    /// The template in an object of this kind, as it was sent. None: there is none.
    pub fn find<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.path.iter().try_fold(object, |at, member| at.get(member)).filter(|found| !found.is_null())
    }

    /// What stands before the paths of errors.
    pub fn prefix(&self) -> String {
        self.path.iter().map(|member| format!("{member}.")).collect()
    }
}

/// A template, read.
pub fn read(template: &Value) -> Result<(ObjectMeta, PodSpec), serde_json::Error> {
    let member = |name: &str| template.get(name).filter(|v| !v.is_null()).cloned();
    let metadata = member("metadata").map(serde_json::from_value).transpose()?.unwrap_or_default();
    let spec = member("spec").map(serde_json::from_value).transpose()?.unwrap_or_default();
    Ok((metadata, spec))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_keeps_its_template_in_its_place() {
        let template = json!({"metadata": {"labels": {"app": "bot"}}, "spec": {"containers": [{"name": "bot"}]}});
        let plain = json!({"spec": {"template": template}});
        for (group, resource, object, prefix) in [
            ("apps", "deployments", plain.clone(), "spec.template."),
            ("apps", "replicasets", plain.clone(), "spec.template."),
            ("apps", "statefulsets", plain.clone(), "spec.template."),
            ("apps", "daemonsets", plain.clone(), "spec.template."),
            ("batch", "jobs", plain.clone(), "spec.template."),
            ("batch", "cronjobs", json!({"spec": {"jobTemplate": plain}}), "spec.jobTemplate.spec.template."),
            ("", "replicationcontrollers", plain.clone(), "spec.template."),
            ("", "podtemplates", json!({"template": template}), "template."),
        ] {
            let kind = Template::of(group, resource).unwrap();
            assert_eq!((kind.find(&object), kind.prefix().as_str()), (Some(&template), prefix), "{resource}");
            for empty in [json!({}), json!({"spec": {}}), json!({"spec": {"template": null}, "template": null})] {
                assert_eq!(kind.find(&empty), None, "{resource} {empty}");
            }
        }
        assert_eq!(Template::of("apps", "jobs"), None);
        assert_eq!(Template::of("", "pods"), None);
        let (metadata, spec) = read(&template).unwrap();
        assert_eq!((metadata.labels.unwrap().len(), spec.containers.len()), (1, 1));
        assert!(read(&json!({"metadata": null})).is_ok() && read(&json!({"spec": {"containers": 3}})).is_err());
    }
}
