use std::io::Write;

use super::*;

const CSV: &str = "venue,sensor,track,ts,x,y\nv1,s1,t1,1,2,3\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Name (below the folder), format and content of each part.
fn parts(
    name: &str,
    bytes: &[u8],
    expansion: ExpansionLimit,
) -> Result<Vec<(String, Format, Vec<u8>)>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let (read, prefix) = (BytesRead::default(), format!("{}/", folder.path().display()));
    let context = OpenContext {
        expansion,
        spill_dir: folder.path(),
        read: &read,
    };
    let mut seen = Vec::new();
    visit_parts(&Input::at(path), &context, &mut |part| {
        let mut content = Vec::new();
        match part.content {
            Content::Text(text) => text.read_to_end(&mut content),
            Content::Parquet(mut file) => file.read_to_end(&mut content),
        }
        .map_err(|source| FileError::Io {
            place: part.name.clone(),
            source,
        })?;
        seen.push((
            part.name.strip_prefix(&prefix).unwrap().to_owned(),
            part.format,
            content,
        ));
        Ok(())
    })
    .map_err(|error| error.to_string().replace(&prefix, ""))?;
    Ok(seen)
}

fn open(name: &str, bytes: &[u8]) -> Result<Vec<(String, Format, Vec<u8>)>, String> {
    parts(name, bytes, ExpansionLimit::default())
}

#[test]
fn compression_is_told_by_content_and_format_by_name() {
    let zstd = zstd::encode_all(CSV.as_bytes(), 1).unwrap();
    for (name, bytes) in [
        ("a.csv", CSV.as_bytes().to_vec()),
        ("a.csv.gz", gzip(CSV.as_bytes())),
        ("a.csv.zst", zstd.clone()),
        ("misnamed.csv", zstd),
        ("plain-after-all.csv.gz", CSV.as_bytes().to_vec()),
        ("twice.csv.gz", gzip(&gzip(CSV.as_bytes()))),
    ] {
        assert_eq!(
            open(name, &bytes).unwrap(),
            [(name.to_owned(), Format::Csv, CSV.as_bytes().to_vec())],
            "{name}"
        );
    }
}

#[test]
fn every_member_of_a_zip_is_a_part_of_its_own() {
    let packed = gzip(b"{\"a\":1}\n");
    let bytes = zip(&[
        ("day 1/a.csv", CSV.as_bytes()),
        ("b.ndjson.gz", &packed),
        (".DS_Store", b"x"),
        ("__MACOSX/a.csv", b"x"),
        ("c.parquet", b"PAR1....PAR1"),
    ]);
    assert_eq!(
        open("x.zip", &bytes).unwrap(),
        [
            (
                "x.zip:day 1/a.csv".to_owned(),
                Format::Csv,
                CSV.as_bytes().to_vec()
            ),
            (
                "x.zip:b.ndjson.gz".to_owned(),
                Format::Ndjson,
                b"{\"a\":1}\n".to_vec()
            ),
            (
                "x.zip:c.parquet".to_owned(),
                Format::Parquet,
                b"PAR1....PAR1".to_vec()
            ),
        ]
    );
}

#[test]
fn formats_without_an_extension_are_told_by_content() {
    for (text, format) in [
        (CSV, Format::Csv),
        ("\u{feff}a;b\n1;2\n", Format::Csv),
        ("{\"ts\": 1}\n{\"ts\": 2}\n", Format::Ndjson),
        (" [\n{\"ts\": 1}]", Format::Json),
        ("{\n \"ts\": 1\n}\n", Format::Json),
        ("PAR1", Format::Parquet),
    ] {
        assert_eq!(open("data", text.as_bytes()).unwrap()[0].1, format, "{text}");
    }
    assert_eq!(
        open("a.json", b"{\"ts\": 1}\n{\"ts\": 2}\n").unwrap()[0].1,
        Format::Ndjson
    );
    assert_eq!(open("a.json", b"{\n\"ts\": 1}").unwrap()[0].1, Format::Json);
    assert!(
        open("a.parquet", b"ts,x\n1,2\n")
            .unwrap_err()
            .contains("neither CSV")
    );
    assert!(open("data", b"\x00\x01\x02").unwrap_err().contains("neither CSV"));
    assert!(open("a.csv", b"\xff\xfea\0").unwrap_err().contains("UTF-16"));
}

#[test]
fn a_byte_order_mark_is_not_part_of_the_first_column() {
    assert_eq!(
        open("a.csv", "\u{feff}ts,x\n".as_bytes()).unwrap()[0].2,
        b"ts,x\n"
    );
}

#[test]
fn a_decompression_bomb_is_refused_with_its_place() {
    let limit = ExpansionLimit {
        free_bytes: 10_000,
        ratio_max: 250,
    };
    let zeros = vec![b' '; 8 << 20];
    let inner = zip(&[("zeros.csv", &zeros)]);
    let error = parts("bomb.zip", &inner, limit).unwrap_err();
    assert!(
        error.starts_with("bomb.zip:zeros.csv: ") && error.contains("bomb:") | error.contains("bomb"),
        "{error}"
    );
    let error = parts("bomb.csv.gz", &gzip(&zeros), limit).unwrap_err();
    assert!(error.contains("decompression bomb"), "{error}");
    assert!(
        open("honest.csv.gz", &gzip(&zeros)).is_ok(),
        "below the free size nothing is a bomb"
    );
}

#[test]
fn damage_is_named_with_its_place() {
    let whole = gzip(CSV.repeat(100).as_bytes());
    let error = open("cut.csv.gz", &whole[..whole.len() / 2]).unwrap_err();
    assert!(error.starts_with("cut.csv.gz: "), "{error}");
    let error = open("cut.zip", b"PK\x03\x04rubbish").unwrap_err();
    assert!(error.starts_with("cut.zip: damaged zip"), "{error}");
}

#[test]
fn folders_are_walked_in_order_and_say_what_they_skip() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "b.csv",
        "a/z.parquet",
        "a/b/c.ndjson.zst",
        "notes.md",
        "_SUCCESS",
        ".hidden.csv",
        "c.zip",
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    let found = collect(&[folder.path().to_owned()], folder.path()).unwrap();
    let below = |name: &String| {
        name.strip_prefix(&format!("{}/", folder.path().display()))
            .unwrap()
            .to_owned()
    };
    let names: Vec<String> = found.inputs.iter().map(|input| below(&input.name)).collect();
    assert_eq!(names, ["a/b/c.ndjson.zst", "a/z.parquet", "b.csv", "c.zip"]);
    assert_eq!(found.skipped.iter().map(below).collect::<Vec<_>>(), ["notes.md"]);

    let missing = collect(&[folder.path().join("nothing")], folder.path()).unwrap_err();
    assert!(missing.to_string().contains("nothing"), "{missing}");
}
