//! What an app's answer says of someone. Pure.

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, Uri, header};

use crate::{
    access::{
        Identity, Name,
        identity::{MAX_GROUPS, MAX_TOPICS},
    },
    pattern::Pattern,
};

/// What an answer says.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// Who it is.
    Someone(Identity),
    /// It is nobody in particular.
    Nobody,
    /// The same, if nothing follows: with a page it is no answer to the question.
    NobodyIfEmpty,
    /// It is sent to where one logs in.
    Redirected,
    /// It is not let in.
    Refused,
    /// Its session ends just now.
    Over,
    /// Nothing that can be relied on, and why.
    Unclear(String),
}

/// Reads the head of what was answered to a question at `asked`.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, asked: &Uri, now: Instant) -> Said {
    match status {
        StatusCode::OK => someone(headers, now),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Said::Refused,
        status if status.is_redirection() && leads_elsewhere(headers, asked) => Said::Redirected,
        status => Said::Unclear(format!("the answer is {status}")),
    }
}

/// Whether a redirect is to another path: to the same it is one to HTTPS, or to another host.
fn leads_elsewhere(headers: &HeaderMap, asked: &Uri) -> bool {
    let location = headers.get(header::LOCATION);
    let Some(location) = location.and_then(|location| location.to_str().ok()) else {
        return false;
    };
    match location.parse::<Uri>() {
        Ok(to) if to.authority().is_some() || location.starts_with('/') => {
            to.path().trim_end_matches('/') != asked.path().trim_end_matches('/')
        }
        // Relative to what was asked (RFC 3986 5.2): another name in its folder.
        _ => !location.is_empty() && !location.starts_with(['?', '#']),
    }
}

fn someone(headers: &HeaderMap, now: Instant) -> Said {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Said::Unclear(format!("there is more than one {name}"))),
        }
    };
    let read = || {
        let Some(user) = one("remote-user")? else {
            return Ok(Said::NobodyIfEmpty);
        };
        let no_name = || Said::Unclear("remote-user is not a name".into());
        let user = std::str::from_utf8(user.as_bytes()).map_err(|_| no_name())?;
        if user.is_empty() {
            return Ok(Said::Nobody);
        }
        let user = Name::parse(user).map_err(|_| no_name())?;
        let groups = list(headers, "remote-groups", MAX_GROUPS, |name| {
            Name::parse(name).ok()
        })?;
        let topics = list(headers, "remote-topics", MAX_TOPICS, Pattern::parse)?;
        let ends = match one("remote-expires")? {
            None => None,
            Some(left) => {
                let left = left.to_str().ok().and_then(|left| left.parse().ok());
                let unclear = || Said::Unclear("remote-expires is not a number of seconds".into());
                match left.ok_or_else(unclear)? {
                    0 => return Ok(Said::Over),
                    left => now.checked_add(Duration::from_secs(left)),
                }
            }
        };
        Ok(Said::Someone(Identity::authenticated(
            user,
            groups.unwrap_or_default(),
            topics,
            ends,
        )))
    };
    read().unwrap_or_else(|unclear| unclear)
}

/// The members of a list field; `None` if it is not there.
fn list<T>(
    headers: &HeaderMap,
    name: &str,
    most: usize,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<Vec<T>>, Said> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let unclear = |what: &str| Said::Unclear(format!("{name} {what}"));
    let mut all = Vec::new();
    for value in headers.get_all(name) {
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| unclear("is not text"))?;
        let members = text.split(',').map(str::trim);
        for member in members.filter(|member| !member.is_empty()) {
            all.push(read(member).ok_or_else(|| unclear("has a member that is not one"))?);
        }
    }
    if all.len() > most {
        return Err(unclear(&format!("has over {most} members")));
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn said(status: u16, fields: &[(&str, &str)]) -> Said {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = header::HeaderName::try_from(*name).expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        let asked = Uri::from_static("http://127.0.0.1:3000/session/me");
        read(status, &headers, &asked, clock::now())
    }

    #[test]
    fn redirects_to_another_path_are_to_where_one_logs_in() {
        for elsewhere in [
            "/login",
            "/login?next=/session/me",
            "https://app.example/accounts/login/",
            "login",
            "../login",
            "/",
        ] {
            let fields = [("location", elsewhere), ("remote-user", "bob")];
            let said = said(302, &fields);
            assert!(matches!(said, Said::Redirected), "{elsewhere}: {said:?}");
        }
        for same in [
            "https://app.example/session/me",
            "/session/me/",
            "/session/me?x=1",
            "?x=1",
            "",
        ] {
            let said = said(301, &[("location", same)]);
            assert!(matches!(said, Said::Unclear(_)), "{same}: {said:?}");
        }
        assert!(matches!(said(304, &[]), Said::Unclear(_)));
    }

    #[test]
    fn who_it_is_is_said_once_and_clearly() {
        assert!(matches!(said(200, &[]), Said::NobodyIfEmpty));
        assert!(matches!(said(200, &[("remote-user", "")]), Said::Nobody));
        assert!(matches!(
            said(401, &[("remote-user", "bob")]),
            Said::Refused
        ));
        assert!(matches!(said(403, &[]), Said::Refused));
        let bob = ("remote-user", "bob");
        for unclear in [
            &[bob, ("remote-user", "eve")][..],
            &[bob, ("remote-groups", "a\tb")],
            &[bob, ("remote-expires", "soon")],
            &[bob, ("remote-expires", "-1")],
            &[bob, ("remote-expires", "5"), ("remote-expires", "9")],
        ] {
            let said = said(200, unclear);
            assert!(matches!(said, Said::Unclear(_)), "{unclear:?}: {said:?}");
        }
        assert!(matches!(
            said(200, &[bob, ("remote-expires", "0")]),
            Said::Over
        ));
        let fields = [
            bob,
            ("remote-groups", "sales, editors,"),
            ("remote-topics", "orders/*, news"),
            ("remote-expires", "60"),
        ];
        let Said::Someone(identity) = said(200, &fields) else {
            panic!("it is someone");
        };
        let groups: Vec<_> = identity.groups().iter().map(Name::as_str).collect();
        assert_eq!(groups, ["editors", "sales"]);
        let topics = identity.topics().expect("they are named");
        assert!(topics.iter().any(|topic| topic.matches("orders/7")));
        assert!(!topics.iter().any(|topic| topic.matches("other")));
        assert!(identity.expires().is_some());
        // That none may be read is another thing than that nothing is said of it.
        let Said::Someone(none) = said(200, &[bob, ("remote-topics", "")]) else {
            panic!("it is someone");
        };
        assert_eq!(none.topics().map(<[_]>::len), Some(0));
    }
}
