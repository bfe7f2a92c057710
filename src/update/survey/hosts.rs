//! Hosts that a service's variables and arguments name: addresses, lists of hosts, data source names. Pure.
//!
//! Values hold passwords. What leaves this module are hosts and ports, and only such as could be ones.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

/// A longer value is no address: a certificate, a template.
const LONGEST: usize = 16 * 1024;

/// What is to be found at a host, as far as the name of the variable and the kind of address say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nature {
    /// What goes there is not read again by the application: mail, logs, metrics, whatever a proxy forwards.
    Passing,
    /// It speaks HTTP, which says nothing of what it keeps.
    Web,
    /// Any other server: a queue, a search index, a store of objects.
    Server,
    /// It keeps its data only if the operator gave it a place for that.
    Cache,
    Database,
}

/// A host, in lower case, as somebody connects to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub host: String,
    pub port: Option<u16>,
    pub nature: Nature,
    /// It can be nothing else but a host: it stands in an address, or the variable is called `…_HOST`.
    pub is_certain: bool,
}

/// The hosts that a variable names.
pub fn of_variable(key: &str, value: &str) -> Vec<Named> {
    if value.len() > LONGEST {
        return Vec::new();
    }
    let key = Key::of(key);
    let mut found: Vec<Named> = Vec::new();
    let addresses = in_addresses(&key, value);
    let has_address = value.contains("://") || value.contains("jdbc:");
    let dsn = if has_address {
        in_network_dsn(value)
    } else {
        in_network_dsn(value).into_iter().chain(in_dsn(value)).collect()
    };
    let plain = if has_address || !dsn.is_empty() { Vec::new() } else { in_list(&key, value) };
    for named in addresses.into_iter().chain(dsn).chain(plain) {
        if !found.contains(&named) {
            found.push(named);
        }
    }
    found
}

/// The hosts that the words of a command name: `--db-host=db`, `--db-host db`, `postgres://db/app`, `wait-for db:5432`.
pub fn of_words(words: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        match (word.starts_with('-'), word.split_once('=')) {
            (true, Some((key, value))) => found.extend(of_variable(key, value)),
            (true, None) => {
                let value = words.next_if(|next| !next.starts_with('-'));
                found.extend(value.into_iter().flat_map(|value| of_variable(word, value)));
            }
            (false, _) => found.extend(of_variable("", word)),
        }
    }
    found
}

/// The words of a variable's name.
struct Key(Vec<String>);

/// With one of these ends the name of a variable that holds a host.
const HOST_LIKE: [&str; 21] = [
    "HOST",
    "HOSTS",
    "HOSTNAME",
    "HOSTNAMES",
    "HOSTADDR",
    "SERVER",
    "SERVERS",
    "ADDR",
    "ADDRS",
    "ADDRESS",
    "ADDRESSES",
    "URL",
    "URLS",
    "URI",
    "URIS",
    "DSN",
    "ENDPOINT",
    "ENDPOINTS",
    "NODES",
    "BROKERS",
    "BROKER",
];

const DATABASES: [&str; 50] = [
    "DB",
    "DATABASE",
    "DATABASES",
    "DATASOURCE",
    "JDBC",
    "ODBC",
    "SQL",
    "SQLALCHEMY",
    "POSTGRES",
    "POSTGRESQL",
    "POSTGIS",
    "PG",
    "PGSQL",
    "PSQL",
    "MYSQL",
    "MYSQL2",
    "MYSQLX",
    "MARIADB",
    "MONGO",
    "MONGODB",
    "MSSQL",
    "SQLSERVER",
    "ORACLE",
    "COCKROACH",
    "COCKROACHDB",
    "CASSANDRA",
    "SCYLLA",
    "CLICKHOUSE",
    "COUCHDB",
    "COUCHBASE",
    "COUCHBASES",
    "NEO4J",
    "BOLT",
    "ARANGODB",
    "RETHINKDB",
    "INFLUX",
    "INFLUXDB",
    "TIMESCALE",
    "TIMESCALEDB",
    "ELASTIC",
    "ELASTICSEARCH",
    "OPENSEARCH",
    "SOLR",
    "ETCD",
    "SURREALDB",
    "FIREBIRD",
    "FIREBIRDSQL",
    "DB2",
    "ES",
    "REDSHIFT",
];

