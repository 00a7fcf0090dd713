use proptest::prelude::*;

use super::*;

fn job(id: u32, tenant: &str, lane: Lane) -> Waiting {
    Waiting {
        id: format!("{id:04}"),
        tenant: TenantId::new(tenant).unwrap(),
        lane,
        created_at: i64::from(id),
    }
}

/// Takes what a free place takes.
fn take(queue: &mut Queue, waiting: &mut Vec<Waiting>, places: &Places) -> Option<Waiting> {
    let taken = queue.next(waiting, places)?.clone();
    queue.begun(&taken, waiting, places);
    waiting.retain(|job| job.id != taken.id);
    Some(taken)
}

/// The ids of what is taken when each job ends before the next begins.
fn order(mut waiting: Vec<Waiting>) -> Vec<String> {
    let (mut queue, places) = (Queue::default(), Places::default());
    let mut taken = Vec::new();
    while let Some(job) = take(&mut queue, &mut waiting, &places) {
        queue.ended(job.lane);
        taken.push(job.id);
    }
    assert!(waiting.is_empty());
    taken
}

#[test]
fn nightly_goes_before_demand_before_backfill_and_the_oldest_first() {
    let waiting = vec![
        job(1, "a", Lane::Backfill),
        job(2, "a", Lane::Demand),
        job(4, "a", Lane::Nightly),
        job(3, "a", Lane::Nightly),
        job(5, "a", Lane::Demand),
    ];
    assert_eq!(order(waiting), ["0003", "0004", "0002", "0005", "0001"]);
}

#[test]
fn tenants_take_turns_however_many_jobs_one_has() {
    let mut waiting: Vec<Waiting> = (0..6).map(|id| job(id, "many", Lane::Demand)).collect();
    waiting.extend([job(10, "few", Lane::Demand), job(11, "few", Lane::Demand)]);
    waiting.push(job(12, "one", Lane::Demand));
    assert_eq!(
        order(waiting),
        [
            "0000", "0010", "0012", "0001", "0011", "0002", "0003", "0004", "0005"
        ]
    );
}

#[test]
fn backfill_leaves_a_place_to_others_and_the_others_may_have_all() {
    let places = Places { all: 3, backfill: 2 };
    let mut queue = Queue::default();
    let mut waiting: Vec<Waiting> = (0..9).map(|id| job(id, "a", Lane::Backfill)).collect();
    for _ in 0..2 {
        assert_eq!(
            take(&mut queue, &mut waiting, &places).unwrap().lane,
            Lane::Backfill
        );
    }
    assert_eq!(
        take(&mut queue, &mut waiting, &places),
        None,
        "one place is kept free"
    );
    waiting.push(job(20, "a", Lane::Demand));
    assert_eq!(take(&mut queue, &mut waiting, &places).unwrap().id, "0020");
    waiting.push(job(21, "a", Lane::Nightly));
    assert_eq!(
        take(&mut queue, &mut waiting, &places),
        None,
        "all places are taken"
    );
    queue.ended(Lane::Backfill);
    assert_eq!(take(&mut queue, &mut waiting, &places).unwrap().id, "0021");

    let mut queue = Queue::default();
    let mut waiting: Vec<Waiting> = (0..3).map(|id| job(id, "a", Lane::Demand)).collect();
    while take(&mut queue, &mut waiting, &places).is_some() {}
    assert_eq!((queue.running(), waiting.len()), (3, 0));
}

#[test]
fn a_kind_that_runs_alone_waits_for_its_like_of_the_same_tenant() {
    let stored = |id: &str, tenant: &str, kind: &str, leased_until: Option<TsMs>| {
        let tenant = TenantId::new(tenant).unwrap();
        let mut job = Job::queued(
            id.into(),
            tenant,
            kind,
            serde_json::Value::Null,
            "me".into(),
            None,
            0,
        );
        if leased_until.is_some() {
            job.state = JobState::Running;
            job.leased_until = leased_until;
        }
        job
    };
    let jobs = [
        stored("1", "a", "backup", Some(100)),
        stored("2", "a", "backup", None),
        stored("3", "b", "backup", None),
        stored("4", "a", "verify", Some(100)),
        stored("5", "a", "verify", None),
    ];
    let ids = |now| -> Vec<String> {
        let waiting = Waiting::of(&jobs, now, |job| job.kind == "backup");
        waiting.into_iter().map(|job| job.id).collect()
    };
    assert_eq!(ids(99), ["3", "5"]);
    // The leases of those that ran have run out: they are taken again, and do not wait for each other.
    assert_eq!(ids(100), ["1", "2", "3", "4", "5"]);
}

