//! An AIWorkload → the scope that it means.
//!
//! Promise: names that can be names, a selector that governs something, data sources and clients in the order of their unique names.
//! In: the object. Out: a [`Scope`], or every error of every field.

use std::collections::HashSet;

use super::client::client;
use super::field::{is_label, is_subdomain, selector};
use super::permissions::permissions_named;
use super::requests::{is_too_much, together};
use super::source::source;
use super::{Errors, FieldError};
use crate::api::{self, AIWorkload};
use crate::scope::{Account, Client, Mode, ObjectName, Scope, Source};

/// More permissions than this in one AIWorkload are refused before they are even listed.
const MOST_PERMISSIONS: usize = 1_000;

/// What an AIWorkload means.
pub fn validate(workload: &AIWorkload) -> Result<Scope, Vec<FieldError>> {
    let api::AIWorkloadSpec { purpose: _, selector, mode, identity, data_sources, capabilities, unguarded_pods: _, suspend } =
        &workload.spec;
    let mut errors = Errors::default();
    if permissions_named(&workload.spec) > MOST_PERMISSIONS {
        errors.push(
            "dataSources",
            format!("names more than {MOST_PERMISSIONS} Kubernetes permissions; declare fewer groups, resources and names"),
        );
        return Err(errors.0);
    }
    if let Some(message) = is_too_much(&workload.spec) {
        errors.push("dataSources", message);
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
    together(&sources, &mut errors);
    clients.sort_by(|a, b| a.name.cmp(&b.name));
    let mode = match mode {
        api::Mode::Observe => Mode::Observe,
        api::Mode::Enforce => Mode::Enforce,
    };
    errors.finish(Scope { workload: name, mode, suspended: *suspend, selector, account, sources, clients })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;
    use crate::plan::validate::fixture::errors;

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
}
