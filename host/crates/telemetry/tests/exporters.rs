//! What all exporters have in common, and files that cannot be written.

mod fixtures;
mod receivers;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use fixtures::record;
use receivers::attempt;
use tollgate_domain::{Resource, Span};
use tollgate_telemetry::StartAt::{Beginning, Now};
use tollgate_telemetry::{
    ConsoleFormat, Exporter, ExporterSettings, FileSettings, OtlpSettings, Protocol, SinkSettings,
    StartAt, TelemetryError, TelemetryErrorKind, build_exporters, spans,
};

type Outcome = Result<(), Box<dyn Error>>;

fn trace() -> Vec<Span> {
    spans(&record("completed"), None)
}

fn ndjson(path: &Path) -> SinkSettings {
    SinkSettings::Ndjson(FileSettings::new(path))
}

fn one(sink: SinkSettings) -> Result<Exporter, TelemetryError> {
    let built = build_exporters(vec![ExporterSettings::new("one", sink)], &Resource::default())?;
    let [exporter] = <[Exporter; 1]>::try_from(built).unwrap_or_else(|_| unreachable!("one"));
    Ok(exporter)
}

#[tokio::test]
async fn several_of_each_kind_work_side_by_side() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let jsonl = |name: &str| SinkSettings::OtlpJson(FileSettings::new(path(name)));
    let settings = vec![
        ExporterSettings::new("a", ndjson(&path("a/spans.ndjson"))),
        ExporterSettings::new("b", ndjson(&path("b.ndjson"))),
        ExporterSettings::new("c", jsonl("c.jsonl")),
        ExporterSettings { start_at: Beginning, ..ExporterSettings::new("d", jsonl("d.jsonl")) },
        ExporterSettings::new("e", SinkSettings::Otlp(OtlpSettings::new(Protocol::Grpc))),
    ];
    let mut exporters = build_exporters(settings, &Resource::default())?;
    let names: Vec<&str> = exporters.iter().map(Exporter::name).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    let starts: Vec<StartAt> = exporters.iter().map(Exporter::start_at).collect();

    assert_eq!(starts, [Now, Now, Now, Beginning, Now]);
    let gathers: Vec<bool> =
        exporters.iter().map(|exporter| !exporter.gathers_for().is_zero()).collect();
    assert_eq!(gathers, [true; 5]);
    exporters.pop();
    for mut exporter in exporters {
        for _ in 0..3 {
            assert_eq!(attempt(&mut exporter, &trace()).await.0, "taken");
        }
        exporter.close(Duration::from_secs(5)).await?;
    }
    let lines = |name: &str| fs::read_to_string(path(name)).map(|text| text.lines().count());
    assert_eq!((lines("a/spans.ndjson")?, lines("b.ndjson")?), (15, 15));
    assert_eq!((lines("c.jsonl")?, lines("d.jsonl")?), (3, 3));
    Ok(())
}

#[tokio::test]
async fn what_cannot_work_does_not_start() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "")?;
    let below = one(ndjson(&file.join("below/spans.ndjson")));
    let in_use =
        vec![ExporterSettings::new("a", ndjson(&file)), ExporterSettings::new("b", ndjson(&file))];
    let console = || SinkSettings::Console { format: ConsoleFormat::Tree, colour: false };
    let named_twice =
        vec![ExporterSettings::new("a", console()), ExporterSettings::new("a", console())];
    let otlp = |change: fn(&mut OtlpSettings)| {
        let mut settings = OtlpSettings::new(Protocol::Grpc);
        change(&mut settings);
        SinkSettings::Otlp(settings)
    };
    let no_url = otlp(|otlp| otlp.endpoint = "no url".to_owned());
    let no_header = otlp(|otlp| otlp.headers = vec![("a b".to_owned(), "s3cret".to_owned())]);
    let build = |settings| build_exporters(settings, &Resource::default());
    let cases = [
        (below.err(), TelemetryErrorKind::System, "below"),
        (build(in_use).err(), TelemetryErrorKind::Configuration, "another process"),
        (build(named_twice).err(), TelemetryErrorKind::Configuration, "two exporters are named a"),
        (one(no_url).err(), TelemetryErrorKind::Configuration, "no url"),
        (one(no_header).err(), TelemetryErrorKind::Configuration, "a b"),
    ];
    for (error, kind, words) in cases {
        let error = error.ok_or_else(|| format!("started: {words}"))?;
        assert_eq!(error.kind(), kind, "{error}");
        let text = error.to_string();
        assert!(text.contains(words) && !text.contains("s3cret"), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_full_disk_is_waited_for() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("spans.ndjson");
    std::os::unix::fs::symlink("/dev/full", &path)?;
    let mut exporter = one(ndjson(&path))?;
    let (outcome, message) = attempt(&mut exporter, &trace()).await;
    assert_eq!(outcome, "later", "{message}");
    assert!(message.contains("spans.ndjson") && message.contains("free some"), "{message}");
    // There is room again.
    fs::remove_file(&path)?;
    assert_eq!(attempt(&mut exporter, &trace()).await.0, "taken");
    assert_eq!(fs::read_to_string(&path)?.lines().count(), trace().len());
    Ok(())
}

#[tokio::test]
async fn a_write_that_hangs_holds_up_nothing_but_itself() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status()?;
    assert!(made.success());
    let mut exporter = one(ndjson(&path))?;
    // More than a pipe holds, and nobody reads.
    let large: Vec<Span> = (0..200).flat_map(|_| trace()).collect();
    let short = Duration::from_millis(200);
    for _ in 0..2 {
        assert!(tokio::time::timeout(short, exporter.send(&large)).await.is_err());
    }
    let (outcome, message) = attempt(&mut exporter, &trace()).await;
    assert_eq!(outcome, "later");
    assert!(message.contains("earlier writes hang"), "{message}");
    exporter.close(short).await?;
    Ok(())
}
