//! A connection, in TLS or not, as bytes that are read and written.
//!
//! Promise: one that waits for bytes has no buffer of its own, beyond what TLS keeps. What waits for somebody to take it is counted over all
//! connections: once it is much, each reads and keeps [`LITTLE`] only. All go on, more slowly, and none is refused for it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{client, server};

/// Read and written at once.
pub const CHUNK: usize = 64 * 1024;
/// What the kernel keeps for each direction of each socket (it doubles this, for its own bookkeeping): 2 MiB for a connection of which all
/// queues are full, where the kernel's own limits allow 40 MiB and more. On the node nothing is slower (160 to 218 MiB/s through an echo, 144
/// to 154 with the kernel's sizes); far away it is the window: at most 2.5 MiB/s from a host at 100 ms.
pub const BUFFER: usize = 256 * 1024;
/// When a silent peer is asked whether it is there; then each [`ASK_EVERY`], [`ASK_TIMES`] times.
pub const SILENT: Duration = Duration::from_secs(60);
pub const ASK_EVERY: Duration = Duration::from_secs(15);
pub const ASK_TIMES: u32 = 4;
/// When a peer that does not answer, or does not take what waits for it, is given up: as long as the questions above take.
pub const GONE: Duration = Duration::from_secs(120);
/// Of a connection of which one direction has ended: how long nothing may come in the other.
pub const HALF_OPEN: Duration = Duration::from_secs(120);
/// What is smaller is copied behind what waits to be written, so that it needs no call of its own.
const SMALL: usize = 8 * 1024;
/// Room for a head.
const HEAD: usize = 2 * 1024;
/// More does not wait to be written.
const STAGED: usize = 32 * 1024;

/// More than this should not wait, over all connections together.
const MUCH: usize = 16 * 1024 * 1024;
/// Read, and kept, of each connection while much waits.
const LITTLE: usize = 2 * 1024;

/// Bytes that wait, over all connections.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Bytes of a connection that wait; none any more once it is dropped.
#[derive(Default)]
pub struct Waiting(usize);

impl Waiting {
    pub fn of(bytes: usize) -> Self {
        WAITING.fetch_add(bytes, Ordering::Relaxed);
        Self(bytes)
    }

