//! Dwell's retention: a pure plan of what may be deleted, and why.
