//! What the injector counts, as OpenMetrics text.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::names::injector;

use super::review::Ending;

/// The form of [`InjectorMetrics::encode`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counters. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct InjectorMetrics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    injected: AtomicU64,
    unchanged: AtomicU64,
    left_alone: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
    certificate_taken: AtomicU64,
    certificate_refused: AtomicU64,
}

impl InjectorMetrics {
    /// `None`: it was no review.
    pub(super) fn reviewed(&self, ending: Option<Ending>) {
        let counter = match ending {
            Some(Ending::Injected) => &self.0.injected,
            Some(Ending::Unchanged) => &self.0.unchanged,
            Some(Ending::LeftAlone) => &self.0.left_alone,
            Some(Ending::Refused) => &self.0.refused,
            None => &self.0.malformed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn certificate(&self, taken: bool) {
        let counter = if taken { &self.0.certificate_taken } else { &self.0.certificate_refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn encode(&self) -> String {
        let counters = &*self.0;
        let mut text = String::new();
        for (family, help, outcomes) in [
            (
                injector::REVIEWS,
                "Pods that were reviewed, by outcome",
                &[
                    ("injected", &counters.injected),
                    ("unchanged", &counters.unchanged),
                    ("left_alone", &counters.left_alone),
                    ("refused", &counters.refused),
                    ("malformed", &counters.malformed),
                ][..],
            ),
            (
                injector::CERTIFICATE_RELOADS,
                "Certificates that were read again, by outcome",
                &[("taken", &counters.certificate_taken), ("refused", &counters.certificate_refused)],
            ),
        ] {
            // Writing to a string does not fail.
            let _ok = writeln!(text, "# HELP {family} {help}\n# TYPE {family} counter");
            for (outcome, counter) in outcomes {
                let count = counter.load(Ordering::Relaxed);
                let _ok = writeln!(text, "{family}_total{{outcome=\"{outcome}\"}} {count}");
            }
        }
        text.push_str("# EOF\n");
        text
    }
}
