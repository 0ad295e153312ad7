//! What is said of a pod and refuses nothing.

use k8s_openapi::api::core::v1::PodSpec;

use super::{error, others};
use crate::plan::FieldError;
use crate::plan::inject::base_urls;
use crate::scope::Scope;

/// Where a container sets a variable itself that the scope declares for a base URL. Its author's word counts; that it leads past the base URL is
/// perhaps not meant.
pub fn advice(spec: &PodSpec, scope: &Scope) -> Vec<FieldError> {
    let mut all = Vec::new();
    for listed in others(spec) {
        for variable in listed.container.iter().flat_map(|c| c.env.iter().flatten()) {
            let Some((_, url)) = base_urls(scope).find(|(name, _)| *name == variable.name) else { continue };
            if variable.value_from.is_some() || !variable.value.as_deref().unwrap_or_default().starts_with(&url) {
                let path = format!("{}.env[name={}]", listed.path, variable.name);
                let message = format!(
                    "stays as the pod sets it, though AIWorkload `{}` declares it for the base URL {url}; leave it out and Remit sets it",
                    scope.workload.name
                );
                all.push(error(path, message));
            }
        }
    }
    all
}
