//! Counting what is read of a file, and refusing what expands beyond reason when it is decompressed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes taken from a file so far; clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    /// Number of bytes.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts further bytes.
    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A file whose reads are counted.
#[derive(Debug)]
pub(super) struct CountedFile {
    file: File,
    read: BytesRead,
}

impl CountedFile {
    /// Counts what is read of `file` in `read`.
    pub(super) fn new(file: File, read: BytesRead) -> Self {
        Self { file, read }
    }
}

impl Read for CountedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read.add(n as u64);
        Ok(n)
    }
}

impl Seek for CountedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// How far compressed content may expand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpansionLimit {
    /// Bytes that may always come out, however few went in.
    pub free_bytes: u64,
    /// Beyond those: bytes out per byte in.
    pub ratio_max: u64,
}

impl Default for ExpansionLimit {
    /// 64 MiB, then 250 to 1. Sensor data compresses 5 to 50 times; deflate's limit, which bombs come near, is 1,032.
    fn default() -> Self {
        Self {
            free_bytes: 64 << 20,
            ratio_max: 250,
        }
    }
}

/// A decompressor's output, cut off with an error when it grows out of proportion to its input.
#[derive(Debug)]
pub(super) struct ExpansionGuard<R> {
    inner: R,
    produced: u64,
    consumed: BytesRead,
    consumed_before: u64,
    limit: ExpansionLimit,
}

impl<R: Read> ExpansionGuard<R> {
    /// Guards `inner`, which takes its input from what `consumed` counts.
    pub(super) fn new(inner: R, consumed: BytesRead, limit: ExpansionLimit) -> Self {
        let consumed_before = consumed.get();
        Self {
            inner,
            produced: 0,
            consumed,
            consumed_before,
            limit,
        }
    }
}

impl<R: Read> Read for ExpansionGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.produced += n as u64;
        let consumed = self.consumed.get() - self.consumed_before;
        let allowed = self
            .limit
            .free_bytes
            .saturating_add(consumed.saturating_mul(self.limit.ratio_max));
        if self.produced > allowed {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "expands to more than {} times its size, which no sensor data does: refused as a \
                     decompression bomb",
                    self.limit.ratio_max
                ),
            ));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_cut_off_and_plain_data_passes() {
        let limit = ExpansionLimit {
            free_bytes: 1_000,
            ratio_max: 10,
        };
        let consumed = BytesRead::default();
        consumed.add(7); // read by somebody else before
        let mut guard = ExpansionGuard::new(io::repeat(0), consumed.clone(), limit);
        consumed.add(100);
        let mut out = Vec::new();
        let error = guard.by_ref().take(10_000).read_to_end(&mut out).unwrap_err();
        assert!(error.to_string().contains("bomb"), "{error}");
        assert!(
            out.len() <= 2_000,
            "1,000 free and 10 times 100, got {}",
            out.len()
        );

        let mut guard = ExpansionGuard::new(io::repeat(0).take(2_000), BytesRead::default(), limit);
        assert!(io::copy(&mut guard, &mut io::sink()).is_err());
        let consumed = BytesRead::default();
        let mut guard = ExpansionGuard::new(io::repeat(0).take(2_000), consumed.clone(), limit);
        consumed.add(100);
        assert_eq!(io::copy(&mut guard, &mut io::sink()).unwrap(), 2_000);
    }
}
