//! Completion behind `kubectl`: it runs `kubectl_complete-remit` with the words typed so far (the last one unfinished) and reads candidates,
//! one per line, then a line `:DIRECTIVE`.

use std::fmt::Write;

use clap::{Arg, Command};

/// Candidates alone; kubectl adds no file names.
const NO_FILES: u8 = 4;
/// Let the shell complete file names.
const FILES: u8 = 0;

/// What could come next.
pub(super) fn candidates(cli: &Command, words: &[String]) -> String {
    let (unfinished, typed) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut command = cli;
    let mut waiting: Option<&Arg> = None;
    for word in typed {
        waiting = match waiting {
            Some(_) => None,
            None => arguments(cli, command).find(|arg| takes_value(arg) && is_named(arg, word)),
        };
        command = command.get_subcommands().find(|sub| sub.get_name() == word).unwrap_or(command);
    }
    let mut out = String::new();
    let mut offer = |candidate: &str, about: Option<String>| {
        if candidate.starts_with(unfinished) {
            _ = writeln!(out, "{candidate}{}", about.map(|a| format!("\t{a}")).unwrap_or_default());
        }
    };
    let mut directive = NO_FILES;
    let values = |arg: &Arg| arg.get_possible_values().into_iter().map(|v| v.get_name().to_owned()).collect::<Vec<_>>();
    if let Some(arg) = waiting {
        let values = values(arg);
        if values.is_empty() {
            directive = FILES;
        }
        values.iter().for_each(|value| offer(value, None));
    } else if unfinished.starts_with('-') {
        for arg in arguments(cli, command) {
            if let Some(long) = arg.get_long() {
                offer(&format!("--{long}"), arg.get_help().map(|h| h.to_string()));
            }
        }
    } else {
        for sub in command.get_subcommands() {
            offer(sub.get_name(), sub.get_about().map(|a| a.to_string()));
        }
        for arg in command.get_positionals() {
            values(arg).iter().for_each(|value| offer(value, None));
        }
    }
    _ = writeln!(out, ":{directive}");
    out
}

fn arguments<'a>(cli: &'a Command, command: &'a Command) -> impl Iterator<Item = &'a Arg> {
    let global = cli.get_arguments().filter(|a| a.is_global_set());
    command.get_arguments().filter(|a| !a.is_global_set()).chain(global)
}

fn takes_value(arg: &Arg) -> bool {
    !arg.is_positional() && arg.get_action().takes_values()
}

fn is_named(arg: &Arg, word: &str) -> bool {
    arg.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long))
        || arg.get_short().is_some_and(|short| word.strip_prefix('-') == Some(short.to_string().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn complete(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        let text = candidates(&super::super::Cli::command(), &words);
        text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn candidates_table() {
        assert_eq!(complete(&[""]), ["render", "explain", "break-glass", "reach", "version", "completion", ":4"]);
        assert_eq!(complete(&["re"]), ["render", "reach", ":4"]);
        assert_eq!(complete(&["completion", ""]), ["bash", "zsh", "fish", ":4"]);
        assert_eq!(complete(&["render", "-f", ""]), [":0"]);
        assert_eq!(complete(&["render", "--output", "j"]), ["json", ":4"]);
        assert_eq!(complete(&["render", "--fa"]), ["--facts", ":4"]);
        assert_eq!(complete(&["render", "-f", "x.yaml", "--verb"]), ["--verbose", ":4"]);
        assert_eq!(complete(&["render", "-f", "render", "-o", "y"]), ["yaml", ":4"]);
    }
}
