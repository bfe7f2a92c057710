//! A database that is written to all the time, until it is stopped in the middle of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use processgit_updater::snapshot::{Label, Quiet};
use rusqlite::Connection;

use crate::{Bench, copy};

/// Two tables that agree after every transaction.
fn create(database: &Connection) {
    database
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=20;
             CREATE TABLE a(id INTEGER PRIMARY KEY, text TEXT UNIQUE); CREATE TABLE b(id INTEGER PRIMARY KEY, text TEXT)",
        )
        .unwrap();
}

fn write_until(stop: &AtomicBool, written: &AtomicU64, database: &mut Connection) {
    while !stop.load(Ordering::Relaxed) {
        let n = written.fetch_add(1, Ordering::Relaxed);
        let transaction = database.transaction().unwrap();
        for table in ["a", "b"] {
            let sql = format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2)");
            transaction.execute(&sql, ((n % 500) as i64, format!("{n} {}", "x".repeat(400)))).unwrap();
        }
        transaction.commit().unwrap();
    }
}

fn one<T: rusqlite::types::FromSql>(database: &Connection, sql: &str) -> T {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_database_under_constant_writes_is_whole_in_every_generation() {
    let bench = Bench::new();
    let repository = bench.repository();
    let path = bench.source().join("db");
    create(&Connection::open(&path).unwrap());
    let written = Arc::new(AtomicU64::new(0));
    let mut whole = 0;
    for _ in 0..20 {
        let stop = Arc::new(AtomicBool::new(false));
        let mut database = Connection::open(&path).unwrap();
        let writer = std::thread::spawn({
            let (stop, written) = (stop.clone(), written.clone());
            move || {
                write_until(&stop, &written, &mut database);
                // As a killed process leaves it: the log is not written back, the connection not closed.
                std::mem::forget(database);
            }
        });
        let before = written.load(Ordering::Relaxed);
        let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
        pass.hot(&mut Quiet).unwrap();
        while written.load(Ordering::Relaxed) < before + 10 {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        let generation = pass.cold(&mut Quiet).unwrap();

        // The generation itself is never opened: SQLite would write to it.
        let restored = bench.folder.path().join("restored");
        let _ = std::fs::remove_dir_all(&restored);
        std::fs::create_dir(&restored).unwrap();
        for file in ["db", "db-wal"] {
            std::fs::copy(copy(&generation).join(file), restored.join(file)).unwrap();
        }
        let database = Connection::open(restored.join("db")).unwrap();
        let agrees: bool = one(
            &database,
            "SELECT (SELECT group_concat(id||text) FROM a) = (SELECT group_concat(id||text) FROM b)
            AND (SELECT count(*) FROM a) > 0",
        );
        whole += u32::from(one::<String>(&database, "PRAGMA integrity_check") == "ok" && agrees);
    }
    assert_eq!(whole, 20);
}
