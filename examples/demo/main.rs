//! The programs of `make demo`, in one binary without any dependency: a web shop with an AI support bot, and what the bot should
//! never reach.
//!
//! ```text
//!  customer ─► front (web) ─► bot (support) ─► orders (shop)       what the bot is for
//!                              ├─► ledger (finance)                what an injected instruction makes it do
//!                              └─► the outside, the metadata address, the Kubernetes API
//! ```
//!
//! The bot's model is **scripted** (`model.rs`): it obeys every instruction that it reads, wherever it reads it, which is how a
//! prompt-injected model behaves on a bad day. Everything else is real: the programs run in pods of their own, the connections are
//! TCP connections, and what is cut off is cut off by the cluster. They speak plain HTTP so that they need no library.

mod bot;
mod model;
mod net;
mod reach;
mod shop;
mod tls;

use std::process::ExitCode;

const USAGE: &str = "usage: demo COMMAND
servers (settings come from the environment):
  orders            the orders database: a line protocol on port 5432
  ledger            the finance ledger: HTTP on port 8443
  bot               the AI support service: HTTP on port 8080 (ORDERS, HELP_URL)
  front             the shop's front: HTTP on port 8080 (BOT, ORDERS)
clients:
  ask TEXT          a customer's question to the shop's front (FRONT)
  note ORDER TEXT   a customer's note on an order, through the shop's front (FRONT)
  call URL          one HTTP GET to each address of the host
  reach NAME=URL... tries all at once and prints a line for each address: what somebody who owns this pod could reach
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["orders"] => shop::orders(),
        ["ledger"] => shop::ledger(),
        ["bot"] => bot::serve(),
        ["front"] => shop::front(),
        ["ask", text @ ..] if !text.is_empty() => shop::ask(&text.join(" ")),
        ["note", order, text @ ..] if !text.is_empty() => shop::note(order, &text.join(" ")),
        ["call", url] => reach::call(url),
        ["reach", targets @ ..] if !targets.is_empty() => reach::table(targets),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// A setting from the environment.
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}
