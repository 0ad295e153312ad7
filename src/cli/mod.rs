//! `kubectl remit`: what Remit would do, what it did and why, and what is reachable whoever made it so.
//!
//! Data go to stdout, everything else to stderr. Each command is a function from what was typed to what is said and an [`Exit`]; only [`main`]
//! touches the process. What a broken pipe cuts off was not wanted: it is success.

mod break_glass;
mod completion;
mod documents;
mod explain;
mod explain_url;
mod kubectl;
mod reach;
mod render;
mod schema;
mod world;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::{ExitCode, Termination};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use k8s_openapi::jiff::Timestamp;

use break_glass::BreakGlassArgs;
use explain::ExplainArgs;
use reach::ReachArgs;
use render::RenderArgs;

/// Show what Remit makes of an AIWorkload, and why a guard refused something.
#[derive(Parser)]
#[command(name = "kubectl-remit", bin_name = "kubectl remit", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    /// Also say what was ignored, and what was read.
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Say nothing but errors and refusals.
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the objects that AIWorkloads compile to, offline.
    ///
    /// Exit code: 0 everything declared is in the output, 1 something was refused (it is said on stderr; the rest is in the output),
    /// 2 the input could not be used.
    Render(Box<RenderArgs>),
    /// Say what the guards of an AIWorkload make of a destination, or why one refused a request.
    ///
    /// Exit code: 0 it is let through (or the request was found), 1 it is refused, 2 it could not be found out.
    Explain(ExplainArgs),
    /// Let the pods of an AIWorkload be debugged for a bounded time. Needs the verb `break-glass` on it, and bears your name.
    BreakGlass(BreakGlassArgs),
    /// Say what manifests let pods and accounts reach, offline, for programs.
    ///
    /// Exit code: 0 it was found out, 2 the input could not be used.
    Reach(ReachArgs),
    /// Print the version of this program.
    Version,
    /// Print a completion script for `kubectl-remit`. For `kubectl remit`, see docs/kubectl-remit.md.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: CompletionShell,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// Something that was declared is refused, or does not govern.
    Refused = 1,
    /// The command line or the input cannot be used.
    BadInput = 2,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// What a command has to say besides its data, in the order in which it is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Always said.
    Error(String),
    /// Always said.
    Refused(String),
    Note(String),
    /// Only with `--verbose`.
    Detail(String),
    Hint(String),
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub data: String,
    pub messages: Vec<Message>,
    pub exit: Exit,
}

/// The program.
pub fn main() -> Exit {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    // kubectl asks an executable of this name for completions.
    if args.first().is_some_and(|program| Path::new(program).file_stem().is_some_and(|name| name == "kubectl_complete-remit")) {
        let words: Vec<String> = args.drain(1..).map(|a| a.to_string_lossy().into_owned()).collect();
        return say(
            Outcome { data: completion::candidates(&Cli::command(), &words), messages: vec![], exit: Exit::Done },
            Verbosity::Quiet,
        );
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            return match error.print() {
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Exit::BadInput,
                _ if asked => Exit::Done,
                _ => Exit::BadInput,
            };
        }
    };
    let verbosity = match (cli.quiet, cli.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let outcome = match cli.command {
        Command::Render(args) => render::render(&args, &mut io::stdin().lock()),
        Command::Explain(args) => explain::explain(&args),
        Command::Reach(args) => reach::reach(&args),
        Command::BreakGlass(args) => break_glass::break_glass(&args, Timestamp::now()),
        Command::Version => Outcome { data: format!("kubectl-remit {}\n", env!("CARGO_PKG_VERSION")), messages: vec![], exit: Exit::Done },
        Command::Completion { shell } => Outcome { data: script(shell), messages: vec![], exit: Exit::Done },
    };
    say(outcome, verbosity)
}

fn script(shell: CompletionShell) -> String {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kubectl-remit", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn say(outcome: Outcome, verbosity: Verbosity) -> Exit {
    let Outcome { data, messages, exit } = outcome;
    let mut stderr = io::stderr().lock();
    for message in messages {
        let (level, line) = match message {
            Message::Error(text) => (Verbosity::Quiet, format!("error: {text}")),
            Message::Refused(text) => (Verbosity::Quiet, format!("refused: {text}")),
            Message::Note(text) => (Verbosity::Normal, format!("note: {text}")),
            Message::Hint(text) => (Verbosity::Normal, format!("hint: {text}")),
            Message::Detail(text) => (Verbosity::Verbose, text),
        };
        if verbosity >= level {
            // Nobody is left to be told that stderr is closed.
            _ = writeln!(stderr, "{line}");
        }
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            _ = writeln!(stderr, "error: stdout: {error}");
            Exit::BadInput
        }
        _ => exit,
    }
}
