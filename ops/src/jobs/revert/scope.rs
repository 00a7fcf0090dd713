//! What a revert is asked to leave out.

use dwell_model::exclusion::Scope;
use dwell_model::ids::{Receipt, TenantId, check_name};
use dwell_model::time::{TsMs, parse_ts};
use dwell_serving_api::JobRefusal;
use dwell_storage::api::Imports;
use dwell_storage::error::Result as StorageResult;
use serde_json::{Map, Value};

/// The options that say it.
pub(super) const OPTIONS: [&str; 5] = ["sensor", "receipt", "file", "from_time", "to_time"];
/// Imports among which a file's name is looked for, the newest.
const IMPORTS_MAX: usize = 100_000;
/// Receipts named where a file's name is not enough.
const NAMED_MAX: usize = 5;

/// What was asked for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    scope: Scope,
    /// Name of an imported file, whose receipt it stands for.
    file: Option<String>,
}

impl Asked {
    /// Reads the options of a job; what cannot be meant is refused.
    pub(super) fn read(options: &Map<String, Value>) -> Result<Self, JobRefusal> {
        let text = |name: &str| match options.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
            // A time may be a number, and a sensor's name may look like one.
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(JobRefusal(format!("{name} must be a text"))),
        };
        let instant = |name: &str| -> Result<Option<TsMs>, JobRefusal> {
            let read = text(name)?.map(|text| parse_ts(&text));
            read.transpose()
                .map_err(|error| JobRefusal(format!("{name}: {error}")))
        };
        let sensor = text("sensor")?;
        if let Some(name) = &sensor {
            check_name(name).map_err(|error| JobRefusal(format!("sensor {error}")))?;
        }
        let receipt = text("receipt")?
            .map(|text| text.parse::<Receipt>())
            .transpose()
            .map_err(|error| JobRefusal(format!("receipt: {error}")))?;
        let file = text("file")?;
        let scope = Scope {
            sensor,
            receipt,
            from: instant("from_time")?,
            to: instant("to_time")?,
        };
        let refuse = |text: &str| Err(JobRefusal(text.to_owned()));
        if scope.receipt.is_some() && file.is_some() {
            return refuse("a file stands for its receipt: name one of them");
        }
        if scope.is_empty() && file.is_none() {
            return refuse(
                "say what to leave out: a sensor, a receipt, a file, from_time and to_time, or several of them",
            );
        }
        if scope.is_turned_round() {
            return refuse("to_time must lie after from_time");
        }
        Ok(Self { scope, file })
    }

    /// The scope, a file's name replaced by its receipt; the inner error is for the one who asked.
    pub(super) async fn resolve(
        self,
        imports: &dyn Imports,
        tenant: &TenantId,
    ) -> StorageResult<Result<Scope, String>> {
        let Self { mut scope, file } = self;
        let Some(name) = file else {
            return Ok(Ok(scope));
        };
        let claims = imports.list(tenant, IMPORTS_MAX).await?;
        let is_it = |known: &str| known == name || known.rsplit('/').next() == Some(name.as_str());
        let mut receipts: Vec<Receipt> = claims
            .iter()
            .filter(|claim| is_it(&claim.name))
            .map(|claim| claim.receipt)
            .collect();
        receipts.sort_unstable();
        receipts.dedup();
        Ok(match *receipts.as_slice() {
            [] => Err(format!("no imported file is called {name:?}")),
            [receipt] => {
                scope.receipt = Some(receipt);
                Ok(scope)
            }
            _ => {
                let shown: Vec<String> = receipts.iter().take(NAMED_MAX).map(Receipt::to_string).collect();
                Err(format!(
                    "{} imported files are called {name:?}; name the receipt of one: {}",
                    receipts.len(),
                    shown.join(", ")
                ))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: Value) -> Result<Asked, String> {
        let Value::Object(options) = options else {
            panic!("options are an object")
        };
        Asked::read(&options).map_err(|refusal| refusal.0)
    }

    #[test]
    fn options_are_read_as_they_are_meant() {
        let asked = read(json!({
            "sensor": "cam-1", "from_time": "2026-03-09T00:00:00Z", "to_time": 1_773_100_800_000_i64,
            "venues": ["v1"], "dry_run": true,
        }));
        let asked = asked.unwrap();
        assert_eq!(asked.scope.sensor.as_deref(), Some("cam-1"));
        assert_eq!(asked.scope.from, Some(1_773_014_400_000));
        assert_eq!(asked.scope.to, Some(1_773_100_800_000));
        let receipt = "00000000000000000000000000000007";
        let asked = read(json!({ "receipt": receipt })).unwrap();
        assert_eq!(asked.scope.receipt, Some(Receipt::from_u128(7)));
        assert_eq!(
            read(json!({"file": "a.csv"})).unwrap().file.as_deref(),
            Some("a.csv")
        );
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (options, said) in [
            (json!({}), "say what to leave out"),
            (json!({"sensor": null}), "say what to leave out"),
            (json!({"sensor": ""}), "sensor must be a text"),
            (json!({"sensor": "a\u{1f}b"}), "sensor holds the character"),
            (json!({"receipt": "7"}), "receipt: \"7\" is not a receipt"),
            (json!({"receipt": ["7"]}), "receipt must be a text"),
            (
                json!({"from_time": "yesterday"}),
                "from_time: \"yesterday\" is not a time",
            ),
            (
                json!({"from_time": 2000, "to_time": 2000}),
                "to_time must lie after",
            ),
            (
                json!({"from_time": 2000, "to_time": 1000}),
                "to_time must lie after",
            ),
            (
                json!({"file": "a", "receipt": "00000000000000000000000000000007"}),
                "name one of them",
            ),
        ] {
            let refusal = read(options.clone()).unwrap_err();
            assert!(refusal.contains(said), "{options}: {refusal}");
        }
    }
}
