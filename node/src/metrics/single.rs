//! Figures of single streams, for those who want them and have few.
//!
//! Whoever names streams is a client, so there is no end of names: [`PerStream`] shows no more than
//! it was told to, and says how many it left out. A stream that is shown keeps its series until it
//! ends; the place goes to the next then. Which streams are there, and how they stand, is
//! asked when somebody scrapes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Counter, Counters, Gauge, Gauges, Metrics, level};
use crate::config::{Invalid, Validate};

/// Streams with series of their own, at most: each has a few series on every node where it is, and
/// a Prometheus that is not made for more has trouble with some ten thousand.
pub const STREAMS_MAX: usize = 10_000;

/// What tells streams apart.
const LABELS: &[&str] = &["vhost", "app", "instance", "stream"];

/// The table `metrics` of a configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many streams have series of their own, with their names as a label; 0 is none. Who may
    /// scrape learns their names then.
    pub streams: usize,
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), Invalid> {
        if self.streams > STREAMS_MAX {
            let expected = format!("at most {STREAMS_MAX}");
            return Err(Invalid::new("streams", self.streams, expected));
        }
        Ok(())
    }
}

/// Which stream. Instances and names may hold slashes, so that nothing but the parts tells two apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The virtual host.
    pub vhost: String,
    /// The application.
    pub app: String,
    /// Its instance.
    pub instance: String,
    /// The stream's name in it.
    pub stream: String,
}

impl Named {
    fn labels(&self) -> [&str; 4] {
        [&self.vhost, &self.app, &self.instance, &self.stream]
    }
}

/// How a figure of streams moves.
#[derive(Debug)]
enum Figure {
    Grows(Counters),
    Stands(Gauges),
}

/// See the [module](self). `N` figures are kept for each stream.
#[derive(Debug)]
pub struct PerStream<const N: usize> {
    max: usize,
    figures: [Figure; N],
    left_out: Gauge,
    shown: Mutex<BTreeSet<Named>>,
}

/// What a figure of streams is called, what it says, and whether it only grows.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Whether it only grows while a stream lasts.
    pub grows: bool,
}

impl<const N: usize> PerStream<N> {
    /// For as many streams as the settings say; `None` if that is none.
    #[must_use]
    pub fn new(metrics: &Metrics, settings: Settings, about: [About; N]) -> Option<Self> {
        if settings.streams == 0 {
            return None;
        }
        let figures = about.map(|About { name, help, grows }| {
            if grows {
                Figure::Grows(metrics.counters(name, help, LABELS))
            } else {
                Figure::Stands(metrics.gauges(name, help, LABELS))
            }
        });
        Some(Self {
            max: settings.streams,
            figures,
            left_out: metrics.gauge(
                "selvage_streams_without_series",
                "Streams here that have no series of their own because others have them.",
            ),
            shown: Mutex::default(),
        })
    }

    /// These are all the streams there are, and how they stand.
    pub fn show(&self, present: &BTreeMap<Named, [u64; N]>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in shown.extract_if(.., |named| !present.contains_key(named)) {
            for figure in &self.figures {
                // It is there, or it was never set.
                let _ = match figure {
                    Figure::Grows(counters) => counters.remove_label_values(&gone.labels()),
                    Figure::Stands(gauges) => gauges.remove_label_values(&gone.labels()),
                };
            }
        }
        for named in present.keys() {
            if shown.len() >= self.max {
                break;
            }
            if !shown.contains(named) {
                shown.insert(named.clone());
            }
        }
        for named in shown.iter() {
            let Some(values) = present.get(named) else {
                continue;
            };
            for (figure, value) in self.figures.iter().zip(values) {
                match figure {
                    Figure::Grows(counters) => {
                        follow(&counters.with_label_values(&named.labels()), *value);
                    }
                    Figure::Stands(gauges) => {
                        gauges.with_label_values(&named.labels()).set(level(*value));
                    }
                }
            }
        }
        self.left_out.set(level(present.len() - shown.len()));
    }
}

