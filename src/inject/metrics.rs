//! What the injector counts.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::review::Ending;

/// The form of [`InjectorMetrics::encode`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counters. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct InjectorMetrics {
    registry: Arc<Registry>,
    reviews: Family<OutcomeLabels, Counter>,
    certificates: Family<OutcomeLabels, Counter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl InjectorMetrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let (reviews, certificates) = (Family::default(), Family::default());
        registry.register("postern_injector_reviews", "Pods that were reviewed, by outcome", reviews.clone());
        registry.register(
            "postern_injector_certificate_reloads",
            "Certificates that were read again, by outcome",
            certificates.clone(),
        );
        Self { registry: Arc::new(registry), reviews, certificates }
    }

    pub(super) fn reviewed(&self, ending: Option<Ending>) {
        let outcome = match ending {
            Some(Ending::Injected) => "injected",
            Some(Ending::Unchanged) => "unchanged",
            Some(Ending::LeftAlone) => "left_alone",
            Some(Ending::Refused) => "refused",
            None => "malformed",
        };
        self.reviews.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(super) fn certificate(&self, outcome: &'static str) {
        self.certificates.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(super) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
