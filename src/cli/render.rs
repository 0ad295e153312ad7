//! `kubectl remit render`: the plan, offline. The same functions make the operator's plan.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use serde_json::json;

use super::world::{Settings, World, in_spec};
use super::{Exit, Message, Outcome, documents};
use crate::api::SourceStatus;
use crate::plan::{self, ChannelFact, Contender, ManagedObject, Refusal, RefusalReason};
use crate::policy::pod::{CHANNEL_PORT, CHANNEL_SERVICE};
use crate::scope::{DomainName, Mode, ObjectName, Scope, Selector, parse_block};

/// What was typed.
#[derive(Args, Clone, Debug)]
pub(super) struct RenderArgs {
    /// File or directory with AIWorkloads, and with whatever else they are compiled from; `-` is stdin. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE", required = true, num_args = 1)]
    filenames: Vec<PathBuf>,
    /// How to print the objects.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
    /// Directory (or file) with what the cluster holds: Namespaces, Nodes, Services, EndpointSlices, ServiceCIDRs, ScopeCeilings and AIWorkloads.
    #[arg(long, value_name = "DIR", num_args = 1)]
    facts: Vec<PathBuf>,
    /// Namespace of AIWorkloads that name none [default: default].
    #[arg(short, long)]
    namespace: Option<String>,
    /// Addresses of pods, where no Node says so. May be repeated.
    #[arg(long = "pod-range", value_name = "CIDR", value_parser = block)]
    pod_ranges: Vec<IpNet>,
    /// Addresses of Services, where no ServiceCIDR says so. May be repeated.
    #[arg(long = "service-range", value_name = "CIDR", value_parser = block)]
    service_ranges: Vec<IpNet>,
    /// Other addresses that are not the outside. May be repeated.
    #[arg(long = "other-range", value_name = "CIDR", value_parser = block)]
    other_ranges: Vec<IpNet>,
    /// DNS server that is no pod, such as NodeLocal DNSCache. May be repeated.
    #[arg(long = "dns-address", value_name = "IP")]
    dns_addresses: Vec<IpAddr>,
    /// Forward proxy through which guards reach hosts. May be repeated.
    #[arg(long = "proxy-address", value_name = "IP:PORT")]
    proxy_addresses: Vec<SocketAddr>,
    /// The cluster's DNS domain.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    domain: DomainName,
    /// Where the operator is installed: guards ask it for their policy.
    #[arg(long, value_name = "NAMESPACE", default_value = "remit-system")]
    operator_namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A stream of documents.
    Yaml,
    /// One List.
    Json,
}

/// What collects everything that `--facts` reads.
const COLLECT: &str = "`kubectl get namespaces,nodes,services,endpointslices,servicecidrs,scopeceilings,aiworkloads -A -o yaml > facts/cluster.yaml` collects what --facts reads";

pub(super) fn render(args: &RenderArgs, stdin: &mut dyn Read) -> Outcome {
    let RenderArgs {
        filenames,
        output,
        facts,
        namespace,
        pod_ranges,
        service_ranges,
        other_ranges,
        dns_addresses,
        proxy_addresses,
        domain,
        operator_namespace,
    } = args;
    let mut read = |paths: &[PathBuf]| {
        let (mut documents, mut errors) = (vec![], vec![]);
        for path in paths {
            let (mut d, mut e) = documents::read(path, stdin);
            documents.append(&mut d);
            errors.append(&mut e);
        }
        (documents, errors)
    };
    let (given, mut errors) = read(filenames);
    let (facts, more) = read(facts);
    errors.extend(more);
    let settings = Settings {
        namespace: namespace.clone(),
        pod_ranges: pod_ranges.clone(),
        service_ranges: service_ranges.clone(),
        other_ranges: other_ranges.clone(),
        dns_addresses: dns_addresses.clone(),
        proxy_addresses: proxy_addresses.clone(),
        domain: domain.clone(),
        channel: ChannelFact { service: ObjectName::new(operator_namespace, CHANNEL_SERVICE), port: CHANNEL_PORT },
    };
    let mut world = World::new(given, facts, &settings);
    errors.append(&mut world.errors);
    let mut messages: Vec<Message> = world.ignored.iter().cloned().map(Message::Detail).collect();
    if errors.is_empty() && world.namespaces().is_empty() {
        let names: Vec<String> = filenames.iter().map(|f| f.display().to_string()).collect();
        errors.push(format!("no AIWorkload in {}", names.join(", ")));
    }
    if !errors.is_empty() {
        messages.extend(errors.into_iter().map(Message::Error));
        return Outcome { data: String::new(), messages, exit: Exit::BadInput };
    }
    let Rendered { objects, messages: more, refused } = compile(&world);
    messages.extend(more);
    let exit = if refused { Exit::Refused } else { Exit::Done };
    match print(&objects, *output) {
        Ok(data) => Outcome { data, messages, exit },
        Err(error) => {
            messages.push(Message::Error(error));
            Outcome { data: String::new(), messages, exit: Exit::BadInput }
        }
    }
}

struct Rendered {
    objects: Vec<ManagedObject>,
    messages: Vec<Message>,
    refused: bool,
}

