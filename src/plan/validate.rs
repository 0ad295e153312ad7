//! What people wrote → what it means. All errors are collected, each with the path of its field and the remedy.
//!
//! The schema's own rules are repeated here where a wrong value could reach a plan (offline rendering has no API server, and an
//! object may have been stored under an older schema).

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use ipnet::IpNet;

use crate::api::{self, AIWorkload, ScopeCeiling};
use crate::scope::{
    self, Account, Ceiling, CeilingHost, CeilingKubernetes, CeilingService, Class, Client, ClientPeer, HostPattern, Mode, Names,
    ObjectName, Permission, Ranges, Requirement, Scope, Selector, Source, Target, Verb, never_grantable,
};

/// More permissions than this in one AIWorkload are refused before they are even listed.
const MOST_PERMISSIONS: usize = 5_000;
/// Something wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldError {
    /// The field, from `spec` on, e.g. `dataSources[name=orders-db].service.port`.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Collects errors under paths.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn push(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { path: path.into(), message: message.into() });
    }

    fn finish<T>(self, value: T) -> Result<T, Vec<FieldError>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

/// What an AIWorkload means.
pub fn validate(workload: &AIWorkload) -> Result<Scope, Vec<FieldError>> {
    let api::AIWorkloadSpec { purpose: _, selector, mode, identity, data_sources, capabilities, suspend } = &workload.spec;
    let mut errors = Errors::default();
    if permissions_named(&workload.spec) > MOST_PERMISSIONS {
        errors.push(
            "dataSources",
            format!("names more than {MOST_PERMISSIONS} Kubernetes permissions; declare fewer groups, resources and names"),
        );
        return Err(errors.0);
    }
    let name = ObjectName::new(workload.metadata.namespace.clone().unwrap_or_default(), workload.metadata.name.clone().unwrap_or_default());
    if !is_label(&name.name, 52) {
        errors.push("metadata.name", "use at most 52 lower-case letters, digits and dashes");
    }
    if !is_label(&name.namespace, 63) {
        errors.push("metadata.namespace", "name the namespace");
    }
    let selector = self::selector("selector", selector, &mut errors);
    if selector.is_empty() {
        errors.push(
            "selector",
            "name at least one label, for example matchLabels: {app: my-service}; an empty selector would govern every pod",
        );
    }
    let account = match identity {
        None => Account::Generated(name.name.clone()),
        Some(api::Identity { service_account_name }) => {
            if !is_subdomain(service_account_name) {
                errors.push("identity.serviceAccountName", "is not a valid name");
            }
            Account::Existing(service_account_name.clone())
        }
    };
    let mut names = HashSet::new();
    let mut sources: Vec<Source> = Vec::new();
    for source in data_sources {
        let path = format!("dataSources[name={}]", source.name);
        if !is_label(&source.name, 63) {
            errors.push(&path, "name: use lower-case letters, digits and dashes");
        }
        if !names.insert(&source.name) {
            errors.push(&path, "name: used twice; give each data source a name of its own");
        }
        sources.extend(self::source(&path, &name, source, &mut errors));
    }
    let mut names = HashSet::new();
    let mut clients: Vec<Client> = Vec::new();
    for client in capabilities.iter().flat_map(|c| {
        let api::Capabilities { clients } = c;
        clients
    }) {
        let path = format!("capabilities.clients[name={}]", client.name);
        if !names.insert(&client.name) {
            errors.push(&path, "name: used twice; give each client a name of its own");
        }
        clients.extend(self::client(&path, &name.namespace, client, &mut errors));
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    clients.sort_by(|a, b| a.name.cmp(&b.name));
    let mode = match mode {
        api::Mode::Observe => Mode::Observe,
        api::Mode::Enforce => Mode::Enforce,
    };
    errors.finish(Scope { workload: name, mode, suspended: *suspend, selector, account, sources, clients })
}

fn source(path: &str, workload: &ObjectName, source: &api::DataSource, errors: &mut Errors) -> Option<Source> {
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
    let raw = |errors: &mut Errors| {
        if !write {
            errors.push(
                format!("{path}.access"),
                "nothing can hold a raw TCP connection to Read; declare access: ReadWrite, so that nobody believes it is read-only",
            );
        }
    };
    let target = match type_ {
        api::DataSourceType::Service => {
            let api::ServiceSource { name, namespace, port, protocol: api::Protocol::TCP } = service.as_ref()?;
            raw(errors);
            let namespace = namespace.clone().unwrap_or_else(|| workload.namespace.clone());
            if !is_label(name, 63) {
                errors.push(format!("{path}.service.name"), "is not a valid name of a Service");
            }
            if !is_label(&namespace, 63) {
                errors.push(format!("{path}.service.namespace"), "is not a valid name of a namespace");
            }
            Target::Service { service: ObjectName::new(namespace, name), port: self::port(&format!("{path}.service.port"), *port, errors)? }
        }
        api::DataSourceType::Host => {
            let api::HostSource { name, port } = host.as_ref()?;
            raw(errors);
            let host = name.to_ascii_lowercase();
            if !is_host(&host) {
                errors.push(format!("{path}.host.name"), "is not a full DNS name; addresses and wildcards cannot be declared");
            } else if is_cluster_name(&host) {
                errors.push(format!("{path}.host.name"), "is a name of the cluster or of a private network; declare a source of type Service (one without selector can lead to a private address)");
            }
            Target::Host { host, port: self::port(&format!("{path}.host.port"), *port, errors)? }
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
    Some(Source { name: name.clone(), class: class.map_or(Class::Restricted, self::class), target })
}

fn permissions(
    path: &str,
    workload: &ObjectName,
    source: &api::KubernetesSource,
    write: bool,
    errors: &mut Errors,
) -> BTreeSet<Permission> {
    let api::KubernetesSource { api_groups, resources, resource_names, namespace } = source;
    let path = format!("{path}.kubernetes");
    let namespace = namespace.clone().unwrap_or_else(|| workload.namespace.clone());
    if !is_label(&namespace, 63) {
        errors.push(format!("{path}.namespace"), "is not a valid name of a namespace");
    }
    for (field, values) in [("apiGroups", api_groups), ("resources", resources)] {
        if values.is_empty() {
            errors.push(format!("{path}.{field}"), "name at least one");
        }
        for value in values {
            if value.contains('*') {
                errors.push(format!("{path}.{field}"), "a wildcard declares what nobody has thought of; name each one");
            } else if !value.split('/').all(|part| value.is_empty() || is_subdomain(part)) {
                errors.push(format!("{path}.{field}"), format!("`{value}` is not valid; write it as `kubectl api-resources` does"));
            }
        }
    }
    let verbs: &[Verb] = if write { &Verb::ALL } else { &Verb::READ };
    let names: Vec<Option<String>> =
        if resource_names.is_empty() { vec![None] } else { resource_names.iter().cloned().map(Some).collect() };
    let mut all = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for group in api_groups {
        for resource in resources {
            for verb in verbs {
                for name in &names {
                    let permission = Permission {
                        namespace: namespace.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                        verb: *verb,
                    };
                    if let Some(row) = never_grantable(&permission) {
                        refused.insert((resource.clone(), group.clone(), permission.verb.reads(), row.why));
                    }
                    all.insert(permission);
                }
            }
        }
    }
    let mut said = BTreeSet::new();
    for (resource, group, reads, why) in refused.iter().rev() {
        // A resource that may not even be read is said once.
        if said.insert((resource, group)) {
            let what = if *reads { "reading" } else { "writing" };
            let of = if group.is_empty() { String::new() } else { format!(".{group}") };
            errors.push(format!("{path}.resources"), format!("{what} {resource}{of} is never granted by Remit: {why}"));
        }
    }
    all
}

/// How many permissions a spec names, without listing them.
fn permissions_named(spec: &api::AIWorkloadSpec) -> usize {
    let one = |k: &api::KubernetesSource| {
        let api::KubernetesSource { api_groups, resources, resource_names, namespace: _ } = k;
        [api_groups.len(), resources.len(), resource_names.len().max(1), Verb::ALL.len()].into_iter().fold(1, usize::saturating_mul)
    };
    spec.data_sources.iter().filter_map(|s| s.kubernetes.as_ref()).map(one).fold(0, usize::saturating_add)
}

fn client(path: &str, own: &str, client: &api::Client, errors: &mut Errors) -> Option<Client> {
    let api::Client { name, namespace, pod_selector, ip_block, port } = client;
    if !is_label(name, 63) {
        errors.push(path, "name: use lower-case letters, digits and dashes");
    }
    let peer = match (pod_selector, ip_block) {
        (Some(selector), None) => {
            let namespace = namespace.clone().unwrap_or_else(|| own.to_owned());
            if !is_label(&namespace, 63) {
                errors.push(format!("{path}.namespace"), "is not a valid name of a namespace");
            }
            ClientPeer::Pods { namespace, selector: self::selector(&format!("{path}.podSelector"), selector, errors) }
        }
        (None, Some(api::IpBlock { cidr, except })) => {
            if namespace.is_some() {
                errors.push(format!("{path}.namespace"), "goes with podSelector, not with ipBlock");
            }
            let cidr = block(&format!("{path}.ipBlock.cidr"), cidr, errors)?;
            let mut holes = Vec::new();
            for hole in except {
                let at = format!("{path}.ipBlock.except");
                let hole = block(&at, hole, errors)?;
                if !cidr.contains(&hole) || cidr == hole {
                    errors.push(at, format!("{hole} must lie strictly inside {cidr}"));
                }
                holes.push(hole);
            }
            ClientPeer::Block { cidr, except: Ranges::new(holes).blocks().to_vec() }
        }
        _ => {
            errors.push(path, "give podSelector or ipBlock, and only one of them");
            return None;
        }
    };
    Some(Client { name: name.clone(), peer, port: self::port(&format!("{path}.port"), *port, errors)? })
}

/// What a ScopeCeiling means.
pub fn ceiling(object: &ScopeCeiling) -> Result<(Selector, Ceiling), Vec<FieldError>> {
    let api::ScopeCeilingSpec { namespace_selector, unscoped_pods, hosts, services, kubernetes, classes } = &object.spec;
    let mut errors = Errors::default();
    let namespaces = selector("namespaceSelector", namespace_selector, &mut errors);
    let ports = |path: String, ports: &[i32], errors: &mut Errors| -> BTreeSet<u16> {
        ports.iter().filter_map(|p| port(&path, *p, errors)).collect()
    };
    let mut ceiling = Ceiling {
        name: object.metadata.name.clone().unwrap_or_default(),
        isolate_unscoped: *unscoped_pods == api::UnscopedPods::Isolate,
        hosts: Vec::new(),
        services: Vec::new(),
        kubernetes: Vec::new(),
        classes: classes.iter().copied().map(class).collect(),
    };
    for api::CeilingHost { name, host, ports: p } in hosts {
        let path = format!("hosts[name={name}]");
        if !is_host(host.strip_prefix("*.").unwrap_or(host)) {
            errors.push(format!("{path}.host"), "is not a full DNS name, nor `*.` and one");
        }
        let ports = ports(format!("{path}.ports"), p, &mut errors);
        ceiling.hosts.push(CeilingHost { host: HostPattern::parse(host), ports });
    }
    for api::CeilingService { name, namespace, services, ports: p, addresses } in services {
        let path = format!("services[name={name}]");
        let addresses = addresses.iter().filter_map(|a| block(&format!("{path}.addresses"), a, &mut errors)).collect();
        let ports = ports(format!("{path}.ports"), p, &mut errors);
        ceiling.services.push(CeilingService { namespace: namespace.clone(), services: names(services), ports, addresses });
    }
    for api::CeilingKubernetes { name, namespace, api_groups, resources, resource_names, access } in kubernetes {
        for value in api_groups.iter().chain(resources) {
            if value.contains('*') {
                errors.push(format!("kubernetes[name={name}]"), "a wildcard allows what nobody has thought of; name each one");
            }
        }
        ceiling.kubernetes.push(CeilingKubernetes {
            namespace: namespace.clone(),
            groups: api_groups.iter().cloned().collect(),
            resources: resources.iter().cloned().collect(),
            names: if resource_names.is_empty() { Names::All } else { Names::These(resource_names.iter().cloned().collect()) },
            write: *access == api::Access::ReadWrite,
        });
    }
    errors.finish((namespaces, ceiling))
}

fn names(list: &[String]) -> Names {
    if list.iter().any(|n| n == "*") { Names::All } else { Names::These(list.iter().cloned().collect()) }
}

fn class(class: api::Class) -> Class {
    match class {
        api::Class::Public => Class::Public,
        api::Class::Internal => Class::Internal,
        api::Class::Restricted => Class::Restricted,
    }
}

/// A selector; on error, one that was reported and selects everything (it never reaches a plan).
fn selector(path: &str, selector: &api::LabelSelector, errors: &mut Errors) -> Selector {
    let api::LabelSelector { match_labels, match_expressions } = selector;
    let labels = match_labels.iter().map(|(k, v)| (k.clone(), Requirement::In([v.clone()].into())));
    let expressions = match_expressions.iter().map(|api::LabelRequirement { key, operator, values }| {
        let set: BTreeSet<String> = values.iter().cloned().collect();
        let requirement = match operator {
            api::LabelOperator::In => Requirement::In(set),
            api::LabelOperator::NotIn => Requirement::NotIn(set),
            api::LabelOperator::Exists => Requirement::Exists,
            api::LabelOperator::DoesNotExist => Requirement::DoesNotExist,
        };
        (key.clone(), requirement)
    });
    for api::LabelRequirement { key, operator, values } in match_expressions {
        if matches!(operator, api::LabelOperator::Exists | api::LabelOperator::DoesNotExist) && !values.is_empty() {
            errors.push(format!("{path}.matchExpressions"), scope::SelectorError::Values(key.clone()).to_string());
        }
    }
    Selector::new(labels.chain(expressions)).unwrap_or_else(|e| {
        errors.push(path, e.to_string());
        Selector::default()
    })
}

fn port(path: &str, port: i32, errors: &mut Errors) -> Option<u16> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            errors.push(path, "must be from 1 to 65535");
            None
        }
    }
}

