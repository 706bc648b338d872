//! Log records to their receiver, from a thread that has nothing else to do: encoding happens there, and the
//! connection lives on the runtime beside the requests.

use std::fmt;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::runtime::Handle;

use super::names;
use super::send::{NotTaken, Sender, Taken};
use super::settings::LogSettings;

/// The way to the receiver of log records.
pub struct LogSender {
    sender: Sender,
    settings: LogSettings,
    resource: Resource,
    on: Handle,
}

// === impl LogSender ===

impl LogSender {
    /// Sends by way of the runtime that the connection lives on.
    pub fn new(
        sender: Sender,
        settings: LogSettings,
        resource: &opentelemetry_sdk::Resource,
        on: Handle,
    ) -> Self {
        Self { sender, settings, resource: resource.into(), on }
    }

    /// How records are collected.
    pub const fn settings(&self) -> &LogSettings {
        &self.settings
    }

    /// Sends one message and waits for its end; must not be called inside a runtime. `None` when the runtime has ended
    /// first.
    pub fn deliver(&self, log_records: Vec<LogRecord>, within: Duration) -> Option<Result<Taken, NotTaken>> {
        let scope = InstrumentationScope {
            name: names::RECORDS.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(self.resource.clone()),
                scope_logs: vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }],
                ..ResourceLogs::default()
            }],
        };
        let message = Bytes::from(request.encode_to_vec());
        drop(request);
        let (sender, (done, outcome)) = (self.sender.clone(), mpsc::sync_channel(1));
        self.on.spawn(async move {
            // An error means that nobody waits any more.
            let _nobody = done.send(sender.deliver(message, within).await);
        });
        outcome.recv().ok()
    }
}

impl fmt::Debug for LogSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSender").field("settings", &self.settings).finish_non_exhaustive()
    }
}
