//! stub
use super::cluster::Cluster;
/// Raw.
#[derive(Debug)]
pub struct CassandraRawEvents {
    cluster: Cluster,
}
impl CassandraRawEvents {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }
}
