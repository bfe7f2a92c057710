//! Hosts in variables and arguments: every way in which applications are told where their database is.

use crate::update::survey::hosts::{Named, of_variable, of_words};

/// `db:5432 Database`, and `?` where it may be something else than a host.
fn shown(named: &[Named]) -> Vec<String> {
    let one = |named: &Named| {
        let port = named.port.map_or_else(String::new, |port| format!(":{port}"));
        let certain = if named.is_certain { "" } else { "?" };
        format!("{}{port} {:?}{certain}", named.host, named.nature)
    };
    named.iter().map(one).collect()
}

type Row = (&'static str, &'static str, &'static [&'static str]);

fn check(rows: &[Row]) {
    let found = |(key, value, expected): &Row| (format!("{key}={value}"), shown(&of_variable(key, value)), *expected);
    let wrong: Vec<_> = rows.iter().map(found).filter(|(_, found, expected)| found != expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn addresses() {
    check(&[
        ("DATABASE_URL", "postgres://user:pw@db:5432/app", &["db:5432 Database"]),
        ("DATABASE_URL", "postgresql://db/app?sslmode=disable", &["db Database"]),
        ("URL", "postgresql+asyncpg://u:p@DB.Example.org/app", &["db.example.org Database"]),
        ("X", "mysql2://u@db:3306", &["db:3306 Database"]),
        ("X", "mariadb+pymysql://u:p@db/app?charset=utf8mb4", &["db Database"]),
        ("X", "mongodb://u:p@m1:27017,m2:27017/app?replicaSet=rs", &["m1:27017 Database", "m2:27017 Database"]),
        ("X", "mongodb+srv://u:p@cluster.example.net/app", &["cluster.example.net Database"]),
        ("SPRING_DATASOURCE_URL", "jdbc:postgresql://db:5432/app", &["db:5432 Database"]),
        ("X", "jdbc:mysql:replication://a:3306,b:3306/app", &["a:3306 Database", "b:3306 Database"]),
        ("X", "jdbc:sqlserver://db:1433;databaseName=app;user=sa", &["db:1433 Database"]),
        ("X", "sqlserver://sa:p@db\\SQLEXPRESS?database=app", &["db Database"]),
        ("X", "jdbc:oracle:thin:@db:1521/app", &["db Database"]),
        ("X", "jdbc:oracle:thin:u/p@//db:1521/app", &["db Database"]),
        ("X", "jdbc:h2:tcp://h2:9092/~/app", &["h2:9092 Database"]),
        ("X", "redis://cache:6379/0", &["cache:6379 Cache"]),
        ("X", "rediss://:pw@cache:6380", &["cache:6380 Cache"]),
        ("X", "redis+sentinel://s1:26379,s2:26379/mymaster", &["s1:26379 Cache", "s2:26379 Cache"]),
        ("X", "redis://a:1,redis://b:2", &["a:1 Cache", "b:2 Cache"]),
        ("X", "redis://a:1 redis://b:2", &["a:1 Cache", "b:2 Cache"]),
        ("X", "memcached://cache", &["cache Cache"]),
        ("X", "amqp://guest:guest@mq:5672/%2f", &["mq:5672 Server"]),
        ("X", "nats://nats:4222", &["nats:4222 Server"]),
        ("DB_PORT", "tcp://172.17.0.2:5432", &["172.17.0.2:5432 Database"]),
        ("X", "postgres://[fd00::7]:5432/app", &["fd00::7:5432 Database"]),
        // The password holds what it must not, and is no host.
        ("X", "postgres://user:pa/ss@db:5432/app", &["db:5432 Database"]),
        ("X", "postgres://user:p@ss/w@db:5432/app", &["db:5432 Database"]),
        ("X", "postgres://user:p?ss@db:5432/app", &["db:5432 Database"]),
        ("X", "redis://:p#ss@cache:6379", &["cache:6379 Cache"]),
        ("X", "postgres://u:p@db/app?options=a@b", &["db Database"]),
        ("X", "postgres://db:5432/app?user=a@b", &["db:5432 Database"]),
        // The host is a parameter; a folder of sockets is none.
        ("X", "postgres:///app?host=db&port=5432", &["db Database"]),
        ("X", "postgres:///app?host=/var/run/postgresql", &[]),
        // In the middle of something else.
        ("CONFIG", r#"{"db": "postgres://u:p@db/app", "cache": "redis://cache"}"#, &["db Database", "cache Cache"]),
        // Web addresses say nothing of what is kept there, unless the variable does.
        ("API_URL", "http://api:8080/x@y", &["api:8080 Web"]),
        ("ELASTICSEARCH_URL", "http://es:9200", &["es:9200 Database"]),
        ("ES_NODES", "http://es1:9200,http://es2:9200", &["es1:9200 Database", "es2:9200 Database"]),
        ("S3_ENDPOINT", "http://minio:9000", &["minio:9000 Server"]),
        ("MEILI_URL", "http://search:7700", &["search:7700 Server"]),
        ("STORE_URL", "http://store:8080", &["store:8080 Server"]),
        ("PUBLIC_URL", "https://shop.example.org", &["shop.example.org Web"]),
        // What goes there is not read again.
        ("X", "smtp://mail:25", &["mail:25 Passing"]),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4317", &["otel:4317 Passing"]),
        ("SENTRY_DSN", "https://key@sentry:9000/1", &["sentry:9000 Passing"]),
        ("HTTP_PROXY", "http://squid:3128", &["squid:3128 Passing"]),
        // Files, and what is none at all.
        ("DATABASE_URL", "sqlite:///data/app.db", &[]),
        ("DATABASE_URL", "sqlite3:////data/app.db", &[]),
        ("DATABASE_URL", "file:./dev.db", &[]),
        ("DATABASE_URL", "jdbc:sqlite:/data/app.db", &[]),
        ("X", "unix:///var/run/x.sock", &[]),
        ("X", "postgres://", &[]),
        ("X", "://", &[]),
        ("X", "postgres://${HOST}/app", &[]),
    ]);
}

#[test]
fn names_of_data_sources() {
    check(&[
        ("X", "host=db port=5432 dbname=app user=u password=p", &["db Database"]),
        ("X", "host='db' dbname='app'", &["db Database"]),
        ("X", "hostaddr=10.0.0.7 dbname=app", &["10.0.0.7 Database"]),
        ("X", "host=a,b port=5432 dbname=app", &["a Database", "b Database"]),
        ("ConnectionStrings__Default", "Host=db;Port=5432;Database=app;Username=u;Password=p", &["db Database"]),
        ("X", "Server=db,1433;Database=app;User Id=sa", &["db Database"]),
        ("X", "Server=tcp:db.example.org,1433;Initial Catalog=app", &["db.example.org Database"]),
        ("X", "Data Source=db\\SQLEXPRESS;Initial Catalog=app", &["db Database"]),
        ("X", "mysql:host=db;port=3306;dbname=app", &["db Database"]),
        ("X", "pgsql:host=db", &["db Database"]),
        ("X", "sqlsrv:Server=db;Database=app", &["db Database"]),
        (
            "X",
            "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=db)(PORT=1521))(CONNECT_DATA=(SERVICE_NAME=x)))",
            &["db Database"],
        ),
        ("X", "user:pw@tcp(db:3306)/app?parseTime=true", &["db:3306 Database"]),
        ("X", "tcp(db)/app", &["db Database"]),
        ("X", "user:pw@unix(/run/mysqld.sock)/app", &[]),
        ("X", "Data Source=app.db", &[]),
        ("X", "Data Source=/data/app.sqlite;Password=p", &[]),
        ("X", "Data Source=app.db;Password=p", &[]),
        // Without anything of a database it may be any option.
        ("OPTIONS", "server=one address=two", &[]),
    ]);
}

#[test]
fn hosts_alone() {
    check(&[
        ("DB_HOST", "db", &["db Database"]),
        ("DB_HOST", "db:5432", &["db:5432 Database"]),
        ("PGHOST", "db", &["db Database"]),
        ("DBHOST", "db", &["db Database"]),
        ("dbHost", "db", &["db Database"]),
        ("db.host", "db", &["db Database"]),
        ("APP__DATABASE__HOST", "db", &["db Database"]),
        ("WORDPRESS_DB_HOST", "db:3306", &["db:3306 Database"]),
        ("MYSQL_SERVER", "db", &["db Database"]),
        ("MYSQL_ADDR", "db:3306", &["db:3306 Database"]),
        ("POSTGRES_HOST_1", "db", &["db Database"]),
        ("POSTGRES_SERVERS", "a:5432, b:5432", &["a:5432 Database", "b:5432 Database"]),
        ("DB_HOST_PRIMARY", "db", &["db Database?"]),
        ("DB_HOST_PRIMARY", "db1.example.org", &["db1.example.org Database"]),
        ("DB_SERVER_VERSION", "v15.3", &["v15.3 Database?"]),
        // A host, or a name that the database has inside: it counts where something answers to it.
        ("DATABASE", "db", &["db Database?"]),
        ("APP_REDIS", "cache", &["cache Cache?"]),
        ("POSTGRES_DB", "app", &["app Database?"]),
        ("DATABASE_URL", "user:pw@db:5432/app", &["db:5432 Database"]),
        ("DB_DSN", "//db:1521/app", &["db:1521 Database"]),
        ("DB_HOST", "10.0.0.7", &["10.0.0.7 Database"]),
        ("DB_HOST", "fd00::7", &["fd00::7 Database"]),
        ("DB_HOST", "[fd00::7]:5432", &["fd00::7:5432 Database"]),
        ("DB_HOST", "db.example.org.", &["db.example.org Database"]),
        ("DB_HOST", "my_db", &["my_db Database"]),
        ("REDIS_HOST", "cache", &["cache Cache"]),
        ("MEMCACHED_SERVERS", "m1:11211:1,m2:11211:1", &["m1:11211 Cache", "m2:11211 Cache"]),
        ("ConnectionStrings__Redis", "cache:6379,password=x,ssl=False", &["cache:6379 Cache?"]),
        ("KAFKA_BROKERS", "k1:9092;k2:9092", &["k1:9092 Server", "k2:9092 Server"]),
        ("MQTT_HOST", "mosquitto", &["mosquitto Server"]),
        ("SMTP_HOST", "mail", &["mail Passing"]),
        ("UPSTREAM", "backend:8080", &["backend:8080 Server?"]),
        // A folder of sockets, a file, a driver, a name, a number, a switch.
        ("DB_HOST", "/var/run/postgresql", &[]),
        ("DB_URL", "./data/app.db", &[]),
        ("DB_CONNECTION", "pgsql", &[]),
        ("DB_NAME", "app", &[]),
        ("POSTGRES_USER", "db", &[]),
        ("POSTGRES_PASSWORD", "db", &[]),
        ("ELASTICSEARCH_NODES", "3", &[]),
        ("DB_HOST", "", &[]),
        ("DB_HOST", "${DB}", &[]),
        ("TIME", "12:30", &[]),
        ("PATH", "/usr/bin:/bin", &[]),
        ("GREETING", "hello world", &[]),
        ("DB_PASSWORD", "s3cr:et!", &[]),
    ]);
    let long = format!("postgres://db/{}", "x".repeat(20_000));
    assert_eq!(of_variable("DATABASE_URL", &long), [], "no address is so long");
}

#[test]
fn words_of_commands() {
    type Row = (&'static [&'static str], &'static [&'static str]);
    let rows: &[Row] = &[
        (&["app", "--database-url=postgres://u:p@db/app"], &["db Database"]),
        (&["app", "--db-host", "db", "--verbose"], &["db Database"]),
        (&["app", "--db-host=db:5432"], &["db:5432 Database"]),
        (&["app", "postgres://db/app"], &["db Database"]),
        (&["wait-for", "db:5432", "--", "app"], &["db:5432 Server?"]),
        (&["sh", "-c", "wait-for db:5432 && exec app --dsn postgres://db2/app"], &["db2 Database"]),
        (&["sh", "-c", "wait-for db:5432 && exec app"], &["db:5432 Server?"]),
        (&["app", "--listen", "0.0.0.0:80"], &["0.0.0.0:80 Server?"]),
        (&["app", "serve", "--config", "/etc/app.yml"], &[]),
    ];
    for (words, expected) in rows {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(shown(&of_words(&words)), *expected, "{words:?}");
    }
}
