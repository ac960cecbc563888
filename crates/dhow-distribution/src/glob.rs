/// A pattern for names of repositories: `*` stands for any part of a component, `**` for any number of components, and
/// `{user}` for the name of who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Vec<String>);

impl Glob {
    pub(crate) fn parse(text: &str) -> Result<Glob, String> {
        let components: Vec<String> = text.split('/').map(str::to_owned).collect();
        let fits = |component: &String| {
            let plain = component.replace("{user}", "");
            !component.is_empty()
                && plain.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"*._-".contains(&c))
        };
        match components.iter().all(fits) {
            true => Ok(Glob(components)),
            false => Err(format!("`{text}` is no pattern for repositories")),
        }
    }

    pub(crate) fn matches(&self, name: &str, user: Option<&str>) -> bool {
        let name: Vec<&str> = name.split('/').collect();
        components(&self.0, &name, user)
    }
}

fn components(pattern: &[String], name: &[&str], user: Option<&str>) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((first, rest)) if first == "**" => {
            (0..=name.len()).any(|skip| components(rest, &name[skip..], user))
        }
        Some((first, rest)) => match (name.split_first(), expanded(first, user)) {
            (Some((component, others)), Some(first)) => {
                within(first.as_bytes(), component.as_bytes()) && components(rest, others, user)
            }
            _ => false,
        },
    }
}

/// `None` if the pattern wants a user and there is none.
fn expanded(component: &str, user: Option<&str>) -> Option<String> {
    match (component.contains("{user}"), user) {
        (false, _) => Some(component.to_owned()),
        // A star in the name of a user is no star.
        (true, Some(user)) if !user.contains(['*', '/']) => Some(component.replace("{user}", user)),
        (true, _) => None,
    }
}

/// Without recursion, so that no pattern takes long.
fn within(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            (p, t) = (star_p + 1, star_t + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, matches) in [
            ("team/app", "team/app", true),
            ("team/app", "team/apps", false),
            ("team/*", "team/app", true),
            ("team/*", "team/app/x", false),
            ("team/*", "team", false),
            ("team/**", "team/app/x", true),
            ("team/**", "team", true),
            ("**", "a/b/c", true),
            ("**/cache", "a/b/cache", true),
            ("**/cache", "a/b/caches", false),
            ("a*c-*", "abbc-", true),
            ("a*c-*", "abb", false),
            ("home/{user}/**", "home/ada/x", true),
            ("home/{user}/**", "home/bob/x", false),
        ] {
            let glob = Glob::parse(pattern).expect(pattern);
            assert_eq!(glob.matches(name, Some("ada")), matches, "{pattern} {name}");
        }
        let own = Glob::parse("{user}/*").expect("a pattern");
        assert!(!own.matches("ada/x", None) && !own.matches("a/x", Some("*")));
        for text in ["", "/a", "a//b", "A", "a b", "{who}/a"] {
            assert!(Glob::parse(text).is_err(), "{text}");
        }
    }
}
