//! From settings and OpenTelemetry's variables to the exporters that run.

use std::path::Path;

use tollgate_settings::{
    Compression, Console, Destination, Exporter, Protocol, Receiver, Settings, SpanFile, StartAt,
};
use tollgate_telemetry::{
    ConsoleFormat, ExporterSettings, FileSettings, FromEnvironment, OtlpSettings, Rotation,
    SinkSettings,
};

/// The exporters that the settings name, and the OTLP receiver that the environment names where
/// the settings name none.
pub(crate) fn of(settings: &Settings, environment: &FromEnvironment) -> Vec<ExporterSettings> {
    if environment.disabled {
        return Vec::new();
    }
    let named = settings.exporters.iter();
    let mut exporters: Vec<ExporterSettings> = named
        .filter_map(|exporter| one(exporter, environment.colour, &settings.data_dir))
        .collect();
    let is_otlp = |exporter: &Exporter| matches!(exporter.destination, Destination::Otlp(_));
    if let Some(otlp) = &environment.traces
        && !settings.exporters.iter().any(is_otlp)
    {
        exporters.push(ExporterSettings::new("otlp", SinkSettings::Otlp(otlp.clone())));
    }
    exporters
}

/// None if it is turned off.
fn one(exporter: &Exporter, colour: bool, data: &Path) -> Option<ExporterSettings> {
    let sink = match &exporter.destination {
        Destination::Console(Console::Off) => return None,
        Destination::Console(Console::Tree) => {
            SinkSettings::Console { format: ConsoleFormat::Tree, colour }
        }
        Destination::Console(Console::Json) => {
            SinkSettings::Console { format: ConsoleFormat::Json, colour }
        }
        Destination::Ndjson(file) => SinkSettings::Ndjson(span_file(file, data)),
        Destination::OtlpJson(file) => SinkSettings::OtlpJson(span_file(file, data)),
        Destination::Otlp(to) => SinkSettings::Otlp(receiver(to)),
    };
    let start_at = match exporter.start {
        StartAt::Now => tollgate_telemetry::StartAt::Now,
        StartAt::Beginning => tollgate_telemetry::StartAt::Beginning,
    };
    let traces = exporter.traces.clone();
    Some(ExporterSettings { start_at, traces, ..ExporterSettings::new(&exporter.name, sink) })
}

/// A file elsewhere than with the data is there for another program to read.
fn span_file(file: &SpanFile, data: &Path) -> FileSettings {
    let rotation = Rotation {
        max_bytes: file.rotate_bytes,
        max_age: file.rotate_after,
        keep: file.keep,
        compress: file.compress.map(compression),
    };
    let private = file.path.starts_with(data);
    FileSettings { rotation, private, ..FileSettings::new(file.path.clone()) }
}

fn receiver(to: &Receiver) -> OtlpSettings {
    let protocol = match to.protocol {
        Protocol::Grpc => tollgate_telemetry::Protocol::Grpc,
        Protocol::HttpProtobuf => tollgate_telemetry::Protocol::HttpProtobuf,
        Protocol::HttpJson => tollgate_telemetry::Protocol::HttpJson,
    };
    let revealed = |(name, value): &(String, tollgate_settings::Secret)| {
        (name.clone(), value.reveal().to_owned())
    };
    OtlpSettings {
        endpoint: to.endpoint.clone(),
        headers: to.headers.iter().map(revealed).collect(),
        timeout: to.timeout,
        compression: to.compression.map(compression),
        certificate: to.certificate.clone(),
        client_certificate: to.client_certificate.clone(),
        ..OtlpSettings::new(protocol)
    }
}

fn compression(compression: Compression) -> tollgate_telemetry::Compression {
    match compression {
        Compression::Gzip => tollgate_telemetry::Compression::Gzip,
        Compression::Zstd => tollgate_telemetry::Compression::Zstd,
    }
}
