use std::io;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;

#[derive(Debug, thiserror::Error)]
#[error("cannot append")]
struct AppendError(#[source] io::Error);

fn append_error() -> AppendError {
    AppendError(io::Error::other("disk full"))
}

fn registry() -> (Tasks, ShutdownController) {
    let controller = ShutdownController::default();
    (Tasks::new(controller.clone()), controller)
}

fn failed(task: &str, error: &str) -> ShutdownCause {
    ShutdownCause::TaskFailed {
        task: task.to_owned(),
        error: error.to_owned(),
    }
}

#[tokio::test]
async fn a_failure_under_the_log_policy_leaves_the_process_running() {
    let (tasks, controller) = registry();
    let task = tasks.spawn("drift", TaskPolicy::Log, async { Err::<(), _>(append_error()) });
    assert_eq!(
        task.join().await,
        Err(TaskError::Failed("cannot append: disk full".into()))
    );
    assert!(!controller.is_triggered());
}

#[tokio::test]
async fn a_failure_under_the_shutdown_policy_ends_the_process_and_names_the_task_and_all_causes() {
    let (tasks, controller) = registry();
    tasks.spawn("raw writer", TaskPolicy::Shutdown, async {
        Err::<(), _>(append_error())
    });
    controller.triggered().await;
    assert_eq!(
        controller.cause(),
        Some(failed("raw writer", "cannot append: disk full"))
    );
}

#[tokio::test]
async fn a_panic_is_a_failure() {
    let (tasks, controller) = registry();
    let sessions: Vec<u32> = Vec::new();
    let task = tasks.spawn("speed layer", TaskPolicy::Shutdown, async move {
        assert!(!sessions.is_empty(), "no session {}", 7);
    });
    assert_eq!(task.join().await, Err(TaskError::Panicked("no session 7".into())));
    assert_eq!(
        controller.cause(),
        Some(failed("speed layer", "panicked: no session 7"))
    );
}

#[tokio::test]
async fn a_good_end_shuts_down_only_where_the_task_is_essential_and_the_end_is_early() {
    let (tasks, controller) = registry();
    assert_eq!(
        tasks
            .spawn("migration", TaskPolicy::Shutdown, async {})
            .join()
            .await,
        Ok(())
    );
    assert!(!controller.is_triggered());
    assert_eq!(
        tasks
            .spawn("http source", TaskPolicy::Essential, async {})
            .join()
            .await,
        Ok(())
    );
    assert_eq!(
        controller.cause(),
        Some(failed("http source", "ended before the shutdown"))
    );

    let (tasks, controller) = registry();
    controller.trigger();
    assert_eq!(
        tasks
            .spawn("http source", TaskPolicy::Essential, async {})
            .join()
            .await,
        Ok(())
    );
    assert_eq!(controller.cause(), Some(ShutdownCause::Requested));
}

#[tokio::test]
async fn running_tasks_are_listed_oldest_first_until_they_end_or_are_aborted() {
    let (tasks, controller) = registry();
    let clock = ManualClock::at_ms(0);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let stuck = tasks.spawn("stuck", TaskPolicy::Shutdown, std::future::pending::<()>());
    let ending = tasks.spawn("ending", TaskPolicy::Log, ended);
    let names = || {
        tasks
            .running()
            .iter()
            .map(|task| task.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(), ["stuck", "ending"]);

    end.send(()).expect("the task waits");
    assert_eq!(ending.join().await, Ok(()));
    assert_eq!(names(), ["stuck"]);
    assert_eq!(tasks.wait(Duration::ZERO, &clock).await.len(), 1);

    tasks.abort_all();
    assert_eq!(stuck.join().await, Err(TaskError::Aborted));
    assert!(tasks.wait(Duration::from_secs(1), &clock).await.is_empty());
    assert!(
        !controller.is_triggered(),
        "an abort is asked for, it is no failure"
    );
}

#[tokio::test]
async fn waiting_ends_with_the_last_task() {
    let (tasks, _controller) = registry();
    let clock = ManualClock::at_ms(0);
    for _ in 0..5 {
        tasks.spawn("short", TaskPolicy::Log, tokio::task::yield_now());
    }
    assert!(tasks.wait(Duration::from_secs(1), &clock).await.is_empty());
}

#[tokio::test]
async fn blocking_work_brings_its_result_back_from_another_thread() {
    let here = std::thread::current().id();
    let there = blocking("look around", || std::thread::current().id()).await;
    assert_ne!(there, Ok(here));
}

#[tokio::test]
async fn a_panic_in_blocking_work_is_an_error_with_its_message() {
    let outcome = blocking("fold", || -> u32 { panic!("column {} is short", "x") }).await;
    let expected = BlockingError::Panicked {
        name: "fold",
        message: "column x is short".into(),
    };
    assert_eq!(outcome, Err(expected.clone()));
    assert_eq!(expected.to_string(), "fold panicked: column x is short");
}

#[test]
fn blocking_work_that_finds_the_runtime_gone_says_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _entered = handle.enter();
    let outcome = blocking("fsync", || 1).now_or_never();
    assert_eq!(outcome, Some(Err(BlockingError::Cancelled { name: "fsync" })));
}

#[test]
fn a_thread_carries_its_name() {
    let joined = thread("log writer", || std::thread::current().name().map(str::to_owned))
        .unwrap()
        .join();
    assert_eq!(joined.unwrap().as_deref(), Some("log writer"));
}
