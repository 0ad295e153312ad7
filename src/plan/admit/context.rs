//! Security contexts, of a pod and of a container alike: users, and what confines a process.

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SELinuxOptions, SeccompProfile, SecurityContext};

use super::error;
use crate::plan::FieldError;
use crate::policy::pod::IDS;

/// What both kinds have in common.
pub(super) struct Context<'a> {
    path: String,
    /// Users and groups by the name of their field.
    ids: Vec<(&'static str, i64)>,
    seccomp: Option<&'a SeccompProfile>,
    app_armor: Option<&'a AppArmorProfile>,
    se_linux: Option<&'a SELinuxOptions>,
    windows: bool,
}

impl<'a> Context<'a> {
    pub(super) fn of_pod(spec: &'a PodSpec) -> Self {
        let context = spec.security_context.as_ref();
        let id = |name, id: Option<i64>| id.map(|id| (name, id));
        let groups = context.iter().flat_map(|c| c.supplemental_groups.iter().flatten()).map(|g| ("supplementalGroups", *g));
        let ids = context.iter().flat_map(|c| {
            [id("runAsUser", c.run_as_user), id("runAsGroup", c.run_as_group), id("fsGroup", c.fs_group)].into_iter().flatten()
        });
        Self {
            path: "spec.securityContext".to_owned(),
            ids: ids.chain(groups).collect(),
            seccomp: context.and_then(|c| c.seccomp_profile.as_ref()),
            app_armor: context.and_then(|c| c.app_armor_profile.as_ref()),
            se_linux: context.and_then(|c| c.se_linux_options.as_ref()),
            windows: context.is_some_and(|c| c.windows_options.is_some()),
        }
    }

    pub(super) fn of_container(path: String, context: Option<&'a SecurityContext>) -> Self {
        let ids = context.map_or([None, None], |c| [c.run_as_user.map(|u| ("runAsUser", u)), c.run_as_group.map(|g| ("runAsGroup", g))]);
        Self {
            path,
            ids: ids.into_iter().flatten().collect(),
            seccomp: context.and_then(|c| c.seccomp_profile.as_ref()),
            app_armor: context.and_then(|c| c.app_armor_profile.as_ref()),
            se_linux: context.and_then(|c| c.se_linux_options.as_ref()),
            windows: context.is_some_and(|c| c.windows_options.is_some()),
        }
    }
}

/// What a guard sends passes its redirect, by its user and group.
pub(super) fn reserved_ids(context: &Context<'_>, errors: &mut Vec<FieldError>) {
    for (field, _) in context.ids.iter().filter(|(_, id)| u32::try_from(*id).is_ok_and(|id| IDS.contains(&id))) {
        let (first, last) = (IDS.start(), IDS.end());
        errors.push(error(format!("{}.{field}", context.path), format!("{first} to {last} are kept for guards; choose an id below them")));
    }
}

pub(super) fn seccomp(context: &Context<'_>, errors: &mut Vec<FieldError>) {
    if context.seccomp.is_some_and(|p| p.type_ == "Unconfined") {
        let path = format!("{}.seccompProfile.type", context.path);
        errors.push(error(path, "Unconfined leaves every system call open; set RuntimeDefault, or leave it out"));
    }
}

pub(super) fn app_armor(context: &Context<'_>, errors: &mut Vec<FieldError>) {
    if context.app_armor.is_some_and(|p| p.type_ == "Unconfined") {
        let path = format!("{}.appArmorProfile.type", context.path);
        errors.push(error(path, "Unconfined takes the runtime's confinement away; set RuntimeDefault, or leave it out"));
    }
}

/// As Pod Security's `baseline` has it: levels are free, users and roles are not, nor types that confine nothing (`spc_t`).
pub(super) fn se_linux(context: &Context<'_>, errors: &mut Vec<FieldError>) {
    const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let Some(SELinuxOptions { level: _, role, type_, user }) = context.se_linux else { return };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    for (field, bad) in
        [("type", !TYPES.contains(&text(type_).as_str())), ("user", !text(user).is_empty()), ("role", !text(role).is_empty())]
    {
        if bad {
            let path = format!("{}.seLinuxOptions.{field}", context.path);
            errors.push(error(path, "could take the runtime's confinement away; leave it out"));
        }
    }
}

pub(super) fn windows(context: &Context<'_>, errors: &mut Vec<FieldError>) {
    if context.windows {
        errors.push(error(format!("{}.windowsOptions", context.path), "there is no guard for Windows; run the pod on Linux"));
    }
}
