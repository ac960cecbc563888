//! Parses `WWW-Authenticate`.
//!
//! The header is a list of challenges, each a list of parameters, and both lists use the same comma; a
//! challenge starts where a word is followed by another word instead of `=`. Servers send several headers,
//! several challenges in one, commas inside quotes, and nonsense: what cannot be read is left out.

/// How a registry wants to be convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with every request.
    Basic {
        /// What the server calls itself.
        realm: String,
    },
    /// A token from a token server.
    Bearer {
        /// The URL of the token server.
        realm: String,
        /// The name of the registry as the token server knows it.
        service: Option<String>,
        /// What the request needed; actions on repositories, separated by spaces.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenge to answer among the values of all `WWW-Authenticate` headers: Bearer before Basic.
    pub fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
        let mut challenges: Vec<_> = headers.into_iter().flat_map(Challenge::parse).collect();
        let bearer = challenges.iter().position(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        (!challenges.is_empty()).then(|| challenges.swap_remove(bearer.unwrap_or(0)))
    }

    /// All challenges of one header that dhow can answer.
    pub fn parse(header: &str) -> Vec<Challenge> {
        let mut scanner = Scanner { rest: header };
        let mut challenges = Vec::new();
        while let Some(scheme) = scanner.scheme() {
            let parameters = scanner.parameters();
            challenges.extend(Challenge::from_parts(scheme, parameters));
        }
        challenges
    }

    fn from_parts(scheme: &str, mut parameters: Vec<(String, String)>) -> Option<Challenge> {
        let mut take = |name: &str| {
            let index = parameters.iter().position(|(key, _)| key == name)?;
            Some(parameters.swap_remove(index).1)
        };
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic { realm: take("realm").unwrap_or_default() });
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            let realm = take("realm")?;
            return Some(Challenge::Bearer { realm, service: take("service"), scope: take("scope") });
        }
        None
    }
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// The next authentication scheme; skips what is not one.
    fn scheme(&mut self) -> Option<&'a str> {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
            let mut rest = self.rest.chars();
            let word = self.word();
            if !word.is_empty() {
                return Some(word);
            }
            rest.next()?;
            self.rest = rest.as_str();
        }
    }

    /// The parameters up to the next scheme or the end.
    fn parameters(&mut self) -> Vec<(String, String)> {
        let mut parameters = Vec::new();
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
            let before = self.rest;
            let name = self.word();
            let after_name = self.rest.trim_start();
            let Some(value) = after_name.strip_prefix('=').filter(|_| !name.is_empty()) else {
                // A word without `=` starts the next challenge.
                self.rest = before;
                return parameters;
            };
            self.rest = value.trim_start();
            parameters.push((name.to_ascii_lowercase(), self.value()));
        }
    }

    fn word(&mut self) -> &'a str {
        let is_end = |c: char| matches!(c, ',' | '=' | '"') || c.is_ascii_whitespace();
        let (word, rest) = self.rest.split_at(self.rest.find(is_end).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn value(&mut self) -> String {
        let Some(quoted) = self.rest.strip_prefix('"') else { return self.word().to_owned() };
        let mut value = String::new();
        let mut chars = quoted.chars();
        loop {
            match chars.next() {
                None | Some('"') => break,
                Some('\\') => value.extend(chars.next()),
                Some(c) => value.push(c),
            }
        }
        self.rest = chars.as_str();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let [service, scope] = [service, scope].map(|text| text.map(str::to_owned));
        Challenge::Bearer { realm: realm.to_owned(), service, scope }
    }

    fn basic(realm: &str) -> Challenge {
        Challenge::Basic { realm: realm.to_owned() }
    }

    #[test]
    fn commas_in_quotes_belong_to_the_value() {
        let header = r#"Bearer realm="https://a/token",service="r",scope="repository:x:pull,push""#;
        let expected = bearer("https://a/token", Some("r"), Some("repository:x:pull,push"));
        assert_eq!(Challenge::parse(header), [expected]);
    }

    #[test]
    fn one_header_may_hold_several_challenges() {
        let header = r#"Basic realm="say \"hi\"", Negotiate, bearer REALM=https://a/t , service = "b""#;
        assert_eq!(Challenge::parse(header), [basic("say \"hi\""), bearer("https://a/t", Some("b"), None)]);
    }

    #[test]
    fn bearer_is_preferred() {
        let headers = ["Basic realm=x", "Bearer realm=\"https://a\""];
        assert_eq!(Challenge::choose(headers), Some(bearer("https://a", None, None)));
        assert_eq!(Challenge::choose(["Digest realm=x", "Basic"]), Some(basic("")));
    }

    #[test]
    fn nonsense_is_left_out() {
        for header in ["", ",,=,", "\"", "Bearer", "Bearer service=x", "= Bearer realm"] {
            assert_eq!(Challenge::parse(header), [], "{header}");
        }
        assert_eq!(Challenge::parse("Basic realm=\"open"), [basic("open")]);
    }

    proptest! {
        #[test]
        fn any_header_is_read_to_its_end(header in r#"([a-zB ,="\\]|Bearer |realm=|é){0,40}"#) {
            Challenge::parse(&header);
        }
    }
}
