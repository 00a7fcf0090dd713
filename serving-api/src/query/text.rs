//! Reading single parameters.

use crate::problem::{Problem, clip};

/// Most entries of a comma list.
pub(crate) const LIST_MAX: usize = 500;

/// Reads a comma list: entries trimmed, none empty, repeated ones once, in the order given.
pub(crate) fn list(name: &str, text: &str) -> Result<Vec<String>, Problem> {
    let entries = text.split(',').map(|entry| entry.trim().to_owned()).collect();
    checked_list(name, entries)
}

/// The same rules for a list that was a list already.
pub(crate) fn checked_list(name: &str, entries: Vec<String>) -> Result<Vec<String>, Problem> {
    if entries.len() > LIST_MAX {
        let detail = format!(
            "{} entries are too many; at most {LIST_MAX} are taken",
            entries.len()
        );
        return Err(Problem::parameter(name, detail));
    }
    let mut seen: Vec<String> = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.is_empty() {
            let detail = format!("the list of `{name}` has an empty entry; leave the parameter out for all");
            return Err(Problem::parameter(name, detail));
        }
        if !seen.contains(&entry) {
            seen.push(entry);
        }
    }
    Ok(seen)
}

/// Reads a page size between 1 and `max`.
pub(crate) fn limit(text: Option<&str>, default: usize, max: usize) -> Result<usize, Problem> {
    let Some(text) = text else {
        return Ok(default.min(max));
    };
    match text.parse::<usize>() {
        Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
        _ => {
            let detail = format!(
                "{:?} is no page size; use a whole number from 1 to {max}",
                clip(text)
            );
            Err(Problem::parameter("limit", detail))
        }
    }
}

/// Reads a switch: `true`, `1` or nothing after the name is on, `false` and `0` are off.
pub(crate) fn switch(name: &str, text: Option<&str>) -> Result<bool, Problem> {
    match text {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(other) => {
            let detail = format!("{:?} is neither true nor false", clip(other));
            Err(Problem::parameter(name, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_and_drop_repetitions() {
        assert_eq!(
            list("metric", "visits, dwell_p50,visits").unwrap(),
            ["visits", "dwell_p50"]
        );
        assert!(list("metric", "visits,,x").is_err());
        assert!(list("metric", "").is_err());
        assert!(list("metric", &"a,".repeat(LIST_MAX + 1)).is_err());
    }

    #[test]
    fn page_sizes_and_switches() {
        assert_eq!(limit(None, 10, 5).unwrap(), 5);
        assert_eq!(limit(Some("3"), 10, 5).unwrap(), 3);
        for text in ["0", "6", "-1", "many", "", "1.5"] {
            assert!(limit(Some(text), 1, 5).is_err(), "{text}");
        }
        assert!(switch("dry_run", Some("")).unwrap());
        assert!(!switch("dry_run", Some("0")).unwrap());
        assert!(switch("dry_run", Some("maybe")).is_err());
    }
}
