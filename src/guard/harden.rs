//! The guard protects itself: whoever takes it over has little to go on with, and whoever runs as its user cannot look into it.
//!
//! [`begin`] comes first, [`Hardening::confine`] once everything that listens does, before anybody is served. What must hold is checked in
//! the kernel's own words, and the guard ends where it does not: then nothing passes. Two things may be less than wished, because nodes
//! differ: landlock, and the limit of open files. Both are written down.
//!
//! A system call that is not on the list ends the process. An error instead would leave whoever made the guard call it at liberty to try
//! the next one. Nothing passes while the guard is gone, and the kubelet starts it again. The program carries its C library with it, so the
//! calls that it makes are those that were measured, on every node.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde::Serialize;

use super::record::Records;
use super::{dns, tcp};

/// Files besides those of connections and queries: listeners, health checks, the policy, the control channel (its token, and a connection to
/// each replica), stdio, what the runtime has.
const OTHER_FILES: u32 = 40;

#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    #[error("it has the user root; hint: give it a user of its own (`runAsUser` in a pod; elsewhere start it as yourself, without sudo)")]
    Root,
    #[error("it has capabilities ({0:#x}); hint: `capabilities: {{drop: [ALL]}}`")]
    Capabilities(u64),
    #[error("{0} open files leave no room for connections; hint: raise the container runtime's limit")]
    Files(u64),
    #[error("there are {0} threads, and only this one would be confined")]
    Threads(u64),
    #[error("{what} could not be set: {source}")]
    Kernel { what: &'static str, source: rustix::io::Errno },
    #[error("the policy's directory: {0}")]
    Directory(#[from] PathFdError),
    #[error("landlock: {0}")]
    Landlock(#[from] RulesetError),
    #[error("the filter of system calls: {0}")]
    Filter(#[from] BackendError),
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
    #[error("/proc/self/status: {0}")]
    Status(#[from] io::Error),
    #[error("the kernel says that {0} is not in force")]
    NotInForce(&'static str),
}

/// What [`begin`] found, for [`Hardening::confine`].
pub struct Hardening {
    status: StatusFile,
    connections: u32,
    open_files: u64,
}

/// What is in force, for whoever reads the log.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hardened {
    uid: u64,
    gid: u64,
    capabilities: &'static str,
    no_new_privileges: bool,
    dumpable: bool,
    seccomp: &'static str,
    landlock: Landlock,
    open_files: u64,
    connections: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Landlock {
    /// 0: the kernel has none of it.
    abi: i32,
    /// Nothing can be read but the policy, nothing written.
    files: bool,
    /// No further TCP port can be bound.
    bind: bool,
    /// No signal reaches other processes, no connection abstract sockets.
    scopes: bool,
}

/// Refuses to be more than a user without rights, and lets nobody look into this process.
pub fn begin() -> Result<Hardening, HardenError> {
    let kernel = |what| move |source| HardenError::Kernel { what, source };
    set_no_new_privs(true).map_err(kernel("no_new_privs"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(kernel("not dumpable"))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(kernel("no core file"))?;
    let mut status = StatusFile::open()?;
    let now = status.now()?;
    if now.uids.contains(&0) {
        return Err(HardenError::Root);
    }
    if now.capabilities != 0 {
        return Err(HardenError::Capabilities(now.capabilities));
    }
    let limit = getrlimit(Resource::Nofile);
    let (open_files, connections) = room(limit.maximum.unwrap_or(u64::MAX))?;
    setrlimit(Resource::Nofile, Rlimit { current: Some(open_files), ..limit }).map_err(kernel("the limit of open files"))?;
    Ok(Hardening { status, connections, open_files })
}

/// How many files and connections there may be, where so many files may be open at most.
fn room(limit: u64) -> Result<(u64, u32), HardenError> {
    let others = u64::from(dns::FILES + OTHER_FILES);
    let connections = limit.saturating_sub(others) / u64::from(tcp::FILES_EACH);
    let connections = u32::try_from(connections).unwrap_or(u32::MAX).min(tcp::MOST);
    if connections == 0 {
        return Err(HardenError::Files(limit));
    }
    Ok((others + u64::from(connections * tcp::FILES_EACH), connections))
}

impl Hardening {
    /// How many connections there may be at once.
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// For good. Of files, only those beside the policy can be read from now on.
    pub fn confine(mut self, policy: &Path, records: &Records) -> Result<(), HardenError> {
        let threads = self.status.now()?.threads;
        if threads != 1 {
            return Err(HardenError::Threads(threads));
        }
        let directory = policy.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let landlock = fence(directory)?;
        seccompiler::apply_filter(&filter(SeccompAction::KillProcess)?)?;
        let now = self.status.now()?;
        let in_force = [(now.no_new_privs == 1, "no_new_privs"), (now.seccomp == 2, "seccomp")];
        if let Some((_, what)) = in_force.into_iter().find(|(holds, _)| !holds) {
            return Err(HardenError::NotInForce(what));
        }
        let [uid, ..] = now.uids;
        let hardened = Hardened {
            uid,
            gid: now.gid,
            capabilities: "none",
            no_new_privileges: true,
            dumpable: false,
            seccomp: "list, or killed",
            landlock,
            open_files: self.open_files,
            connections: self.connections,
        };
        records.hardened(&hardened);
        for lacking in hardened.lacking() {
            records.trouble("hardened", &lacking);
        }
        Ok(())
    }
}

impl Hardened {
    /// What is less than wished, and what to do about it.
    fn lacking(&self) -> Vec<String> {
        let Landlock { abi, files, bind, scopes } = self.landlock;
        let mut all = Vec::new();
        for (holds, what, from) in [
            (files, "files other than the policy can be read", "1 (Linux 5.13)"),
            (bind, "further TCP ports can be bound, though nothing can listen there", "4 (Linux 6.7)"),
            (scopes, "abstract sockets and signals are not fenced by it", "6 (Linux 6.12)"),
        ] {
            if !holds {
                all.push(format!("landlock ABI {abi}: {what}; hint: a kernel with ABI {from}"));
            }
        }
        if self.connections < tcp::MOST {
            all.push(format!(
                "{} open files are enough for {} connections only; hint: a hard limit of {}",
                self.open_files,
                self.connections,
                tcp::MOST * tcp::FILES_EACH + dns::FILES + OTHER_FILES
            ));
        }
        all
    }
}

/// What this thread may do with files and ports: read below this directory, and nothing else. Connecting is what the guard is for.
fn fence(directory: &Path) -> Result<Landlock, HardenError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V9))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(ABI::V9))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new(directory)?, AccessFs::ReadFile))?
        .restrict_self()?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    Ok(Landlock { abi, files: abi >= 1, bind: abi >= 4, scopes: abi >= 6 })
}

/// The system calls that the guard makes once it serves; `otherwise` is what becomes of all others.
///
/// No process or thread, no further listener, no file but for reading, no memory that can be executed, no socket but for TCP and UDP.
fn filter(otherwise: SeccompAction) -> Result<BpfProgram, HardenError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    for (call, arguments) in CALLS_WITH {
        let condition =
            |&(at, mask, value): &Argument| SeccompCondition::new(at, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value);
        let conditions = arguments.iter().map(condition).collect::<Result<_, _>>()?;
        rules.entry(*call).or_default().push(SeccompRule::new(conditions)?);
    }
    Ok(SeccompFilter::new(rules, otherwise, SeccompAction::Allow, ARCHITECTURE)?.try_into()?)
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

const CALLS: &[i64] = &[
    // Connections.
    libc::SYS_accept4,
    libc::SYS_bind, // of UDP sockets; TCP is landlock's
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // Files and records.
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_read,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev, // TLS
    // Waiting and time.
    libc::SYS_clock_gettime, // where the kernel does not answer it without a call
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    // Memory.
    libc::SYS_brk,
    libc::SYS_getrandom,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // The end, after SIGTERM or a panic.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
];

/// Which argument, which of its bits, and what they must be.
type Argument = (u8, u64, u64);

const ALL: u64 = u32::MAX as u64;
/// Of a socket's type: the rest says whether it blocks and whether it is inherited.
const TYPE: u64 = 0xf;
const WRITES: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
const EXECUTED: u64 = libc::PROT_EXEC as u64;

/// Allowed if all of the arguments are as said. A call may stand here more than once.
const CALLS_WITH: &[(i64, &[Argument])] = &[
    (libc::SYS_fcntl, &[(1, ALL, libc::F_GETFD as u64)]), // std's debug builds, before they close
    (libc::SYS_mmap, &[(2, EXECUTED, 0)]),
    (libc::SYS_mprotect, &[(2, EXECUTED, 0)]),
    (libc::SYS_openat, &[(2, WRITES, 0)]),
    (libc::SYS_setsockopt, &[(1, ALL, libc::SOL_SOCKET as u64), (2, ALL, libc::SO_KEEPALIVE as u64)]),
    (libc::SYS_setsockopt, &[(1, ALL, libc::SOL_SOCKET as u64), (2, ALL, libc::SO_LINGER as u64)]),
    (libc::SYS_setsockopt, &[(1, ALL, libc::SOL_SOCKET as u64), (2, ALL, libc::SO_RCVBUF as u64)]),
    (libc::SYS_setsockopt, &[(1, ALL, libc::SOL_SOCKET as u64), (2, ALL, libc::SO_SNDBUF as u64)]),
    (libc::SYS_setsockopt, &[(1, ALL, libc::IPPROTO_TCP as u64), (2, ALL, libc::TCP_KEEPCNT as u64)]),
    (libc::SYS_setsockopt, &[(1, ALL, libc::IPPROTO_TCP as u64), (2, ALL, libc::TCP_KEEPIDLE as u64)]),
    (libc::SYS_setsockopt, &[(1, ALL, libc::IPPROTO_TCP as u64), (2, ALL, libc::TCP_KEEPINTVL as u64)]),
    (libc::SYS_setsockopt, &[(1, ALL, libc::IPPROTO_TCP as u64), (2, ALL, libc::TCP_NODELAY as u64)]),
    (libc::SYS_setsockopt, &[(1, ALL, libc::IPPROTO_TCP as u64), (2, ALL, libc::TCP_USER_TIMEOUT as u64)]),
    (libc::SYS_socket, &[(0, ALL, libc::AF_INET as u64), (1, TYPE, libc::SOCK_DGRAM as u64), (2, ALL, 0)]),
    (libc::SYS_socket, &[(0, ALL, libc::AF_INET as u64), (1, TYPE, libc::SOCK_STREAM as u64), (2, ALL, 0)]),
    (libc::SYS_socket, &[(0, ALL, libc::AF_INET6 as u64), (1, TYPE, libc::SOCK_DGRAM as u64), (2, ALL, 0)]),
    (libc::SYS_socket, &[(0, ALL, libc::AF_INET6 as u64), (1, TYPE, libc::SOCK_STREAM as u64), (2, ALL, 0)]),
    (libc::SYS_tgkill, &[(2, ALL, libc::SIGABRT as u64)]), // a panic
];

/// `/proc/self/status`, open: it can be read again when nothing there can be opened any more.
struct StatusFile(File);

/// What the kernel says about this process.
struct Status {
    /// Real, effective, saved, and for files.
    uids: [u64; 4],
    gid: u64,
    threads: u64,
    /// Effective or permitted.
    capabilities: u64,
    no_new_privs: u64,
    seccomp: u64,
}

impl StatusFile {
    fn open() -> io::Result<Self> {
        File::open("/proc/self/status").map(Self)
    }

    fn now(&mut self) -> io::Result<Status> {
        let mut text = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut text)?;
        Status::read(&text).ok_or_else(|| io::Error::other("a field is missing"))
    }
}

