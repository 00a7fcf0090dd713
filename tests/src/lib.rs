//! Holds the tests of the folders beside it; nothing is exported.
