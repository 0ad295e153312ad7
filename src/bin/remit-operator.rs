//! The operator program: its command line, its log and its exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use remit::operator::{Config, run, selftest, uninstall};
use tracing_subscriber::EnvFilter;

/// Least privilege for AI services on Kubernetes: the operator.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch the cluster and hold what its AIWorkloads declare.
    Run {
        /// The configuration file.
        #[arg(long, env = "REMIT_CONFIG", default_value = "/etc/remit/config.yaml")]
        config: PathBuf,
    },
    /// Remove everything that Remit made, before the operator itself goes.
    Uninstall {
        /// The configuration file.
        #[arg(long, env = "REMIT_CONFIG", default_value = "/etc/remit/config.yaml")]
        config: PathBuf,
    },
    /// Try from inside the cluster whether Remit works; changes nothing (`helm test`).
    Selftest {
        /// The configuration file.
        #[arg(long, env = "REMIT_CONFIG", default_value = "/etc/remit/config.yaml")]
        config: PathBuf,
    },
    /// Print the custom resource definitions as YAML.
    Crds,
}

/// Exit codes.
#[derive(Clone, Copy)]
enum Exit {
    Done = 0,
    /// Something failed while running: a restart may help.
    Failed = 1,
    /// What we were told makes no sense: a restart will not help.
    Usage = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let (path, task) = match &command {
        Command::Crds => return crds().into(),
        Command::Run { config } | Command::Uninstall { config } | Command::Selftest { config } => (config, &command),
    };
    log();
    let config = match Config::read(path) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(error = %error, "configuration");
            return Exit::Usage.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(error = %error, "cannot start");
            return Exit::Failed.into();
        }
    };
    let ended = runtime.block_on(async {
        match task {
            Command::Uninstall { .. } => uninstall::uninstall(config).await.map_err(|error| error.to_string()),
            Command::Selftest { .. } => selftest::selftest(config).await,
            _ => run::run(config).await.map_err(|error| error.to_string()),
        }
    });
    // What still runs must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            tracing::error!(error = %error, "ended");
            Exit::Failed.into()
        }
    }
}

/// To standard output, as JSON or, for people, as text.
fn log() {
    let filter = EnvFilter::try_from_env("REMIT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stdout);
    if std::env::var("REMIT_LOG_FORMAT").is_ok_and(|format| format == "text") {
        log.with_ansi(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
}

fn crds() -> Exit {
    let mut text = String::new();
    for definition in remit::api::definitions() {
        match serde_saphyr::to_string(&definition) {
            Ok(yaml) => text.push_str(&format!("---\n{yaml}\n")),
            Err(error) => {
                eprintln!("{error}");
                return Exit::Failed;
            }
        }
    }
    // A reader that has seen enough is no failure.
    match std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Done,
    }
}
