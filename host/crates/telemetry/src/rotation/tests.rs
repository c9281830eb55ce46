//! Files by size and age, every state that a crash may leave, and a crash at every step.

use std::io::Read;
use std::time::Duration;

use super::*;
use crate::file::Current;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const LINES_A_FILE: u64 = 4;

/// A line of ten bytes.
fn line(number: usize) -> String {
    format!("{number:09}\n")
}

fn rotation(compress: Option<Compression>, keep: Option<usize>) -> Rotation {
    Rotation { max_bytes: Some(10 * LINES_A_FILE), max_age: None, keep, compress }
}

fn names(folder: &Path) -> Fallible<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().unwrap());
    let mut names: Vec<String> = fs::read_dir(folder)?.map(name).collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Fallible<String> {
    let (file, mut text) = (File::open(path)?, String::new());
    match path.extension().and_then(OsStr::to_str) {
        Some("gz") => flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text)?,
        Some("zst") => zstd::Decoder::new(file)?.read_to_string(&mut text)?,
        _ => BufReader::new(file).read_to_string(&mut text)?,
    };
    Ok(text)
}

/// The lines of all files, the oldest file first.
fn lines(folder: &Path) -> Fallible<Vec<String>> {
    let mut names = names(folder)?;
    // `spans-000001...` sorts before `spans.ndjson`.
    names.retain(|name| !name.ends_with(PARTIAL));
    let texts: Vec<String> =
        names.iter().map(|name| read(&folder.join(name))).collect::<Fallible<_>>()?;
    Ok(texts.concat().lines().map(|line| format!("{line}\n")).collect())
}

#[test]
fn a_file_is_put_aside_before_it_is_too_large() -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("spans.ndjson");
    let mut current = Current::open(path.clone(), rotation(None, None), false)?;
    for number in 0..10 {
        current.append(line(number).as_bytes())?;
    }
    let names = names(folder.path())?;
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[0].starts_with("spans-000001-2") && names[0].ends_with("Z.ndjson"), "{names:?}");
    assert!(names[1].starts_with("spans-000002-2"), "{names:?}");
    assert_eq!(fs::read_to_string(&path)?, format!("{}{}", line(8), line(9)));
    assert_eq!(lines(folder.path())?, (0..10).map(line).collect::<Vec<_>>());
    // A batch that is larger than a file has one of its own.
    let large = (10..20).map(line).collect::<String>();
    current.append(large.as_bytes())?;
    assert_eq!(fs::read_to_string(&path)?, large);
    current.append(line(20).as_bytes())?;
    assert_eq!(fs::read_to_string(&path)?, line(20));
    assert_eq!(lines(folder.path())?, (0..21).map(line).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_file_is_put_aside_when_it_is_old() -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("spans.ndjson");
    let old = |max_age| Rotation { max_age: Some(max_age), ..Rotation::default() };
    let hour = Duration::from_secs(3600);
    let mut current = Current::open(path.clone(), old(hour), false)?;
    current.append(b"1\n")?;
    current.append(b"2\n")?;
    drop(current);
    assert_eq!(names(folder.path())?, ["spans.ndjson"]);
    std::thread::sleep(Duration::from_millis(20));
    // Its age is its own, not that of the process.
    let mut current = Current::open(path.clone(), old(Duration::from_millis(10)), false)?;
    current.append(b"3\n")?;
    assert_eq!(fs::read_to_string(&path)?, "3\n");
    assert_eq!(lines(folder.path())?, ["1\n", "2\n", "3\n"]);
    // An empty file is never put aside.
    fs::write(&path, "")?;
    std::thread::sleep(Duration::from_millis(20));
    let count = names(folder.path())?.len();
    current.append(b"4\n")?;
    assert_eq!(names(folder.path())?.len(), count);
    Ok(())
}

#[test]
fn only_our_own_names_are_touched() -> Fallible<()> {
    const OURS: &str = "spans-000007-20260722T101530Z.ndjson";
    let others = [
        "spans.ndjson",
        "spans-7-20260722T101530Z.ndjson",
        "spans-000007-20260722T101530Z.ndjson.bak",
        "spans-000007-20260722T101530Z.ndjson.gz.partial.bak",
        "spans-000007-20260722T101530Z.jsonl",
        "spans-000007-2026-07-22.ndjson",
        "spans-000007-20260722T101530Z",
        "spans-00000x-20260722T101530Z.ndjson",
        "spans-000007-aaaaaaaaTaaaaaaZ.ndjson",
        "spans-99999999999999999999-20260722T101530Z.ndjson",
        "other-spans-000007-20260722T101530Z.ndjson",
        "spans-\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}-\u{e9}0260722T101530Z.ndjson",
    ];
    let folder = tempfile::tempdir()?;
    for name in others.iter().chain([&OURS]) {
        fs::write(folder.path().join(name), "x\n")?;
    }
    let shelf = Shelf::of(&folder.path().join("spans.ndjson"));
    let next = shelf.next(SystemTime::UNIX_EPOCH)?;
    assert_eq!(next, folder.path().join("spans-000008-19700101T000000Z.ndjson"));
    shelf.tidy(&rotation(None, Some(0)))?;
    let mut left = others.to_vec();
    left.sort_unstable();
    assert_eq!(names(folder.path())?, left);
    Ok(())
}

