//! The items of a receipt: read from JSON, written in one canonical form.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::MAX_INTEGER;
use crate::refusal::{Code, Problem};

/// Most items of one receipt.
pub const MAX_ITEMS: usize = 2_000;
/// Longest canonical text of a receipt's items, in bytes.
pub const MAX_ITEMS_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    #[serde(borrow)]
    sku: Cow<'a, str>,
    quantity: Number,
    amount: Number,
}

#[derive(Serialize)]
struct CanonicalItem<'a> {
    sku: &'a str,
    quantity: Number,
    amount: i64,
}

/// The canonical JSON of a receipt's items: `sku`, `quantity`, `amount` in that order, without spaces; a whole quantity
/// as an integer. `amount` is in minor units; `quantity` may be a fraction (goods by weight).
pub fn canonical_items(json: &str) -> Result<String, Problem> {
    let items: Vec<Item<'_>> = serde_json::from_str(json).map_err(|_| Problem::from(Code::InvalidItems))?;
    if items.len() > MAX_ITEMS {
        return Err(refuse(format!("items has more than {MAX_ITEMS} entries")));
    }
    let mut canonical = Vec::with_capacity(items.len());
    for item in &items {
        if super::name(crate::decode::WireField::Items, &item.sku).is_err() {
            return Err(refuse(
                "the sku of an item is empty, too long, or holds a control character",
            ));
        }
        let amount = item
            .amount
            .as_i64()
            .filter(|amount| (-MAX_INTEGER..=MAX_INTEGER).contains(amount));
        let amount =
            amount.ok_or_else(|| refuse("the amount of an item must be an integer in minor units"))?;
        let quantity =
            quantity_of(&item.quantity).ok_or_else(|| refuse("the quantity of an item is out of range"))?;
        canonical.push(CanonicalItem {
            sku: &item.sku,
            quantity,
            amount,
        });
    }
    let text = serde_json::to_string(&canonical).map_err(|_| Problem::from(Code::InvalidItems))?;
    if text.len() > MAX_ITEMS_BYTES {
        return Err(refuse(format!("items is longer than {MAX_ITEMS_BYTES} bytes")));
    }
    Ok(text)
}

/// A quantity in its one form: an integer where it is whole, else the shortest decimal.
fn quantity_of(number: &Number) -> Option<Number> {
    if let Some(whole) = number.as_i64() {
        return (-MAX_INTEGER..=MAX_INTEGER)
            .contains(&whole)
            .then(|| whole.into());
    }
    let quantity = number
        .as_f64()
        .filter(|quantity| quantity.abs() <= MAX_INTEGER as f64)?;
    if quantity.fract() == 0.0 {
        Some((quantity as i64).into())
    } else {
        Number::from_f64(quantity)
    }
}

fn refuse(message: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Code::InvalidItems, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_whatever_was_sent() {
        let sent = r#" [ {"amount": 250, "sku":"\u0041-1" ,"quantity":2.0}, {"sku":"b","quantity":0.532,"amount":-99} ] "#;
        let canonical =
            r#"[{"sku":"A-1","quantity":2,"amount":250},{"sku":"b","quantity":0.532,"amount":-99}]"#;
        assert_eq!(canonical_items(sent).unwrap(), canonical);
        assert_eq!(canonical_items(canonical).unwrap(), canonical);
        assert_eq!(canonical_items("[]").unwrap(), "[]");
    }

    #[test]
    fn anything_else_is_refused() {
        let many = format!(
            "[{}]",
            vec![r#"{"sku":"a","quantity":1,"amount":1}"#; MAX_ITEMS + 1].join(",")
        );
        for json in [
            "",
            "{}",
            "[1]",
            r#"[{"sku":"a","quantity":1}]"#,
            r#"[{"sku":"","quantity":1,"amount":1}]"#,
            r#"[{"sku":"a","quantity":1,"amount":1.5}]"#,
            r#"[{"sku":"a","quantity":1e300,"amount":1}]"#,
            r#"[{"sku":"a","quantity":1,"amount":1,"name":"x"}]"#,
            &many,
            &"[".repeat(100_000),
        ] {
            let problem = canonical_items(json).unwrap_err();
            assert_eq!(
                problem.code,
                Code::InvalidItems,
                "{}",
                &json[..json.len().min(40)]
            );
        }
    }
}
