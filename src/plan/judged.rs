//! A scope → what is looked at where each of its data sources is used: for people, who read there what nobody sees.

use crate::api::{JudgedBy, SourceStatus};
use crate::scope::{Scope, Source, Target};

pub fn judged_by(scope: &Scope) -> Vec<SourceStatus> {
    let of = |source: &Source| SourceStatus {
        name: source.name.clone(),
        judged_by: match &source.target {
            Target::Service { http: Some(_), .. } | Target::Host { http: Some(_), .. } => JudgedBy::Requests,
            Target::Host { http: None, .. } => JudgedBy::ServerName,
            Target::Service { http: None, .. } => JudgedBy::Address,
            Target::Kubernetes(_) => JudgedBy::Permissions,
            Target::ConfigMap(_) | Target::Secret(_) | Target::PersistentVolumeClaim { .. } => JudgedBy::Mounts,
        },
    };
    scope.sources.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{self, FULL};

    #[test]
    fn by_what_is_declared() {
        let judged = |spec: &str| -> Vec<String> {
            judged_by(&fixture::scope(spec)).iter().map(|s| format!("{} {:?}", s.name, s.judged_by)).collect()
        };
        let full = FULL.replace("{name: status.example.com, port: 8443}", "{name: status.example.com, port: 8443, protocol: HTTPS}");
        assert_eq!(
            judged(&full),
            [
                "cache Address",
                "files Mounts",
                "help ServerName",
                "old-db Address",
                "order-objects Permissions",
                "orders-db Address",
                "prompts Mounts",
                "settings Permissions",
                "status Requests",
                "token Mounts",
            ]
        );
    }
}
