//! Several requests of one call under way at a time, and no more than that.

use futures::stream::{self, BufferUnordered, Buffered, Iter, StreamExt};

/// Runs requests, `at_once` of them at a time; their answers come in the order of the requests.
pub(super) fn in_order<F: Future>(
    requests: impl Iterator<Item = F>,
    at_once: usize,
) -> Buffered<Iter<std::vec::IntoIter<F>>> {
    // Not yet begun, a request is a few values.
    stream::iter(requests.collect::<Vec<_>>()).buffered(at_once)
}

/// The same; answers come as they are ready.
pub(super) fn as_ready<F: Future>(
    requests: impl Iterator<Item = F>,
    at_once: usize,
) -> BufferUnordered<Iter<std::vec::IntoIter<F>>> {
    stream::iter(requests.collect::<Vec<_>>()).buffer_unordered(at_once)
}
