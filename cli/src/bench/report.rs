//! The figures and their table.

use std::fmt::Write as _;

/// The middle and the worst of many times, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spread {
    pub p50: u64,
    pub p99: u64,
}

impl Spread {
    /// Sorts the times. Nearest rank.
    pub(super) fn of(times: &mut [u64]) -> Self {
        times.sort_unstable();
        let rank = |percent: usize| {
            let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(index).copied().unwrap_or_default()
        };
        Self {
            p50: rank(50),
            p99: rank(99),
        }
    }
}

/// What one server showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub server: &'static str,
    pub coalesce_ms: Option<u64>,
    /// CPU seconds per player and minute.
    pub cpu: f64,
    /// Resident bytes per player.
    pub memory: f64,
    /// 1 is everything.
    pub delivered: f64,
    pub latency: Spread,
    pub first: Spread,
    /// Joins per CPU second of the server, and per second of the clock.
    pub joins: Option<(f64, f64)>,
    /// Players that were lost, and why the first one was.
    pub lost: Option<(u64, String)>,
}

const HEAD: [&str; 11] = [
    "server",
    "coalesce",
    "CPU s/player/min",
    "x floor",
    "kB/player",
    "delivered",
    "latency p50",
    "p99 ms",
    "first p50",
    "p99 ms",
    "joins/s/core (per s)",
];

/// The rows as a table, each beside the floor of the same coalescing.
pub(super) fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| cells(row, rows)));
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(String::len)
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Writing to a string does not fail.
            let _ = if index == 0 {
                write!(text, "{cell:<width$}")
            } else {
                write!(text, "  {cell:>width$}")
            };
        }
        text.push('\n');
    }
    for row in rows {
        if let Some((lost, why)) = &row.lost {
            let _ = writeln!(text, "{}: {lost} players were lost: {why}", row.server);
        }
    }
    text
}

fn cells(row: &Row, rows: &[Row]) -> [String; HEAD.len()] {
    let dash = || "-".to_owned();
    let floor = rows
        .iter()
        .find(|other| other.server == "floor" && other.coalesce_ms == row.coalesce_ms)
        .filter(|floor| floor.cpu > 0.0);
    let millis = |micros: u64| format!("{:.1}", micros as f64 / 1000.0);
    [
        row.server.to_owned(),
        row.coalesce_ms.map_or_else(dash, |ms| format!("{ms} ms")),
        format!("{:.4}", row.cpu),
        floor.map_or_else(dash, |floor| format!("{:.2}", row.cpu / floor.cpu)),
        format!("{:.1}", row.memory / 1000.0),
        format!("{:.2} %", row.delivered * 100.0),
        millis(row.latency.p50),
        millis(row.latency.p99),
        millis(row.first.p50),
        millis(row.first.p99),
        row.joins
            .map_or_else(dash, |(core, wall)| format!("{core:.0} ({wall:.0})")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest_ones() {
        let mut times: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(Spread::of(&mut times), Spread { p50: 100, p99: 198 });
        assert_eq!(Spread::of(&mut [7]), Spread { p50: 7, p99: 7 });
        assert_eq!(Spread::of(&mut []), Spread::default());
    }

    #[test]
    fn a_row_stands_beside_the_floor_of_its_coalescing() {
        let row = |server, ms, cpu| Row {
            server,
            coalesce_ms: ms,
            cpu,
            ..Row::default()
        };
        let rows = [
            row("floor", Some(0), 0.02),
            row("floor", Some(40), 0.01),
            row("selvage", Some(40), 0.012),
            row("nginx-rtmp", None, 0.03),
        ];
        let table = table(&rows);
        let column = |line: usize, column: usize| {
            let words: Vec<&str> = table
                .lines()
                .nth(line)
                .unwrap()
                .split("  ")
                .filter(|w| !w.is_empty())
                .collect();
            words[column].trim().to_owned()
        };
        assert_eq!(column(3, 3), "1.20");
        assert_eq!(column(4, 3), "-");
        let widths: Vec<usize> = table.lines().map(str::len).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
    }
}
