//! Documents → what the plan is made from. What is given with `-f` takes the place of what `--facts` say of the same object.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use serde::de::DeserializeOwned;

use super::documents::{Document, Place};
use super::schema;
use crate::api::{self, AIWorkload, ScopeCeiling};
use crate::plan::{self, ChannelFact, DnsFact, Facts, FieldError, NAMESPACE_NAME_LABEL, Origin, PortTarget, Transport, project};
use crate::policy::Proxy;
use crate::scope::{Ceiling, Ceilings, DomainName, ObjectName, Scope, Selector};

/// Everything that was read.
#[derive(Default)]
pub(super) struct World {
    pub workloads: BTreeMap<ObjectName, Workload>,
    ceilings: Vec<(Selector, Ceiling)>,
    /// Labels of the namespaces that were given.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub facts: Facts,
    /// What was ignored.
    pub ignored: Vec<String>,
    pub errors: Vec<String>,
}

/// An AIWorkload that was read.
pub(super) struct Workload {
    pub scope: Scope,
    /// None: it was never applied.
    pub origin: Option<Origin>,
    /// Seconds; what was never applied is younger than everything that was.
    pub created: i64,
    /// It was given with `-f`, not only as a fact.
    pub given: bool,
}

/// What stands in no file.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Where objects lie that name no namespace.
    pub namespace: Option<String>,
    pub pod_ranges: Vec<IpNet>,
    pub service_ranges: Vec<IpNet>,
    pub other_ranges: Vec<IpNet>,
    pub dns_addresses: Vec<IpAddr>,
    pub proxy_addresses: Vec<SocketAddr>,
    pub domain: DomainName,
    pub channel: ChannelFact,
}

impl World {
    pub fn new(given: Vec<Document>, facts: Vec<Document>, settings: &Settings) -> Self {
        let mut world = Self::default();
        let given = world.index(given, settings.namespace.as_deref(), true);
        let mut known = world.index(facts, None, false);
        let mut replaced = BTreeMap::new();
        for key in given.keys() {
            replaced.extend(known.remove(key).map(|document| (key.clone(), document)));
        }
        for (key, document) in given {
            world.add(&key, document, replaced.get(&key), true);
        }
        for (key, document) in known {
            world.add(&key, document, None, false);
        }
        world.finish(settings);
        world
    }

    /// Documents by what they are about. One object in two forms is an error: which one counts must not depend on the order of files.
    fn index(&mut self, documents: Vec<Document>, namespace: Option<&str>, given: bool) -> BTreeMap<Key, Document> {
        let mut index: BTreeMap<Key, Document> = BTreeMap::new();
        for mut document in documents {
            let Some(kind) = Kind::of(&document) else {
                if document.api_version.split('/').next() == Some(api::GROUP) {
                    let (place, api_version, kind) = (&document.place, &document.api_version, &document.kind);
                    self.errors.push(format!(
                        "{place}: there is no {kind} in {api_version}; known are AIWorkload and ScopeCeiling in remit.dev/v1alpha1"
                    ));
                } else {
                    self.ignored.push(format!("{}: ignored: {} of {}", document.place, document.kind, document.api_version));
                }
                continue;
            };
            let meta: ObjectMeta = match serde_json::from_value(document.value["metadata"].clone()) {
                Ok(meta) => meta,
                Err(error) => {
                    self.errors.push(format!("{}: {}: metadata: {error}", document.place, document.kind));
                    continue;
                }
            };
            let Some(name) = meta.name.filter(|name| !name.is_empty()) else {
                self.errors.push(format!("{}: {}: metadata.name: is missing", document.place, document.kind));
                continue;
            };
            let lies = match (kind.namespaced(), meta.namespace, namespace) {
                (false, _, _) => String::new(),
                (true, Some(written), Some(wanted)) if given && kind == Kind::AIWorkload && written != wanted => {
                    self.errors.push(format!(
                        "{}: AIWorkload {name}: metadata.namespace: is `{written}`, but --namespace says `{wanted}`; leave one of them out",
                        document.place
                    ));
                    continue;
                }
                (true, Some(written), _) => written,
                (true, None, wanted) => wanted.unwrap_or("default").to_owned(),
            };
            if kind.namespaced() {
                document.value["metadata"]["namespace"] = lies.clone().into();
            }
            let key = Key { kind, name: ObjectName::new(lies, name) };
            match index.get(&key) {
                Some(first) if first.value != document.value => self.errors.push(format!(
                    "{}: {} {} is here in another form than in {}; give it once",
                    document.place,
                    document.kind,
                    key.shown(),
                    first.place
                )),
                Some(_) => {}
                None => _ = index.insert(key, document),
            }
        }
        index
    }

