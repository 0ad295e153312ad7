//! The answers of the authorizer → what the author is told.
//!
//! Promise: every refusal and every right that is lacking is in some line, a right with its field, the user and who can help; no line
//! means allowed. In: a review, the questions that were answered with no, the user's name. Out: lines of text.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Question, Review, Rule};
use crate::scope::Verb;

impl Review {
    /// All that speaks against the change, once it is known which questions were answered with no. Empty: allowed.
    pub fn denials(&self, lacking: &BTreeSet<Question>, user: &str) -> Vec<String> {
        let Self { refusals, checks, warnings: _ } = self;
        let mut lines: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        // Verbs of one object are joined, then objects with equal verbs.
        type Thing<'a> = (&'a str, Rule, &'a str, &'a str, &'a str, Option<&'a str>);
        let mut verbs: BTreeMap<(Thing<'_>, Option<&str>), BTreeSet<Spoken>> = BTreeMap::new();
        for Check { path, rule, question } in checks.iter().filter(|c| lacking.contains(&c.question)) {
            let Question { namespace, group, resource, subresource, name, verb } = question;
            let thing = (path.as_str(), *rule, namespace.as_str(), group.as_str(), resource.as_str(), subresource.as_deref());
            verbs.entry((thing, name.as_deref())).or_default().insert(Spoken(verb));
        }
        let mut names: BTreeMap<(Thing<'_>, bool, Vec<Spoken>), Vec<&str>> = BTreeMap::new();
        for ((thing, name), verbs) in verbs {
            names.entry((thing, name.is_some(), verbs.into_iter().collect())).or_default().extend(name);
        }
        for (((path, rule, namespace, group, resource, subresource), _, verbs), names) in names {
            let verbs = verbs.iter().map(|v| v.0).collect::<Vec<_>>().join(",");
            let mut what = resource.to_owned();
            if !group.is_empty() {
                what = format!("{what}.{group}");
            }
            if let Some(subresource) = subresource {
                what = format!("{what}/{subresource}");
            }
            let named = if names.is_empty() { String::new() } else { format!(" {}", names.join(",")) };
            let right = format!("\"{verbs} {what}{named} in namespace {namespace}\"");
            lines.push(match rule {
                Rule::Never => format!(
                    "{path}: needs {right}, which {user} does not hold, and which nobody can grant through Remit; for one Secret that the pods may mount, declare a data source of type Secret: someone who holds \"get secrets NAME in namespace {namespace}\" can apply it"
                ),
                Rule::Held => format!(
                    "{path}: needs {right}, which {user} does not hold (nobody grants what they do not hold); someone who holds it can apply this, or an admin grants it: {}",
                    grant(user, namespace, &verbs, &what, &names)
                ),
                Rule::BreakGlass => format!(
                    "{path}: an exception for debugging needs {right}, which {user} does not hold; someone who holds it can ask for it, or an admin grants it: {}",
                    grant(user, namespace, &verbs, &what, &names)
                ),
                Rule::Evict => format!(
                    "{path}: Evict has pods evicted and needs {right}, which {user} does not hold; someone who holds it can apply this, or an admin grants it: {}",
                    grant(user, namespace, &verbs, &what, &names)
                ),
                Rule::Release => format!(
                    "{path}: this sets pods free and needs {right}, which {user} does not hold; someone who holds it can do this, or an admin grants it: {}",
                    grant(user, namespace, &verbs, &what, &names)
                ),
            });
        }
        lines
    }
}

/// A verb, ordered as people say them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Spoken(&'static str);

impl Spoken {
    fn rank(self) -> (usize, &'static str) {
        (Verb::ALL.iter().position(|v| v.as_str() == self.0).unwrap_or(usize::MAX), self.0)
    }
}

impl Ord for Spoken {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Spoken {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The command by which an admin grants a right.
fn grant(user: &str, namespace: &str, verbs: &str, what: &str, names: &[&str]) -> String {
    let role = format!("{}-{}", verbs.split(',').next().unwrap_or_default(), what.split(['.', '/']).next().unwrap_or_default());
    let names: String = names.iter().map(|n| format!(" --resource-name={}", shell_word(n))).collect();
    let subject = match user.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={}", shell_word(account)),
        None => format!("--user={}", shell_word(user)),
    };
    format!(
        "kubectl create role {role} -n {namespace} --verb={verbs} --resource={what}{names} && kubectl create rolebinding {role} -n {namespace} --role={role} {subject}"
    )
}

fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '.' | '-' | '_' | ':' | '/' | '+' | '=' | ',');
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::review::fixture::{all_lacking, judge, kubernetes, object, of};
    use crate::plan::review::{Author, Change};
    use crate::scope::Ceilings;

    #[test]
    fn a_denial_names_field_right_user_and_remedy() {
        let new = of(json!([
            kubernetes(json!({"resources": ["orders", "orders/status"], "resourceNames": ["a", "b"]})),
            object("s", "Secret", "secret")
        ]));
        let review = judge(Change::Create(&new), Author::Person, &Ceilings::default());
        let grant = |what: &str| {
            format!(
                "kubectl create role get-orders -n support --verb=get,list,watch --resource={what} --resource-name=a --resource-name=b && kubectl create rolebinding get-orders -n support --role=get-orders --user=dana@example.com"
            )
        };
        let line = |what: &str| {
            format!(
                "dataSources[name=orders].kubernetes: needs \"get,list,watch {what} a,b in namespace support\", which dana@example.com does not hold (nobody grants what they do not hold); someone who holds it can apply this, or an admin grants it: {}",
                grant(what)
            )
        };
        assert_eq!(
            all_lacking(&review),
            [
                line("orders.shop.example.com"),
                line("orders.shop.example.com/status"),
                "dataSources[name=s].secret: needs \"get secrets thing in namespace support\", which dana@example.com does not hold (nobody grants what they do not hold); someone who holds it can apply this, or an admin grants it: kubectl create role get-secrets -n support --verb=get --resource=secrets --resource-name=thing && kubectl create rolebinding get-secrets -n support --role=get-secrets --user=dana@example.com".to_owned(),
            ]
        );
        // Only what is lacking.
        let lacking = review.checks.iter().filter(|c| c.question.verb == "list").map(|c| c.question.clone()).collect();
        assert_eq!(review.denials(&lacking, "dana").len(), 2);
        let review = judge(Change::Delete(&new), Author::Person, &Ceilings::default());
        let lines = review.denials(&[Question::release(&new)].into(), "system:serviceaccount:support:ci");
        assert_eq!(
            lines,
            [
                "deletion: this sets pods free and needs \"release aiworkloads.remit.dev bot in namespace support\", which system:serviceaccount:support:ci does not hold; someone who holds it can do this, or an admin grants it: kubectl create role release-aiworkloads -n support --verb=release --resource=aiworkloads.remit.dev --resource-name=bot && kubectl create rolebinding release-aiworkloads -n support --role=release-aiworkloads --serviceaccount=support:ci"
            ]
        );
    }

    #[test]
    fn what_others_chose_is_one_word_of_a_command() {
        for (user, word) in
            [("dana@example.com", "dana@example.com"), ("a b; rm -rf /", "'a b; rm -rf /'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(shell_word(user), word);
        }
        let command = grant("system:serviceaccount:a:b;c", "support", "get", "orders", &["x; rm -rf ~", "plain"]);
        assert!(command.contains(" --resource-name='x; rm -rf ~' --resource-name=plain "), "{command}");
        assert!(command.ends_with(" --serviceaccount='a:b;c'"), "{command}");
    }
}
