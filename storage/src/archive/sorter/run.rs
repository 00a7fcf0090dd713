//! Sorted runs on disk.
//!
//! A file holds several runs, of a venue-day and kind each. A run is a head (what the columns are, the dictionary in the
//! order of its bytes, the deliveries) and blocks of rows, sorted, column after column as little-endian numbers; names
//! are places in the sorted dictionary, so that rows compare as numbers. Head and blocks end with their xxh3. Runs live
//! no longer than their process, so the places of the blocks stay in memory.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dwell_model::event::{Delivery, FieldType, Kind, NO_TEXT, Strings};
use dwell_model::time::TsMs;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::buffer::{DayBuffer, Packed, PackedColumn};
use super::spill_error;
use crate::error::{ErrorKind, Result, StorageError};

/// Starts every file: name and version of the format.
const MAGIC: &[u8; 8] = b"DWRUN\0\0\x01";
/// Rows of a block; few under test, so that small days have several.
pub(super) const BLOCK_ROWS: usize = if cfg!(test) { 16 } else { 8192 };
/// Folders of sorters are named so.
const DIR_PREFIX: &str = "sort-";

/// The folder of one sorter's files; removed with them on drop.
#[derive(Debug)]
pub(super) struct SpillDir {
    path: PathBuf,
    files: Mutex<u32>,
}

/// A file being written.
pub(super) struct SpillWriter {
    dir: Arc<SpillDir>,
    path: PathBuf,
    out: BufWriter<File>,
    at: u64,
    file: Arc<SpillFile>,
}

/// A file that holds runs.
#[derive(Debug)]
struct SpillFile {
    path: PathBuf,
    file: Mutex<File>,
    /// Keeps the folder as long as a run in it is wanted.
    _dir: Arc<SpillDir>,
}

/// A sorted run.
#[derive(Debug)]
pub(super) struct Run {
    file: Arc<SpillFile>,
    head_at: u64,
    head_bytes: usize,
    pub(super) rows: usize,
    pub(super) blocks: Vec<BlockPlace>,
}

/// Where a block is, and where it begins in the order.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockPlace {
    at: u64,
    bytes: usize,
    pub(super) rows: usize,
    pub(super) first_key: u32,
    pub(super) first_ts: TsMs,
}

/// What all blocks of a run share.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunHead {
    pub(super) kind: Kind,
    /// In the order of their bytes.
    pub(super) strings: Strings,
    pub(super) deliveries: Vec<Delivery>,
    ts_base: TsMs,
    /// For each column the one value it holds, or `None` where the blocks hold it.
    constants: Vec<Option<u64>>,
}

/// Rows of a run, numbers as in its head.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) ts: Vec<TsMs>,
    pub(super) key: Packed<u32>,
    pub(super) sensor: Packed<u32>,
    pub(super) revision: Packed<u64>,
    pub(super) payload: Vec<PackedColumn>,
    pub(super) delivery: Packed<u32>,
}

/// Removes the folders of sorters that are no more.
pub(super) fn clean(spill_dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(spill_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(spill_error("list", spill_dir, error)),
    };
    for entry in entries {
        let path = entry
            .map_err(|error| spill_error("list", spill_dir, error))?
            .path();
        let is_ours = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(DIR_PREFIX));
        if is_ours {
            fs::remove_dir_all(&path).map_err(|error| spill_error("remove", &path, error))?;
        }
    }
    Ok(())
}

impl SpillDir {
    pub(super) fn create(spill_dir: &Path) -> Result<Self> {
        let random = getrandom::u64().map_err(|error| {
            StorageError::with_source(ErrorKind::Unavailable, "name a spill folder", error)
        })?;
        let path = spill_dir.join(format!("{DIR_PREFIX}{random:016x}"));
        fs::create_dir_all(&path).map_err(|error| spill_error("make", &path, error))?;
        Ok(Self {
            path,
            files: Mutex::new(0),
        })
    }

    pub(super) fn create_file(self: &Arc<Self>) -> Result<SpillWriter> {
        let number = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            *files += 1;
            *files
        };
        let path = self.path.join(format!("{number}.run"));
        let open = || {
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            let reading = file.try_clone()?;
            let mut out = BufWriter::with_capacity(1 << 20, file);
            out.write_all(MAGIC)?;
            Ok((reading, out))
        };
        let (reading, out) = open().map_err(|error| spill_error("make", &path, error))?;
        let file = Arc::new(SpillFile {
            path: path.clone(),
            file: Mutex::new(reading),
            _dir: Arc::clone(self),
        });
        Ok(SpillWriter {
            dir: Arc::clone(self),
            path,
            out,
            at: MAGIC.len() as u64,
            file,
        })
    }
}

