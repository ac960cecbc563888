use serde::Deserialize;

use crate::glob::Glob;

/// Something done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Pull,
    Push,
    Delete,
}

impl Action {
    /// What a token has to be asked for. Who pushes also looks.
    pub(crate) fn scope(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "pull,push",
            Action::Delete => "delete",
        }
    }

    /// The word of the token specification.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Delete => "delete",
        }
    }

    pub(crate) fn verb(self) -> &'static str {
        match self {
            Action::Pull => "pull from",
            Action::Push => "push to",
            Action::Delete => "delete from",
        }
    }
}

/// Who may do what where. What no rule allows is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) repositories: Vec<Glob>,
    /// Names; `*` is everybody who signed in, and `anonymous` everybody.
    pub(crate) users: Vec<String>,
    pub(crate) allow: Vec<Action>,
}

impl Rule {
    fn concerns(&self, user: Option<&str>) -> bool {
        self.users.iter().any(|name| match (name.as_str(), user) {
            ("anonymous", _) => true,
            ("*", user) => user.is_some(),
            (name, user) => user == Some(name),
        })
    }
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// Without any, everybody who signed in may do everything.
    pub(crate) fn new(mut rules: Vec<Rule>) -> Rules {
        if rules.is_empty() {
            let everything = Glob::parse("**").expect("a pattern");
            rules.push(Rule {
                repositories: vec![everything],
                users: vec!["*".to_owned()],
                allow: vec![Action::Pull, Action::Push, Action::Delete],
            });
        }
        Rules(rules)
    }

    pub(crate) fn allow(&self, user: Option<&str>, repository: &str, action: Action) -> bool {
        self.0.iter().any(|rule| {
            rule.concerns(user)
                && rule.allow.contains(&action)
                && rule.repositories.iter().any(|glob| glob.matches(repository, user))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(repositories: &str, users: &[&str], allow: &[Action]) -> Rule {
        Rule {
            repositories: vec![Glob::parse(repositories).expect("a pattern")],
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            allow: allow.to_vec(),
        }
    }

    #[test]
    fn what_some_rule_allows_is_allowed_and_nothing_else() {
        use Action::{Delete, Pull, Push};
        let rules = Rules::new(vec![
            rule("public/**", &["anonymous"], &[Pull]),
            rule("**", &["*"], &[Pull]),
            rule("team/**", &["ada", "bob"], &[Push]),
            rule("team/**", &["ada"], &[Delete]),
        ]);
        assert!(rules.allow(None, "public/a", Pull));
        assert!(!rules.allow(None, "team/a", Pull) && rules.allow(Some("eve"), "team/a", Pull));
        assert!(!rules.allow(Some("eve"), "team/a", Push) && rules.allow(Some("bob"), "team/a", Push));
        assert!(!rules.allow(Some("bob"), "team/a", Delete) && rules.allow(Some("ada"), "team/a", Delete));
        assert!(!rules.allow(Some("ada"), "public/a", Push));
        let default = Rules::new(Vec::new());
        assert!(default.allow(Some("eve"), "a", Delete) && !default.allow(None, "a", Pull));
    }
}
