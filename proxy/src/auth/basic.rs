//! User names and passwords (RFC 7617).

use super::credential::{Found, Place, find};
use super::passwords::{Right, Users};
use super::{Identity, Known, Said, told_by};
use crate::expression::View;
use crate::model::BasicAuth;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName, HeaderValue};

/// Compiled users.
#[derive(Debug)]
pub(super) struct Basic {
    users: Users,
    pub(super) from: [Place; 1],
    pub(super) username_header: Option<HeaderName>,
    forward: bool,
}

impl Basic {
    pub(super) fn compile(from: &BasicAuth) -> Result<Self, String> {
        let username_header = from.username_header.as_ref().map(|name| told_by("usernameHeader", name));
        Ok(Self {
            users: Users::parse(from.users.reveal())?,
            from: [Place::Header(header::AUTHORIZATION, Some("Basic".into()))],
            username_header: username_header.transpose()?,
            forward: from.forward,
        })
    }

    pub(super) async fn ask(&self, view: &View<'_>, right: &Right) -> Said<'_> {
        let credential = match find(&self.from, view) {
            Found::Nothing => return Said::Missing,
            Found::Unclear => return Said::Wrong,
            Found::One(credential) => credential,
        };
        let decoded = STANDARD.decode(&*credential).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.map(zeroize::Zeroizing::new);
        let Some((user, password)) = decoded.as_ref().and_then(|text| text.split_once(':')) else {
            return Said::Wrong;
        };
        match self.users.know(user, password, right).await {
            Err(why) => Said::Unable(why),
            Ok(false) => Said::Wrong,
            Ok(true) => Said::Known(Known {
                identity: Identity { consumer: Some(user.into()), claims: None },
                fields: self.username_header.iter().zip(HeaderValue::try_from(user).ok()).collect(),
                withheld: if self.forward { &[] } else { &self.from },
                ..Known::default()
            }),
        }
    }
}
