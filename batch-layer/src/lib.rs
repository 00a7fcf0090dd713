//! Dwell's batch layer: archive a venue-day, recompute it, publish a generation.
