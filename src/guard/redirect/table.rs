//! The nftables table of a pod, as the netlink messages that make it. Pure.
//!
//! ```text
//! table inet remit
//!   chain early (filter, output, before conntrack)
//!     ICMPv6 neighbour discovery: accept                      (its source may be ::)
//!     a source address that is not the pod's: drop            (IPv6 lets anybody bind a foreign one, and forge connections by it)
//!     a socket of others that has one of the guard's ports: drop      (so nobody takes its place while it restarts)
//!     the guard's UDP, but for its answers: not tracked       (so an app cannot lay a trap for its questions)
//!   chain redirect (nat, output)
//!     the guard's uid and gid: accept
//!     to this pod itself: accept
//!     UDP and TCP port 53: to the DNS port
//!     TCP: to the TCP port
//!   chain deny (filter, output, policy drop)
//!     the guard's uid and gid: accept
//!     to this pod itself: accept
//!     to loopback (what was redirected): accept
//!     TCP of an app's socket, as the side that began: drop    (its first packet was redirected; this is somebody else's connection)
//!     TCP of an app's socket, not of a connection that came in: drop
//!     TCP of an established connection: accept
//!     ICMPv6 neighbour discovery: accept
//!   chain leave (filter, postrouting, last)
//!     to loopback by another device than lo: drop             (whoever binds a socket to a device chooses the way)
//!   chain arrive (filter, input)
//!     new TCP from outside: mark the connection
//!   chain answers (filter, prerouting, before conntrack)
//!     UDP from outside: not tracked
//! ```
//!
//! "Established" are answers to connections from outside, and what the guard still sends after it closed a socket (such packets bear
//! no uid any more). A connection that the app began has been redirected with its first packet.

use crate::policy::pod::{LISTENS, Transport};

/// What the rules let through: the guard, by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exempt {
    pub uid: u32,
    pub gid: u32,
}

/// One table of the kernel, in its own format.
#[derive(Default)]
pub struct Messages {
    bytes: Vec<u8>,
    /// Those that are answered.
    pub count: u32,
}

const TABLE: &str = "remit";
const INET: u8 = 1;
const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `NFNL_SUBSYS_NFTABLES`, as the subject of a batch.
const NFTABLES: u16 = 10;

#[derive(Clone, Copy)]
enum Message {
    NewTable = 0,
    DeleteTable = 2,
    NewChain = 3,
    NewRule = 6,
}

/// Keys of `meta`.
#[derive(Clone, Copy)]
enum Meta {
    InputName = 6,
    OutputName = 7,
    Uid = 10,
    Gid = 11,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

#[derive(Clone, Copy)]
enum Hook {
    Prerouting = 0,
    Input = 1,
    Output = 3,
    Postrouting = 4,
}

/// Keys of `ct`.
#[derive(Clone, Copy)]
enum Connection {
    State = 0,
    Direction = 1,
    Mark = 3,
}

#[derive(Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// Before conntrack looks at a packet.
const RAW: i32 = -300;
/// After everything else.
const LAST: i32 = 300;
/// On connections that came from outside.
const CAME_IN: u32 = 0x7265_6d74;
/// What a socket's uid never is.
const NOBODY: u32 = u32::MAX;
/// The loopback device's name, as the kernel compares it.
const LO: [u8; 16] = {
    let mut name = [0; 16];
    (name[0], name[1]) = (b'l', b'o');
    name
};
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const DNS: u16 = 53;
/// Router solicitation, neighbour solicitation, neighbour advertisement.
const NEIGHBOUR_DISCOVERY: [u8; 3] = [133, 135, 136];
/// Bits of `ct state`: packets of a connection that both sides know, and the first of one.
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;
/// `ct direction` of packets from the side that began.
const ORIGINAL: u8 = 0;
/// The kind of the pod's own addresses, as routes tell them.
const LOCAL: u32 = 2;
const REGISTER: u32 = 1;

/// Who may answer from the guard's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answering {
    /// The guard alone.
    Guard,
    /// Whoever listens there: the proof, before the guard is there and before any app runs.
    Anybody,
}

