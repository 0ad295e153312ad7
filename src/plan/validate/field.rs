//! Single values, read alike wherever they stand: classes, selectors, ports, address blocks, names.
//!
//! Promise: what is wrong is reported under the path of its field, or answered with no. In: a value, the path of its field. Out: its
//! meaning.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Errors;
use crate::api;
use crate::scope::{self, Class, Requirement, Selector};

pub(super) fn class(class: api::Class) -> Class {
    match class {
        api::Class::Public => Class::Public,
        api::Class::Internal => Class::Internal,
        api::Class::Restricted => Class::Restricted,
    }
}

/// A selector; on error, one that was reported and selects everything (it never reaches a plan).
pub(super) fn selector(path: &str, selector: &api::LabelSelector, errors: &mut Errors) -> Selector {
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

pub(super) fn port(path: &str, port: i32, errors: &mut Errors) -> Option<u16> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            errors.push(path, "must be from 1 to 65535");
            None
        }
    }
}

pub(super) fn block(path: &str, text: &str, errors: &mut Errors) -> Option<IpNet> {
    scope::parse_block(text).map_err(|e| errors.push(path, e.to_string())).ok()
}

pub(super) fn is_label(text: &str, max: usize) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=max).contains(&text.len()) && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || c == '-')
}

pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| is_label(part, 253))
}

pub(super) fn is_host(text: &str) -> bool {
    text.len() <= 253
        && text.contains('.')
        && text.split('.').all(|part| is_label(part, 63))
        && text.rsplit('.').next().is_some_and(|top| top.starts_with(|c: char| c.is_ascii_lowercase()))
}
