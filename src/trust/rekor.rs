//! Asks the transparency logs of the trusted root for the entry of a signature that a release published
//! without one (`.sig` and `.crt` alone). The answer proves nothing until it is checked like any other.

use std::collections::HashMap;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::json;
use sigstore_verify::crypto::sha256;
use sigstore_verify::rekor::LogEntry;
use sigstore_verify::types::{DerCertificate, SignatureBytes, TransparencyLogEntry};
use url::Url;

use super::error::LogFault;
use super::{CARRIER_CAP, TrustError, TrustFault, carrier};
use crate::https::fault::{Fault, SystemResolver};
use crate::https::{Authorities, LazyClient};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(20);
const MISSING: &str = "a signature and its certificate alone do not prove when it was made \
     (publish release.json.sigstore.json beside them)";

/// Talks to transparency logs.
#[derive(Debug, Clone)]
pub struct Rekor(LazyClient);

impl Rekor {
    /// Believes the system's CA certificates and these.
    pub fn new(authorities: &Authorities) -> Self {
        Self(LazyClient::new(authorities, || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TOTAL_TIMEOUT)
                .dns_resolver(SystemResolver::shared())
                .redirect(reqwest::redirect::Policy::none())
        }))
    }

    /// The entry of exactly this signature, from the first of `logs` (base URLs) that has it.
    ///
    /// # Errors
    /// No log had it; or one could not be asked, which is no refusal.
    pub async fn find(
        &self,
        logs: &[String],
        data: &[u8],
        signature: &SignatureBytes,
        certificate: &DerCertificate,
    ) -> Result<TransparencyLogEntry, TrustError> {
        // The log derives an entry's name from its content: proposing the very entry finds it or nothing.
        let query = json!({"entries": [{
            "kind": "hashedrekord", "apiVersion": "0.0.1",
            "spec": {
                "signature": {
                    "content": signature.to_base64(),
                    "publicKey": {"content": BASE64_STANDARD.encode(certificate.to_pem())},
                },
                "data": {"hash": {"algorithm": "sha256", "value": sha256(data).to_hex()}},
            },
        }]});
        let mut silent = Vec::new();
        for log in logs {
            match self.ask(log, &query).await {
                Ok(Some(entry)) => {
                    let unreadable = |why| TrustError::new(TrustFault::NoSignature, format!("{log} {why}"));
                    return carrier::log_entry(&entry).map_err(unreadable);
                }
                Ok(None) => {}
                Err(why) => silent.push((log, why)),
            }
        }
        let texts = silent.iter().map(|(_, (_, text))| text.as_str()).collect::<Vec<_>>().join("; ");
        let Some((log, (fault, _))) = silent.into_iter().next() else {
            let text = format!("{MISSING}, and no entry for it is in {}", logs.join(", "));
            return Err(TrustError::new(TrustFault::Undated, text));
        };
        let host = Url::parse(log).ok().and_then(|url| url.host_str().map(str::to_owned));
        let fault = TrustFault::Log { host: host.unwrap_or_else(|| log.clone()), fault };
        Err(TrustError::new(fault, format!("{MISSING}, and the log could not be asked: {texts}")))
    }

    async fn ask(&self, log: &str, query: &serde_json::Value) -> Result<Option<LogEntry>, (LogFault, String)> {
        let nonsense = |what: String| (LogFault::Nonsense, format!("{log} {what}"));
        let url = Url::parse(&format!("{}/api/v1/log/entries/retrieve", log.trim_end_matches('/')))
            .map_err(|error| nonsense(format!("is no address: {error}")))?;
        let ready = self.0.get().await.map_err(|why| (LogFault::Unanswered(Fault::Other), why))?;
        let asked = url.clone();
        let failed = |error: reqwest::Error| {
            let (fault, says) = ready.explain(&error, &asked);
            (LogFault::Unanswered(fault), format!("{log}: {says}"))
        };
        let mut response = ready.client.post(url).json(query).send().await.map_err(failed)?;
        let status = response.status();
        // A v2 log has no such question and answers 404 or 405.
        if status.is_client_error() && status != reqwest::StatusCode::TOO_MANY_REQUESTS {
            return Ok(None);
        }
        if !status.is_success() {
            return Err((LogFault::Busy, format!("{log} answers {status}")));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > CARRIER_CAP {
                return Err(nonsense(format!("answers more than {CARRIER_CAP} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        first_entry(&body).map_err(|why| nonsense(format!("answers {why}")))
    }
}

/// The first entry of `[{"<uuid>": {…}}, …]`.
fn first_entry(body: &[u8]) -> Result<Option<LogEntry>, String> {
    let found: Vec<HashMap<String, LogEntry>> =
        serde_json::from_slice(body).map_err(|error| format!("no log entries: {error}"))?;
    Ok(found.into_iter().flat_map(HashMap::into_values).next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_of_an_answer_is_taken() {
        let entry = r#"{"body":"e30=","integratedTime":1,"logID":"00","logIndex":7}"#;
        for (body, expected) in [
            ("[]".to_owned(), Ok(None)),
            ("[{}]".to_owned(), Ok(None)),
            (format!(r#"[{{"uuid":{entry}}}]"#), Ok(Some(7))),
            (format!(r#"[{{}},{{"uuid":{entry}}}]"#), Ok(Some(7))),
            ("{}".to_owned(), Err(())),
            ("<html>".to_owned(), Err(())),
            (r#"[{"uuid":{}}]"#.to_owned(), Err(())),
            (format!(r#"[{{"uuid":{}}}]"#, entry.replace('7', "-7")), Err(())),
        ] {
            let found = first_entry(body.as_bytes()).map(|entry| entry.map(|e| e.log_index.get()));
            assert_eq!(found.map_err(drop), expected, "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>, json in r#"\[\{"u":\{("body":"[A-Za-z0-9=]{0,8}",?)?("logID":"[0-9a-f]{0,70}",?)?("logIndex":-?[0-9]{1,20})?\}\}\]"#) {
            let _ = first_entry(&bytes);
            let _ = first_entry(json.as_bytes());
        }
    }
}
