//! What a pod mounts and reads: only what is declared, or what leads nowhere.

use k8s_openapi::api::core::v1::{
    EphemeralContainer, PersistentVolumeClaimVolumeSource, PodSpec, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::{Judged, Listed, error, others};
use crate::api;
use crate::plan::FieldError;
use crate::plan::inject::ROOT_CERTIFICATES;
use crate::policy::pod::POLICY_VOLUME;
use crate::scope::{Account, Scope, Target};

/// The kinds that are known. What a ConfigMap, Secret, claim or projection leads to is judged by the other rules.
pub(super) fn kinds(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    for (path, volume) in volumes(judged.spec) {
        match volume {
            Volume { empty_dir: Some(_), .. }
            | Volume { downward_api: Some(_), .. }
            | Volume { image: Some(_), .. }
            | Volume { projected: Some(_), .. }
            | Volume { config_map: Some(_), .. }
            | Volume { secret: Some(_), .. }
            | Volume { persistent_volume_claim: Some(_), .. } => {}
            Volume { host_path: Some(_), .. } => {
                errors.push(error(format!("{path}.hostPath"), "is the node's own disk; use emptyDir, or declare a PersistentVolumeClaim"));
            }
            _ => {
                let message = "is of a kind that leads to where nothing was declared; use emptyDir, or declare a PersistentVolumeClaim";
                errors.push(error(path, message));
            }
        }
    }
}

/// The same, inside projected volumes.
pub(super) fn projections(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    for (path, projection) in projected(judged.spec) {
        let VolumeProjection { cluster_trust_bundle, config_map, downward_api, secret, service_account_token } = projection;
        // Trust bundles are public certificates.
        let known = cluster_trust_bundle.is_some()
            || config_map.is_some()
            || downward_api.is_some()
            || secret.is_some()
            || service_account_token.is_some();
        if !known {
            errors.push(error(path, "is of a kind that this version of Remit does not know; take it out"));
        }
    }
}

/// ConfigMaps and Secrets, wherever they are named.
pub(super) fn undeclared(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    let scope = judged.admission.scope;
    for Reference { path, kind, name } in references(judged.spec) {
        let declared = scope.sources.iter().any(|source| match (&source.target, kind) {
            (Target::ConfigMap(object), Object::ConfigMap) | (Target::Secret(object), Object::Secret) => object.name == name,
            _ => false,
        });
        if declared || (kind == Object::ConfigMap && name == ROOT_CERTIFICATES) {
            continue;
        }
        let (type_, member) = match kind {
            Object::ConfigMap => ("ConfigMap", "configMap"),
            Object::Secret => ("Secret", "secret"),
        };
        errors.push(error(path, not_declared(scope, type_, member, name)));
    }
}

/// Claims, and nothing written to one that was declared to be read.
pub(super) fn claims(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    for (path, volume) in volumes(judged.spec) {
        let Some(source) = &volume.persistent_volume_claim else { continue };
        match declared(judged.admission.scope, source) {
            None => errors.push(undeclared_claim(judged.admission.scope, format!("{path}.persistentVolumeClaim.claimName"), source)),
            Some(Access::Read) if source.read_only != Some(true) && is_written(judged.spec, &volume.name) => {
                let path = format!("{path}.persistentVolumeClaim.readOnly");
                errors.push(error(path, "is declared to be read only; set it to true, or declare access: ReadWrite"));
            }
            Some(_) => {}
        }
    }
}

/// The same for an ephemeral container, which can choose its mounts of what the pod has.
pub(super) fn mounted_claims(judged: &Judged<'_>, path: &str, container: &EphemeralContainer, errors: &mut Vec<FieldError>) {
    let mounts = container.volume_mounts.iter().flatten().map(|m| (format!("{path}.volumeMounts[name={}]", m.name), &m.name, m.read_only));
    let devices = container.volume_devices.iter().flatten().map(|d| (format!("{path}.volumeDevices[name={}]", d.name), &d.name, None));
    for (path, name, read_only) in mounts.chain(devices) {
        let mut found = volumes(judged.spec).filter(|(_, v)| v.name == *name);
        let Some(source) = found.next().and_then(|(_, v)| v.persistent_volume_claim.as_ref()) else { continue };
        match declared(judged.admission.scope, source) {
            None => errors.push(undeclared_claim(judged.admission.scope, path, source)),
            Some(Access::Read) if source.read_only != Some(true) && read_only != Some(true) => {
                let message =
                    format!("claim `{}` is declared to be read only; mount it readOnly, or declare access: ReadWrite", source.claim_name);
                errors.push(error(path, message));
            }
            Some(_) => {}
        }
    }
}

/// Tokens of the account: for the API server only where Kubernetes objects are declared; for others only of an account that the
/// AIWorkload brings (its cloud identity); never for us, who would take the app for the guard.
pub(super) fn tokens(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    let scope = judged.admission.scope;
    for (path, projection) in projected(judged.spec) {
        let Some(ServiceAccountTokenProjection { audience, .. }) = &projection.service_account_token else { continue };
        let message = match audience.as_deref().unwrap_or_default() {
            api if is_api_server(api) && scope.permissions().is_empty() => {
                "there is nothing of Kubernetes that the app may reach with it; take it out, or declare a source of type Kubernetes"
            }
            api if is_api_server(api) => continue,
            ours if ours == api::GROUP || ours.starts_with("remit.dev/") => "is for guards alone; take it out",
            _ if matches!(scope.account, Account::Generated(_)) => {
                "is not declared; take it out, or name an account of your own in identity.serviceAccountName of the AIWorkload"
            }
            _ => continue,
        };
        errors.push(error(format!("{path}.serviceAccountToken"), message));
    }
}

/// No audience is the API server's own, and so are its names, with whatever domain the cluster has.
fn is_api_server(audience: &str) -> bool {
    let name = audience.strip_prefix("https://").unwrap_or(audience);
    audience.is_empty() || name == "kubernetes" || name.starts_with("kubernetes.default")
}

#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Object {
    ConfigMap,
    Secret,
}

