//! Dwell's values as CQL's: unsigned numbers, dates, receipts.

use dwell_model::ids::Receipt;
use dwell_model::time::LocalDay;
use scylla::value::CqlDate;

use crate::error::{ErrorKind, Result, StorageError};

/// CQL's date is unsigned, with 1970-01-01 in the middle.
const DATE_EPOCH: i64 = 1 << 31;

/// An unsigned number as a `bigint`; `Invalid` beyond 63 bits.
pub(super) fn to_stored(number: u64) -> Result<i64> {
    i64::try_from(number)
        .map_err(|_| StorageError::new(ErrorKind::Invalid, format!("{number} is too large to be stored")))
}

/// An unsigned number read back from a `bigint`.
pub(super) fn from_stored(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| damaged_value(format_args!("{number} stands where a count belongs")))
}

/// A day as a `date`.
pub(super) fn date(day: LocalDay) -> CqlDate {
    date_of_epoch_days(day.to_epoch_days())
}

/// Days since 1970-01-01 as a `date`.
pub(super) fn date_of_epoch_days(days: i32) -> CqlDate {
    CqlDate((DATE_EPOCH + i64::from(days)) as u32)
}

/// Days since 1970-01-01 of a `date`.
pub(super) fn epoch_days_of(date: CqlDate) -> i32 {
    // A u32 less 2^31 is an i32.
    (i64::from(date.0) - DATE_EPOCH) as i32
}

/// A day read back from a `date`.
pub(super) fn day(date: CqlDate) -> Result<LocalDay> {
    let days = epoch_days_of(date);
    LocalDay::from_epoch_days(days)
        .ok_or_else(|| damaged_value(format_args!("day {days} is not in the calendar")))
}

/// A receipt as a 16-byte `blob`.
pub(super) fn receipt_bytes(receipt: Receipt) -> [u8; 16] {
    receipt.to_u128().to_be_bytes()
}

/// A receipt read back from a `blob`.
pub(super) fn receipt(bytes: &[u8]) -> Result<Receipt> {
    let bytes = bytes
        .try_into()
        .map_err(|_| damaged_value(format_args!("a receipt has {} bytes", bytes.len())))?;
    Ok(Receipt::from_u128(u128::from_be_bytes(bytes)))
}

/// A stored value that cannot be.
pub(super) fn damaged_value(what: impl std::fmt::Display) -> StorageError {
    StorageError::new(
        ErrorKind::Damaged,
        format!("a row in Cassandra is damaged: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_come_back_from_the_middle_of_an_unsigned_number() {
        for (text, stored) in [
            ("1970-01-01", 1_u32 << 31),
            ("1970-01-02", (1 << 31) + 1),
            ("2026-03-29", (1 << 31) + 20_541),
        ] {
            let local: LocalDay = text.parse().unwrap();
            assert_eq!(date(local).0, stored, "{text}");
            assert_eq!(day(date(local)).unwrap(), local);
        }
        assert_eq!(date_of_epoch_days(-1).0, (1 << 31) - 1);
        assert_eq!(epoch_days_of(date_of_epoch_days(i32::MIN)), i32::MIN);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert_eq!(to_stored(u64::MAX).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(from_stored(-1).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(receipt(&[0; 15]).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(
            receipt(&receipt_bytes(Receipt::from_u128(7))).unwrap(),
            Receipt::from_u128(7)
        );
    }
}