    pub fn are(&mut self, bytes: usize) {
        if bytes != self.0 {
            *self = Self::of(bytes);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// The same bytes, which count as waiting for as long as anybody holds them.
pub fn counted(bytes: Bytes) -> Bytes {
    struct Counted(Bytes, #[expect(dead_code, reason = "held")] Waiting);
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let waiting = Waiting::of(bytes.len());
    Bytes::from_owner(Counted(bytes, waiting))
}

/// As much as may be read at once, and kept, at this moment.
pub fn at_once() -> usize {
    if is_full() { LITTLE } else { CHUNK }
}

/// Whether much waits.
pub fn is_full() -> bool {
    WAITING.load(Ordering::Relaxed) > MUCH
}

thread_local! {
    /// One for all connections of the thread: it is empty whenever a task waits.
    pub static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// Both directions of a connection, until both have ended or one has failed. Once one has ended, nothing may come in the other for as long as
/// this: who has said everything waits for an answer only, and a side that never says its own end would hold its place for ever. (Noticed
/// within twice that.) `passed` grows with what comes. None: it was too long.
pub async fn both<E>(
    there: impl Future<Output = Result<(), E>>,
    back: impl Future<Output = Result<(), E>>,
    passed: impl Fn() -> u64,
    half_open: Duration,
) -> Result<(), Option<E>> {
    let (mut there, mut back) = (pin!(there), pin!(back));
    let there_first = tokio::select! {
        ended = &mut there => ended.map(|()| true)?,
        ended = &mut back => ended.map(|()| false)?,
    };
    loop {
        let before = passed();
        let other = async { if there_first { back.as_mut().await } else { there.as_mut().await } };
        match timeout(half_open, other).await {
            Ok(ended) => return Ok(ended?),
            Err(_) if passed() == before => return Err(None),
            Err(_) => {}
        }
    }
}

/// Ends it so that the other side sees an error and not an end.
pub fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Bounds what a peer can make this socket cost: memory, and time. What is small waits for no acknowledgement.
pub fn bound(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENT).with_interval(ASK_EVERY).with_retries(ASK_TIMES))?;
    socket.set_tcp_user_timeout(Some(GONE))
}

pub async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    // `TcpSocket::new` names the protocol, and the filter lets nobody name one.
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
    bound(SockRef::from(&socket))?;
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

/// What was read of a connection already, and the connection.
pub struct Begun<S> {
    pub before: BytesMut,
    pub stream: S,
}

pub enum Stream {
    Tcp(TcpStream),
    /// Towards the app: the guard ends its TLS.
    App(Box<server::TlsStream<Begun<TcpStream>>>),
    /// Towards an upstream.
    Upstream(Box<client::TlsStream<TcpStream>>),
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::App(stream) => &stream.get_ref().0.stream,
            Self::Upstream(stream) => stream.get_ref().0,
        }
    }
}

/// Calls the same on whichever it is.
macro_rules! either {
    ($this:ident, $stream:ident => $call:expr) => {
        match $this.get_mut() {
            Self::Tcp($stream) => $call,
            Self::App($stream) => $call,
            Self::Upstream($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.before.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let length = this.before.len().min(buffer.remaining());
        buffer.put_slice(&this.before[..length]);
        this.before.advance(length);
        if this.before.is_empty() {
            this.before = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Reads into a buffer that is as large as what was read.
pub struct Reader {
    from: ReadHalf<Stream>,
    pub buffer: BytesMut,
    /// The memory behind the buffer, with what was taken from its beginning.
    held: usize,
    waiting: Waiting,
}

impl Reader {
    pub fn new(from: ReadHalf<Stream>, before: BytesMut) -> Self {
        let waiting = Waiting::of(before.len());
        let held = before.capacity();
        Self { from, buffer: before, held, waiting }
    }

    /// How much came; nothing at the end.
    pub async fn more(&mut self) -> io::Result<usize> {
        poll_fn(|context| self.poll_more(context)).await
    }

    pub fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // What was read before has been taken, but for this.
        self.waiting.are(self.buffer.len());
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(&mut scratch[..at_once()]);
            let Poll::Ready(done) = Pin::new(&mut self.from).poll_read(context, &mut read) else {
                self.give_back();
                return Poll::Pending;
            };
            done?;
            let read = read.filled();
            if self.buffer.is_empty() {
                // What was there may still be held by whoever it was given to.
                self.buffer = BytesMut::from(read);
                self.held = self.buffer.capacity();
            } else {
                self.buffer.extend_from_slice(read);
                self.held = self.held.max(self.buffer.capacity());
            }
            self.waiting.are(self.buffer.len());
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Who waits holds no more memory than what is in it: an empty rest of a buffer holds all of it.
    fn give_back(&mut self) {
        if self.held > 2 * self.buffer.len() {
            self.buffer = BytesMut::from(&self.buffer[..]);
            self.held = self.buffer.capacity();
        }
    }

    /// Both halves as they were.
    pub fn whole(self, writer: Writer) -> (Stream, BytesMut) {
        (self.from.unsplit(writer.to), self.buffer)
    }
}

/// Writes what is small together.
pub struct Writer {
    to: WriteHalf<Stream>,
    /// What waits to be written.
    staged: Vec<u8>,
    /// So much of it was written already.
    written: usize,
}

impl Writer {
    pub fn new(to: WriteHalf<Stream>) -> Self {
        Self { to, staged: Vec::new(), written: 0 }
    }

    /// Where heads and the like are written to, behind what waits.
    pub fn staged(&mut self) -> &mut Vec<u8> {
        if self.staged.capacity() == 0 {
            self.staged.reserve(HEAD);
        }
        &mut self.staged
    }

    /// Behind what is staged.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() < SMALL && self.staged.len() + bytes.len() <= STAGED.min(at_once()) {
            self.staged().extend_from_slice(bytes);
            return Ok(());
        }
        let mut rest = bytes;
        while self.written < self.staged.len() || !rest.is_empty() {
            let staged = &self.staged[self.written..];
            let slices = [IoSlice::new(staged), IoSlice::new(rest)];
            let written = self.to.write_vectored(&slices[usize::from(staged.is_empty())..]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let of_staged = written.min(staged.len());
            self.written += of_staged;
            rest = &rest[written - of_staged..];
        }
        self.clear();
        Ok(())
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        while self.written < self.staged.len() {
            let written = self.to.write(&self.staged[self.written..]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.written += written;
        }
        self.clear();
        // TLS may hold some back.
        self.to.flush().await
    }

    fn clear(&mut self) {
        // Who waits keeps nothing.
        (self.staged, self.written) = (Vec::new(), 0);
    }

    /// No more will be written.
    pub async fn end(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.to.shutdown().await
    }
}
