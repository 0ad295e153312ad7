//! `/inject` and `/admit`: what is asked of pods, and by which state it is answered.
//!
//! Promise: a pod that is created after its AIWorkload is guarded, whichever replica is asked and however late its watch is. The cache is
//! believed only where it says the strictest: selected by one in Enforce and, on `/admit`, nothing against it. Anything else is judged by a
//! list of the namespace's AIWorkloads as they are now. So neither an AIWorkload that is not seen yet lets a pod through, nor one that was
//! just widened has it refused.
//!
//! Ids are drawn anew for each call: those that a pod brings along were chosen by its author.

use std::ops::RangeInclusive;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, Operation};
use rustls::crypto::{GetRandomFailed, SecureRandom};
use serde_json::Value;

use super::access::Cluster;
use super::handler::{Answer, Handler, Trouble};
use super::verdict::{By, Connection, Verdict, into_ours, is_ours};
use crate::cluster::{Residents, Selected, SharedWorld};
use crate::operator::{Keys, config};
use crate::plan::{GuardSettings, Injection, Subject, Template, inject, patch, read_template};
use crate::policy::pod::IDS;
use crate::scope::{Ceilings, Mode};

/// The kubelet's own pods: the API server keeps a mirror of them that nobody may change.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What pods are judged by.
#[derive(Clone, Debug, Default)]
pub(super) struct Pods {
    pub world: SharedWorld,
    /// None: nothing is injected and nothing judged.
    pub guard: Option<config::Guard>,
    pub keys: Keys,
}

impl Pods {
    fn settings(&self) -> Result<Option<GuardSettings>, Trouble> {
        let Some(guard) = &self.guard else { return Ok(None) };
        let key = self.keys.current().ok_or(Trouble::NotReady("the key that policies are signed with"))?;
        Ok(Some(guard.settings(key.trust())))
    }

    fn cached(&self, namespace: &str) -> Result<Residents, Trouble> {
        let world = self.world.read();
        if !(world.workloads.is_ready() && world.ceilings.is_ready() && world.namespaces.is_ready()) {
            return Err(Trouble::NotReady("the list of AIWorkloads"));
        }
        Ok(Residents::cached(&world, namespace))
    }
}