/// Everything, in one transaction; what a former one made is replaced.
pub fn table(exempt: Exempt, tcp_port: u16, dns_port: u16, answering: Answering) -> Messages {
    let mut m = Messages::default();
    m.batch(BATCH_BEGIN);
    m.message(Message::NewTable, CREATE, |m| m.text(1, TABLE));
    m.message(Message::DeleteTable, 0, |m| m.text(1, TABLE));
    m.message(Message::NewTable, CREATE, |m| m.text(1, TABLE));
    m.chain("early", "filter", Hook::Output, RAW, ACCEPT);
    m.chain("redirect", "nat", Hook::Output, -100, ACCEPT);
    m.chain("deny", "filter", Hook::Output, 0, DROP);
    m.chain("leave", "filter", Hook::Postrouting, LAST, ACCEPT);
    m.chain("arrive", "filter", Hook::Input, 0, ACCEPT);
    m.chain("answers", "filter", Hook::Prerouting, RAW, ACCEPT);
    early(&mut m, exempt, dns_port, answering);
    redirect(&mut m, exempt, tcp_port, dns_port);
    deny(&mut m, exempt);
    for loopback in [Messages::loopback_v4, Messages::loopback_v6] {
        m.rule("leave", |m| {
            m.not_through_lo(Meta::OutputName);
            loopback(m);
            m.verdict(DROP);
        });
    }
    m.rule("arrive", |m| {
        m.not_through_lo(Meta::InputName);
        m.transport(TCP);
        m.state(NEW);
        m.mark(CAME_IN);
    });
    m.rule("answers", |m| {
        m.not_through_lo(Meta::InputName);
        m.transport(UDP);
        m.untracked();
    });
    m.batch(BATCH_END);
    m
}

fn early(m: &mut Messages, exempt: Exempt, dns_port: u16, answering: Answering) {
    neighbour_discovery(m, "early");
    m.rule("early", |m| {
        m.kind_of_source();
        m.differs(&LOCAL.to_ne_bytes());
        m.verdict(DROP);
    });
    let ports: &[(Transport, u16)] = match answering {
        Answering::Guard => &LISTENS,
        Answering::Anybody => &[],
    };
    for (transport, port) in ports {
        let transport = match transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
        };
        for (key, id) in [(Meta::Uid, exempt.uid), (Meta::Gid, exempt.gid)] {
            m.rule("early", |m| {
                m.transport(transport);
                m.header(Header::Transport, 0, 2);
                m.equals(&port.to_be_bytes());
                m.meta(key);
                m.differs(&id.to_ne_bytes());
                m.verdict(DROP);
            });
        }
    }
    m.rule("early", |m| {
        m.by_the_guard(exempt);
        m.transport(UDP);
        m.header(Header::Transport, 0, 2);
        m.differs(&dns_port.to_be_bytes());
        m.untracked();
    });
}

fn redirect(m: &mut Messages, exempt: Exempt, tcp_port: u16, dns_port: u16) {
    never_held_up(m, "redirect", exempt);
    for transport in [UDP, TCP] {
        m.rule("redirect", |m| {
            m.transport(transport);
            m.header(Header::Transport, 2, 2);
            m.equals(&DNS.to_be_bytes());
            m.redirect(dns_port);
        });
    }
    m.rule("redirect", |m| {
        m.transport(TCP);
        m.redirect(tcp_port);
    });
}

