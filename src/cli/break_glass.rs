//! `kubectl remit break-glass`: a bounded exception, with a name and a reason, for debugging the pods of an AIWorkload.
//!
//! It writes an annotation and nothing else; the webhook asks whether its author may, and admission lets through what it allows until it ends.

use clap::Args;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::kubectl::{ClusterArgs, KubectlError};
use super::{Exit, Message, Outcome};
use crate::api::BREAK_GLASS_ANNOTATION;
use crate::plan::BreakGlass;

/// What was typed.
#[derive(Args, Clone, Debug)]
pub(super) struct BreakGlassArgs {
    /// The AIWorkload
    name: String,
    /// How long, such as 30m or 2h (at most 8h)
    #[arg(long = "for", value_name = "DURATION", required_unless_present = "end", conflicts_with = "end")]
    duration: Option<SignedDuration>,
    /// Why: people read it afterwards
    #[arg(long, value_name = "TEXT", required_unless_present = "end", conflicts_with = "end")]
    reason: Option<String>,
    /// End it now
    #[arg(long)]
    end: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn break_glass(args: &BreakGlassArgs, now: Timestamp) -> Outcome {
    attempt(args, now).unwrap_or_else(|error| error.outcome())
}

fn attempt(args: &BreakGlassArgs, now: Timestamp) -> Result<Outcome, KubectlError> {
    let BreakGlassArgs { name, duration, reason, end: _, cluster } = args;
    let (Some(duration), Some(reason)) = (duration, reason) else {
        cluster.kubectl(&["annotate", "aiworkload", name, &format!("{BREAK_GLASS_ANNOTATION}-")])?;
        return Ok(Outcome { data: format!("AIWorkload {name}: the exception has ended\n"), messages: hints(name), exit: Exit::Done });
    };
    let user = cluster.json(&["auth", "whoami"])?["status"]["userInfo"]["username"].as_str().unwrap_or_default().to_owned();
    let exception = match exception(*duration, reason, &user, now) {
        Ok(exception) => exception,
        Err(message) => return Ok(Outcome { data: String::new(), messages: vec![Message::Error(message)], exit: Exit::BadInput }),
    };
    let text = serde_json::to_string(&exception).expect("an exception has only string keys");
    cluster.kubectl(&["annotate", "--overwrite", "aiworkload", name, &format!("{BREAK_GLASS_ANNOTATION}={text}")])?;
    let data = format!(
        "AIWorkload {name}: until {}, ephemeral containers and port-forward are let through; the guard refuses what it refused before\n",
        exception.until
    );
    Ok(Outcome { data, messages: hints(name), exit: Exit::Done })
}

/// Said before the API server is asked, in the words of what was typed.
fn exception(duration: SignedDuration, reason: &str, user: &str, now: Timestamp) -> Result<BreakGlass, String> {
    let until = now.checked_add(duration).map_err(|e| format!("--for: {e}"))?;
    // Seconds are enough for people.
    let until = Timestamp::from_second(until.as_second()).map_err(|e| format!("--for: {e}"))?;
    let text = serde_json::to_string(&BreakGlass { until, by: user.to_owned(), reason: reason.to_owned() }).map_err(|e| e.to_string())?;
    BreakGlass::asked(&text, user, now).map_err(|message| message.replace("`until`", "--for").replace("`reason`", "--reason"))
}

fn hints(name: &str) -> Vec<Message> {
    vec![Message::Hint(format!(
        "an ephemeral container stays in its pod until the pod is deleted; `kubectl get aiworkload {name} -o yaml` shows what lasts"
    ))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let now: Timestamp = "2026-01-01T12:00:00.7Z".parse().unwrap();
        let of = |duration: &str, reason: &str| exception(duration.parse().unwrap(), reason, "dana", now);
        assert_eq!(of("30m", "it hangs").unwrap().until.to_string(), "2026-01-01T12:30:00Z");
        assert_eq!(of("2h", "it hangs").unwrap().by, "dana");
        for (duration, reason, words) in
            [("9h", "x", "--for is more than 8 hours"), ("-1m", "x", "--for has passed"), ("1m", "", "--reason must")]
        {
            assert!(of(duration, reason).unwrap_err().contains(words), "{duration}");
        }
    }
}