impl Status {
    fn read(text: &str) -> Option<Self> {
        let field = |name: &str, radix: u32| -> Option<Vec<u64>> {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            rest.split_whitespace().map(|word| u64::from_str_radix(word, radix).ok()).collect()
        };
        let one = |name: &str, radix: u32| field(name, radix)?.first().copied();
        Some(Self {
            uids: field("Uid", 10)?.try_into().ok()?,
            gid: one("Gid", 10)?,
            threads: one("Threads", 10)?,
            capabilities: one("CapPrm", 16)? | one("CapEff", 16)?,
            no_new_privs: one("NoNewPrivs", 10)?,
            seccomp: one("Seccomp", 10)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// On a thread of its own, for confinement ends with it.
    fn apart(act: impl FnOnce() + Send + 'static) {
        std::thread::spawn(act).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn the_fence_lets_the_policy_be_read_and_nothing_else() {
        let (policy, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (policy, other) = (policy.path().to_owned(), other.path().to_owned());
        for directory in [&policy, &other] {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join("file"), "text").unwrap();
        }
        std::os::unix::fs::symlink(other.join("file"), policy.join("link")).unwrap();
        // As the kubelet does it.
        std::fs::create_dir(policy.join("..2026")).unwrap();
        std::fs::write(policy.join("..2026/policy"), "text").unwrap();
        std::os::unix::fs::symlink("..2026/policy", policy.join("policy")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        apart(move || {
            set_no_new_privs(true).unwrap();
            let Landlock { abi, files, bind, scopes } = fence(&policy).unwrap();
            assert!(abi > 0, "this test needs a kernel with landlock");
            assert_eq!((files, bind, scopes), (true, abi >= 4, abi >= 6));
            const DENIED: Option<ErrorKind> = Some(ErrorKind::PermissionDenied);
            assert_eq!(std::fs::read(policy.join("file")).unwrap(), b"text");
            assert_eq!(std::fs::read(policy.join("policy")).unwrap(), b"text");
            assert_eq!(kind(std::fs::read(policy.join("link"))), DENIED);
            assert_eq!(kind(std::fs::read(other.join("file"))), DENIED);
            assert_eq!(kind(std::fs::read("/proc/self/status")), DENIED);
            assert_eq!(kind(std::fs::write(policy.join("file"), "")), DENIED);
            assert_eq!(kind(std::fs::write(policy.join("new"), "")), DENIED);
            assert_eq!(kind(std::fs::remove_file(policy.join("file"))), DENIED);
            assert_eq!(kind(std::process::Command::new("/bin/true").spawn()), DENIED);
            assert_eq!(kind(TcpListener::bind("127.0.0.1:0")), DENIED.filter(|_| bind));
            assert_eq!(kind(TcpStream::connect(at)), None);
            assert_eq!(kind(UdpSocket::bind("127.0.0.1:0")), None);
        });
    }

    #[test]
    fn what_the_filter_lets_through() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "text").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        apart(move || {
            use socket2::{Domain, Protocol, Socket, Type};
            set_no_new_privs(true).unwrap();
            seccompiler::apply_filter(&filter(SeccompAction::Errno(libc::EDQUOT as u32)).unwrap()).unwrap();
            const FILTERED: Option<ErrorKind> = Some(ErrorKind::QuotaExceeded);
            assert_eq!(kind(std::fs::read(&file)), None);
            assert_eq!(kind(TcpStream::connect(at)), None);
            assert_eq!(kind(UdpSocket::bind("127.0.0.1:0")), None);
            for (what, attempt) in [
                ("a file for writing", kind(File::options().write(true).open(&file))),
                ("a new file", kind(File::create(file.with_extension("new")))),
                ("a file that goes", kind(std::fs::remove_file(&file))),
                ("a program", kind(std::process::Command::new("/bin/true").spawn())),
                ("a thread", kind(std::thread::Builder::new().spawn(|| {}))),
                ("a listener", kind(Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| socket.listen(1)))),
                ("a local socket", kind(UnixStream::pair())),
                ("a raw socket", kind(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)))),
                ("another protocol", kind(Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)))),
                ("a packet mark", kind(UdpSocket::bind("127.0.0.1:0").and_then(|s| socket2::SockRef::from(&s).set_mark(1)))),
            ] {
                assert_eq!(attempt, FILTERED, "{what}");
            }
        });
    }

    #[test]
    fn what_is_not_on_the_list_ends_the_process() {
        const INSIDE: &str = "REMIT_TEST_FILTERED";
        if std::env::var_os(INSIDE).is_some() {
            set_no_new_privs(true).unwrap();
            seccompiler::apply_filter(&filter(SeccompAction::KillProcess).unwrap()).unwrap();
            let _ = UnixStream::pair();
            return;
        }
        let test = "guard::harden::tests::what_is_not_on_the_list_ends_the_process";
        let program = std::env::current_exe().unwrap();
        let ended = std::process::Command::new(program).args([test, "--exact", "--nocapture"]).env(INSIDE, "1").output().unwrap();
        assert_eq!(ended.status.signal(), Some(libc::SIGSYS), "{ended:?}");
    }

    #[test]
    fn room_for_connections() {
        for (limit, expected) in [
            (0, None),
            (584, None),
            (587, Some((587, 1))),
            (1_024, Some((1_022, 146))),
            (12_872, Some((12_872, 4_096))),
            (1 << 30, Some((12_872, 4_096))),
            (u64::MAX, Some((12_872, 4_096))),
        ] {
            assert_eq!(room(limit).ok(), expected, "{limit}");
        }
    }

    #[test]
    fn what_lacks_is_said() {
        let hardened = |abi, connections| Hardened {
            uid: 1,
            gid: 1,
            capabilities: "none",
            no_new_privileges: true,
            dumpable: false,
            seccomp: "",
            landlock: Landlock { abi, files: abi >= 1, bind: abi >= 4, scopes: abi >= 6 },
            open_files: 1_022,
            connections,
        };
        let count = |abi, connections| hardened(abi, connections).lacking().len();
        assert_eq!([count(9, tcp::MOST), count(5, tcp::MOST), count(1, tcp::MOST), count(0, tcp::MOST)], [0, 1, 2, 3]);
        assert_eq!(hardened(9, 146).lacking(), ["1022 open files are enough for 146 connections only; hint: a hard limit of 12872"]);
    }

    #[test]
    fn the_status_of_a_process() {
        let text = "Name:\tguard\nUid:\t1\t2\t3\t4\nGid:\t5\t5\t5\t5\nThreads:\t1\nCapPrm:\t0000000000001000\nCapEff:\t0000000000000001\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        let status = Status::read(text).unwrap();
        assert_eq!((status.uids, status.gid, status.threads, status.capabilities), ([1, 2, 3, 4], 5, 1, 0x1001));
        assert_eq!((status.no_new_privs, status.seccomp), (1, 2));
        assert!(Status::read(&text.replace("Seccomp", "Other")).is_none(), "what is not said does not hold");
    }
}
