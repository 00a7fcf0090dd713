//! Values that the tables hold as text or bytes: JSON, and blobs with a version before them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::values::damaged_value;
use crate::error::{ErrorKind, Result, StorageError};

/// A value as JSON text.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| StorageError::new(ErrorKind::Invalid, format!("not to be written as JSON: {error}")))
}

/// A value from JSON text.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(damaged_value)
}

/// A blob: a version byte, then postcard.
pub(super) fn to_blob<T: Serialize>(version: u8, value: &T) -> Result<Vec<u8>> {
    postcard::to_extend(value, vec![version])
        .map_err(|error| StorageError::new(ErrorKind::Invalid, format!("not to be encoded: {error}")))
}

/// A value from a blob of a known version.
pub(super) fn from_blob<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&found, rest)) if found == version => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(damaged_value("bytes are left over")),
            Err(error) => Err(damaged_value(error)),
        },
        Some((&found, _)) => Err(damaged_value(format_args!(
            "version {found} of its encoding; {version} is known"
        ))),
        None => Err(damaged_value("it is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_of_another_version_or_with_bytes_left_over_is_damaged() {
        let blob = to_blob(3, &(7_u32, "name")).unwrap();
        assert_eq!(blob[0], 3);
        assert_eq!(
            from_blob::<(u32, String)>(3, &blob).unwrap(),
            (7, "name".to_owned())
        );
        for damaged in [
            &blob[..blob.len() - 1],
            &[blob.clone(), vec![0]].concat(),
            &[],
            &[4][..],
        ] {
            let error = from_blob::<(u32, String)>(3, damaged).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        }
    }
}
