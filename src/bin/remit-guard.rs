//! The guard program: the init container that redirects, the sidecar that decides, and the same on a machine of one's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use remit::guard::{Authority, Options, Places, check, redirect, run};
use remit::policy::WorkloadId;
use remit::policy::pod::{POLICY_DIRECTORY, POLICY_FILE, TOKEN_FILE};
use remit::policy::signed::Trust;

/// Least privilege for AI services on Kubernetes: the guard.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Command {
    /// Send what leaves this pod to the guard, and prove that nothing else gets out (init container; needs NET_ADMIN).
    Redirect {
        /// The guard's user.
        #[arg(long)]
        uid: u32,
        /// The guard's group.
        #[arg(long)]
        gid: u32,
    },
    /// Let through what the policy declares, until SIGTERM (sidecar).
    Run {
        /// The policy.
        #[arg(long, default_value_os_t = PathBuf::from(POLICY_DIRECTORY).join(POLICY_FILE))]
        policy: PathBuf,
        /// The key that policies must be signed with, and that the operator proves to hold, as the operator prints it.
        #[arg(long, value_name = "KEY", required_unless_present = "unsigned", conflicts_with = "unsigned")]
        trust: Option<Trust>,
        /// The AIWorkload that this pod was made for: policies of another are not taken.
        #[arg(long, value_name = "NAMESPACE/NAME/UID", required_unless_present = "unsigned", conflicts_with = "unsigned")]
        workload: Option<WorkloadId>,
        /// Take the policy of the file as it is (outside of a cluster).
        #[arg(long)]
        unsigned: bool,
        /// Outside of a cluster: serve base URLs (http://ADDRESS/SOURCE/...) and be a forward proxy here, on loopback, and nothing else.
        #[arg(long, value_name = "ADDRESS", requires = "unsigned")]
        listen: Option<SocketAddr>,
        /// The token by which the operator knows this pod; in the directory of the policy.
        #[arg(long, default_value_os_t = PathBuf::from(POLICY_DIRECTORY).join(TOKEN_FILE))]
        token: PathBuf,
        /// Where the pod's search list stands.
        #[arg(long, default_value = "/etc/resolv.conf")]
        resolv_conf: PathBuf,
        /// Where what the app is to trust is written before it starts, for TLS that the guard looks into: ca.pem (the guard's own certificate
        /// authority), bundle.pem and truststore.jks (upstreams' authorities as well). Without it such TLS is refused.
        #[arg(long, value_name = "DIRECTORY")]
        trust_store: Option<PathBuf>,
        /// Where the certificate authority is kept over restarts of the guard, with its key: nobody else may read there. Without it, in memory.
        #[arg(long, value_name = "DIRECTORY", requires = "trust_store")]
        ca: Option<PathBuf>,
        /// Seconds that open connections may go on after SIGTERM.
        #[arg(long, default_value_t = 5)]
        drain_seconds: u16,
    },
    /// Say what a policy file means that is for `run --unsigned`, or what is wrong with it.
    Check {
        /// The policy.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Redirect { uid, gid } => redirected(redirect::Exempt { uid, gid }),
        Command::Run { policy, trust, workload, unsigned: _, listen, token, resolv_conf, trust_store, ca, drain_seconds } => {
            let authority = trust.zip(workload).map_or(Authority::File, |(trust, workload)| Authority::Signed(trust, workload));
            let inspection = trust_store.map(|trust_store| Places { trust_store, ca });
            let drain = Duration::from_secs(drain_seconds.into());
            let options = Options { policy, authority, token, resolv_conf, listen, inspection, drain };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|e| e.to_string()).and_then(|runtime| runtime.block_on(run(options)).map_err(|e| e.to_string()))
        }
        Command::Check { file } => checked(&file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn checked(file: &Path) -> Result<(), String> {
    let said = |error: String| format!("{}: {error}", file.display());
    let lines = check(&std::fs::read(file).map_err(|e| said(e.to_string()))?).map_err(said)?;
    let destinations = if lines.len() == 1 { "destination" } else { "destinations" };
    println!("ok: {} {destinations}", lines.len());
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

fn redirected(exempt: redirect::Exempt) -> Result<(), String> {
    for line in redirect::redirect(exempt).map_err(|e| e.to_string())? {
        println!("{line}");
    }
    Ok(())
}
