//! Reading and decompressing a body, within bounds of length, time, memory and growth.

use std::io::{self, Read};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use dwell_runtime::clock;
use dwell_runtime::limits::{Gate, GatePermit};
use http_body_util::BodyExt;

use super::Inner;
use super::answer::Problem;
use super::config::kib;
use super::headers::Encoding;

/// Growth below this is no concern, whatever the ratio.
const RATIO_FREE_BYTES: usize = 1 << 20;
const CHUNK_BYTES: usize = 64 * 1024;
/// Largest zstd window, as a power of two: 16 MiB of memory for each body that is being decompressed.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// A body in memory, with the places in the gate that it takes.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) permits: Vec<GatePermit>,
}

/// Reads a body to its end.
pub(super) async fn read(inner: &Inner, body: Body, announced: Option<usize>) -> Result<Held, Problem> {
    let limit = inner.config.body_bytes_max;
    let too_large = || {
        let detail = format!("the body is longer than {limit} bytes; send it in several requests");
        Problem::too_large("body-too-large", detail)
    };
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let reading = async {
        let mut body = body;
        let mut permits = Vec::new();
        if let Some(length) = announced {
            permits.push(acquire(&inner.memory, length)?);
        }
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::bad_request("body-broken-off", "the body broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            length += data.len();
            if length > limit {
                return Err(too_large());
            }
            if announced.is_none() {
                permits.push(acquire(&inner.memory, data.len())?);
            }
            // A body of one frame is not copied.
            match (first.is_empty(), all.is_empty()) {
                (true, true) => first = data,
                (false, true) => {
                    all.reserve(announced.unwrap_or(2 * length).max(length));
                    all.extend_from_slice(&first);
                    all.extend_from_slice(&data);
                }
                (_, false) => all.extend_from_slice(&data),
            }
        }
        Ok(Held {
            bytes: if all.is_empty() { first } else { all.freeze() },
            permits,
        })
    };
    match clock::timeout(&*inner.clock, inner.config.body_timeout, reading).await {
        Ok(held) => held,
        Err(timed_out) => Err(Problem::new(
            axum::http::StatusCode::REQUEST_TIMEOUT,
            "body-timeout",
            "The body took too long",
            format!("the body was not complete after {} s", timed_out.limit.as_secs()),
        )),
    }
}

/// Bounds of a decompression.
#[derive(Debug, Clone)]
pub(super) struct Expansion {
    pub(super) bytes_max: usize,
    pub(super) ratio_max: usize,
    pub(super) memory: Gate,
}

/// Decompresses a body. Blocking.
pub(super) fn decompress(held: Held, encoding: Encoding, expansion: &Expansion) -> Result<Held, Problem> {
    let Held { bytes, permits } = held;
    let input: &[u8] = &bytes;
    match encoding {
        Encoding::Identity if bytes.len() > expansion.bytes_max => Err(expansion.too_large()),
        Encoding::Identity => Ok(Held { bytes, permits }),
        Encoding::Gzip => expansion.read(flate2::bufread::MultiGzDecoder::new(input), input.len(), permits),
        Encoding::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(input).map_err(|_| Problem::internal())?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(|_| Problem::internal())?;
            expansion.read(decoder, input.len(), permits)
        }
    }
}

impl Expansion {
    fn read(
        &self,
        mut decoder: impl Read,
        input_length: usize,
        mut permits: Vec<GatePermit>,
    ) -> Result<Held, Problem> {
        let growth_max = input_length.saturating_mul(self.ratio_max).max(RATIO_FREE_BYTES);
        let mut out: Vec<u8> = Vec::new();
        let mut acquired = 0;
        loop {
            let length = out.len();
            if acquired < length + CHUNK_BYTES {
                let more = (length / 2).max(CHUNK_BYTES);
                permits.push(acquire(&self.memory, more)?);
                acquired += more;
            }
            out.resize(length + CHUNK_BYTES, 0);
            let read = match decoder.read(&mut out[length..]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    out.truncate(length);
                    continue;
                }
                Err(error) => return Err(damaged(&error)),
            };
            out.truncate(length + read);
            if out.len() > self.bytes_max {
                return Err(self.too_large());
            }
            if out.len() > growth_max {
                let detail = format!("the body grows to more than {} times its length", self.ratio_max);
                return Err(Problem::too_large("compression-ratio", detail));
            }
            if read == 0 {
                return Ok(Held {
                    bytes: out.into(),
                    permits,
                });
            }
        }
    }

    fn too_large(&self) -> Problem {
        let detail = format!(
            "the decompressed body is longer than {} bytes; send it in several requests",
            self.bytes_max
        );
        Problem::too_large("decompressed-too-large", detail)
    }
}

fn damaged(error: &io::Error) -> Problem {
    let detail = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the compressed body breaks off before its end",
        _ => "the compressed body is damaged, or needs a window larger than 16 MiB",
    };
    Problem::bad_request("compressed-body-damaged", detail)
}

fn acquire(memory: &Gate, bytes: usize) -> Result<GatePermit, Problem> {
    Ok(memory.try_acquire_many(u32::try_from(kib(bytes)).unwrap_or(u32::MAX))?)
}