impl Drop for SpillDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "spilled rows were not removed");
        }
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // Gives the room back while other days are still being written; the folder goes with the last file.
        let _ = fs::remove_file(&self.path);
    }
}

impl SpillWriter {
    /// Sorts a buffer's rows and writes them.
    pub(super) fn write_run(&mut self, buffer: &DayBuffer) -> Result<Run> {
        let ranks = buffer.strings.ranks();
        let order = buffer.order(&ranks);
        let columns = columns_of(buffer);
        let head = RunHead {
            kind: buffer.kind,
            strings: sorted_strings(&buffer.strings, &ranks),
            deliveries: buffer.deliveries.clone(),
            ts_base: buffer.ts_base,
            constants: columns.iter().map(|column| column.constant(&ranks)).collect(),
        };
        let mut bytes = postcard::to_stdvec(&head)
            .map_err(|error| StorageError::with_source(ErrorKind::Bug, "encode a run's head", error))?;
        let (head_at, head_bytes) = self.write(&mut bytes)?;
        let mut blocks = Vec::with_capacity(order.len().div_ceil(BLOCK_ROWS));
        for rows in order.chunks(BLOCK_ROWS) {
            bytes.clear();
            columns
                .iter()
                .for_each(|column| column.write(rows, &ranks, &mut bytes));
            let (at, length) = self.write(&mut bytes)?;
            let first = rows[0] as usize;
            blocks.push(BlockPlace {
                at,
                bytes: length,
                rows: rows.len(),
                first_key: ranks[buffer.key.get(first) as usize],
                first_ts: buffer.ts_base + TsMs::from(buffer.ts.get(first)),
            });
        }
        Ok(Run {
            file: Arc::clone(&self.file),
            head_at,
            head_bytes,
            rows: order.len(),
            blocks,
        })
    }

    /// Ends the file; its runs can be read from then on.
    pub(super) fn finish(mut self) -> Result<()> {
        self.out
            .flush()
            .map_err(|error| spill_error("write", &self.path, error))
    }

    /// Writes bytes and their hash.
    fn write(&mut self, bytes: &mut Vec<u8>) -> Result<(u64, usize)> {
        let hash = xxh3_64(bytes);
        bytes.extend_from_slice(&hash.to_le_bytes());
        self.out
            .write_all(bytes)
            .map_err(|error| spill_error("write", &self.path, error))?;
        let at = self.at;
        self.at += bytes.len() as u64;
        Ok((at, bytes.len()))
    }
}

impl std::fmt::Debug for SpillWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpillWriter")
            .field("path", &self.path)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Run {
    pub(super) fn head(&self) -> Result<RunHead> {
        let bytes = self.file.read(self.head_at, self.head_bytes)?;
        postcard::from_bytes(&bytes).map_err(|error| {
            let doing = format!("read the head of a run in {}", self.file.path.display());
            StorageError::with_source(ErrorKind::Damaged, doing, error)
        })
    }

    pub(super) fn block(&self, head: &RunHead, place: BlockPlace) -> Result<Block> {
        let bytes = self.file.read(place.at, place.bytes)?;
        let mut bytes = bytes.as_slice();
        let mut constants = head.constants.iter().copied();
        let mut next = |width: usize| -> Result<RawColumn<'_>> {
            match constants.next() {
                Some(Some(value)) => Ok(RawColumn::Same(value, place.rows)),
                Some(None) => {
                    let (column, rest) = bytes
                        .split_at_checked(width * place.rows)
                        .ok_or_else(|| self.short())?;
                    bytes = rest;
                    Ok(RawColumn::Each(column))
                }
                None => Err(self.short()),
            }
        };
        let ts = next(4)?
            .narrow()
            .map(|offset| head.ts_base + TsMs::from(offset))
            .unpack();
        let (key, sensor, revision) = (next(4)?.narrow(), next(4)?.narrow(), next(8)?.wide());
        let delivery = next(4)?.narrow();
        let payload = head.kind.fields().iter().map(|field| match field.ty {
            FieldType::F32 | FieldType::Text => Ok(PackedColumn::Narrow(next(4)?.narrow())),
            FieldType::F64 | FieldType::I64 => Ok(PackedColumn::Wide(next(8)?.wide())),
        });
        let payload = payload.collect::<Result<Vec<_>>>()?;
        Ok(Block {
            ts,
            key,
            sensor,
            revision,
            payload,
            delivery,
        })
    }

    fn short(&self) -> StorageError {
        StorageError::new(
            ErrorKind::Damaged,
            format!("a block of {} is too short", self.file.path.display()),
        )
    }
}