impl<C: Cluster> Handler<C> {
    /// The patch of a pod at its creation; None: it stays as it is.
    pub(super) async fn inject(&self, request: &AdmissionRequest<DynamicObject>) -> Result<Option<Value>, Trouble> {
        let resource = (request.resource.group.as_str(), request.resource.resource.as_str());
        if resource != ("", "pods") || subresource(request).is_some() || request.operation != Operation::Create {
            return Err(unknown("/inject is asked at CREATE of pods", request));
        }
        let Some(settings) = self.pods.settings()? else { return Ok(None) };
        let namespace = namespace(request)?;
        let object = object(request)?;
        let pod = read(object)?;
        if pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
            return Ok(None);
        }
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut residents = self.pods.cached(namespace)?;
        let mut selected = residents.selected(&labels);
        if !matches!(&selected, Selected::By(scope) if scope.mode == Mode::Enforce) {
            residents = self.listed(namespace, residents.ceilings).await?;
            selected = residents.selected(&labels);
        }
        // What is not injected is refused on /admit, with the reason.
        let Selected::By(scope) = selected else { return Ok(None) };
        let random = rustls::crypto::ring::default_provider().secure_random;
        let id = || draw(random, IDS).map_err(|_| Trouble::NotReady("randomness for the guard's ids"));
        let workload_uid = residents.uid(&scope.workload.name);
        let injected = inject(&pod, &Injection { settings: &settings, scope: &scope, workload_uid, uid: id()?, gid: id()? });
        let patch = patch(object.data.get("spec").unwrap_or(&Value::Null), &pod, &injected);
        Ok(Some(patch).filter(|patch| patch.as_array().is_some_and(|operations| !operations.is_empty())))
    }

    pub(super) async fn admit(&self, request: &AdmissionRequest<DynamicObject>) -> Result<Answer, Trouble> {
        let Some(settings) = self.pods.settings()? else { return Ok(Answer::default()) };
        let namespace = namespace(request)?;
        let resource = (request.resource.group.as_str(), request.resource.resource.as_str());
        match (resource, subresource(request), &request.operation) {
            (("", "pods"), None, Operation::Create) => {
                let Pod { metadata, spec, status: _ } = read(object(request)?)?;
                let spec = spec.unwrap_or_default();
                self.judge(namespace, &settings, |by| by.created(&metadata, &spec, Subject::Pod, "")).await
            }
            (("", "pods"), None | Some("ephemeralcontainers"), Operation::Update) => {
                let (old, new) = (old_object(request)?, object(request)?);
                if old.metadata.labels == new.metadata.labels
                    && old.metadata.annotations == new.metadata.annotations
                    && old.data.get("spec") == new.data.get("spec")
                {
                    return Ok(Answer::default());
                }
                let (old, new) = (read(old)?, read(new)?);
                self.judge(namespace, &settings, |by| by.updated(&old, &new)).await
            }
            (("", "pods"), Some(sub), Operation::Connect) => {
                let connection =
                    connection(sub, request).ok_or_else(|| unknown("/admit knows exec, attach, portforward and proxy", request))?;
                self.connect(namespace, &settings, request, &connection).await
            }
            ((group, resource), None, Operation::Create | Operation::Update) => {
                let kind = Template::of(group, resource).ok_or_else(|| unknown("/admit judges pods and what makes them", request))?;
                let new = object(request)?;
                let Some(template) = kind.find(&new.data) else { return Ok(Answer::default()) };
                if request.operation == Operation::Update
                    && (new.metadata.deletion_timestamp.is_some() || kind.find(&old_object(request)?.data) == Some(template))
                {
                    return Ok(Answer::default());
                }
                let (metadata, spec) = read_template(template).map_err(|error| unreadable(&kind.prefix(), &error))?;
                self.judge(namespace, &settings, |by| by.created(&metadata, &spec, Subject::Template, &kind.prefix())).await
            }
            _ => Err(unknown("/admit judges pods and what makes them", request)),
        }
    }

    async fn connect(
        &self,
        namespace: &str,
        settings: &GuardSettings,
        request: &AdmissionRequest<DynamicObject>,
        connection: &Connection,
    ) -> Result<Answer, Trouble> {
        let user = request.user_info.username.as_deref().unwrap_or_default();
        if let Connection::Container { what, container: Some(container) } = connection {
            // Names are enough here: no question to the API server.
            if is_ours(container) {
                return Ok(Answer { denials: vec![into_ours(what, container)], ..Answer::default() });
            }
            tracing::info!(user, namespace, pod = request.name, container, "{what} into a container");
            return Ok(Answer::default());
        }
        let name = match connection {
            Connection::Proxy => proxied(&request.name).ok_or_else(|| Trouble::Unknown(format!("`{}` names no pod", request.name)))?,
            Connection::Container { .. } | Connection::PortForward => &request.name,
        };
        // One that is not there the API server does not find either.
        let Some(pod) = self.cluster.pod(namespace, name).await? else { return Ok(Answer::default()) };
        let answer = self.judge(namespace, settings, |by| by.connected(&pod, connection)).await?;
        if let (Connection::Container { what, container: _ }, true) = (connection, answer.denials.is_empty()) {
            tracing::info!(user, namespace, pod = name, "{what} into the default container");
        }
        Ok(answer)
    }

    /// By what is cached where that is enough, else by what is there now.
    async fn judge(&self, namespace: &str, settings: &GuardSettings, judge: impl Fn(By<'_>) -> Verdict) -> Result<Answer, Trouble> {
        let (cached, now) = (self.pods.cached(namespace)?, Timestamp::now());
        if let Verdict::Held = judge(By { residents: &cached, settings, now }) {
            return Ok(Answer::default());
        }
        let residents = self.listed(namespace, cached.ceilings).await?;
        Ok(match judge(By { residents: &residents, settings, now }) {
            Verdict::Held => Answer::default(),
            Verdict::Said(answer) => answer,
        })
    }

    async fn listed(&self, namespace: &str, ceilings: Ceilings) -> Result<Residents, Trouble> {
        Ok(Residents::listed(self.cluster.workloads(namespace).await?, ceilings))
    }
}

fn subresource(request: &AdmissionRequest<DynamicObject>) -> Option<&str> {
    request.sub_resource.as_deref().filter(|sub| !sub.is_empty())
}

fn namespace(request: &AdmissionRequest<DynamicObject>) -> Result<&str, Trouble> {
    request.namespace.as_deref().ok_or_else(|| Trouble::Unknown("the request has no namespace".to_owned()))
}