/// Sets a counter to what a stream has counted, which begins anew with a new stream of the name.
fn follow(counter: &Counter, counted: u64) {
    if counted < counter.get() {
        counter.reset();
    }
    super::catch_up(counter, counted);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: [About; 2] = [
        About {
            name: "selvage_stream_things_total",
            help: "Things.",
            grows: true,
        },
        About {
            name: "selvage_stream_level",
            help: "Level.",
            grows: false,
        },
    ];

    fn named(stream: &str) -> Named {
        Named {
            vhost: "v".into(),
            app: "live".into(),
            instance: "i".into(),
            stream: stream.into(),
        }
    }

    fn present<const N: usize>(streams: [(&str, [u64; 2]); N]) -> BTreeMap<Named, [u64; 2]> {
        let named = |(stream, values)| (named(stream), values);
        streams.map(named).into()
    }

    fn series(text: &str) -> Vec<&str> {
        let of_streams = |line: &&str| line.starts_with("selvage_stream");
        text.lines().filter(of_streams).collect()
    }

    #[tokio::test]
    async fn so_many_streams_as_were_asked_for_have_series_for_as_long_as_they_last() {
        let metrics = Metrics::new("edge", "edge-0");
        let streams = PerStream::new(&metrics, Settings { streams: 2 }, ABOUT).unwrap();
        streams.show(&present([("b", [1, 2]), ("c", [3, 4])]));
        // One that comes later takes nobody's place.
        streams.show(&present([("a", [9, 9]), ("b", [5, 1]), ("c", [3, 0])]));
        let text = metrics.text().await;
        let expected = [
            "selvage_stream_level{app=\"live\",instance=\"i\",stream=\"b\",vhost=\"v\"} 1",
            "selvage_stream_level{app=\"live\",instance=\"i\",stream=\"c\",vhost=\"v\"} 0",
            "selvage_stream_things_total{app=\"live\",instance=\"i\",stream=\"b\",vhost=\"v\"} 5",
            "selvage_stream_things_total{app=\"live\",instance=\"i\",stream=\"c\",vhost=\"v\"} 3",
            "selvage_streams_without_series 1",
        ];
        assert_eq!(series(&text), expected);
        // One that ends makes room; one that begins anew counts anew.
        streams.show(&present([("a", [9, 9]), ("c", [2, 0])]));
        let text = metrics.text().await;
        let expected = [
            "selvage_stream_level{app=\"live\",instance=\"i\",stream=\"a\",vhost=\"v\"} 9",
            "selvage_stream_level{app=\"live\",instance=\"i\",stream=\"c\",vhost=\"v\"} 0",
            "selvage_stream_things_total{app=\"live\",instance=\"i\",stream=\"a\",vhost=\"v\"} 9",
            "selvage_stream_things_total{app=\"live\",instance=\"i\",stream=\"c\",vhost=\"v\"} 2",
            "selvage_streams_without_series 0",
        ];
        assert_eq!(series(&text), expected);
    }

    #[tokio::test]
    async fn a_name_that_is_made_to_break_the_format_stays_in_its_label() {
        let metrics = Metrics::new("edge", "edge-0");
        let streams = PerStream::new(&metrics, Settings { streams: 2 }, ABOUT).unwrap();
        streams.show(&present([("a\"} 7\nselvage_up \\", [1, 1])]));
        let text = metrics.text().await;
        let line = r#"selvage_stream_level{app="live",instance="i",stream="a\"} 7\nselvage_up \\",vhost="v"} 1"#;
        assert!(series(&text).contains(&line), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("selvage_up")));
    }

    #[test]
    fn nothing_is_kept_unless_it_is_asked_for() {
        let metrics = Metrics::new("edge", "edge-0");
        assert!(PerStream::new(&metrics, Settings::default(), ABOUT).is_none());
        let too_many = Settings {
            streams: STREAMS_MAX + 1,
        };
        assert!(too_many.validate().is_err());
    }
}
