//! A child dies with its parent, whichever way the parent goes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use processgit_updater::engine::spawner::{self, Program};
use tokio::sync::mpsc;

use crate::lab::{HELPER, again, lives, until};

/// The parent: starts a child from a worker thread that soon ends, tells its pid and lives on.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn parent() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let program = Program {
        path: "/bin/sh".into(),
        args: vec!["-c".into(), "echo $$; exec sleep 1000".into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        folder: None,
        deadline: Duration::from_secs(600),
        most_output: 1024,
        files: Vec::new(),
        stdout_is_data: false,
    };
    let (sender, mut receiver) = mpsc::channel(1);
    let starter = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let running = tokio::spawn(spawner::run(program, Some(sender), ()));
            println!("child {}", receiver.recv().await.unwrap());
            running.abort();
        });
    });
    starter.join().unwrap();
    println!("starter ended");
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn a_child_outlives_the_thread_that_asked_for_it_and_dies_with_the_process() {
    let mut parent = again("children::parent", &[]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = lines.skip_while(|line| !line.contains("child "));
    let line = told.next().unwrap();
    let child = line.rsplit(' ').next().unwrap();
    assert_eq!(told.next().unwrap(), "starter ended");
    assert!(lives(child), "the child died with the thread that asked for it");
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("the child is gone", async || !lives(child)).await;
}
