//! One data source → its class and target.
//!
//! Promise: exactly the member that its type names; access that says what is really possible; without a class, the strictest one. In: a
//! source of a spec and the AIWorkload's name. Out: a [`Source`], or errors under the source's path.

use std::collections::BTreeSet;

use super::Errors;
use super::field::{class, is_host, is_label, is_subdomain, port};
use super::permissions::permissions;
use super::requests::{Declared, requests};
use crate::api;
use crate::scope::{Class, ObjectName, Scheme, Source, Target};

pub(super) fn source(path: &str, workload: &ObjectName, source: &api::DataSource, errors: &mut Errors) -> Option<Source> {
    let api::DataSource { name, class, type_, access, service, host, kubernetes, config_map, secret, persistent_volume_claim } = source;
    let write = *access == api::Access::ReadWrite;
    let own = |object: &api::ObjectSource| ObjectName::new(&workload.namespace, &object.name);
    let members = [
        (api::DataSourceType::Service, service.is_some(), "service"),
        (api::DataSourceType::Host, host.is_some(), "host"),
        (api::DataSourceType::Kubernetes, kubernetes.is_some(), "kubernetes"),
        (api::DataSourceType::ConfigMap, config_map.is_some(), "configMap"),
        (api::DataSourceType::Secret, secret.is_some(), "secret"),
        (api::DataSourceType::PersistentVolumeClaim, persistent_volume_claim.is_some(), "persistentVolumeClaim"),
    ];
    for (kind, present, member) in members {
        if (kind == *type_) != present {
            errors.push(format!("{path}.{member}"), format!("set it exactly when type is {kind:?}; type is {type_:?}"));
        }
    }
    let raw = |scheme: Option<Scheme>, errors: &mut Errors| {
        if !write && scheme.is_none() {
            errors.push(
                format!("{path}.access"),
                "nothing can hold a raw TCP connection to Read; declare access: ReadWrite, so that nobody believes it is read-only",
            );
        }
    };
    let mut variables = BTreeSet::new();
    let target = match type_ {
        api::DataSourceType::Service => {
            let api::ServiceSource { name, namespace, port, protocol, http, tls_inspection, base_url_env } = service.as_ref()?;
            let scheme = match protocol {
                api::Protocol::TCP => None,
                api::Protocol::HTTP => Some(Scheme::Http),
                api::Protocol::HTTPS => Some(Scheme::Https),
            };
            raw(scheme, errors);
            let namespace = namespace.clone().unwrap_or_else(|| workload.namespace.clone());
            if !is_label(name, 63) {
                errors.push(format!("{path}.service.name"), "is not a valid name of a Service");
            }
            if !is_label(&namespace, 63) {
                errors.push(format!("{path}.service.namespace"), "is not a valid name of a namespace");
            }
            let declared = Declared { scheme, write, http, tls_inspection: *tls_inspection, base_url_env };
            let (http, names) = requests(&format!("{path}.service"), &declared, errors);
            variables = names;
            let port = self::port(&format!("{path}.service.port"), *port, errors)?;
            Target::Service { service: ObjectName::new(namespace, name), port, http }
        }
        api::DataSourceType::Host => {
            let api::HostSource { name, port, protocol, http, tls_inspection, base_url_env } = host.as_ref()?;
            let scheme = match protocol {
                api::HostProtocol::TLS => None,
                api::HostProtocol::HTTP => Some(Scheme::Http),
                api::HostProtocol::HTTPS => Some(Scheme::Https),
            };
            raw(scheme, errors);
            let host = name.to_ascii_lowercase();
            if !is_host(&host) {
                errors.push(format!("{path}.host.name"), "is not a full DNS name; addresses and wildcards cannot be declared");
            } else if is_cluster_name(&host) {
                errors.push(format!("{path}.host.name"), "is a name of the cluster or of a private network; declare a source of type Service (one without selector can lead to a private address)");
            }
            let declared = Declared { scheme, write, http, tls_inspection: *tls_inspection, base_url_env };
            let (http, names) = requests(&format!("{path}.host"), &declared, errors);
            variables = names;
            Target::Host { host, port: self::port(&format!("{path}.host.port"), *port, errors)?, http }
        }
        api::DataSourceType::Kubernetes => {
            let permissions = permissions(path, workload, kubernetes.as_ref()?, write, errors);
            Target::Kubernetes(permissions)
        }
        api::DataSourceType::ConfigMap => Target::ConfigMap(own(config_map.as_ref()?)),
        api::DataSourceType::Secret => Target::Secret(own(secret.as_ref()?)),
        api::DataSourceType::PersistentVolumeClaim => {
            Target::PersistentVolumeClaim { claim: own(persistent_volume_claim.as_ref()?), write }
        }
    };
    if write && matches!(target, Target::ConfigMap(_) | Target::Secret(_)) {
        errors.push(format!("{path}.access"), "a mounted ConfigMap or Secret is read-only; leave access out or declare Read");
    }
    if let Target::ConfigMap(object) | Target::Secret(object) | Target::PersistentVolumeClaim { claim: object, .. } = &target
        && !is_subdomain(&object.name)
    {
        errors.push(path, format!("`{}` is not a valid name", object.name));
    }
    Some(Source { name: name.clone(), class: class.map_or(Class::Restricted, self::class), target, base_url_env: variables })
}

