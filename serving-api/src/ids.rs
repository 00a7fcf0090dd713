//! Ids that the API gives out.

use dwell_model::time::TsMs;

use crate::problem::Problem;

/// A new job's id: sorts by time of creation, unique by 80 random bits.
pub fn new_job_id(now: TsMs) -> Result<String, Problem> {
    let mut random = [0_u8; 10];
    getrandom::fill(&mut random).map_err(|error| Problem::internal(format!("randomness: {error}")))?;
    Ok(format!("{:012x}-{}", now.max(0), hex::encode(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_differ_within_a_millisecond() {
        let ids: Vec<_> = [0, 5, 1_645_780_665_470, 7_258_118_399_999]
            .map(|now| new_job_id(now).unwrap())
            .into();
        assert!(ids.is_sorted(), "{ids:?}");
        assert_ne!(new_job_id(5).unwrap(), new_job_id(5).unwrap());
    }
}