const CACHES: [&str; 11] = [
    "REDIS",
    "REDISS",
    "VALKEY",
    "VALKEYS",
    "MEMCACHE",
    "MEMCACHED",
    "CACHE",
    "CACHES",
    "KEYDB",
    "DRAGONFLY",
    "SENTINEL",
];

/// Search indexes, stores of objects and queues, of which many speak HTTP.
const STORES: [&str; 22] = [
    "S3",
    "MINIO",
    "STORAGE",
    "STORE",
    "BUCKET",
    "BLOB",
    "SEARCH",
    "MEILI",
    "MEILISEARCH",
    "TYPESENSE",
    "QDRANT",
    "WEAVIATE",
    "MILVUS",
    "CHROMA",
    "VECTOR",
    "CONSUL",
    "VAULT",
    "QUEUE",
    "AMQP",
    "RABBITMQ",
    "KAFKA",
    "NATS",
];

const PASSING: [&str; 38] = [
    "SMTP",
    "SMTPS",
    "MAIL",
    "MAILER",
    "EMAIL",
    "IMAP",
    "IMAPS",
    "OTEL",
    "OTLP",
    "JAEGER",
    "ZIPKIN",
    "TEMPO",
    "TRACING",
    "SENTRY",
    "STATSD",
    "GRAPHITE",
    "LOKI",
    "SYSLOG",
    "LOG",
    "LOGS",
    "LOGGING",
    "LOGSTASH",
    "FLUENTD",
    "METRICS",
    "PROMETHEUS",
    "PROXY",
    "PROXIES",
    "SOCKS5",
    "DNS",
    "NTP",
    "STUN",
    "TURN",
    "LDAP",
    "LDAPS",
    "OIDC",
    "OAUTH",
    "SAML",
    "SSO",
];

impl Key {
    /// `DB_HOST`, `db.host`, `dbHost`, `DBHOST`, `DB_HOST_1`, `--db-host`.
    fn of(name: &str) -> Self {
        static WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("[A-Z]*[a-z0-9]+|[A-Z0-9]+").ok());
        let mut words = Vec::new();
        for word in WORDS.iter().flat_map(|words| words.find_iter(name)) {
            let word = word.as_str().to_ascii_uppercase();
            // A number alone counts variables of one kind.
            if word.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            let joined = HOST_LIKE
                .iter()
                .find_map(|end| word.strip_suffix(end).filter(|rest| is_known(rest)).map(|rest| (rest, *end)));
            match joined {
                Some((rest, end)) => words.extend([rest.to_owned(), end.to_owned()]),
                None => words.push(word),
            }
        }
        Self(words)
    }

    fn has(&self, list: &[&str]) -> bool {
        self.0.iter().any(|word| list.contains(&word.as_str()))
    }

    /// What it says of the server whose host it holds.
    fn nature(&self) -> Option<Nature> {
        [
            (&DATABASES[..], Nature::Database),
            (&CACHES, Nature::Cache),
            (&PASSING, Nature::Passing),
            (&STORES, Nature::Server),
        ]
        .into_iter()
        .find_map(|(list, nature)| self.has(list).then_some(nature))
    }

    fn ends_host_like(&self) -> bool {
        self.0.last().is_some_and(|word| HOST_LIKE.contains(&word.as_str()))
    }

    /// `DATABASE=db`, `APP_REDIS=cache`: a host, or a name that the database has inside.
    fn ends_as_store(&self) -> bool {
        self.0.last().is_some_and(|word| is_known(word))
    }

    /// `DB_HOST_PRIMARY` too.
    fn is_host_like(&self) -> bool {
        self.0.iter().rev().take(2).any(|word| HOST_LIKE.contains(&word.as_str()))
    }
}

fn is_known(word: &str) -> bool {
    [&DATABASES[..], &CACHES, &STORES].iter().any(|list| list.contains(&word))
}