#[test]
fn every_state_that_a_crash_may_leave_is_tidied() -> Fallible<()> {
    const ONE: &str = "s-000001-20260722T101530Z.x";
    const TWO: &str = "s-000002-20200101T000000Z.x";
    let gz = |name: &str| format!("{name}.gz");
    let partial = |name: &str| format!("{name}.gz.partial");
    let zst = |name: &str| format!("{name}.zst");
    let gzip = Some(Compression::Gzip);
    let cases = [
        (vec![], gzip, None, vec![]),
        (vec![ONE.to_owned()], None, None, vec![ONE.to_owned()]),
        (vec![ONE.to_owned()], gzip, None, vec![gz(ONE)]),
        (vec![ONE.to_owned()], Some(Compression::Zstd), None, vec![zst(ONE)]),
        (vec![ONE.to_owned(), partial(ONE)], gzip, None, vec![gz(ONE)]),
        (vec![ONE.to_owned(), partial(ONE)], None, None, vec![ONE.to_owned()]),
        (vec![ONE.to_owned(), gz(ONE)], gzip, None, vec![gz(ONE)]),
        (vec![ONE.to_owned(), gz(ONE)], None, None, vec![gz(ONE)]),
        // What is compressed already stays as it is.
        (vec![gz(ONE), TWO.to_owned()], Some(Compression::Zstd), None, vec![gz(ONE), zst(TWO)]),
        // By number, not by time.
        (vec![ONE.to_owned(), TWO.to_owned()], gzip, Some(1), vec![gz(TWO)]),
        (vec![gz(ONE), ONE.to_owned(), partial(ONE), gz(TWO)], gzip, Some(1), vec![gz(TWO)]),
        (vec![gz(ONE), gz(TWO)], gzip, Some(2), vec![gz(ONE), gz(TWO)]),
    ];
    for (before, compress, keep, after) in cases {
        let folder = tempfile::tempdir()?;
        for name in &before {
            fs::write(folder.path().join(name), "x\n")?;
        }
        Shelf::of(&folder.path().join("s.x")).tidy(&rotation(compress, keep))?;
        assert_eq!(names(folder.path())?, after, "{before:?} {compress:?} {keep:?}");
    }
    Ok(())
}

#[test]
fn a_compressed_file_holds_the_same_and_is_as_old() -> Fallible<()> {
    let text: String = (0..100_000).map(line).collect();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("s-000001-20260722T101530Z.x");
        fs::write(&path, &text)?;
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        File::options().append(true).open(&path)?.set_modified(written)?;
        compress(&path, compression)?;
        let name = names(folder.path())?.pop().unwrap();
        let compressed = folder.path().join(name);
        assert_eq!(read(&compressed)?, text);
        let about = fs::metadata(&compressed)?;
        assert_eq!(about.modified()?, written);
        assert!(about.len() < 400_000, "{} bytes", about.len());
    }
    Ok(())
}

/// Appends ten lines one by one and tidies after each, until the process ends. Returns how many
/// were acknowledged.
fn live(path: &Path, rotation: Rotation) -> usize {
    let Ok(mut current) = Current::open(path.to_owned(), rotation, false) else { return 0 };
    for number in 0..10 {
        if current.append(line(number).as_bytes()).is_err() {
            return number;
        }
        if Shelf::of(path).tidy(&rotation).is_err() {
            return number + 1;
        }
    }
    10
}

#[test]
fn the_process_may_end_at_every_step() -> Fallible<()> {
    for compress in [None, Some(Compression::Gzip), Some(Compression::Zstd)] {
        let rotation = rotation(compress, None);
        let mut ends = 0;
        for steps in 0.. {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("spans.ndjson");
            crash::after(Some(steps));
            let acknowledged = live(&path, rotation);
            let survived = step().is_ok();
            crash::after(None);

            // The next process.
            let mut current = Current::open(path.clone(), rotation, false)?;
            Shelf::of(&path).tidy(&rotation)?;
            let found = lines(folder.path())?;
            let wanted: Vec<String> = (0..acknowledged).map(line).collect();
            assert_eq!(found, wanted, "{compress:?} {steps}: each line once, in order");
            current.append(b"after 000\n")?;
            Shelf::of(&path).tidy(&rotation)?;
            assert_eq!(lines(folder.path())?.len(), acknowledged + 1);
            let names = names(folder.path())?;
            let plain = names.iter().filter(|name| name.ends_with(".ndjson")).count();
            assert!(plain == 1 || compress.is_none(), "{names:?}");
            assert!(!names.iter().any(|name| name.ends_with(PARTIAL)), "{names:?}");
            if survived {
                break;
            }
            ends += 1;
        }
        // Two files are put aside; each is at least a rename, and a copy in five changes.
        let least = if compress.is_some() { 12 } else { 4 };
        assert!(ends >= least, "{compress:?}: {ends} steps");
    }
    Ok(())
}
