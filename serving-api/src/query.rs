//! What a request asks for, read from texts into typed values once; from here on nothing is parsed.

pub(crate) mod as_of;
pub(crate) mod cursor;
pub(crate) mod hours_of_day;
pub(crate) mod paging;
pub(crate) mod range;
pub(crate) mod slice;
pub(crate) mod text;