/// What the scheme says; `None` for files and sockets, which are nowhere else.
fn nature_of(scheme: &str, key: &Key, is_jdbc: bool) -> Option<Nature> {
    let family = scheme.split('+').next().unwrap_or_default().to_ascii_uppercase();
    let is = |list: &[&str]| list.contains(&family.as_str());
    let local = ["FILE", "UNIX", "SQLITE", "SQLITE3", "DATA", "MEMORY", "H2"];
    Some(match () {
        () if is(&local) => return None,
        () if is_jdbc || is(&DATABASES) => Nature::Database,
        () if is(&CACHES) => Nature::Cache,
        () if is(&PASSING) => Nature::Passing,
        () if is(&["HTTP", "HTTPS", "WS", "WSS"]) => key.nature().unwrap_or(Nature::Web),
        () => key.nature().unwrap_or(Nature::Server),
    })
}

/// In `scheme://user:password@host:port,host:port/…`, wherever in the text.
fn in_addresses(key: &Key, value: &str) -> Vec<Named> {
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let starts: Vec<(usize, usize)> = value
        .match_indices("://")
        .map(|(at, _)| (value[..at].rfind(|c| !is_scheme(c)).map_or(0, |before| before + 1), at))
        .collect();
    let mut found = Vec::new();
    for (n, (start, at)) in starts.iter().enumerate() {
        let rest = &value[at + 3..starts.get(n + 1).map_or(value.len(), |next| next.0.max(at + 3))];
        let rest = rest
            .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>'))
            .next()
            .unwrap_or_default();
        let is_jdbc = value[..*start].to_ascii_lowercase().contains("jdbc:");
        let Some(nature) = nature_of(&value[*start..*at], key, is_jdbc) else { continue };
        let is_of_web = value[*start..*at].to_ascii_lowercase().starts_with("http");
        let hosts = if is_of_web { in_head(rest) } else { behind_password(rest) };
        let in_query = rest.split_once('?').into_iter().flat_map(|(_, query)| query.split('&'));
        let asked = in_query.filter_map(|pair| pair.strip_prefix("host=")).filter(|_| nature == Nature::Database);
        let named = |item: &str| host_port(item).map(|(host, port)| Named { host, port, nature, is_certain: true });
        found.extend(hosts.split(',').chain(asked.flat_map(|hosts| hosts.split(','))).filter_map(named));
    }
    found.extend(in_oracle(value));
    found
}

/// As a web address has it: whatever stands behind the first slash is path.
fn in_head(rest: &str) -> &str {
    let head = until(rest, &['/', '?', '#']);
    head.rsplit('@').next().unwrap_or_default()
}

/// Passwords of databases hold `/`, `#`, `?` and `@` as they are, whatever the rules say.
fn behind_password(rest: &str) -> &str {
    let path = until(rest, &['?']);
    let head = until(rest, &['/', '?', '#']);
    let is_number = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let is_cut = head
        .split(',')
        .any(|one| one.rsplit_once(':').is_some_and(|(_, port)| !is_number(port) && !port.ends_with(']')));
    let host = match (path.rsplit_once('@'), rest.rsplit_once('@')) {
        (Some((_, behind)), _) => behind,
        (None, Some((_, behind))) if is_cut => behind,
        _ => rest,
    };
    until(host, &['/', '?', '#', ';', '\\'])
}

fn until<'a>(text: &'a str, ends: &[char]) -> &'a str {
    text.split(ends).next().unwrap_or_default()
}

/// `jdbc:oracle:thin:@db:1521/x`, `jdbc:oracle:thin:user/password@//db:1521/x`
fn in_oracle(value: &str) -> Option<Named> {
    let (_, rest) = value.split_once("jdbc:oracle:").filter(|(_, rest)| !rest.contains("://"))?;
    let (_, place) = rest.rsplit_once('@')?;
    let place = place.trim_start_matches('/');
    let host = place.split(['/', ':', '(']).next()?;
    host_port(host).map(|(host, port)| Named { host, port, nature: Nature::Database, is_certain: true })
}

