//! Whom a registry wants to be asked by: credentials for it, or a token that its realm gives for them.

use jiff::Timestamp;
use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::auth::{Challenge, is_own_realm};
use super::{Failure, Login, RegistryFault, Repository, Route, TOKEN_CAP, shown};
use crate::engine::credentials::{self, Credential, Lookup};
use crate::reference::Reference;
use crate::retry::wanted_pause;

impl Repository {
    /// Answers the registry's challenge: a header that will be accepted, with luck.
    pub(super) async fn authorize(
        &self,
        route: &Route,
        headers: &HeaderMap,
    ) -> std::result::Result<HeaderValue, Failure> {
        let challenges: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(Challenge::parse)
            .collect();
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            return self.token(route, bearer).await;
        }
        match &self.lookup().await.credential {
            Some(Credential::Login { username, password }) if challenges.iter().any(|c| c.scheme == "basic") => {
                use base64::prelude::{BASE64_STANDARD, Engine as _};
                let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.expose_secret()));
                Ok(self.secret_header(&format!("Basic {pair}"))?)
            }
            _ => {
                let text = format!("{} wants to know who reads {}", self.name.registry(), self.name.repository());
                Err(self.error(RegistryFault::Denied(self.known_login().await), text).into())
            }
        }
    }

    /// Fetches a bearer token (distribution's token protocol; OAuth2 for an identity token). Our credentials go to
    /// the registry's own token service; to another one go those that are configured for its host.
    async fn token(&self, route: &Route, bearer: &Challenge) -> std::result::Result<HeaderValue, Failure> {
        let registry = self.name.registry();
        let nonsense =
            |why: &str| self.error(RegistryFault::Nonsense, format!("{registry} names a token service that {why}"));
        let realm = Url::parse(bearer.get("realm")).map_err(|_| nonsense("is no address"))?;
        let host = realm.host_str().ok_or_else(|| nonsense("is no address"))?.to_owned();
        let is_own = is_own_realm(&route.base, &realm);
        if realm.scheme() != "https" && !is_own {
            return Err(nonsense(&format!("is not https ({})", shown(&realm))).into());
        }
        let login = match is_own {
            true => self.lookup().await.clone(),
            false => credentials::for_host(self.client.docker_config.as_deref(), &host).await,
        };
        let ready = self.made(&route.clients.staying).await?;
        let request = token_request(&ready.client, &realm, bearer, &self.name, login.credential.as_ref());
        let response = self.sent(request, &realm, ready).await?;
        let (status, wanted) = (response.status(), wanted_pause(response.headers(), Timestamp::now()));
        if !status.is_success() {
            let is_withheld = !is_own && login.credential.is_none() && self.lookup().await.credential.is_some();
            let fault = match status.as_u16() {
                401 | 403 if is_withheld => RegistryFault::Realm { host: host.clone() },
                401 | 403 | 400 | 404 => RegistryFault::Denied(login_state(&login)),
                429 => RegistryFault::RateLimit { anonymous: login.credential.is_none() },
                500.. => RegistryFault::Server,
                _ => RegistryFault::Nonsense,
            };
            let withheld = if is_withheld { ", which got no credentials because it is on another host" } else { "" };
            let said = self.refusal(response).await;
            let text = format!("the token service {}{withheld} answers {status}{said}", shown(&realm));
            return Err(Failure { error: self.error(fault, text), wanted });
        }
        let body = self.read(response, &realm, TOKEN_CAP).await?;
        let granted: Token = serde_json::from_slice(&body).map_err(|_| nonsense("answers with no token"))?;
        let token = granted.token.or(granted.access_token).ok_or_else(|| nonsense("answers with no token"))?;
        Ok(self.secret_header(&format!("Bearer {}", token.expose_secret()))?)
    }

    pub(super) async fn lookup(&self) -> &Lookup {
        let look = || async {
            match &self.client.docker_config {
                Some(file) => credentials::in_file(file, &self.name).await,
                None => credentials::for_repository(&self.name).await,
            }
        };
        self.login.get_or_init(look).await
    }

    pub(super) async fn known_login(&self) -> Login {
        login_state(self.lookup().await)
    }
}

fn login_state(lookup: &Lookup) -> Login {
    match (&lookup.credential, &lookup.fault) {
        (Some(_), _) => Login::Refused,
        (None, Some(fault)) => Login::Unusable(fault.clone()),
        (None, None) => Login::None,
    }
}

fn token_request(
    client: &reqwest::Client,
    realm: &Url,
    bearer: &Challenge,
    name: &Reference,
    login: Option<&Credential>,
) -> RequestBuilder {
    let scope = match bearer.get("scope") {
        "" => format!("repository:{}:pull", name.repository()),
        scope => scope.to_owned(),
    };
    let request = match login {
        Some(Credential::IdentityToken(refresh)) => client.post(realm.clone()).body(form(&[
            ("grant_type", "refresh_token"),
            ("service", bearer.get("service")),
            ("scope", &scope),
            ("client_id", "processgit-updater"),
            ("refresh_token", refresh.expose_secret()),
        ])),
        login => {
            let mut realm = realm.clone();
            realm.query_pairs_mut().append_pair("service", bearer.get("service")).append_pair("scope", &scope);
            match login {
                Some(Credential::Login { username, password }) => {
                    client.get(realm).basic_auth(username, Some(password.expose_secret()))
                }
                _ => client.get(realm),
            }
        }
    };
    request.header(CONTENT_TYPE, "application/x-www-form-urlencoded")
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<SecretString>,
    #[serde(default)]
    access_token: Option<SecretString>,
}

fn form(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
