//! Finding the files to import and opening them: folders, compression, formats.
//!
//! [`collect`] turns the given paths into [`Input`]s: files as named, folders recursively in sorted order, `-` as standard
//! input (kept in the spill folder, since a file is read twice: once for its hash, once for its rows).
//!
//! [`visit_parts`] opens one input and hands its [`Part`]s to a callback: one for a plain or compressed file, one per member
//! for a zip. Compression is told by the content, the format by the extension and, failing that, by the content. All is
//! streamed; only Parquet that lies inside something else is unpacked to the spill folder, because it must be sought in.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use zip::ZipArchive;

use super::error::{FileError, ImportError};
use super::expansion::{BytesRead, CountedFile, ExpansionGuard, ExpansionLimit};

/// Levels of compression inside each other that are opened (`a.zip` with `b.csv.gz` are two).
const NESTING_MAX: usize = 3;
/// Levels of folders that are walked.
const FOLDER_DEPTH_MAX: usize = 32;
/// Bytes looked at to tell what something is.
const HEAD_BYTES: u64 = 8 << 10;

/// The formats that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A header and rows.
    Csv,
    /// A JSON object per line.
    Ndjson,
    /// An array of objects, or one object.
    Json,
    /// Parquet.
    Parquet,
}

impl Format {
    fn of_extension(extension: &str) -> Option<Self> {
        match extension {
            "csv" | "tsv" => Some(Format::Csv),
            "ndjson" | "jsonl" | "ldjson" => Some(Format::Ndjson),
            "json" => Some(Format::Json),
            "parquet" | "pq" => Some(Format::Parquet),
            _ => None,
        }
    }
}

/// A file to import.
#[derive(Debug)]
pub(super) struct Input {
    /// Its path as given, for people and the quarantine.
    pub(super) name: String,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Path(PathBuf),
    Spooled(File),
}

impl Input {
    /// Opens the file at its beginning.
    pub(super) fn open(&self) -> io::Result<File> {
        match &self.source {
            Source::Path(path) => File::open(path),
            Source::Spooled(file) => {
                let mut file = file.try_clone()?;
                file.seek(SeekFrom::Start(0))?;
                Ok(file)
            }
        }
    }
}

/// What [`collect`] found.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// Files to import, in order.
    pub(super) inputs: Vec<Input>,
    /// Files in folders whose names tell no format.
    pub(super) skipped: Vec<String>,
}

/// Finds the files that the paths name. Blocking.
pub(super) fn collect(paths: &[PathBuf], spill_dir: &Path) -> Result<Collected, ImportError> {
    let mut found = Collected::default();
    for path in paths {
        if path.as_os_str() == "-" {
            let file = spool(&mut io::stdin().lock(), spill_dir).map_err(ImportError::Spill)?;
            found.inputs.push(Input {
                name: "stdin".to_owned(),
                source: Source::Spooled(file),
            });
            continue;
        }
        let metadata = fs::metadata(path)
            .map_err(|error| ImportError::NoFiles(format!("{}: {error}", path.display())))?;
        if metadata.is_dir() {
            collect_folder(path, 0, &mut found)
                .map_err(|error| ImportError::NoFiles(format!("{}: {error}", path.display())))?;
        } else {
            found.inputs.push(Input::at(path.clone()));
        }
    }
    if found.inputs.is_empty() {
        let given: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(ImportError::NoFiles(format!(
            "no CSV, NDJSON, JSON or Parquet file in {}",
            given.join(", ")
        )));
    }
    Ok(found)
}

impl Input {
    fn at(path: PathBuf) -> Self {
        Self {
            name: path.display().to_string(),
            source: Source::Path(path),
        }
    }
}

fn collect_folder(folder: &Path, depth: usize, found: &mut Collected) -> io::Result<()> {
    if depth > FOLDER_DEPTH_MAX {
        return Err(io::Error::other(format!(
            "more than {FOLDER_DEPTH_MAX} folders inside each other"
        )));
    }
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        // Hidden files, and the markers and logs that other tools leave beside data (`_SUCCESS`, `_delta_log`).
        if name.to_string_lossy().starts_with(['.', '_']) {
            continue;
        }
        if fs::metadata(&path)?.is_dir() {
            collect_folder(&path, depth + 1, found)?;
        } else if looks_importable(&path) {
            found.inputs.push(Input::at(path));
        } else {
            found.skipped.push(path.display().to_string());
        }
    }
    Ok(())
}