/// An object that is named somewhere.
struct Reference<'a> {
    path: String,
    kind: Object,
    name: &'a str,
}

fn references(spec: &PodSpec) -> Vec<Reference<'_>> {
    let mut all = Vec::new();
    for (path, volume) in volumes(spec) {
        let map = volume.config_map.as_ref().map(|m| m.name.as_str());
        let secret = volume.secret.as_ref().map(|s| s.secret_name.as_deref().unwrap_or_default());
        all.extend(pair(&path, "configMap.name", map, "secret.secretName", secret));
    }
    for (path, source) in projected(spec) {
        let map = source.config_map.as_ref().map(|m| m.name.as_str());
        let secret = source.secret.as_ref().map(|s| s.name.as_str());
        all.extend(pair(&path, "configMap.name", map, "secret.name", secret));
    }
    for Listed { path, container, .. } in others(spec) {
        for variable in container.iter().flat_map(|c| c.env.iter().flatten()) {
            let Some(from) = &variable.value_from else { continue };
            let map = from.config_map_key_ref.as_ref().map(|m| m.name.as_str());
            let secret = from.secret_key_ref.as_ref().map(|s| s.name.as_str());
            let path = format!("{path}.env[name={}].valueFrom", variable.name);
            all.extend(pair(&path, "configMapKeyRef.name", map, "secretKeyRef.name", secret));
        }
        for (i, from) in container.iter().flat_map(|c| c.env_from.iter().flatten()).enumerate() {
            let map = from.config_map_ref.as_ref().map(|m| m.name.as_str());
            let secret = from.secret_ref.as_ref().map(|s| s.name.as_str());
            all.extend(pair(&format!("{path}.envFrom[{i}]"), "configMapRef.name", map, "secretRef.name", secret));
        }
    }
    all
}

/// Kubernetes names both kinds side by side everywhere, in members of different names.
fn pair<'a>(
    path: &str,
    map_member: &str,
    map: Option<&'a str>,
    secret_member: &str,
    secret: Option<&'a str>,
) -> impl Iterator<Item = Reference<'a>> {
    let map = map.map(|name| Reference { path: format!("{path}.{map_member}"), kind: Object::ConfigMap, name });
    let secret = secret.map(|name| Reference { path: format!("{path}.{secret_member}"), kind: Object::Secret, name });
    map.into_iter().chain(secret)
}

/// What is declared of a claim; None: nothing.
fn declared(scope: &Scope, source: &PersistentVolumeClaimVolumeSource) -> Option<Access> {
    let of_claim = scope.sources.iter().filter_map(|s| match &s.target {
        Target::PersistentVolumeClaim { claim, write } if claim.name == source.claim_name => Some(*write),
        _ => None,
    });
    of_claim.reduce(|one, other| one || other).map(|write| if write { Access::Write } else { Access::Read })
}

fn undeclared_claim(scope: &Scope, path: String, source: &PersistentVolumeClaimVolumeSource) -> FieldError {
    error(path, not_declared(scope, "PersistentVolumeClaim", "persistentVolumeClaim", &source.claim_name))
}

/// All volumes but ours.
fn volumes(spec: &PodSpec) -> impl Iterator<Item = (String, &Volume)> {
    let others = spec.volumes.iter().flatten().filter(|v| v.name != POLICY_VOLUME);
    others.map(|v| (format!("spec.volumes[name={}]", v.name), v))
}

fn projected(spec: &PodSpec) -> impl Iterator<Item = (String, &VolumeProjection)> {
    volumes(spec).flat_map(|(path, volume)| {
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        sources.enumerate().map(move |(i, source)| (format!("{path}.projected.sources[{i}]"), source))
    })
}

/// Whether some container may write to the volume. A block device has no read-only mount.
fn is_written(spec: &PodSpec, volume: &str) -> bool {
    others(spec).iter().filter_map(|c| c.container).any(|c| {
        c.volume_mounts.iter().flatten().any(|m| m.name == volume && m.read_only != Some(true))
            || c.volume_devices.iter().flatten().any(|d| d.name == volume)
    })
}

fn not_declared(scope: &Scope, type_: &str, member: &str, name: &str) -> String {
    let workload = &scope.workload.name;
    format!(
        "{type_} `{name}` is not declared; add {{type: {type_}, {member}: {{name: {name}}}}} to dataSources of AIWorkload `{workload}`, or take it out"
    )
}
