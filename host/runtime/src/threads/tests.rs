use super::*;
use crate::limits::CPU_WEIGHT;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

const SLICE: Duration = Duration::from_millis(1);

/// Uses processor time of this thread.
fn spin(until: Duration) {
    let begun = processor_time();
    while processor_time() - begun < until {
        std::hint::spin_loop();
    }
}

/// Has tasks of this share compute until they are told to end.
fn compute(threads: &GuestThreads, share: &Share, tasks: usize, end: &Arc<AtomicBool>) -> Vec<Work<()>> {
    let one = |_| {
        let end = end.clone();
        threads.spawn(share, async move {
            while !end.load(Ordering::Relaxed) {
                spin(SLICE);
                tokio::task::yield_now().await;
            }
        })
    };
    (0..tasks).map(one).collect()
}

#[tokio::test]
async fn guests_run_apart_and_give_way() {
    let threads = GuestThreads::start(1).unwrap();
    let who = threads.spawn(&Share::default(), async {
        let name = std::thread::current().name().map(str::to_owned);
        (name, rustix::process::getpriority_process(None).unwrap())
    });
    let (name, nice) = who.await.unwrap();
    assert_eq!(name.as_deref(), Some("nodata-guest"));
    assert!(nice >= GUEST_NICE, "{nice}");
    assert_ne!(rustix::process::getpriority_process(None).unwrap(), nice);
}

#[tokio::test]
async fn stopping_ends_every_task() {
    let threads = GuestThreads::start(2).unwrap();
    let share = Share::default();
    let (alive, ended) = oneshot::channel::<()>();
    let waits = threads.spawn(&share, async move {
        let _alive = alive;
        std::future::pending::<()>().await;
    });
    let sleeps = threads.spawn(&share, tokio::time::sleep(Duration::from_secs(3600)));
    let computes = compute(&threads, &share, 3, &Arc::default());
    threads.stop(Duration::from_secs(60)).await;
    assert!(ended.await.is_err());
    assert_eq!(waits.await, Err(WorkEnded::Stopped));
    assert_eq!(sleeps.await, Err(WorkEnded::Stopped));
    for work in computes {
        assert_eq!(work.await, Err(WorkEnded::Stopped));
    }
    // Nothing starts any more, and nothing panics.
    assert_eq!(threads.spawn(&share, async {}).await, Err(WorkEnded::Stopped));
    threads.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_panic_ends_one_task() {
    for count in [0, 1] {
        let threads = GuestThreads::start(count).unwrap();
        let share = Share::default();
        let panics = threads.spawn(&share, async { panic!("on purpose") });
        assert_eq!(panics.await.map(|(): ()| ()), Err(WorkEnded::Panicked));
        assert_eq!(threads.spawn(&share, async { 7 }).await, Ok(7));
    }
}

#[tokio::test]
async fn what_nobody_waits_for_goes_on() {
    let threads = GuestThreads::start(1).unwrap();
    let (done, is_done) = oneshot::channel();
    drop(threads.spawn(&Share::default(), async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        done.send(()).unwrap();
    }));
    is_done.await.unwrap();
}

#[tokio::test]
async fn without_threads_guests_run_where_they_are_spawned() {
    let threads = GuestThreads::start(0).unwrap();
    let here = std::thread::current().id();
    assert_eq!(threads.spawn(&Share::default(), async { std::thread::current().id() }).await.unwrap(), here);
    threads.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn dropping_it_inside_of_a_task_is_allowed() {
    drop(GuestThreads::start(1).unwrap());
    let threads = Arc::new(GuestThreads::start(1).unwrap());
    let inside = threads.clone();
    let (go, gone) = oneshot::channel::<()>();
    let drops = threads.spawn(&Share::default(), async move {
        gone.await.unwrap();
        drop(inside);
    });
    drop(threads);
    go.send(()).unwrap();
    // It was told to end before it could say that it did.
    let _ = drops.await;
}

/// One task of a deployment beside many of another one: what counts is weight, and not tasks.
#[tokio::test]
async fn many_tasks_get_no_more_than_one() {
    for (weight, ratio) in [(CPU_WEIGHT, 1.0), (CPU_WEIGHT * 4, 4.0)] {
        let threads = GuestThreads::start(1).unwrap();
        let (one, many) = (Share::new(weight), Share::default());
        let end = Arc::default();
        let mut work = compute(&threads, &many, 16, &end);
        work.extend(compute(&threads, &one, 1, &end));
        while one.cpu() + many.cpu() < Duration::from_millis(500) {
            tokio::time::sleep(SLICE).await;
        }
        let got = one.cpu().as_secs_f64() / many.cpu().as_secs_f64();
        end.store(true, Ordering::Relaxed);
        for work in work {
            work.await.unwrap();
        }
        assert!((ratio * 0.6..ratio * 1.6).contains(&got), "{got} instead of {ratio}");
    }
}

#[tokio::test]
async fn whoever_wakes_is_served_soon() {
    let threads = GuestThreads::start(1).unwrap();
    let (sleeper, many) = (Share::default(), Share::default());
    let end = Arc::default();
    let mut work = compute(&threads, &many, 200, &end);
    for _ in 0..5 {
        let (wake, woken) = oneshot::channel::<()>();
        let (asleep, is_asleep) = oneshot::channel();
        let of_many = many.clone();
        let served = threads.spawn(&sleeper, async move {
            asleep.send(()).unwrap();
            woken.await.unwrap();
            of_many.cpu()
        });
        is_asleep.await.unwrap();
        let before = many.cpu();
        wake.send(()).unwrap();
        let waited = served.await.unwrap() - before;
        assert!(waited < SLICE * 50, "{waited:?} of the time of others, who have 200 tasks of {SLICE:?}");
    }
    end.store(true, Ordering::Relaxed);
    for work in work.drain(..) {
        work.await.unwrap();
    }
}

#[tokio::test]
async fn parts_of_a_share_are_counted_apart() {
    let threads = GuestThreads::start(2).unwrap();
    let share = Share::default();
    let (one, other) = (share.part(), share.part());
    for (part, millis) in [(&one, 5), (&other, 20), (&share, 1)] {
        threads.spawn(part, async move { spin(Duration::from_millis(millis)) }).await.unwrap();
    }
    // What is said to be done is counted a moment later.
    threads.stop(Duration::from_secs(60)).await;
    assert!(
        one.cpu() >= Duration::from_millis(5) && one.cpu() < other.cpu(),
        "{:?} {:?} {:?}",
        one.cpu(),
        other.cpu(),
        share.cpu()
    );
    assert!(other.cpu() >= Duration::from_millis(20));
    assert!(share.cpu() >= one.cpu() + other.cpu() + Duration::from_millis(1));
}