#[test]
fn places_that_leave_none_to_others_are_refused() {
    let problem = |all, backfill| Places { all, backfill }.problem();
    assert_eq!(Places::default().problem(), None);
    assert_eq!(problem(2, 1), None);
    assert!(problem(1, 1).is_some_and(|why| why.starts_with("jobs.places")));
    assert!(problem(3, 0).is_some_and(|why| why.starts_with("jobs.backfill_places")));
    assert!(problem(3, 3).is_some_and(|why| why.starts_with("jobs.backfill_places")));
}

const TENANTS: [&str; 3] = ["a", "b", "c"];

/// What happens next: a job comes, or one of those that run ends.
#[derive(Debug, Clone)]
enum Step {
    Comes { tenant: usize, lane: usize },
    Ends(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        // More comes than ends, most of it in the lanes that go first.
        3 => (0..TENANTS.len(), prop_oneof![4 => Just(0_usize), 3 => Just(1), 1 => Just(2)])
            .prop_map(|(tenant, lane)| Step::Comes { tenant, lane }),
        2 => (0..8_usize).prop_map(Step::Ends),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    /// While the lanes that go first never run empty: nobody waits for ever, and the places are kept as promised.
    #[test]
    fn nobody_starves_and_backfill_never_has_all_places(
        steps in steps(),
        all in 2_usize..6,
        backfill in 1_usize..5,
    ) {
        let places = Places { all, backfill: backfill.min(all - 1) };
        let mut queue = Queue::default();
        let (mut waiting, mut running): (Vec<Waiting>, Vec<Waiting>) = (Vec::new(), Vec::new());
        // Per waiting job: jobs begun since it came, while its lane could have had the place.
        let mut begun_since: BTreeMap<String, usize> = BTreeMap::new();
        let mut ahead: BTreeMap<String, usize> = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Comes { tenant, lane } => {
                    let new = job(number as u32, TENANTS[tenant], Lane::ALL[lane]);
                    let before = waiting
                        .iter()
                        .filter(|job| (job.lane, &job.tenant) == (new.lane, &new.tenant))
                        .count();
                    ahead.insert(new.id.clone(), before);
                    begun_since.insert(new.id.clone(), 0);
                    waiting.push(new);
                }
                Step::Ends(which) if !running.is_empty() => {
                    let ended = running.remove(which % running.len());
                    queue.ended(ended.lane);
                }
                Step::Ends(_) => {}
            }
            loop {
                let backfills = running.iter().filter(|job| job.lane == Lane::Backfill).count();
                let may = |job: &Waiting| job.lane != Lane::Backfill || backfills < places.backfill;
                let has_place = running.len() < places.all;
                let could: Vec<String> = waiting.iter().filter(|job| may(job)).map(|job| job.id.clone()).collect();
                let Some(taken) = take(&mut queue, &mut waiting, &places) else {
                    prop_assert!(!has_place || could.is_empty(), "a place stays empty while {could:?} wait");
                    break;
                };
                prop_assert!(has_place && may(&taken));
                for id in could.iter().filter(|id| **id != taken.id) {
                    *begun_since.entry(id.clone()).or_default() += 1;
                }
                // Each turn of its lane comes after at most so many of the two others, each turn of its tenant after
                // as many turns as there are tenants, its own after those of its tenant that came before.
                let turns = (ahead[&taken.id] + 1) * TENANTS.len();
                let bound = turns * (2 * PASSED_OVER_MAX as usize + 2);
                prop_assert!(begun_since[&taken.id] <= bound, "{taken:?} waited for {}", begun_since[&taken.id]);
                running.push(taken);
            }
            // Those that still wait have not waited longer either.
            for job in &waiting {
                let bound = (ahead[&job.id] + 1) * TENANTS.len() * (2 * PASSED_OVER_MAX as usize + 2);
                prop_assert!(begun_since[&job.id] <= bound, "{job:?} still waits");
            }
        }
    }
}
