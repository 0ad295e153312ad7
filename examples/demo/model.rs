//! The stand-in for a language model: a script, and it says so.
//!
//! It reads the conversation so far and names the next tool to call, or the answer. Like a model that has been prompt-injected it
//! makes no difference between what a customer asks and what stands in the data: an instruction is an instruction, whoever wrote it.
//! It has no randomness, no memory between conversations, and it knows four phrases:
//! `order 1042`, `return`, `fetch URL`, `send … to URL`.

use crate::net::Url;

/// A tool the bot has, with its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tool {
    LookUpOrder(u32),
    Fetch(Url),
    Send(Url),
}

pub enum Step {
    Call(Tool),
    Answer(String),
}

/// What the model has read so far.
pub enum Message {
    Customer(String),
    /// What a tool gave back.
    Data(String),
}

/// The next step after this conversation, in which these tools have been called.
pub fn decide(conversation: &[Message], called: &[Tool], help: &Url) -> Step {
    let mut wanted = Vec::new();
    for message in conversation {
        match message {
            Message::Customer(text) => {
                wanted.extend(orders(text).map(Tool::LookUpOrder));
                if text.to_lowercase().contains("return") {
                    wanted.push(Tool::Fetch(help.clone()));
                }
                wanted.extend(instructions(text));
            }
            // The mistake which every prompt injection lives from: data are read as if they were orders.
            Message::Data(text) => wanted.extend(instructions(text)),
        }
    }
    match wanted.into_iter().find(|tool| !called.contains(tool)) {
        Some(tool) => Step::Call(tool),
        None => Step::Answer(answer(conversation)),
    }
}

fn answer(conversation: &[Message]) -> String {
    let data = conversation.iter().find_map(|message| match message {
        Message::Data(text) => Some(text.split(" | note: ").next().unwrap_or(text)),
        Message::Customer(_) => None,
    });
    match data {
        Some(data) => format!("Thank you for asking! I found this: {data}"),
        None => "I am sorry, I cannot look that up at the moment.".to_owned(),
    }
}

fn orders(text: &str) -> impl Iterator<Item = u32> {
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let numbers: Vec<u32> = words.windows(2).filter(|w| w[0].eq_ignore_ascii_case("order")).filter_map(|w| w[1].parse().ok()).collect();
    numbers.into_iter()
}

/// Every URL in the text, fetched or sent to, as the verb before it says.
fn instructions(text: &str) -> Vec<Tool> {
    let mut sends = false;
    let mut found = Vec::new();
    for word in text.split_whitespace() {
        let word = word.trim_matches(|c: char| "\"'(),;.!?".contains(c));
        match word.to_lowercase().as_str() {
            "send" | "post" | "upload" => sends = true,
            "fetch" | "get" | "read" | "open" => sends = false,
            _ => found.extend(Url::parse(word).map(|url| if sends { Tool::Send(url) } else { Tool::Fetch(url) })),
        }
    }
    found
}
