use std::time::Duration;

use super::{Crashes, patience};
use crate::engine::{Container, RunState};
use crate::update::tests::drift::container;

#[test]
fn a_quarter_of_the_gate_is_waited_at_least_a_while_and_never_longer_than_the_gate() {
    for (gate, expected) in [(1, 1), (5, 5), (15, 15), (20, 15), (60, 15), (61, 15), (120, 30), (3600, 900)] {
        let patience = patience(Duration::from_secs(gate)).as_secs();
        assert_eq!(patience, expected, "a gate of {gate} s");
    }
}

fn at(state: RunState, restart_count: i64) -> Container {
    Container { state, restart_count, ..container() }
}

/// A container whose runs each last so long, looked at each second as the engine shows it: pauses double from 0.1 s
/// to a minute, and begin anew after a run of ten seconds. It works from `works_at` on.
fn verdict(run: Duration, works_at: Duration, restarts_before: i64, patience: Duration) -> Option<u64> {
    let mut crashes = if restarts_before == 0 { Crashes::of_fresh() } else { Crashes::default() };
    let first_pause = Duration::from_millis(100);
    let most = Duration::from_secs(60);
    let (mut count, mut started, mut pause) = (restarts_before, Duration::ZERO, first_pause);
    for now in (0..600).map(Duration::from_secs) {
        while started < works_at && started + run + pause <= now {
            started += run + pause;
            count += 1;
            pause = if run >= Duration::from_secs(10) { first_pause } else { (pause * 2).min(most) };
        }
        let runs = started >= works_at || now < started + run;
        crashes.see(&at(if runs { RunState::Running } else { RunState::Restarting }, count), now);
        if crashes.are_a_verdict(now, patience) {
            return Some(now.as_secs());
        }
    }
    None
}

#[test]
fn restarts_are_a_verdict_when_they_go_on() {
    let never = 1_000_000;
    let ms = Duration::from_millis;
    for (name, run, works_at, before, expected) in [
        ("it ends at once, for ever", 0, never, 0, Some(15)),
        ("it runs a little, and ends, for ever", 300, never, 0, Some(16)),
        ("it runs for long enough to begin with short pauses again", 12_000, never, 0, Some(37)),
        ("it restarted before anybody looked, and goes on", 50, never, 7, Some(16)),
        ("it works", 0, 0, 0, None),
        ("it crashes once", 100, 1, 0, None),
        ("its database needs 10 s", 20, 10_000, 0, None),
        ("it waits for its server for 9 s", 500, 9_000, 0, None),
        ("two crashes a minute apart", 60_000, 120_000, 0, None),
        ("it had restarted often before, and works", 0, 0, 40, None),
    ] {
        assert_eq!(verdict(ms(run), ms(works_at), before, Duration::from_secs(15)), expected, "{name}");
    }
}

#[test]
fn what_is_not_tried_again_for_so_long_is_a_verdict_too() {
    let second = Duration::from_secs;
    let mut crashes = Crashes::default();
    for now in 0..40 {
        crashes.see(&at(RunState::Restarting, 12), second(now));
        assert_eq!(crashes.are_a_verdict(second(now), second(30)), now >= 30, "after {now} s");
    }
    assert_eq!(crashes.restarts(), 0, "it was restarted before the gate began");
    // Somebody starts it by hand: the engine counts anew, and so does the gate.
    crashes.see(&at(RunState::Running, 0), second(40));
    assert!(!crashes.any() && !crashes.are_a_verdict(second(80), second(30)));
    crashes.see(&at(RunState::Running, 1), second(41));
    assert_eq!((crashes.restarts(), crashes.any(), crashes.goes_on(), crashes.is_loop()), (1, true, true, false));
    crashes.see(&at(RunState::Running, 1), second(42));
    assert_eq!((crashes.restarts(), crashes.any(), crashes.goes_on()), (1, true, false));
}
