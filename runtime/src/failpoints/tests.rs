use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::*;
use crate::clock::Stopwatch;

#[test]
fn a_point_that_is_not_set_does_nothing() {
    assert_eq!(hit("test.never_set"), Ok(()));
    let _other = set("test.some_other", "error").unwrap();
    assert_eq!(hit("test.never_set"), Ok(()));
    assert_eq!(hits("test.never_set"), None);
}

#[test]
fn a_point_follows_its_steps_until_its_guard_is_dropped() {
    let guard = set("test.steps", "1*off->2*error:disk full->off").unwrap();
    let outcomes: Vec<_> = (0..4)
        .map(|_| hit("test.steps").map_err(|error| error.to_string()))
        .collect();
    let full = Err("disk full (injected at test.steps)".to_owned());
    assert_eq!(outcomes, [Ok(()), full.clone(), full, Ok(())]);
    assert_eq!(hits("test.steps"), Some(4));
    drop(guard);
    assert_eq!(hits("test.steps"), None);

    let again = set("test.steps", "error").unwrap();
    assert!(hit("test.steps").is_err());
    drop(again);
    assert_eq!(hit("test.steps"), Ok(()));
}

#[test]
fn the_guard_of_an_earlier_setting_leaves_a_later_one_in_place() {
    let earlier = set("test.set_twice", "off").unwrap();
    let _later = set("test.set_twice", "error").unwrap();
    drop(earlier);
    assert!(hit("test.set_twice").is_err());
}

#[test]
fn the_macro_returns_the_callers_own_error() {
    fn write() -> std::io::Result<u32> {
        failpoint!("test.macro");
        Ok(1)
    }
    assert_eq!(write().unwrap(), 1);
    let _guard = set("test.macro", "error:torn page").unwrap();
    assert_eq!(
        write().unwrap_err().to_string(),
        "torn page (injected at test.macro)"
    );
}

#[test]
fn a_function_can_stand_in_for_steps_and_may_pass_other_points() {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let _guard = set_fn("test.function", move || {
        counter.fetch_add(1, Ordering::SeqCst);
        hit("test.function.inner")?;
        Err(Injected::new("test.function", "every time"))
    });
    assert!(hit("test.function").is_err());
    assert!(hit("test.function").is_err());
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn a_pause_holds_its_thread_and_no_other_point() {
    let _paused = set("test.pause", "pause:200ms").unwrap();
    let _other = set("test.beside_pause", "error").unwrap();
    let pausing = crate::tasks::thread("pausing", || {
        let stopwatch = Stopwatch::start();
        hit("test.pause").map(|()| stopwatch.elapsed())
    })
    .unwrap();
    while hits("test.pause") == Some(0) {
        std::thread::yield_now();
    }
    assert!(hit("test.beside_pause").is_err());
    assert!(
        !pausing.is_finished(),
        "the other point was passed during the pause"
    );
    assert!(pausing.join().unwrap().unwrap() >= Duration::from_millis(200));
}

#[test]
fn a_panic_leaves_the_points_usable() {
    let _guard = set("test.panic", "1*panic->error").unwrap();
    assert!(std::panic::catch_unwind(|| hit("test.panic")).is_err());
    assert!(hit("test.panic").is_err());
}

/// Runs this very test again in a process of its own, with failpoints in its environment; in there returns none.
fn in_a_process_of_its_own(test: &str, failpoints: &str) -> Option<std::process::Output> {
    if std::env::var_os(ENV).is_some() {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &format!("failpoints::tests::{test}"), "--nocapture"])
        .env(ENV, failpoints);
    Some(command.output().unwrap())
}

#[test]
fn kill_ends_the_process_at_once_at_the_hit_that_was_asked_for() {
    struct Destructor;
    impl Drop for Destructor {
        fn drop(&mut self) {
            println!("a destructor ran");
        }
    }
    let test = "kill_ends_the_process_at_once_at_the_hit_that_was_asked_for";
    let Some(output) = in_a_process_of_its_own(test, "test.kill=2*off->kill") else {
        let _destructor = Destructor;
        assert_eq!(set_from_env().unwrap(), ["test.kill"]);
        for count in 1..=5 {
            println!("before hit {count}");
            hit("test.kill").unwrap();
        }
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("before hit 3") && !said.contains("before hit 4"),
        "{said}"
    );
    assert!(!said.contains("a destructor ran"), "{said}");
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        assert!(
            output.status.signal().is_some(),
            "ended by a signal, not by an exit: {}",
            output.status
        );
    }
}

#[test]
fn a_setting_in_the_environment_that_cannot_be_read_is_an_error() {
    let test = "a_setting_in_the_environment_that_cannot_be_read_is_an_error";
    match in_a_process_of_its_own(test, "test.bad=explode") {
        None => assert!(set_from_env().unwrap_err().to_string().contains("explode")),
        Some(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
    }
}

#[test]
fn without_the_environment_variable_nothing_is_set() {
    if std::env::var_os(ENV).is_none() {
        assert_eq!(set_from_env(), Ok(Vec::new()));
    }
}