fn object(request: &AdmissionRequest<DynamicObject>) -> Result<&DynamicObject, Trouble> {
    request.object.as_ref().ok_or_else(|| Trouble::Unknown("the request has no object".to_owned()))
}

fn old_object(request: &AdmissionRequest<DynamicObject>) -> Result<&DynamicObject, Trouble> {
    request.old_object.as_ref().ok_or_else(|| Trouble::Unknown("the request has no old object".to_owned()))
}

fn unknown(what: &str, request: &AdmissionRequest<DynamicObject>) -> Trouble {
    let (resource, sub, operation) = (&request.resource.resource, subresource(request).unwrap_or_default(), &request.operation);
    let slash = if sub.is_empty() { "" } else { "/" };
    Trouble::Unknown(format!("{what}, not at {operation:?} of {resource}{slash}{sub}; correct the webhook configuration"))
}

fn unreadable(path: &str, error: &serde_json::Error) -> Trouble {
    Trouble::Unknown(format!("{path}spec: cannot be read by this version of Remit: {error}"))
}

/// The pod, without its status.
fn read(object: &DynamicObject) -> Result<Pod, Trouble> {
    let spec: Option<PodSpec> = object.data.get("spec").cloned().map(serde_json::from_value).transpose().map_err(|e| unreadable("", &e))?;
    Ok(Pod { metadata: object.metadata.clone(), spec, status: None })
}

fn connection(sub: &str, request: &AdmissionRequest<DynamicObject>) -> Option<Connection> {
    let options = request.object.as_ref().map(|object| &object.data);
    let container = || options.and_then(|o| o["container"].as_str()).filter(|name| !name.is_empty()).map(str::to_owned);
    match sub {
        "exec" => Some(Connection::Container { what: "exec", container: container() }),
        "attach" => Some(Connection::Container { what: "attach", container: container() }),
        "portforward" => Some(Connection::PortForward),
        "proxy" => Some(Connection::Proxy),
        _ => None,
    }
}

/// The pod in `NAME`, `NAME:PORT` and `SCHEME:NAME:PORT`.
fn proxied(name: &str) -> Option<&str> {
    match name.split(':').collect::<Vec<_>>()[..] {
        [name] | [name, _] | [_, name, _] => Some(name).filter(|name| !name.is_empty()),
        _ => None,
    }
}

/// Each one as likely as any other.
fn draw(random: &dyn SecureRandom, from: RangeInclusive<u32>) -> Result<u32, GetRandomFailed> {
    let count = from.end() - from.start() + 1;
    loop {
        let mut bytes = [0; 4];
        random.fill(&mut bytes)?;
        let drawn = u32::from_be_bytes(bytes);
        // What is left over at the top would make the first ones likelier.
        if drawn < u32::MAX / count * count {
            return Ok(from.start() + drawn % count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_proxied_pods() {
        for (name, pod) in [
            ("bot", Some("bot")),
            ("bot:8080", Some("bot")),
            ("https:bot:8443", Some("bot")),
            (":bot:", Some("bot")),
            ("bot:", Some("bot")),
            ("", None),
            (":8080", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(proxied(name), pod, "{name}");
        }
    }

    #[derive(Debug)]
    struct Fixed(std::sync::Mutex<Vec<u32>>);

    impl SecureRandom for Fixed {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
            let next = self.0.lock().unwrap().pop().ok_or(GetRandomFailed)?;
            bytes.copy_from_slice(&next.to_be_bytes());
            Ok(())
        }
    }

    #[test]
    fn ids_are_drawn_evenly_from_the_range() {
        let drawn = |mut numbers: Vec<u32>| {
            numbers.reverse();
            draw(&Fixed(numbers.into()), IDS)
        };
        assert_eq!(drawn(vec![0]).ok(), Some(*IDS.start()));
        assert_eq!(drawn(vec![99_999_999]).ok(), Some(*IDS.end()));
        assert_eq!(drawn(vec![100_000_007]).ok(), Some(IDS.start() + 7));
        assert_eq!(drawn(vec![u32::MAX, 4_200_000_000, 4_199_999_999]).ok(), Some(*IDS.end()), "the rest is drawn again");
        assert!(drawn(vec![]).is_err());
        let random = rustls::crypto::ring::default_provider().secure_random;
        let some: std::collections::BTreeSet<u32> = (0..50).map(|_| draw(random, IDS).unwrap()).collect();
        assert!(some.len() > 45 && some.iter().all(|id| IDS.contains(id)));
    }
}