fn looks_importable(path: &Path) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    name.ends_with(".zip") || format_of_name(&name).is_some()
}

/// The format that a name tells, compression aside.
fn format_of_name(name: &str) -> Option<Format> {
    let name = name.to_lowercase();
    let bare = [".gz", ".gzip", ".zst", ".zstd"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(&name);
    let (_, extension) = bare.rsplit_once('.')?;
    Format::of_extension(extension)
}

/// A stretch of one format: a whole file, or a member of a zip.
pub(super) struct Part<'a> {
    /// Name of the file, followed by `:` and the member's name inside a zip.
    pub(super) name: String,
    /// Its format.
    pub(super) format: Format,
    /// Its bytes.
    pub(super) content: Content<'a>,
}

/// The bytes of a [`Part`].
pub(super) enum Content<'a> {
    /// Text, decompressed as it is read.
    Text(&'a mut dyn BufRead),
    /// A Parquet file.
    Parquet(File),
}

/// What [`visit_parts`] needs besides the file.
#[derive(Debug)]
pub(super) struct OpenContext<'a> {
    /// How far compressed content may expand.
    pub(super) expansion: ExpansionLimit,
    /// Where Parquet is unpacked to.
    pub(super) spill_dir: &'a Path,
    /// Counts what is read of the file.
    pub(super) read: &'a BytesRead,
}

/// Called with each part.
pub(super) type Visitor<'v> = dyn FnMut(Part<'_>) -> Result<(), FileError> + 'v;

/// Opens an input and hands its parts to `visit`, in order. Blocking.
pub(super) fn visit_parts(
    input: &Input,
    context: &OpenContext<'_>,
    visit: &mut Visitor<'_>,
) -> Result<(), FileError> {
    let name = &input.name;
    let io_error = |source| FileError::io(Path::new(name), source);
    let mut file = input.open().map_err(io_error)?;
    let mut head = Vec::with_capacity(4);
    (&file).take(4).read_to_end(&mut head).map_err(io_error)?;
    file.seek(SeekFrom::Start(0)).map_err(io_error)?;
    match Wrapping::of(&head) {
        Wrapping::Zip => visit_zip(name, CountedFile::new(file, context.read.clone()), context, visit),
        Wrapping::Parquet => visit(Part {
            name: name.clone(),
            format: Format::Parquet,
            content: Content::Parquet(file),
        }),
        _ => visit_stream(
            name,
            &mut CountedFile::new(file, context.read.clone()),
            context,
            0,
            visit,
        ),
    }
}

fn visit_zip(
    name: &str,
    file: CountedFile,
    context: &OpenContext<'_>,
    visit: &mut Visitor<'_>,
) -> Result<(), FileError> {
    let zip_error = |place: &str, error: zip::result::ZipError| {
        FileError::content(place, format!("damaged zip: {error}"))
    };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| zip_error(name, error))?;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(|error| zip_error(name, error))?;
        let member_name = member
            .name()
            .map_err(|error| zip_error(name, error))?
            .into_owned();
        let last = member_name.rsplit(['/', '\\']).next().unwrap_or(&member_name);
        // Finder's resource forks and hidden files are no data.
        if member.is_dir() || member_name.starts_with("__MACOSX/") || last.starts_with('.') {
            continue;
        }
        let place = format!("{name}:{member_name}");
        let mut guarded = ExpansionGuard::new(&mut member, context.read.clone(), context.expansion);
        visit_stream(&place, &mut guarded, context, 1, visit)?;
    }
    Ok(())
}

