//! One namespace for the world, with DNS and an upstream, and one for each pod. Documentation and private addresses only.

use std::fs::File;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use remit::wire::dns::{Query, ResponseCode};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const DNS: &str = "10.96.0.10";
/// A Service, known by its address.
pub const ORDERS: (&str, u16) = ("10.96.7.7", 5432);
pub const ORDERS_NAME: &str = "orders.shop.svc.cluster.local";
/// A host, known by the server name in the ClientHello.
pub const HELP: (&str, u16) = ("203.0.113.10", 443);
pub const HELP_NAME: &str = "help.example.com";
/// One message of a stream.
pub const EVENT: usize = 64;

pub struct World {
    world: String,
    pub pods: Vec<String>,
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("`ip` (iproute2) is there");
    assert!(output.status.success(), "ip {args}: {} (root is needed)", String::from_utf8_lossy(&output.stderr));
}

impl World {
    pub fn new(pods: usize) -> Self {
        let short = format!("{:x}", std::process::id());
        let made = Self { world: format!("rmtb{short}w"), pods: (0..pods).map(|n| format!("rmtb{short}-{n}")).collect() };
        let world = &made.world;
        for name in made.pods.iter().chain([world]) {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        for address in [DNS, ORDERS.0, HELP.0] {
            ip(&format!("-n {world} addr add {address}/32 dev lo"));
        }
        for (n, pod) in made.pods.iter().enumerate() {
            ip(&format!("link add p{short}-{n} netns {pod} type veth peer name w{short}-{n} netns {world}"));
            for (name, device, host) in [(pod, format!("p{short}-{n}"), 5), (world, format!("w{short}-{n}"), 1)] {
                ip(&format!("-n {name} addr add 10.244.{n}.{host}/24 dev {device}"));
                ip(&format!("-n {name} link set {device} up"));
            }
            ip(&format!("-n {pod} route add default via 10.244.{n}.1"));
            // Thousands of connections a round, and none of the guard's ports.
            inside(pod, || {
                for (what, value) in [("tcp_tw_reuse", "1"), ("ip_local_port_range", "16000 65000")] {
                    std::fs::write(format!("/proc/sys/net/ipv4/{what}"), value).expect("a setting of the namespace");
                }
            });
        }
        inside(world, || {
            let socket = UdpSocket::bind((DNS, 53)).expect("the DNS server");
            std::thread::spawn(move || name_server(&socket));
            std::thread::spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async { tokio::join!(upstream(ORDERS, false), upstream(HELP, true)) })
            });
        });
        made
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in self.pods.iter().chain([&self.world]) {
            ip(&format!("netns del {name}"));
        }
    }
}

/// On a thread in this namespace; the threads that it starts are there as well.
pub fn inside<T: Send>(name: &str, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let file = File::open(format!("/run/netns/{name}")).expect("the namespace");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
            act()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn name_server(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Ok(query) = Query::read(&buffer[..length]) else { continue };
        let known = [(ORDERS_NAME, ORDERS.0), (HELP_NAME, HELP.0)];
        let known = known.iter().find(|(name, _)| query.name().is_some_and(|asked| asked.as_str() == *name));
        let addresses: Vec<IpAddr> = known.iter().map(|(_, address)| address.parse().expect("an address")).collect();
        let code = if known.is_some() { ResponseCode::Ok } else { ResponseCode::NoSuchName };
        let _ = socket.send_to(&query.answer(code, &addresses, 60, None, false), from);
    }
}

async fn upstream(at: (&str, u16), tls: bool) {
    let listener = tokio::net::TcpSocket::new_v4().expect("a socket");
    listener.set_reuseaddr(true).expect("an option");
    listener.bind(format!("{}:{}", at.0, at.1).parse().expect("an address")).expect("a TCP port");
    let listener: TcpListener = listener.listen(4096).expect("it listens");
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = serve(stream, tls).await;
            });
        }
    }
}

/// Requests are three numbers: bytes that the client sends, bytes that it wants, and for a stream the microseconds between its events.
async fn serve(mut stream: TcpStream, tls: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    if tls {
        let mut head = [0; 5];
        stream.read_exact(&mut head).await?;
        stream.read_exact(&mut buffer[..u16::from_be_bytes([head[3], head[4]]).into()]).await?;
    }
    loop {
        let (mut up, mut down, every) = (stream.read_u64().await?, stream.read_u64().await?, stream.read_u64().await?);
        while up > 0 {
            let most = buffer.len().min(usize::try_from(up).unwrap_or(usize::MAX));
            match stream.read(&mut buffer[..most]).await? {
                0 => return Ok(()),
                length => up -= length as u64,
            }
        }
        while down > 0 {
            let most = buffer.len().min(usize::try_from(down).unwrap_or(usize::MAX));
            if every > 0 {
                tokio::time::sleep(Duration::from_micros(every)).await;
                let mut event = [0; EVENT];
                event[..8].copy_from_slice(&since_start().to_be_bytes());
                stream.write_all(&event).await?;
                down = down.saturating_sub(EVENT as u64);
            } else {
                stream.write_all(&buffer[..most]).await?;
                down -= most as u64;
            }
        }
    }
}

/// Nanoseconds of a clock that client and upstream share.
pub fn since_start() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}
