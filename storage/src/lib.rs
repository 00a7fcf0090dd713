//! Dwell's storage seams, their conformance suite, and the backends behind them.