/// Unwraps a stream until a format is reached.
fn visit_stream(
    place: &str,
    stream: &mut dyn Read,
    context: &OpenContext<'_>,
    depth: usize,
    visit: &mut Visitor<'_>,
) -> Result<(), FileError> {
    let io_error = |source| FileError::Io {
        place: place.to_owned(),
        source,
    };
    if depth > NESTING_MAX {
        return Err(FileError::content(
            place,
            format!("compressed more than {NESTING_MAX} times over"),
        ));
    }
    let mut head = Vec::new();
    stream.take(HEAD_BYTES).read_to_end(&mut head).map_err(io_error)?;
    let wrapping = Wrapping::of(&head);
    let format = match wrapping {
        Wrapping::None => match format_of_name(place) {
            // A JSON file often holds an object per line.
            Some(Format::Json) => sniff(&head)
                .filter(|format| *format == Format::Ndjson)
                .or(Some(Format::Json)),
            // Parquet without its mark is none.
            Some(Format::Parquet) => None,
            Some(format) => Some(format),
            None => sniff(&head),
        },
        _ => None,
    };
    let rest = Cursor::new(head).chain(stream);
    match wrapping {
        Wrapping::Gzip => {
            let decoder = MultiGzDecoder::new(BufReader::with_capacity(128 << 10, rest));
            let mut guarded = ExpansionGuard::new(decoder, context.read.clone(), context.expansion);
            visit_stream(place, &mut guarded, context, depth + 1, visit)
        }
        Wrapping::Zstd => {
            let decoder = zstd::stream::read::Decoder::new(rest).map_err(io_error)?;
            let mut guarded = ExpansionGuard::new(decoder, context.read.clone(), context.expansion);
            visit_stream(place, &mut guarded, context, depth + 1, visit)
        }
        Wrapping::Zip => Err(FileError::content(
            place,
            "a zip inside something compressed: unpack it first",
        )),
        Wrapping::Parquet => {
            let mut rest = rest;
            let file = spool(&mut rest, context.spill_dir).map_err(io_error)?;
            visit(Part {
                name: place.to_owned(),
                format: Format::Parquet,
                content: Content::Parquet(file),
            })
        }
        Wrapping::None => {
            let Some(format) = format else {
                return Err(FileError::content(place, "neither CSV, NDJSON, JSON nor Parquet"));
            };
            let mut text = BufReader::with_capacity(256 << 10, rest);
            skip_byte_order_mark(&mut text, place)?;
            visit(Part {
                name: place.to_owned(),
                format,
                content: Content::Text(&mut text),
            })
        }
    }
}

/// What the first bytes say that something is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrapping {
    None,
    Gzip,
    Zstd,
    Zip,
    Parquet,
}

impl Wrapping {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Wrapping::Gzip,
            // A frame, or a skippable one before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Wrapping::Zstd,
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Wrapping::Zip,
            [b'P', b'A', b'R', b'1', ..] => Wrapping::Parquet,
            _ => Wrapping::None,
        }
    }
}

/// Tells the format of text by its beginning.
fn sniff(head: &[u8]) -> Option<Format> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let start = head.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let head = &head[start..];
    match head[0] {
        b'[' => Some(Format::Json),
        b'{' => {
            let line = head.split(|&byte| byte == b'\n').next().unwrap_or(head);
            let whole = serde_json::from_slice::<&serde_json::value::RawValue>(line).is_ok();
            Some(if whole { Format::Ndjson } else { Format::Json })
        }
        _ => {
            let line = head.split(|&byte| byte == b'\n').next().unwrap_or(head);
            let is_text = !line.contains(&0) && std::str::from_utf8(line).is_ok();
            let has_columns = line.iter().any(|byte| matches!(byte, b',' | b';' | b'\t' | b'|'));
            (is_text && has_columns).then_some(Format::Csv)
        }
    }
}

fn skip_byte_order_mark(text: &mut impl BufRead, place: &str) -> Result<(), FileError> {
    let start = text.fill_buf().map_err(|source| FileError::Io {
        place: place.to_owned(),
        source,
    })?;
    if start.starts_with(b"\xef\xbb\xbf") {
        text.consume(3);
    } else if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        return Err(FileError::content(place, "the text is UTF-16; UTF-8 is expected"));
    }
    Ok(())
}

/// Copies a stream into a nameless file of the spill folder and rewinds it.
fn spool(stream: &mut dyn Read, spill_dir: &Path) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(spill_dir)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = spill_dir.join(format!("import-{}-{number}.spool", std::process::id()));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    // Without a name it is gone whenever this process is.
    fs::remove_file(&path)?;
    io::copy(stream, &mut file)?;
    file.flush()?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
