//! What must be asked of a cluster is asked through kubectl: its configuration, its credentials, its user. (This program is its plugin.)

use std::process::Command;

use clap::Args;
use serde_json::Value;

use super::{Exit, Message, Outcome};

/// How kubectl finds the cluster, with kubectl's own names.
#[derive(Args, Clone, Debug)]
pub(super) struct ClusterArgs {
    /// Namespace of the AIWorkload; else that of kubectl's context
    #[arg(short, long)]
    namespace: Option<String>,
    /// Context of kubectl's configuration
    #[arg(long)]
    context: Option<String>,
    /// kubectl's configuration
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
}

/// What kubectl said when it failed, or why it could not be run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct KubectlError(String);

impl KubectlError {
    pub(super) fn outcome(&self) -> Outcome {
        Outcome { data: String::new(), messages: vec![Message::Error(self.to_string())], exit: Exit::BadInput }
    }
}

impl ClusterArgs {
    /// Standard output of kubectl with these arguments.
    pub(super) fn kubectl(&self, args: &[&str]) -> Result<String, KubectlError> {
        let Self { namespace, context, kubeconfig } = self;
        // kubectl tells its plugins nothing of itself; tests name another.
        let program = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        let mut command = Command::new(&program);
        for (flag, value) in [("--namespace", namespace), ("--context", context), ("--kubeconfig", kubeconfig)] {
            if let Some(value) = value {
                command.arg(format!("{flag}={value}"));
            }
        }
        let output = command.args(args).output().map_err(|e| KubectlError(format!("cannot run {program}: {e}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(KubectlError(format!("kubectl {}: {}", args.first().unwrap_or(&""), said.strip_prefix("error: ").unwrap_or(&said))))
    }

    pub(super) fn json(&self, args: &[&str]) -> Result<Value, KubectlError> {
        let text = self.kubectl(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).map_err(|e| KubectlError(format!("kubectl {}: {e}", args.first().unwrap_or(&""))))
    }
}
