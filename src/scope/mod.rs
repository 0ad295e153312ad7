//! The words: what an AI service may reach, parsed and normalised once.
//!
//! Nothing here knows Kubernetes' types, a clock or a client. A [`Scope`] is what a valid AIWorkload means; a [`Ceiling`] is the
//! most that may be meant; [`Ceilings::narrow`] is the only place where the two meet. Whatever is absent is denied.

mod address;
mod ceiling;
mod domain;
mod http;
mod permission;
mod requests;
mod selector;

pub use address::{AddressBlock, Ranges, RangesError, parse_block};
pub use ceiling::{Ceiling, CeilingHost, CeilingKubernetes, CeilingService, Ceilings, Excess, HostPattern, Names, Unscoped};
pub use domain::{DomainName, DomainNameError};
pub use http::{
    Authority, AuthorityError, Host, LONGEST_METHOD, Path, PathError, PathPattern, RequestTarget, SAFE_METHODS, is_method, names_a_method,
};
pub use permission::{NEVER_GRANTABLE, NeverGrantable, Permission, Verb, never_grantable};
pub use requests::{RequestRule, Requests, Scheme};
pub use selector::{Requirement, Selector, SelectorError};

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use serde::Serialize;

/// A namespaced object's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl ObjectName {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a valid AIWorkload means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scope {
    pub workload: ObjectName,
    pub mode: Mode,
    pub suspended: bool,
    pub selector: Selector,
    pub account: Account,
    /// Sorted by name.
    pub sources: Vec<Source>,
    /// Sorted by name.
    pub clients: Vec<Client>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Mode {
    Observe,
    Enforce,
}

/// The ServiceAccount that permissions are bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Account {
    /// Made by Remit.
    Generated(String),
    /// Somebody else's: used, never written.
    Existing(String),
}

impl Account {
    pub fn name(&self) -> &str {
        match self {
            Self::Generated(name) | Self::Existing(name) => name,
        }
    }
}

/// One declared data source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    pub name: String,
    pub class: Class,
    pub target: Target,
    /// Variables of the app's environment that hold its base URL.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub base_url_env: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Class {
    Public,
    Internal,
    Restricted,
}

/// What a data source leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Target {
    /// `http`: its requests are judged one by one. None: bytes pass unseen.
    Service {
        service: ObjectName,
        port: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        http: Option<Requests>,
    },
    /// The same; without `http`, TLS passes by its server name.
    Host {
        host: String,
        port: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        http: Option<Requests>,
    },
    Kubernetes(BTreeSet<Permission>),
    ConfigMap(ObjectName),
    Secret(ObjectName),
    PersistentVolumeClaim {
        claim: ObjectName,
        write: bool,
    },
}

/// A declared caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Client {
    pub name: String,
    pub peer: ClientPeer,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ClientPeer {
    Pods { namespace: String, selector: Selector },
    Block { cidr: IpNet, except: Vec<IpNet> },
}

impl Target {
    /// What may be asked of it, where it is judged request by request.
    pub fn requests(&self) -> Option<&Requests> {
        match self {
            Self::Service { http, .. } | Self::Host { http, .. } => http.as_ref(),
            _ => None,
        }
    }
}

impl Scope {
    /// Whether the guards end the app's own TLS somewhere, so that the app must trust them.
    pub fn inspects(&self) -> bool {
        self.sources.iter().filter_map(|source| source.target.requests()).any(|requests| requests.inspected)
    }

    /// All Kubernetes permissions of all sources.
    pub fn permissions(&self) -> BTreeSet<Permission> {
        let mut all = BTreeSet::new();
        for source in &self.sources {
            if let Target::Kubernetes(permissions) = &source.target {
                all.extend(permissions.iter().cloned());
            }
        }
        all
    }

    /// Digest of the scope: equal digests, equal scopes.
    pub fn digest(&self) -> String {
        use sha2::{Digest, Sha256};
        let json = serde_json::to_vec(self).expect("a scope has only string keys and finite numbers");
        Sha256::digest(&json).iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}
