//! The figures: medians and spread, and ratios of what was measured in the same round.

use std::time::Duration;

use super::{at, micros};

pub struct Figures {
    targets: Vec<String>,
    /// Which target is put beside which other.
    ratios: Vec<(usize, usize)>,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    /// What the direct connection costs is taken off the others, within the round.
    added: bool,
    more_is_better: bool,
    /// Of each target, one for each round.
    all: Vec<Vec<f64>>,
}

impl Figures {
    pub fn new(targets: &[&str], ratios: Vec<(usize, usize)>) -> Self {
        Self { targets: targets.iter().map(|target| (*target).to_owned()).collect(), ratios, rows: Vec::new() }
    }

    fn row(&mut self, name: &str) -> &mut Row {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let all = vec![Vec::new(); self.targets.len()];
            self.rows.push(Row { name: name.to_owned(), added: false, more_is_better: false, all });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    pub fn add(&mut self, name: &str, target: usize, figure: Option<f64>) {
        if let Some(figure) = figure {
            self.row(name).all[target].push(figure);
        }
    }

    pub fn more_is_better(&mut self, name: &str, target: usize, figure: Option<f64>) {
        self.add(name, target, figure);
        self.row(name).more_is_better = true;
    }

    /// Two rows, of the median and of the 99th percentile.
    pub fn times(&mut self, name: &str, target: usize, times: &[Duration]) {
        let mut times = times.to_vec();
        times.sort();
        for percent in [50, 99] {
            let name = format!("{name}, added p{percent}, µs");
            self.add(&name, target, Some(micros(at(&times, percent))));
            self.row(&name).added = true;
        }
    }

    /// The median of a row, and with `beside` that of the ratios to another target.
    pub fn median(&self, name: &str, target: usize, beside: Option<usize>) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.name == name)?;
        match beside {
            Some(other) => row.ratio(target, other),
            None => median(&row.shown(target)),
        }
    }

    /// Markdown.
    pub fn print(&self) {
        let ratios = self.ratios.iter().map(|(one, other)| format!("{} / {}", self.targets[*one], self.targets[*other]));
        let head: Vec<String> = ["median (least–most)".to_owned()].into_iter().chain(self.targets.iter().cloned()).chain(ratios).collect();
        println!("| {} |", head.join(" | "));
        println!("|{}", "---|".repeat(head.len()));
        for row in &self.rows {
            let cells = (0..self.targets.len()).map(|n| spread(&row.shown(n)));
            let ratios =
                self.ratios.iter().map(|&(one, other)| row.ratio(one, other).map_or("–".to_owned(), |ratio| format!("{ratio:.2}")));
            let name = if row.more_is_better { format!("{} (more is better)", row.name) } else { row.name.clone() };
            println!("| {name} | {} |", cells.chain(ratios).collect::<Vec<_>>().join(" | "));
        }
    }
}

impl Row {
    fn shown(&self, target: usize) -> Vec<f64> {
        if !self.added || target == 0 {
            return self.all[target].clone();
        }
        self.all[target].iter().zip(&self.all[0]).map(|(with, without)| with - without).collect()
    }

    /// Of what was measured in the same turn.
    fn ratio(&self, one: usize, other: usize) -> Option<f64> {
        let paired: Vec<f64> = self.shown(one).iter().zip(&self.shown(other)).map(|(mine, other)| mine / other).collect();
        median(&paired).filter(|ratio| ratio.is_finite() && *ratio > 0.0)
    }
}

fn median(all: &[f64]) -> Option<f64> {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

fn spread(all: &[f64]) -> String {
    let Some(middle) = median(all) else { return "–".to_owned() };
    let (least, most) = all.iter().fold((f64::MAX, f64::MIN), |(least, most), one| (least.min(*one), most.max(*one)));
    let digits = if middle.abs() < 10.0 { if middle.abs() < 1.0 { 3 } else { 1 } } else { 0 };
    format!("{middle:.digits$} ({least:.digits$}–{most:.digits$})")
}

pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}