fn deny(m: &mut Messages, exempt: Exempt) {
    never_held_up(m, "deny", exempt);
    for loopback in [Messages::loopback_v4, Messages::loopback_v6] {
        m.rule("deny", |m| {
            loopback(m);
            m.verdict(ACCEPT);
        });
    }
    m.rule("deny", |m| {
        m.transport(TCP);
        m.has_a_socket();
        m.connection(Connection::Direction);
        m.equals(&[ORIGINAL]);
        m.verdict(DROP);
    });
    m.rule("deny", |m| {
        m.transport(TCP);
        m.has_a_socket();
        m.connection(Connection::Mark);
        m.differs(&CAME_IN.to_ne_bytes());
        m.verdict(DROP);
    });
    m.rule("deny", |m| {
        m.transport(TCP);
        m.state(ESTABLISHED);
        m.verdict(ACCEPT);
    });
    neighbour_discovery(m, "deny");
}

/// The guard, and what stays in the pod.
fn never_held_up(m: &mut Messages, chain: &str, exempt: Exempt) {
    m.rule(chain, |m| {
        m.by_the_guard(exempt);
        m.verdict(ACCEPT);
    });
    m.rule(chain, |m| {
        m.meta(Meta::OutputName);
        m.equals(&LO);
        m.verdict(ACCEPT);
    });
}

fn neighbour_discovery(m: &mut Messages, chain: &str) {
    for kind in NEIGHBOUR_DISCOVERY {
        m.rule(chain, |m| {
            m.transport(ICMPV6);
            m.header(Header::Transport, 0, 1);
            m.equals(&[kind]);
            m.verdict(ACCEPT);
        });
    }
}

impl Messages {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn framed(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn batch(&mut self, kind: u16) {
        self.framed(kind, REQUEST, 0, NFTABLES, |_| ());
    }

    fn message(&mut self, message: Message, flags: u16, body: impl FnOnce(&mut Self)) {
        self.count += 1;
        self.framed(SUBSYSTEM | message as u16, REQUEST | ACK | flags, INET, 0, body);
    }

    fn chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32, policy: u32) {
        self.message(Message::NewChain, CREATE, |m| {
            m.text(1, TABLE);
            m.text(3, name);
            m.nest(4, |m| {
                m.number(1, hook as u32);
                m.number(2, priority as u32);
            });
            m.number(5, policy);
            m.text(7, kind);
        });
    }

    fn rule(&mut self, chain: &str, expressions: impl FnOnce(&mut Self)) {
        self.message(Message::NewRule, CREATE | APPEND, |m| {
            m.text(1, TABLE);
            m.text(2, chain);
            m.nest(4, expressions);
        });
    }