/// Names which lead into the cluster or a private network, whatever the cluster's domain is called.
fn is_cluster_name(host: &str) -> bool {
    ["svc", "local", "localhost", "internal"].iter().any(|top| host.rsplit('.').next() == Some(top)) || host.contains(".svc.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;
    use crate::plan::validate::fixture::{BASE, errors};

    /// Each case: one data source, the path and a word of the message.
    #[test]
    fn data_sources_table() {
        let cases = [
            (
                "{name: a, type: Service, service: {name: x, port: 1, protocol: TCP}}",
                "dataSources[name=a].access",
                "declare access: ReadWrite",
            ),
            ("{name: a, type: Host, host: {name: a.example.com, port: 443}}", "dataSources[name=a].access", "declare access: ReadWrite"),
            ("{name: a, type: Service, access: ReadWrite}", "dataSources[name=a].service", "exactly when type is Service"),
            ("{name: a, type: ConfigMap, configMap: {name: x}, secret: {name: y}}", "dataSources[name=a].secret", "type is ConfigMap"),
            ("{name: a, type: Secret, access: ReadWrite, secret: {name: x}}", "dataSources[name=a].access", "read-only"),
            (
                "{name: a, type: Service, access: ReadWrite, service: {name: x, port: 0, protocol: TCP}}",
                "dataSources[name=a].service.port",
                "1 to 65535",
            ),
            (
                "{name: a, type: Service, access: ReadWrite, service: {name: x, port: 65536, protocol: TCP}}",
                "dataSources[name=a].service.port",
                "1 to 65535",
            ),
            (
                "{name: a, type: Service, access: ReadWrite, service: {name: '../x', port: 1, protocol: TCP}}",
                "dataSources[name=a].service.name",
                "not a valid name",
            ),
            (
                "{name: a, type: Host, access: ReadWrite, host: {name: 10.0.0.1, port: 443}}",
                "dataSources[name=a].host.name",
                "full DNS name",
            ),
            (
                "{name: a, type: Host, access: ReadWrite, host: {name: '*.example.com', port: 443}}",
                "dataSources[name=a].host.name",
                "full DNS name",
            ),
            (
                "{name: a, type: Host, access: ReadWrite, host: {name: localhost, port: 443}}",
                "dataSources[name=a].host.name",
                "full DNS name",
            ),
            (
                "{name: a, type: Host, access: ReadWrite, host: {name: ledger.finance.svc, port: 443}}",
                "dataSources[name=a].host.name",
                "type Service",
            ),
            (
                "{name: a, type: Host, access: ReadWrite, host: {name: ledger.finance.svc.cluster.local, port: 443}}",
                "dataSources[name=a].host.name",
                "type Service",
            ),
            (
                "{name: a, type: Host, access: ReadWrite, host: {name: metadata.google.internal, port: 80}}",
                "dataSources[name=a].host.name",
                "type Service",
            ),
            (
                "{name: a, type: Kubernetes, kubernetes: {apiGroups: ['*'], resources: [x]}}",
                "dataSources[name=a].kubernetes.apiGroups",
                "wildcard",
            ),
            (
                "{name: a, type: Kubernetes, kubernetes: {apiGroups: [''], resources: ['*']}}",
                "dataSources[name=a].kubernetes.resources",
                "wildcard",
            ),
            (
                "{name: a, type: Kubernetes, kubernetes: {apiGroups: [''], resources: []}}",
                "dataSources[name=a].kubernetes.resources",
                "at least one",
            ),
            (
                "{name: a, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [secrets]}}",
                "dataSources[name=a].kubernetes.resources",
                "reading secrets is never granted",
            ),
            (
                "{name: a, type: Kubernetes, access: ReadWrite, kubernetes: {apiGroups: [''], resources: [pods]}}",
                "dataSources[name=a].kubernetes.resources",
                "writing pods is never granted",
            ),
            (
                "{name: a, type: Kubernetes, access: ReadWrite, kubernetes: {apiGroups: [networking.k8s.io], resources: [networkpolicies]}}",
                "dataSources[name=a].kubernetes.resources",
                "writing networkpolicies.networking.k8s.io is never granted",
            ),
        ];
        for (source, path, word) in cases {
            let found = errors(&format!("dataSources: [{source}]"));
            assert!(found.iter().any(|e| e.starts_with(&format!("{path}: ")) && e.contains(word)), "{source}\n{found:?}");
            assert_eq!(found.len(), 1, "one error, once: {source}\n{found:?}");
        }
    }

    #[test]
    fn a_source_without_class_counts_as_restricted() {
        let scope = fixture::scope(&format!("{BASE}dataSources: [{{name: a, type: ConfigMap, configMap: {{name: x}}}}]"));
        assert_eq!(scope.sources[0].class, Class::Restricted);
    }
}
