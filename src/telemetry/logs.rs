//! Log records to their receiver, from a thread that has nothing else to do; the connection lives on the runtime beside
//! the requests.
//!
//! A record is encoded straight from what it tells of into the bytes of the protocol: the messages of the protocol as
//! structures would be a dozen allocations for each, made on one thread and freed on another.

use std::fmt;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::runtime::Handle;

use crate::wire::{Kind, field_len, put_bytes, put_length, put_tag, put_varint, varint_len};

use super::names;
use super::send::{NotTaken, Sender, Taken};
use super::settings::LogSettings;

/// The way to the receiver of log records.
pub struct LogSender {
    sender: Sender,
    settings: LogSettings,
    /// The field `resource` of `ResourceLogs`.
    resource: Vec<u8>,
    /// The field `scope` of `ScopeLogs`.
    scope: Vec<u8>,
    on: Handle,
}

/// One log record, as the field `log_records` of `ScopeLogs`: records that lie behind each other are one message's.
#[derive(Debug, Default)]
pub struct LogEncoder(Vec<u8>);

/// Numbers of fields, each of the message in its name.
mod field {
    pub(super) const REQUEST_RESOURCE_LOGS: u32 = 1;
    pub(super) const RESOURCE_LOGS_RESOURCE: u32 = 1;
    pub(super) const RESOURCE_LOGS_SCOPE_LOGS: u32 = 2;
    pub(super) const SCOPE_LOGS_SCOPE: u32 = 1;
    pub(super) const SCOPE_LOGS_RECORDS: u32 = 2;
    pub(super) const RECORD_TIME: u32 = 1;
    pub(super) const RECORD_SEVERITY_NUMBER: u32 = 2;
    pub(super) const RECORD_SEVERITY_TEXT: u32 = 3;
    pub(super) const RECORD_BODY: u32 = 5;
    pub(super) const RECORD_ATTRIBUTES: u32 = 6;
    pub(super) const RECORD_FLAGS: u32 = 8;
    pub(super) const RECORD_TRACE_ID: u32 = 9;
    pub(super) const RECORD_SPAN_ID: u32 = 10;
    pub(super) const RECORD_OBSERVED_TIME: u32 = 11;
    pub(super) const RECORD_EVENT_NAME: u32 = 12;
    pub(super) const KEY_VALUE_KEY: u32 = 1;
    pub(super) const KEY_VALUE_VALUE: u32 = 2;
    pub(super) const ANY_VALUE_STRING: u32 = 1;
    pub(super) const ANY_VALUE_INT: u32 = 3;
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
        let scope = InstrumentationScope {
            name: names::RECORDS.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let resource = Resource::from(resource).encode_to_vec();
        let whole = |number, bytes: &[u8]| {
            let mut out = Vec::new();
            put_bytes(&mut out, number, bytes);
            out
        };
        Self {
            sender,
            settings,
            resource: whole(field::RESOURCE_LOGS_RESOURCE, &resource),
            scope: whole(field::SCOPE_LOGS_SCOPE, &scope.encode_to_vec()),
            on,
        }
    }

    /// How records are collected.
    pub const fn settings(&self) -> &LogSettings {
        &self.settings
    }

    /// Sends records as [`LogEncoder`] leaves them in one message, and waits for its end; must not be called inside a
    /// runtime. `None` when the runtime has ended first.
    pub fn deliver(&self, records: &[Bytes], within: Duration) -> Option<Result<Taken, NotTaken>> {
        let message = Bytes::from(self.message(records));
        let (sender, (done, outcome)) = (self.sender.clone(), mpsc::sync_channel(1));
        self.on.spawn(async move {
            // An error means that nobody waits any more.
            let _nobody = done.send(sender.deliver(message, within).await);
        });
        outcome.recv().ok()
    }

    /// `ExportLogsServiceRequest`.
    fn message(&self, records: &[Bytes]) -> Vec<u8> {
        let records_len: usize = records.iter().map(Bytes::len).sum();
        let scope_logs = self.scope.len().saturating_add(records_len);
        let resource_logs = self.resource.len().saturating_add(field_len(scope_logs));
        let mut out = Vec::with_capacity(field_len(resource_logs));
        put_length(&mut out, field::REQUEST_RESOURCE_LOGS, resource_logs);
        out.extend_from_slice(&self.resource);
        put_length(&mut out, field::RESOURCE_LOGS_SCOPE_LOGS, scope_logs);
        out.extend_from_slice(&self.scope);
        records.iter().for_each(|record| out.extend_from_slice(record));
        out
    }
}

// === impl LogEncoder ===

impl LogEncoder {
    /// When it happened and when it was noticed, in nanoseconds since 1970.
    pub fn times(&mut self, time: u64, observed: u64) {
        for (number, nanos) in [(field::RECORD_TIME, time), (field::RECORD_OBSERVED_TIME, observed)] {
            put_tag(&mut self.0, number, Kind::Fixed64);
            self.0.extend_from_slice(&nanos.to_le_bytes());
        }
    }

