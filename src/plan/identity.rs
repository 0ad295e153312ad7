//! The ServiceAccount of a workload, where it does not bring its own.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::ManagedObject;
use super::object::metadata;
use crate::scope::{Account, Scope};

/// The account to generate. Its token is mounted only if the scope declares Kubernetes objects.
pub(super) fn service_account(scope: &Scope, uid: Option<&str>) -> Option<ManagedObject> {
    let Account::Generated(name) = &scope.account else { return None };
    Some(ManagedObject::ServiceAccount(ServiceAccount {
        metadata: metadata(&scope.workload, uid, &scope.workload.namespace, name),
        automount_service_account_token: Some(!scope.permissions().is_empty()),
        ..ServiceAccount::default()
    }))
}