    fn add(&mut self, key: &Key, document: Document, replaced: Option<&Document>, given: bool) {
        match key.kind {
            Kind::AIWorkload => self.add_workload(key, document, replaced, given),
            Kind::ScopeCeiling => {
                if let Some(ceiling) = self.resource::<ScopeCeiling>(key, &document) {
                    let meaning = self.meaning(key, &document.place, plan::ceiling(&ceiling));
                    self.ceilings.extend(meaning);
                }
            }
            Kind::Namespace => {
                if let Some(namespace) = self.object::<Namespace>(key, &document) {
                    let mut labels = namespace.metadata.labels.unwrap_or_default();
                    labels.insert(NAMESPACE_NAME_LABEL.to_owned(), key.name.name.clone());
                    self.namespaces.insert(key.name.name.clone(), labels);
                }
            }
            Kind::Node => {
                if let Some(node) = self.object::<Node>(key, &document) {
                    let (pods, addresses) = project::node(&node);
                    self.facts.ranges.pods.extend(pods);
                    self.facts.ranges.nodes.extend(addresses);
                }
            }
            Kind::Service => {
                if let Some(service) = self.object::<Service>(key, &document) {
                    let (name, fact) = project::service(&service);
                    if project::DNS_SERVICES.contains(&(&name.namespace, &name.name)) {
                        self.facts.dns.extend(project::dns(&service));
                    }
                    self.facts.services.insert(name, fact);
                }
            }
            Kind::EndpointSlice => {
                if let Some(slice) = self.object::<EndpointSlice>(key, &document) {
                    self.facts.api_server.extend(project::api_server(&slice));
                    if let Some((service, endpoints)) = project::endpoints(&slice) {
                        self.facts.endpoints.entry(service).or_default().extend(endpoints);
                    }
                }
            }
            Kind::ServiceCidr => {
                if let Some(range) = self.object::<ServiceCIDR>(key, &document) {
                    self.facts.ranges.services.extend(project::service_cidr(&range));
                }
            }
        }
    }

    fn add_workload(&mut self, key: &Key, document: Document, replaced: Option<&Document>, given: bool) {
        let errors = self.errors.len();
        let Some(workload) = self.resource::<AIWorkload>(key, &document) else { return self.only_a_fact(errors, given) };
        let Some(scope) = self.meaning(key, &document.place, plan::validate(&workload)) else { return self.only_a_fact(errors, given) };
        // What is about to be applied keeps the age and the identity of what it replaces.
        let stored: ObjectMeta = replaced.and_then(|d| serde_json::from_value(d.value["metadata"].clone()).ok()).unwrap_or_default();
        let created = workload.metadata.creation_timestamp.or(stored.creation_timestamp).map_or(i64::MAX, |time| time.0.as_second());
        let generation = workload.metadata.generation.or(stored.generation).unwrap_or_default();
        let origin = workload.metadata.uid.or(stored.uid).map(|uid| Origin { uid, generation });
        self.workloads.insert(key.name.clone(), Workload { scope, origin, created, given });
    }

    /// A stored AIWorkload that is invalid governs nothing, and is no error of what was given.
    fn only_a_fact(&mut self, errors: usize, given: bool) {
        if !given {
            self.ignored.extend(self.errors.drain(errors..).map(|error| format!("ignored: {error}")));
        }
    }

    /// One of our own kinds, checked against its schema.
    fn resource<T: DeserializeOwned + CustomResourceExt>(&mut self, key: &Key, document: &Document) -> Option<T> {
        let misfits = schema::misfits(&T::crd(), &document.value);
        if misfits.is_empty() {
            return self.object(key, document);
        }
        self.errors.extend(misfits.into_iter().map(|misfit| format!("{}: {} {}: {misfit}", document.place, document.kind, key.shown())));
        None
    }

    fn object<T: DeserializeOwned>(&mut self, key: &Key, document: &Document) -> Option<T> {
        serde_json::from_value(document.value.clone())
            .map_err(|error| self.errors.push(format!("{}: {} {}: {error}", document.place, document.kind, key.shown())))
            .ok()
    }