    /// What happened.
    pub fn event(&mut self, name: &str) {
        put_bytes(&mut self.0, field::RECORD_EVENT_NAME, name.as_bytes());
    }

    /// How bad it is.
    pub fn severity(&mut self, number: SeverityNumber, text: &str) {
        put_tag(&mut self.0, field::RECORD_SEVERITY_NUMBER, Kind::Varint);
        put_varint(&mut self.0, u64::try_from(i32::from(number)).unwrap_or_default());
        put_bytes(&mut self.0, field::RECORD_SEVERITY_TEXT, text.as_bytes());
    }

    /// The text of it.
    pub fn body(&mut self, text: &str) {
        put_length(&mut self.0, field::RECORD_BODY, field_len(text.len()));
        put_bytes(&mut self.0, field::ANY_VALUE_STRING, text.as_bytes());
    }

    /// The call that it happened in.
    pub fn trace(&mut self, trace: u128, span: u64, sampled: bool) {
        put_bytes(&mut self.0, field::RECORD_TRACE_ID, &trace.to_be_bytes());
        put_bytes(&mut self.0, field::RECORD_SPAN_ID, &span.to_be_bytes());
        put_tag(&mut self.0, field::RECORD_FLAGS, Kind::Fixed32);
        self.0.extend_from_slice(&u32::from(sampled).to_le_bytes());
    }

    /// Something to filter by.
    pub fn text(&mut self, key: &str, text: &str) {
        self.attribute(key, field_len(text.len()));
        put_bytes(&mut self.0, field::ANY_VALUE_STRING, text.as_bytes());
    }

    /// Something to filter by.
    pub fn number(&mut self, key: &str, number: u64) {
        let number = number.min(i64::MAX as u64);
        self.attribute(key, 1_usize.saturating_add(varint_len(number)));
        put_tag(&mut self.0, field::ANY_VALUE_INT, Kind::Varint);
        put_varint(&mut self.0, number);
    }

    /// All of an attribute but its value, which is so long.
    fn attribute(&mut self, key: &str, value: usize) {
        let length = field_len(key.len()).saturating_add(field_len(value));
        put_length(&mut self.0, field::RECORD_ATTRIBUTES, length);
        put_bytes(&mut self.0, field::KEY_VALUE_KEY, key.as_bytes());
        put_length(&mut self.0, field::KEY_VALUE_VALUE, value);
    }

    /// Puts the record behind others and begins the next one; gives how many bytes it has there.
    pub fn end(&mut self, records: &mut Vec<u8>) -> usize {
        put_bytes(records, field::SCOPE_LOGS_RECORDS, &self.0);
        let length = field_len(self.0.len());
        self.0.clear();
        length
    }
}

impl fmt::Debug for LogSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSender").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ScopeLogs};

    use super::*;

    #[test]
    fn records_read_as_they_were_meant() {
        let (mut log, mut bytes, mut lengths) = (LogEncoder::default(), Vec::new(), Vec::new());
        // Around each length at which a length takes one byte more.
        let texts: Vec<String> =
            [0, 1, 119, 120, 127, 128, 16_380, 16_390, 70_000].iter().map(|len| "ü".repeat(*len)).collect();
        for text in &texts {
            log.times(1_700_000_000_123_456_789, u64::MAX);
            log.event("an event");
            log.severity(SeverityNumber::Warn, "WARN");
            log.body(text);
            log.trace(u128::MAX - 1, 7, true);
            log.text("key", text);
            log.number("most", u64::MAX);
            log.number("number", text.len() as u64);
            lengths.push(log.end(&mut bytes));
        }
        assert_eq!(lengths.iter().sum::<usize>(), bytes.len());
        let value = |value| Some(AnyValue { value: Some(value) });
        let attribute =
            |key: &str, of| KeyValue { key: key.to_owned(), value: value(of), ..KeyValue::default() };
        let wanted = texts.iter().map(|text| LogRecord {
            time_unix_nano: 1_700_000_000_123_456_789,
            observed_time_unix_nano: u64::MAX,
            event_name: "an event".to_owned(),
            severity_number: SeverityNumber::Warn.into(),
            severity_text: "WARN".to_owned(),
            body: value(Value::StringValue(text.clone())),
            trace_id: (u128::MAX - 1).to_be_bytes().to_vec(),
            span_id: 7_u64.to_be_bytes().to_vec(),
            flags: 1,
            attributes: vec![
                attribute("key", Value::StringValue(text.clone())),
                attribute("most", Value::IntValue(i64::MAX)),
                attribute("number", Value::IntValue(text.len() as i64)),
            ],
            ..LogRecord::default()
        });
        assert_eq!(ScopeLogs::decode(bytes.as_slice()).unwrap().log_records, wanted.collect::<Vec<_>>());
    }
}
