//! The rest of the shop: its orders database, its front, its finance ledger, and the customer.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::net::{self, Request, Response, Url};
use crate::setting;

/// `GET ORDER 1042` and `NOTE 1042 some text`, a line each.
pub fn orders() -> Result<(), String> {
    let orders = [
        (1042, "a blue kettle, on its way, arrives on Thursday", "please ring twice"),
        (1043, "two garden chairs, delivered on Monday", ""),
        (1066, "a tea pot, being packed", ""),
    ];
    let orders = orders.map(|(number, order, note)| (number, (order, note.to_owned())));
    let orders: Mutex<BTreeMap<u32, (&str, String)>> = Mutex::new(orders.into());
    net::serve_lines("the orders database", 5432, move |line| {
        let mut orders = orders.lock().unwrap_or_else(|broken| broken.into_inner());
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words.as_slice() {
            ["GET", "ORDER", number] => match number.parse().ok().and_then(|number: u32| orders.get(&number)) {
                Some((order, note)) if note.is_empty() => format!("Order {number}: {order}"),
                Some((order, note)) => format!("Order {number}: {order} | note: {note}"),
                None => format!("There is no order {number}"),
            },
            ["NOTE", number, note] => match number.parse().ok().and_then(|number: u32| orders.get_mut(&number)) {
                Some(order) => {
                    order.1 = (*note).to_owned();
                    "OK".to_owned()
                }
                None => format!("There is no order {number}"),
            },
            _ => "I understand: GET ORDER <number>, NOTE <number> <text>".to_owned(),
        }
    })
}

/// What the bot has no business with.
pub fn ledger() -> Result<(), String> {
    net::serve_http("the finance ledger", 8443, |_| Response {
        status: 200,
        body: "finance ledger: cash 1,204,311.07, payroll 318,442.10".into(),
    })
}

/// `POST /ask` goes to the bot; `POST /note/1042` writes the customer's note into the orders database.
pub fn front() -> Result<(), String> {
    let bot = setting("BOT", "http://support-bot.support.svc:8080/ask");
    let bot = Url::parse(&bot).ok_or_else(|| format!("BOT: {bot} is not an http:// URL"))?;
    let orders = setting("ORDERS", "orders.shop.svc:5432");
    net::serve_http("the shop's front", 8080, move |Request { method, path, body }| match (method.as_str(), path.as_str()) {
        ("GET", "/healthz") => Response { status: 200, body: "ok".into() },
        ("POST", "/ask") => net::ask_one("POST", &bot, body, net::PATIENCE)
            .unwrap_or_else(|failure| Response { status: 502, body: format!("the support bot cannot be reached: {failure}") }),
        ("POST", path) if path.starts_with("/note/") => {
            let note = format!("NOTE {} {}", &path["/note/".len()..], body.replace('\n', " "));
            match net::line(&orders, &note) {
                Ok(answer) if answer == "OK" => Response { status: 200, body: answer },
                Ok(answer) => Response { status: 400, body: answer },
                Err(failure) => Response { status: 502, body: format!("the orders database cannot be reached: {failure}") },
            }
        }
        _ => Response { status: 404, body: "POST /ask or /note/ORDER".into() },
    })
}

pub fn ask(text: &str) -> Result<(), String> {
    to_front("/ask", text)
}

pub fn note(order: &str, text: &str) -> Result<(), String> {
    to_front(&format!("/note/{order}"), text)
}

fn to_front(path: &str, text: &str) -> Result<(), String> {
    let front = setting("FRONT", "http://localhost:8080");
    let url = Url::parse(&format!("{front}{path}")).ok_or_else(|| format!("FRONT: {front} is not an http:// URL"))?;
    match net::ask_one("POST", &url, text, net::PATIENCE) {
        Ok(Response { status: 200, body }) => {
            println!("{body}");
            Ok(())
        }
        Ok(Response { status, body }) => Err(format!("{body} (HTTP status {status})")),
        Err(failure) => Err(format!("the shop's front cannot be reached: {failure}")),
    }
}