fn compile(world: &World) -> Rendered {
    let mut objects = Vec::new();
    let mut messages = Vec::new();
    let mut hints = BTreeSet::new();
    let mut refused = false;
    for namespace in world.namespaces() {
        let ceilings = world.ceilings_over(namespace);
        match world.enrolled(namespace) {
            Some(true) => {}
            Some(false) => {
                messages.push(Message::Note(format!("namespace `{namespace}` is not enrolled: until it is, nothing of this is written")));
                hints.insert(format!("`kubectl label namespace {namespace} remit.dev/enrolled=true` enrols it"));
            }
            None if world.labels_matter() => {
                messages
                    .push(Message::Note(format!("Namespace `{namespace}` was not given: ceilings that ask for its labels are left out")));
                hints.insert(COLLECT.to_owned());
            }
            None => {}
        }
        let losers = losers(world, namespace);
        if ceilings.isolate_unscoped() {
            let policy = plan::unscoped_policy(namespace, &observed(world, namespace, &losers));
            objects.push(ManagedObject::NetworkPolicy(policy));
        }
        for (name, workload) in world.workloads.iter().filter(|(name, w)| w.given && name.namespace == namespace) {
            if let Some(older) = losers.get(name.name.as_str()) {
                refused = true;
                let older = ObjectName::new(namespace, *older);
                let mode = |name| world.workloads.get(name).map(|w| w.scope.mode);
                let is = if mode(&older) == mode(name) { "is older" } else { "is in mode Enforce, this one in Observe," };
                messages.push(Message::Refused(format!(
                    "AIWorkload {name}: AIWorkload {older} {is} and could select the same pods: it governs, this one generates nothing (Conflict)"
                )));
                hints.insert("selectors exclude each other if they name different values of one label".to_owned());
                continue;
            }
            if workload.scope.mode == Mode::Observe {
                messages.push(Message::Note(format!("AIWorkload {name} is in mode Observe: this is what Enforce would write")));
            }
            let scope = Scope { mode: Mode::Enforce, ..workload.scope.clone() };
            let plan::Plan { scope, digest, objects: planned, refusals } =
                plan::compile(&scope, workload.origin.as_ref(), &ceilings, &world.facts);
            messages.push(Message::Detail(format!("AIWorkload {name}: scope digest {digest}, {} objects", planned.len())));
            for SourceStatus { name: source, judged_by } in plan::judged_by(&scope) {
                messages.push(Message::Detail(format!("AIWorkload {name}: data source {source} is judged by {judged_by:?}")));
            }
            objects.extend(planned);
            for Refusal { reason, path, message } in refusals {
                refused = true;
                messages.push(Message::Refused(format!("AIWorkload {name}: {} ({})", in_spec(&path, &message), reason.as_str())));
                hints.extend(hint(reason, ceilings.0.is_empty()).map(str::to_owned));
            }
            if scope.suspended {
                messages.push(Message::Note(format!("AIWorkload {name} is suspended: everything is denied")));
            } else if !scope.permissions().is_empty() && world.facts.api_server.is_empty() {
                messages.push(Message::Note(format!(
                    "AIWorkload {name} declares Kubernetes objects, but where the API server listens was not given: its address is not in the NetworkPolicy"
                )));
                hints.insert(COLLECT.to_owned());
            }
        }
    }
    messages.extend(hints.into_iter().map(Message::Hint));
    Rendered { objects, messages, refused }
}

/// Those that do not govern, with the older one that does.
fn losers<'a>(world: &'a World, namespace: &str) -> BTreeMap<&'a str, &'a str> {
    let contenders: Vec<Contender<'a>> = in_namespace(world, namespace)
        .map(|(name, w)| Contender { name: &name.name, created: plan::seniority(w.scope.mode, w.created), selector: &w.scope.selector })
        .collect();
    plan::governing(&contenders)
}

/// Selectors of the AIWorkloads whose pods stay as they are found: in mode Observe, and not the ones that are rendered as if they were not.
fn observed(world: &World, namespace: &str, losers: &BTreeMap<&str, &str>) -> Vec<Selector> {
    in_namespace(world, namespace)
        .filter(|(name, w)| !w.given && w.scope.mode == Mode::Observe && !losers.contains_key(name.name.as_str()))
        .map(|(_, w)| w.scope.selector.clone())
        .collect()
}

fn in_namespace<'a>(world: &'a World, namespace: &str) -> impl Iterator<Item = (&'a ObjectName, &'a super::world::Workload)> {
    world.workloads.iter().filter(move |(name, _)| name.namespace == namespace)
}

/// What to do about a refusal, where its message does not say so.
fn hint(reason: RefusalReason, no_ceiling: bool) -> Option<&'static str> {
    match reason {
        RefusalReason::NotFound => Some(COLLECT),
        RefusalReason::CeilingExceeded if no_ceiling => Some("give the ScopeCeilings with -f or --facts"),
        RefusalReason::ClusterRangesUnknown => Some("give the Nodes with --facts, or the pods' addresses with --pod-range"),
        RefusalReason::CeilingExceeded | RefusalReason::AddressNotAllowed | RefusalReason::ExternalName => None,
    }
}

fn print(objects: &[ManagedObject], format: Format) -> Result<String, String> {
    match format {
        Format::Yaml => {
            let documents: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
            documents.map(|d| d.join("---\n")).map_err(|e| e.to_string())
        }
        Format::Json => serde_json::to_string_pretty(&json!({"apiVersion": "v1", "kind": "List", "items": objects}))
            .map(|text| text + "\n")
            .map_err(|e| e.to_string()),
    }
}

fn block(text: &str) -> Result<IpNet, String> {
    parse_block(text).map_err(|error| error.to_string())
}