    fn meaning<T>(&mut self, key: &Key, place: &Place, result: Result<T, Vec<FieldError>>) -> Option<T> {
        match result {
            Ok(meaning) => Some(meaning),
            Err(errors) => {
                for error in errors {
                    self.errors.push(format!("{place}: {:?} {}: {}", key.kind, key.shown(), in_spec(&error.path, &error.message)));
                }
                None
            }
        }
    }

    fn finish(&mut self, settings: &Settings) {
        let Settings { namespace: _, pod_ranges, service_ranges, other_ranges, dns_addresses, proxy_addresses, domain, channel } = settings;
        let facts = &mut self.facts;
        facts.ranges.pods.extend(pod_ranges);
        facts.ranges.services.extend(service_ranges);
        facts.ranges.others.extend(other_ranges);
        facts.dns_addresses.extend(dns_addresses);
        facts.proxy = (!proxy_addresses.is_empty()).then(|| Proxy { addresses: proxy_addresses.clone() });
        facts.domain = domain.clone();
        facts.channel = Some(channel.clone());
        let (namespace, name) = project::API_SERVICE;
        facts.api_service = facts.services.get(&ObjectName::new(namespace, name)).map(project::api_service).unwrap_or_default();
        if facts.dns.is_empty() {
            facts.dns.push(usual_dns());
        }
    }

    /// The labels of a namespace: as given, else the one which every namespace bears.
    fn labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let usual = || [(NAMESPACE_NAME_LABEL.to_owned(), namespace.to_owned())].into();
        self.namespaces.get(namespace).cloned().unwrap_or_else(usual)
    }

    pub fn ceilings_over(&self, namespace: &str) -> Ceilings {
        let labels = self.labels(namespace);
        let mut over: Vec<Ceiling> = self.ceilings.iter().filter(|(s, _)| s.matches(&labels)).map(|(_, c)| c.clone()).collect();
        over.sort_by(|a, b| a.name.cmp(&b.name));
        Ceilings(over)
    }

    /// None: the Namespace was not given.
    pub fn enrolled(&self, namespace: &str) -> Option<bool> {
        self.namespaces.get(namespace).map(|labels| labels.get(api::ENROLLED_LABEL).is_some_and(|value| value == "true"))
    }

    /// Namespaces whose labels some ceiling asks for.
    pub fn labels_matter(&self) -> bool {
        self.ceilings.iter().any(|(selector, _)| selector.requirements().any(|(key, _)| key != NAMESPACE_NAME_LABEL))
    }

    /// The namespaces of what was given.
    pub fn namespaces(&self) -> BTreeSet<&str> {
        self.workloads.iter().filter(|(_, w)| w.given).map(|(name, _)| name.namespace.as_str()).collect()
    }
}

/// A field's path from the object's root, with what is said of it.
pub(super) fn in_spec(path: &str, message: &str) -> String {
    let prefix = if path.starts_with("metadata") { "" } else { "spec." };
    format!("{prefix}{path}: {message}")
}

/// Where cluster DNS is when nothing says otherwise.
fn usual_dns() -> DnsFact {
    DnsFact {
        namespace: "kube-system".to_owned(),
        selector: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
        ports: [Transport::Tcp, Transport::Udp].map(|transport| (transport, PortTarget::Number(53))).into(),
        addresses: Vec::new(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    AIWorkload,
    ScopeCeiling,
    Namespace,
    Node,
    Service,
    EndpointSlice,
    ServiceCidr,
}

impl Kind {
    fn of(document: &Document) -> Option<Self> {
        Some(match (document.api_version.as_str(), document.kind.as_str()) {
            ("remit.dev/v1alpha1", "AIWorkload") => Self::AIWorkload,
            ("remit.dev/v1alpha1", "ScopeCeiling") => Self::ScopeCeiling,
            ("v1", "Namespace") => Self::Namespace,
            ("v1", "Node") => Self::Node,
            ("v1", "Service") => Self::Service,
            ("discovery.k8s.io/v1", "EndpointSlice") => Self::EndpointSlice,
            ("networking.k8s.io/v1", "ServiceCIDR") => Self::ServiceCidr,
            _ => return None,
        })
    }

    fn namespaced(self) -> bool {
        matches!(self, Self::AIWorkload | Self::Service | Self::EndpointSlice)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: Kind,
    name: ObjectName,
}

impl Key {
    fn shown(&self) -> String {
        if self.kind.namespaced() { self.name.to_string() } else { self.name.name.clone() }
    }
}
