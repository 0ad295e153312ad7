//! The one way that bodies take, of requests and answers, whichever version they are in.
//!
//! Promise: [`pass`] alone moves them, whole ones and streams; what one side has not taken is not read from the other.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use crate::guard::stream::{Waiting, at_once, counted};
use crate::policy::Reason;

/// Of a form that must be read before it is sent on.
const LARGEST_FORM: usize = 64 * 1024;
/// Longer heads are refused while much waits in the guard.
pub const USUAL_HEAD: usize = 4 * 1024;
/// For the head of an answer, once the request is sent: models think for minutes. Up to twice that, for it is looked at so often only.
pub const ANSWER: Duration = Duration::from_secs(900);
/// Answers that are none yet, before the one that counts.
pub const MOST_INTERIM: usize = 16;
/// After so many pieces others have their turn.
const TURN: usize = 16;

/// Which end failed.
#[derive(Debug)]
pub enum Broken {
    /// Nothing comes any more, or what came has no reading.
    Source,
    /// Nobody takes it any more.
    Sink,
}

/// Where a body comes from.
pub trait Source {
    /// None: its end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Broken>> + Send;
    /// What stands behind it: only in HTTP/2.
    fn trailers(&mut self) -> impl Future<Output = Result<Option<HeaderMap>, Broken>> + Send {
        std::future::ready(Ok(None))
    }
}

/// Where a body goes to.
pub trait Sink {
    fn data(&mut self, data: Bytes) -> impl Future<Output = Result<(), Broken>> + Send;
    /// Resolves when nobody will take anything any more, as far as that shows while nothing is given.
    fn gone(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
    /// What was given is on its way: before something is waited for.
    fn flush(&mut self) -> impl Future<Output = Result<(), Broken>> + Send;
    fn end(&mut self, trailers: Option<HeaderMap>) -> impl Future<Output = Result<(), Broken>> + Send;
}

/// A body, until its end. What comes together leaves together.
pub async fn pass(source: &mut impl Source, sink: &mut impl Sink, count: &AtomicU64) -> Result<(), Broken> {
    let mut pieces = 0;
    loop {
        let next = {
            let mut next = pin!(source.next());
            match poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
                Poll::Ready(next) => next?,
                Poll::Pending => {
                    sink.flush().await?;
                    tokio::select! {
                        biased;
                        next = &mut next => next?,
                        () = sink.gone() => return Err(Broken::Sink),
                    }
                }
            }
        };
        let Some(data) = next else {
            let trailers = source.trailers().await?;
            return sink.end(trailers).await;
        };
        count.fetch_add(data.len() as u64, Ordering::Relaxed);
        sink.data(data).await?;
        pieces += 1;
        if pieces % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// The whole of a form.
pub async fn form(source: &mut impl Source) -> Result<Bytes, Reason> {
    let (mut form, mut waiting) = (BytesMut::new(), Waiting::default());
    while let Some(data) = source.next().await.map_err(|_| Reason::RequestMalformed)? {
        form.extend_from_slice(&data);
        if form.len() > LARGEST_FORM {
            return Err(Reason::RequestTooLarge);
        }
        if form.len() > at_once() {
            return Err(Reason::TooManyConnections);
        }
        waiting.are(form.len());
    }
    drop(waiting);
    Ok(counted(form.freeze()))
}

/// A body that is there.
pub struct Whole(pub Option<Bytes>);

impl Source for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}
