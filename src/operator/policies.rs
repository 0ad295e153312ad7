//! The account that writes the guards' policies.
//!
//! The API server lets an account hand out what it holds. So the operator's own does not hold ConfigMaps: another one does, which holds nothing
//! else, and the operator may only ask for tokens of it. Promise: requests of [`client`] are that account's or are not sent; each waits
//! until there is a token. In: TokenRequests with the operator's own account. Out: a client, and whether it can work.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

use super::run;
use crate::scope::ObjectName;

/// How long a token is good for.
const LIFE: Duration = Duration::from_secs(3600);
/// The most that one request for a token may take.
const REQUEST: Duration = Duration::from_secs(10);
/// Between two requests for tokens, at least; after failures it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// The token that holds now; clones share it.
#[derive(Clone, Debug)]
pub struct Token {
    header: watch::Sender<Option<HeaderValue>>,
    /// The header that the API server took for nobody's, last.
    rejected: watch::Sender<Option<HeaderValue>>,
}

impl Default for Token {
    fn default() -> Self {
        Self { header: watch::Sender::new(None), rejected: watch::Sender::new(None) }
    }
}

/// Why there is no new token.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("the answer holds no token")]
    Empty,
}

/// A token, and how long it is good for.
struct Granted {
    header: HeaderValue,
    life: Duration,
}

impl Token {
    pub fn is_there(&self) -> bool {
        self.header.borrow().is_some()
    }

    /// Keeps one that is good, for as long as this runs. A new one is asked for at half of the life of the old, which is kept until it ends.
    pub async fn keep(self, client: Client, account: ObjectName) {
        let accounts: Api<ServiceAccount> = Api::namespaced(client, &account.namespace);
        let mut rejected = self.rejected.subscribe();
        let (mut pause, mut ends) = (FIRST_PAUSE, None::<Instant>);
        loop {
            let asked = Instant::now();
            let granted = tokio::time::timeout(REQUEST, request(&accounts, &account.name)).await.unwrap_or(Err(TokenError::Timeout));
            match granted {
                Ok(Granted { header, life }) => {
                    if !self.is_there() {
                        tracing::info!(%account, "the account that writes the guards' policies can be used");
                    }
                    self.header.send_replace(Some(header));
                    ends = Some(asked + life);
                    tokio::select! {
                        () = tokio::time::sleep_until(asked + life / 2) => {
                            pause = FIRST_PAUSE;
                            continue;
                        }
                        // The account was made anew, or the API server's keys were replaced.
                        () = self.is_rejected(&mut rejected) => tracing::warn!(%account, "the API server takes the account's token no more"),
                    }
                }
                Err(error) => tracing::warn!(%account, %error, "no token of the account that writes the guards' policies; trying again"),
            }
            let next = Instant::now() + pause;
            if let Some(end) = ends.filter(|end| *end <= next) {
                tokio::time::sleep_until(end).await;
                self.header.send_replace(None);
                ends = None;
            }
            tokio::time::sleep_until(next).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Returns when the token that holds was rejected.
    async fn is_rejected(&self, rejected: &mut watch::Receiver<Option<HeaderValue>>) {
        // The sender lives in self: it cannot be gone.
        let _ = rejected.wait_for(|header| header.is_some() && *header == *self.header.borrow()).await;
    }
}

async fn request(accounts: &Api<ServiceAccount>, name: &str) -> Result<Granted, TokenError> {
    let seconds = LIFE.as_secs().try_into().unwrap_or(i64::MAX);
    // No audience: the API server's own.
    let spec = TokenRequestSpec { audiences: Vec::new(), bound_object_ref: None, expiration_seconds: Some(seconds) };
    let wanted = TokenRequest { spec, ..TokenRequest::default() };
    granted(accounts.create_token_request(name, &PostParams::default(), &wanted).await?).ok_or(TokenError::Empty)
}

/// The API server may give it a shorter life than was asked for.
fn granted(answer: TokenRequest) -> Option<Granted> {
    let TokenRequest { metadata: _, spec, status } = answer;
    let TokenRequestStatus { token, expiration_timestamp: _ } = status?;
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| !token.is_empty())?;
    header.set_sensitive(true);
    let life = spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(LIFE, Duration::from_secs).min(LIFE);
    Some(Granted { header, life })
}

/// A client that is this account and nobody else: the credentials of `config` are not used.
pub fn client(mut config: kube::Config, token: Token) -> kube::Result<Client> {
    let namespace = config.default_namespace.clone();
    config.auth_info = AuthInfo::default();
    let client = run::client_of(config)?;
    Ok(Client::new(Bearer { client, token }, namespace))
}

/// Puts the token into requests.
#[derive(Clone)]
struct Bearer {
    client: Client,
    token: Token,
}

impl tower::Service<Request<Body>> for Bearer {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, kube::Result<Response<Body>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<kube::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Self { client, token } = self.clone();
        async move {
            // An error cannot be: the sender lives in `token`. Whoever has no time sets a limit of their own.
            let header = token.header.subscribe().wait_for(Option::is_some).await.ok().and_then(|header| header.clone());
            if let Some(header) = &header {
                request.headers_mut().insert(AUTHORIZATION, header.clone());
            }
            let response = client.send(request).await?;
            if response.status() == StatusCode::UNAUTHORIZED {
                token.rejected.send_replace(header);
            }
            Ok(response)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn answer(token: &str, seconds: Option<i64>) -> TokenRequest {
        let spec = TokenRequestSpec { expiration_seconds: seconds, ..TokenRequestSpec::default() };
        let expiration_timestamp = Time(Timestamp::UNIX_EPOCH);
        let status = Some(TokenRequestStatus { token: token.to_owned(), expiration_timestamp });
        TokenRequest { spec, status, ..TokenRequest::default() }
    }

    #[test]
    fn what_the_api_server_grants() {
        for (token, seconds, expected) in [
            ("t", Some(3600), Some(3600)),
            ("t", Some(600), Some(600)),
            ("t", Some(31_536_000), Some(3600)),
            ("t", Some(-1), Some(3600)),
            ("t", None, Some(3600)),
            ("", Some(600), None),
            ("a\nb", Some(600), None),
        ] {
            let found = granted(answer(token, seconds));
            assert_eq!(found.as_ref().map(|g| g.life.as_secs()), expected, "{token:?} {seconds:?}");
            assert!(found.is_none_or(|g| g.header == format!("Bearer {token}") && !format!("{:?}", g.header).contains("Bearer")));
        }
        assert!(granted(TokenRequest::default()).is_none());
    }

    /// An API server that grants tokens of this life, named by their number, and takes only the last one.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        life: i64,
        granted: u32,
        refuses: u16,
        seen: Vec<String>,
    }

