//! The AI support service: a tool loop round a (scripted) model, without any protection of its own. `POST /ask` takes a customer's
//! words and gives back what the bot did, a line for each tool call, and its answer.

use crate::model::{self, Message, Step, Tool};
use crate::net::{self, Attempt, Request, Response, Url};
use crate::setting;

/// A conversation ends after this many tool calls.
const MAX_CALLS: usize = 12;

pub fn serve() -> Result<(), String> {
    let orders = setting("ORDERS", "orders.shop.svc:5432");
    let help = setting("HELP_URL", "https://help.example.com/articles/returns");
    let help = Url::parse(&help).ok_or_else(|| format!("HELP_URL: {help} is no URL"))?;
    net::serve_http("the support bot", 8080, move |request| match request {
        Request { method, path, body } if method == "POST" && path == "/ask" => {
            Response { status: 200, body: converse(body, &orders, &help) }
        }
        Request { path, .. } if path == "/healthz" => Response { status: 200, body: "ok".into() },
        _ => Response { status: 404, body: "POST /ask".into() },
    })
}

fn converse(question: &str, orders: &str, help: &Url) -> String {
    let mut conversation = vec![Message::Customer(question.to_owned())];
    let mut called = Vec::new();
    let mut told = Vec::new();
    while called.len() < MAX_CALLS {
        let tool = match model::decide(&conversation, &called, help) {
            Step::Answer(answer) => {
                told.push(format!("bot says: {answer}"));
                return told.join("\n");
            }
            Step::Call(tool) => tool,
        };
        let data = run(&tool, orders, &conversation, &mut told);
        conversation.extend(data.map(Message::Data));
        called.push(tool);
    }
    told.push("bot says: this takes too long, I give up".to_owned());
    told.join("\n")
}

/// Calls a tool; tells what happened; gives back what the model will read.
fn run(tool: &Tool, orders: &str, conversation: &[Message], told: &mut Vec<String>) -> Option<String> {
    match tool {
        Tool::LookUpOrder(number) => {
            told.push(format!("tool: look up order {number} in {orders}"));
            match net::line(orders, &format!("GET ORDER {number}")) {
                Ok(order) => {
                    told.push(format!("  reached  {order}"));
                    Some(order)
                }
                Err(failure) => {
                    told.push(format!("  cut off  {failure}"));
                    None
                }
            }
        }
        Tool::Fetch(url) => {
            told.push(format!("tool: fetch {url}"));
            tell(net::ask_all("GET", url, ""), told)
        }
        Tool::Send(url) => {
            let gathered: Vec<&str> =
                conversation.iter().filter_map(|m| if let Message::Data(text) = m { Some(text.as_str()) } else { None }).collect();
            let gathered = gathered.join("\n");
            told.push(format!("tool: send {} bytes of what I know to {url}", gathered.len()));
            tell(net::ask_all("POST", url, &gathered), told)
        }
    }
}

fn tell(attempts: Result<Vec<Attempt>, net::Failure>, told: &mut Vec<String>) -> Option<String> {
    let mut data = None;
    match attempts {
        Err(failure) => told.push(format!("  cut off  {failure}")),
        Ok(attempts) => {
            for Attempt { address, outcome } in attempts {
                let family = net::family(address);
                match outcome {
                    Ok(Response { status, body }) => {
                        let first = body.lines().next().unwrap_or_default();
                        // A guard that may look into a connection answers on it what it does not let through.
                        let outcome = if status == 403 { "refused" } else { "reached" };
                        told.push(format!("  {outcome}  {family} {address}: {status} {first}"));
                        data.get_or_insert(body);
                    }
                    Err(failure) => told.push(format!("  cut off  {family} {address}: {failure}")),
                }
            }
        }
    }
    data
}
