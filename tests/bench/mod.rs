//! The benchmark tables (`make bench`). Not part of `make test`: figures depend on the machine; what must hold on any machine is asserted.
//!
//! `compile`: one workload, no cluster. `many`: 500 AIWorkloads on the API tier.

mod compile;
mod many;

use std::time::Duration;

/// A table with aligned columns, after a headline.
fn table(headline: &str, rows: &[(String, String)]) {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    println!("\n{headline}");
    for (name, value) in rows {
        println!("  {name:<width$}  {value}");
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
