//! The nftables table of a pod, as the netlink messages that make it. Pure.
//!
//! ```text
//! table inet remit
//!   chain redirect  (nat, output)              chain deny  (filter, output, policy drop)
//!     the guard's uid and gid: accept            the guard's uid and gid: accept
//!     to this pod itself: accept                 to this pod itself: accept
//!     UDP and TCP port 53 → DNS port             to loopback (what was redirected): accept
//!     TCP → TCP port                             TCP of an established connection: accept
//!                                                ICMPv6 neighbour discovery: accept
//! ```
//!
//! "Established" are answers to connections from outside, and what the guard still sends after it closed a socket (such packets bear
//! no uid any more). A connection that the app began has been redirected with its first packet.

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
    OutputName = 7,
    Uid = 10,
    Gid = 11,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

#[derive(Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const OUTPUT: u32 = 3;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const DNS: u16 = 53;
/// Router solicitation, neighbour solicitation, neighbour advertisement.
const NEIGHBOUR_DISCOVERY: [u8; 3] = [133, 135, 136];
/// The bit of `ct state` for packets of a connection that both sides know.
const ESTABLISHED: u32 = 2;
const REGISTER: u32 = 1;

/// Everything, in one transaction; what a former start left is replaced.
pub fn table(exempt: Exempt, tcp_port: u16, dns_port: u16) -> Messages {
    let mut m = Messages::default();
    m.batch(BATCH_BEGIN);
    m.message(Message::NewTable, CREATE, |m| m.text(1, TABLE));
    m.message(Message::DeleteTable, 0, |m| m.text(1, TABLE));
    m.message(Message::NewTable, CREATE, |m| m.text(1, TABLE));
    m.chain("redirect", "nat", -100, ACCEPT);
    m.chain("deny", "filter", 0, DROP);

    let from_guard = |m: &mut Messages| {
        m.meta(Meta::Uid);
        m.equals(&exempt.uid.to_ne_bytes());
        m.meta(Meta::Gid);
        m.equals(&exempt.gid.to_ne_bytes());
    };
    let to_itself = |m: &mut Messages| {
        m.meta(Meta::OutputName);
        let mut name = [0; 16];
        name[..2].copy_from_slice(b"lo");
        m.equals(&name);
    };
    for chain in ["redirect", "deny"] {
        m.rule(chain, |m| {
            from_guard(m);
            m.verdict(ACCEPT);
        });
        m.rule(chain, |m| {
            to_itself(m);
            m.verdict(ACCEPT);
        });
    }
    for transport in [UDP, TCP] {
        m.rule("redirect", |m| {
            m.meta(Meta::TransportProtocol);
            m.equals(&[transport]);
            m.header(Header::Transport, 2, 2);
            m.equals(&DNS.to_be_bytes());
            m.redirect(dns_port);
        });
    }
    m.rule("redirect", |m| {
        m.meta(Meta::TransportProtocol);
        m.equals(&[TCP]);
        m.redirect(tcp_port);
    });

    let mut localhost = [0u8; 16];
    localhost[15] = 1;
    m.rule("deny", |m| {
        m.meta(Meta::NetworkProtocol);
        m.equals(&[IPV4]);
        m.header(Header::Network, 16, 1);
        m.equals(&[127]);
        m.verdict(ACCEPT);
    });
    m.rule("deny", |m| {
        m.meta(Meta::NetworkProtocol);
        m.equals(&[IPV6]);
        m.header(Header::Network, 24, 16);
        m.equals(&localhost);
        m.verdict(ACCEPT);
    });
    m.rule("deny", |m| {
        m.meta(Meta::TransportProtocol);
        m.equals(&[TCP]);
        m.established();
        m.verdict(ACCEPT);
    });
    for kind in NEIGHBOUR_DISCOVERY {
        m.rule("deny", |m| {
            m.meta(Meta::TransportProtocol);
            m.equals(&[ICMPV6]);
            m.header(Header::Transport, 0, 1);
            m.equals(&[kind]);
            m.verdict(ACCEPT);
        });
    }
    m.batch(BATCH_END);
    m
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

    fn chain(&mut self, name: &str, kind: &str, priority: i32, policy: u32) {
        self.message(Message::NewChain, CREATE, |m| {
            m.text(1, TABLE);
            m.text(3, name);
            m.nest(4, |m| {
                m.number(1, OUTPUT);
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

    fn established(&mut self) {
        const STATE: u32 = 0;
        const NOT_EQUAL: u32 = 1;
        self.expression("ct", |m| {
            m.number(1, REGISTER);
            m.number(2, STATE);
        });
        self.expression("bitwise", |m| {
            m.number(1, REGISTER);
            m.number(2, REGISTER);
            m.number(3, 4);
            m.nest(4, |m| m.attribute(1, &ESTABLISHED.to_ne_bytes()));
            m.nest(5, |m| m.attribute(1, &0u32.to_ne_bytes()));
        });
        self.compare(NOT_EQUAL, &0u32.to_ne_bytes());
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
        let messages = table(Exempt { uid: 2_000_000_001, gid: 2_000_000_002 }, 15_471, 15_473);
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
        assert_eq!(kinds.iter().filter(|k| **k == SUBSYSTEM | Message::NewRule as u16).count(), 13);
    }
}