/// `user:password@tcp(db:3306)/app`, as Go's MySQL driver has it.
fn in_network_dsn(value: &str) -> Vec<Named> {
    static TCP: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?:^|@)tcp[46]?\(([^()]+)\)").ok());
    let places = TCP.iter().flat_map(|tcp| tcp.captures_iter(value)).filter_map(|found| found.get(1));
    let named = |(host, port)| Named { host, port, nature: Nature::Database, is_certain: true };
    places.filter_map(|place| host_port(place.as_str())).map(named).collect()
}

/// `host=db port=5432 dbname=app`, `Server=tcp:db,1433;Database=app`, `mysql:host=db;dbname=app`.
fn in_dsn(value: &str) -> Vec<Named> {
    static HOST: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?i)(?:^|[;\s:(])(?:host|hostaddr|server|data source|datasource|address|addr|network address)\s*=\s*([^;\s()]+)").ok()
    });
    static DATABASE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?i)(?:^|[;\s(])(?:dbname|database|initial catalog|user id|uid|user|username|password|pwd|service_name|sid)\s*=|^(?:mysql|pgsql|sqlsrv|dblib|oci|firebird):").ok()
    });
    if !DATABASE.as_ref().is_some_and(|database| database.is_match(value)) {
        return Vec::new();
    }
    let hosts = HOST.iter().flat_map(|host| host.captures_iter(value)).filter_map(|found| found.get(1));
    let mut found = Vec::new();
    for hosts in hosts {
        for item in hosts.as_str().trim_matches(['\'', '"']).trim_start_matches("tcp:").split(',') {
            // A file of SQLite is a data source too.
            let is_file = [".db", ".sqlite", ".sqlite3"].iter().any(|end| item.ends_with(end));
            let item = until(item, &['\\']);
            found.extend(host_port(item).filter(|_| !is_file).map(|(host, port)| Named {
                host,
                port,
                nature: Nature::Database,
                is_certain: true,
            }));
        }
    }
    found
}

/// `db`, `db:5432`, `db1,db2:5432`, `cache:6379,password=…`, `user:password@db:5432/app`.
fn in_list(key: &Key, value: &str) -> Vec<Named> {
    let nature = key.nature().unwrap_or(Nature::Server);
    let may_hold_host = key.is_host_like() || key.ends_as_store();
    let mut found = Vec::new();
    for item in value.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';')) {
        let item = item.trim_matches(['\'', '"']);
        let item = item.strip_prefix("//").unwrap_or(item);
        if item.starts_with('/') || item.starts_with('.') {
            continue;
        }
        let place = item.rsplit('@').next().unwrap_or_default();
        let Some((host, port)) = host_port(until(place, &['/', '?'])) else { continue };
        if may_hold_host || port.is_some() {
            let is_certain = key.ends_host_like() || (key.is_host_like() && is_full(&host));
            found.push(Named { host, port, nature, is_certain });
        }
    }
    found
}

/// An address, or a name with a domain: `db1.example.org`, and not `v15.3`.
fn is_full(host: &str) -> bool {
    let domain = host.rsplit_once('.').map(|(_, domain)| domain);
    let is_domain = domain.is_some_and(|domain| domain.len() > 1 && domain.bytes().all(|b| b.is_ascii_alphabetic()));
    is_domain || host.parse::<IpAddr>().is_ok()
}

/// A name or an address, and perhaps a port; memcached puts a weight behind. Anything else is none.
fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"^(?i)([a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?)\.?(?::([0-9]{1,5}))?(?::[0-9]{1,5})?$").ok()
    });
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.to_string(), None));
    }
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let address: IpAddr = address.parse().ok()?;
        return Some((address.to_string(), port.strip_prefix(':').and_then(|port| port.parse().ok())));
    }
    let found = NAME.as_ref()?.captures(text)?;
    let host = found.get(1)?.as_str().to_ascii_lowercase();
    let port = found.get(2).and_then(|port| port.as_str().parse().ok());
    // A number alone, or a version, is no host.
    let is_address = host.parse::<IpAddr>().is_ok();
    (is_address || host.contains(|c: char| c.is_ascii_alphabetic())).then_some((host, port))
}