    impl Server {
        fn client(&self) -> Client {
            Client::new(self.clone(), "default")
        }
        fn set(&self, change: impl FnOnce(&mut State)) {
            change(&mut self.0.lock().unwrap());
        }
        fn answer(&self, request: &Request<Body>) -> (u16, String) {
            let mut state = self.0.lock().unwrap();
            if request.uri().path() == "/api/v1/namespaces/remit-system/serviceaccounts/remit-policies/token" {
                assert!(request.headers().get(AUTHORIZATION).is_none(), "asked with the operator's own client");
                if state.refuses > 0 {
                    return (state.refuses, "{}".to_owned());
                }
                state.granted += 1;
                return (201, serde_json::to_string(&answer(&format!("t{}", state.granted), Some(state.life))).unwrap());
            }
            let header = request.headers().get(AUTHORIZATION).map(|h| h.to_str().unwrap().to_owned()).unwrap_or_default();
            let good = header == format!("Bearer t{}", state.granted);
            state.seen.push(header);
            (if good { 200 } else { 401 }, "{}".to_owned())
        }
    }

    impl tower::Service<Request<Body>> for Server {
        type Response = Response<Body>;
        type Error = kube::Error;
        type Future = std::future::Ready<kube::Result<Response<Body>>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<kube::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let (code, body) = self.answer(&request);
            std::future::ready(Ok(Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap()))
        }
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_token_is_waited_for_renewed_replaced_and_given_up() {
        let server = Server::default();
        server.set(|s| (s.life, s.refuses) = (3600, 403));
        let token = Token::default();
        let asks = Client::new(Bearer { client: server.client(), token: token.clone() }, "default");
        let ask = || async { asks.send(Request::get("/maps").body(Body::empty()).unwrap()).await.unwrap().status().as_u16() };
        tokio::spawn(token.clone().keep(server.client(), ObjectName::new("remit-system", "remit-policies")));
        // No request goes out as anybody else.
        assert!(tokio::time::timeout(Duration::from_millis(300), ask()).await.is_err() && !token.is_there());
        server.set(|s| assert_eq!(s.seen, [""; 0]));
        let waits = tokio::spawn({
            let asks = asks.clone();
            async move { asks.send(Request::get("/maps").body(Body::empty()).unwrap()).await.unwrap().status().as_u16() }
        });
        server.set(|s| s.refuses = 0);
        assert_eq!(waits.await.unwrap(), 200, "it is sent once there is one");
        // One that the API server takes no more is replaced at once.
        server.set(|s| (s.granted, s.life) = (7, 4));
        assert_eq!(ask().await, 401);
        until("a new one", || server.0.lock().unwrap().granted > 7).await;
        assert_eq!(ask().await, 200);
        // Renewed at half its life, and kept to its end when that fails.
        let before = server.0.lock().unwrap().granted;
        until("it is renewed", || server.0.lock().unwrap().granted > before).await;
        assert_eq!(ask().await, 200);
        server.set(|s| s.refuses = 500);
        tokio::time::sleep(Duration::from_millis(2400)).await;
        assert!(token.is_there(), "the old one is good still");
        until("it is given up", || !token.is_there()).await;
        server.set(|s| s.refuses = 0);
        until("and comes back", || token.is_there()).await;
        assert_eq!(ask().await, 200);
    }
}
