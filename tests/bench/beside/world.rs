//! One namespace for the world, with DNS and whatever serves there, and one for each pod. Documentation and private addresses only.

use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread::JoinHandle;

use remit::wire::dns::{Query, ResponseCode};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpListener;

pub const DNS: &str = "10.96.0.10";
/// A name and its address.
pub type Known = (&'static str, &'static str);

pub struct World {
    pub world: String,
    pub pods: Vec<String>,
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("`ip` (iproute2) is there");
    assert!(output.status.success(), "ip {args}: {} (root is needed)", String::from_utf8_lossy(&output.stderr));
}

impl World {
    /// With these names in DNS, and their addresses in the world.
    pub fn new(pods: usize, known: &'static [Known]) -> Self {
        let short = format!("{:x}", std::process::id());
        let made = Self { world: format!("rmtb{short}w"), pods: (0..pods).map(|n| format!("rmtb{short}-{n}")).collect() };
        let world = &made.world;
        for name in made.pods.iter().chain([world]) {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        for address in known.iter().map(|(_, address)| *address).chain([DNS]) {
            ip(&format!("-n {world} addr add {address}/32 dev lo"));
        }
        for (n, pod) in made.pods.iter().enumerate() {
            ip(&format!("link add p{short}-{n} netns {pod} type veth peer name w{short}-{n} netns {world}"));
            for (name, device, host) in [(pod, format!("p{short}-{n}"), 5), (world, format!("w{short}-{n}"), 1)] {
                ip(&format!("-n {name} addr add 10.244.{n}.{host}/24 dev {device}"));
                ip(&format!("-n {name} link set {device} up"));
            }
            ip(&format!("-n {pod} route add default via 10.244.{n}.1"));
            // Thousands of connections a round, and none of the guard's ports. What a redirect remembers of those that have ended is forgotten
            // soon: ports come round after some minutes, and the kernel drops first packets that look like another's last, for seconds on end.
            const SETTINGS: [(&str, &str); 4] = [
                ("ipv4/tcp_tw_reuse", "1"),
                ("ipv4/ip_local_port_range", "16000 65000"),
                ("netfilter/nf_conntrack_tcp_timeout_close", "1"),
                ("netfilter/nf_conntrack_tcp_timeout_time_wait", "1"),
            ];
            inside(pod, || {
                for (what, value) in SETTINGS {
                    std::fs::write(format!("/proc/sys/net/{what}"), value).expect("a setting of the namespace");
                }
            });
        }
        inside(world, || {
            let socket = UdpSocket::bind((DNS, 53)).expect("the DNS server");
            std::thread::spawn(move || name_server(&socket, known));
        });
        made
    }

    /// On a thread in the world. When it has ended, so has all that it began.
    pub fn serve(&self, serving: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        inside(&self.world, || {
            std::thread::spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(serving)
            })
        })
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

/// Of a server in the world.
pub fn listen(at: (&str, u16)) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(format!("{}:{}", at.0, at.1).parse().expect("an address")).expect("a TCP port");
    socket.listen(4096).expect("it listens")
}

fn name_server(socket: &UdpSocket, known: &[Known]) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Ok(query) = Query::read(&buffer[..length]) else { continue };
        let known = known.iter().find(|(name, _)| query.name().is_some_and(|asked| asked.as_str() == *name));
        let addresses: Vec<IpAddr> = known.iter().map(|(_, address)| address.parse().expect("an address")).collect();
        let code = if known.is_some() { ResponseCode::Ok } else { ResponseCode::NoSuchName };
        let _ = socket.send_to(&query.answer(code, &addresses, 60, None, false), from);
    }
}