impl SpillFile {
    /// Reads bytes and checks the hash behind them.
    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let read = file
                .seek(SeekFrom::Start(at))
                .and_then(|_| file.read_exact(&mut bytes));
            read.map_err(|error| spill_error("read", &self.path, error))?;
        }
        let hash = bytes.split_off(length.saturating_sub(8));
        if hash == xxh3_64(&bytes).to_le_bytes() {
            Ok(bytes)
        } else {
            Err(StorageError::new(
                ErrorKind::Damaged,
                format!("{} was changed on disk", self.path.display()),
            ))
        }
    }
}

/// A buffer's column on its way out.
enum OutColumn<'a> {
    Narrow(&'a Packed<u32>),
    /// Numbers of names, written as places in the sorted dictionary.
    Names(&'a Packed<u32>),
    Wide(&'a Packed<u64>),
}

/// In the order in which blocks hold them.
fn columns_of(buffer: &DayBuffer) -> Vec<OutColumn<'_>> {
    let mut columns = vec![
        OutColumn::Narrow(&buffer.ts),
        OutColumn::Names(&buffer.key),
        OutColumn::Names(&buffer.sensor),
        OutColumn::Wide(&buffer.revision),
        OutColumn::Narrow(&buffer.delivery),
    ];
    columns.extend(
        buffer
            .payload
            .iter()
            .zip(buffer.kind.fields())
            .map(|(column, field)| match column {
                PackedColumn::Narrow(values) if field.ty == FieldType::Text => OutColumn::Names(values),
                PackedColumn::Narrow(values) => OutColumn::Narrow(values),
                PackedColumn::Wide(values) => OutColumn::Wide(values),
            }),
    );
    columns
}

impl OutColumn<'_> {
    fn constant(&self, ranks: &[u32]) -> Option<u64> {
        match self {
            OutColumn::Narrow(Packed::Same(value, _)) => Some(u64::from(*value)),
            OutColumn::Names(Packed::Same(value, _)) => Some(u64::from(rank(ranks, *value))),
            OutColumn::Wide(Packed::Same(value, _)) => Some(*value),
            _ => None,
        }
    }

    fn write(&self, rows: &[u32], ranks: &[u32], out: &mut Vec<u8>) {
        match self {
            OutColumn::Narrow(Packed::Each(values)) => {
                rows.iter()
                    .for_each(|&row| out.extend_from_slice(&values[row as usize].to_le_bytes()));
            }
            OutColumn::Names(Packed::Each(values)) => rows
                .iter()
                .for_each(|&row| out.extend_from_slice(&rank(ranks, values[row as usize]).to_le_bytes())),
            OutColumn::Wide(Packed::Each(values)) => {
                rows.iter()
                    .for_each(|&row| out.extend_from_slice(&values[row as usize].to_le_bytes()));
            }
            _ => {}
        }
    }
}

fn rank(ranks: &[u32], id: u32) -> u32 {
    if id == NO_TEXT {
        NO_TEXT
    } else {
        ranks[id as usize]
    }
}

/// The same texts, numbered by their ranks.
pub(super) fn sorted_strings(strings: &Strings, ranks: &[u32]) -> Strings {
    let mut by_rank = vec![0_u32; ranks.len()];
    ranks
        .iter()
        .enumerate()
        .for_each(|(id, &rank)| by_rank[rank as usize] = id as u32);
    by_rank.into_iter().map(|id| strings.get(id)).collect()
}

/// A column read back.
enum RawColumn<'a> {
    Same(u64, usize),
    Each(&'a [u8]),
}

impl RawColumn<'_> {
    fn narrow(self) -> Packed<u32> {
        match self {
            RawColumn::Same(value, rows) => Packed::Same(value as u32, rows),
            RawColumn::Each(bytes) => Packed::Each(
                bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|&bytes| u32::from_le_bytes(bytes))
                    .collect(),
            ),
        }
    }

    fn wide(self) -> Packed<u64> {
        match self {
            RawColumn::Same(value, rows) => Packed::Same(value, rows),
            RawColumn::Each(bytes) => Packed::Each(
                bytes
                    .as_chunks::<8>()
                    .0
                    .iter()
                    .map(|&bytes| u64::from_le_bytes(bytes))
                    .collect(),
            ),
        }
    }
}