    fn attribute(&mut self, kind: u16, data: &[u8]) {
        self.bytes.extend(((4 + data.len()) as u16).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(data);
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), &[0]].concat());
    }

    fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_be_bytes());
    }

    fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        const NESTED: u16 = 0x8000;
        let start = self.bytes.len();
        self.bytes.extend([0, 0]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        body(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn expression(&mut self, name: &str, body: impl FnOnce(&mut Self)) {
        self.nest(1, |m| {
            m.text(1, name);
            m.nest(2, body);
        });
    }

    fn meta(&mut self, key: Meta) {
        self.expression("meta", |m| {
            m.number(2, key as u32);
            m.number(1, REGISTER);
        });
    }

    fn header(&mut self, header: Header, offset: u32, length: u32) {
        self.expression("payload", |m| {
            m.number(1, REGISTER);
            m.number(2, header as u32);
            m.number(3, offset);
            m.number(4, length);
        });
    }

    /// The rule goes on only where the register holds this.
    fn equals(&mut self, value: &[u8]) {
        self.compare(0, value);
    }

    fn compare(&mut self, operation: u32, value: &[u8]) {
        self.expression("cmp", |m| {
            m.number(1, REGISTER);
            m.number(2, operation);
            m.nest(3, |m| m.attribute(1, value));
        });
    }

    /// The rule goes on only where the register holds something else.
    fn differs(&mut self, value: &[u8]) {
        self.compare(1, value);
    }

    fn transport(&mut self, protocol: u8) {
        self.meta(Meta::TransportProtocol);
        self.equals(&[protocol]);
    }

    fn by_the_guard(&mut self, Exempt { uid, gid }: Exempt) {
        self.meta(Meta::Uid);
        self.equals(&uid.to_ne_bytes());
        self.meta(Meta::Gid);
        self.equals(&gid.to_ne_bytes());
    }

    /// Packets of a socket that is closed, and the kernel's own, have no uid: the rule ends there.
    fn has_a_socket(&mut self) {
        self.meta(Meta::Uid);
        self.differs(&NOBODY.to_ne_bytes());
    }

    fn not_through_lo(&mut self, device: Meta) {
        self.meta(device);
        self.differs(&LO);
    }

    fn loopback_v4(&mut self) {
        self.meta(Meta::NetworkProtocol);
        self.equals(&[IPV4]);
        self.header(Header::Network, 16, 1);
        self.equals(&[127]);
    }

    fn loopback_v6(&mut self) {
        let mut address = [0u8; 16];
        address[15] = 1;
        self.meta(Meta::NetworkProtocol);
        self.equals(&[IPV6]);
        self.header(Header::Network, 24, 16);
        self.equals(&address);
    }

    fn kind_of_source(&mut self) {
        const ADDRESS_TYPE: u32 = 3;
        const SOURCE: u32 = 1;
        self.expression("fib", |m| {
            m.number(1, REGISTER);
            m.number(2, ADDRESS_TYPE);
            m.number(3, SOURCE);
        });
    }

    fn connection(&mut self, key: Connection) {
        self.expression("ct", |m| {
            m.number(1, REGISTER);
            m.number(2, key as u32);
        });
    }

    fn state(&mut self, bit: u32) {
        self.connection(Connection::State);
        self.expression("bitwise", |m| {
            m.number(1, REGISTER);
            m.number(2, REGISTER);
            m.number(3, 4);
            m.nest(4, |m| m.attribute(1, &bit.to_ne_bytes()));
            m.nest(5, |m| m.attribute(1, &0u32.to_ne_bytes()));
        });
        self.differs(&0u32.to_ne_bytes());
    }

    fn mark(&mut self, mark: u32) {
        const FROM_REGISTER: u16 = 4;
        self.expression("immediate", |m| {
            m.number(1, REGISTER);
            m.nest(2, |m| m.attribute(1, &mark.to_ne_bytes()));
        });
        self.expression("ct", |m| {
            m.number(2, Connection::Mark as u32);
            m.number(FROM_REGISTER, REGISTER);
        });
    }

    fn untracked(&mut self) {
        self.expression("notrack", |_| ());
    }

    fn redirect(&mut self, port: u16) {
        self.expression("immediate", |m| {
            m.number(1, REGISTER);
            m.nest(2, |m| m.attribute(1, &port.to_be_bytes()));
        });
        self.expression("redir", |m| m.number(1, REGISTER));
    }

    fn verdict(&mut self, code: u32) {
        const VERDICT_REGISTER: u32 = 0;
        self.expression("immediate", |m| {
            m.number(1, VERDICT_REGISTER);
            m.nest(2, |m| m.nest(2, |m| m.number(1, code)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed() {
        let messages = table(Exempt { uid: 2_000_000_001, gid: 2_000_000_002 }, 15_471, 15_473, Answering::Guard);
        let (mut at, mut kinds) = (0, Vec::new());
        while at < messages.bytes.len() {
            let length = u32::from_ne_bytes(messages.bytes[at..at + 4].try_into().unwrap()) as usize;
            kinds.push(u16::from_ne_bytes(messages.bytes[at + 4..at + 6].try_into().unwrap()));
            assert!(length >= 20 && length.is_multiple_of(4));
            at += length;
        }
        assert_eq!(at, messages.bytes.len());
        assert_eq!((kinds[0], *kinds.last().unwrap()), (BATCH_BEGIN, BATCH_END));
        assert_eq!(kinds.len() as u32, messages.count + 2);
        assert_eq!(kinds.iter().filter(|k| **k == SUBSYSTEM | Message::NewRule as u16).count(), 34);
    }
}