fn block(path: &str, text: &str, errors: &mut Errors) -> Option<IpNet> {
    scope::parse_block(text).map_err(|e| errors.push(path, e.to_string())).ok()
}

fn is_label(text: &str, max: usize) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=max).contains(&text.len()) && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || c == '-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| is_label(part, 253))
}

fn is_host(text: &str) -> bool {
    text.len() <= 253
        && text.contains('.')
        && text.split('.').all(|part| is_label(part, 63))
        && text.rsplit('.').next().is_some_and(|top| top.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// Names which lead into the cluster or a private network, whatever the cluster's domain is called.
fn is_cluster_name(host: &str) -> bool {
    ["svc", "local", "localhost", "internal"].iter().any(|top| host.rsplit('.').next() == Some(top)) || host.contains(".svc.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{self, FULL, WIDE};

    const BASE: &str = "selector: {matchLabels: {app: a}}\nmode: Enforce\n";

    fn errors(spec: &str) -> Vec<String> {
        validate(&fixture::workload(&format!("{BASE}{spec}"))).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_full_example_is_valid() {
        assert!(validate(&fixture::workload(FULL)).is_ok());
        assert!(ceiling(&fixture::ceiling("wide", WIDE)).is_ok());
    }

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
    fn all_errors_are_collected() {
        let found = errors(
            "dataSources:\n- {name: a, type: Service, access: ReadWrite, service: {name: x, port: 0, protocol: TCP}}\n- {name: a, type: Host, host: {name: x, port: 1}}\ncapabilities: {clients: [{name: c, port: 70000, podSelector: {matchLabels: {'a b': c}}}, {name: d, port: 80}, {name: e, port: 80, ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]}",
        );
        let paths: Vec<&str> = found.iter().map(|e| e.split(": ").next().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "dataSources[name=a].service.port",
                "dataSources[name=a]",
                "dataSources[name=a].access",
                "dataSources[name=a].host.name",
                "capabilities.clients[name=c].podSelector",
                "capabilities.clients[name=c].port",
                "capabilities.clients[name=d]",
                "capabilities.clients[name=e].ipBlock.except",
            ]
        );
    }

    #[test]
    fn an_empty_selector_is_refused() {
        let workload = fixture::workload("selector: {}\nmode: Enforce");
        assert!(validate(&workload).unwrap_err()[0].to_string().starts_with("selector: name at least one label"));
    }

    #[test]
    fn read_is_not_write() {
        let scope = |access: &str| {
            fixture::scope(&format!(
                "{BASE}dataSources: [{{name: a, type: Kubernetes, {access} kubernetes: {{apiGroups: [shop.example.com], resources: [orders]}}}}]"
            ))
        };
        let verbs = |s: Scope| s.permissions().iter().map(|p| p.verb).collect::<BTreeSet<_>>();
        assert_eq!(verbs(scope("")), Verb::READ.into());
        assert_eq!(verbs(scope("access: Read,")), Verb::READ.into());
        assert_eq!(verbs(scope("access: ReadWrite,")), Verb::ALL.into());
    }

    #[test]
    fn a_source_without_class_counts_as_restricted() {
        let scope = fixture::scope(&format!("{BASE}dataSources: [{{name: a, type: ConfigMap, configMap: {{name: x}}}}]"));
        assert_eq!(scope.sources[0].class, Class::Restricted);
    }
}
