//! `<<NAME` and its body.
use crate::expand::{Mode, shell_words};

/// A body of text given inside the Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends the body, and the name of the file for COPY and ADD.
    pub name: String,
    /// The file descriptor written before the `<<`.
    pub descriptor: Option<u32>,
    /// Variables in the body are replaced: no part of the name was quoted.
    pub expand: bool,
    /// Written `<<-`: leading tabs are no part of the text.
    pub strip_tabs: bool,
    /// The lines of the body as they stand in the file.
    pub content: String,
}

impl Heredoc {
    /// The text meant: the content, without leading tabs where `<<-` asks for that.
    pub fn body(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// Reads one word as a heredoc's beginning. The content is empty.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let digits = word.find(|c: char| !c.is_ascii_digit())?;
        let (descriptor, rest) = word.split_at(digits);
        let rest = rest.strip_prefix("<<")?;
        let (strip_tabs, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, rest.trim_start()),
        };
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        let [name] = one(shell_words(rest, Mode::default()).ok()?)?;
        let kept = Mode { keep_quotes: true, ..Mode::default() };
        let [quoted] = one(shell_words(rest, kept).ok()?)?;
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        let expand = quotes(&name) == quotes(&quoted);
        Some(Self { name, descriptor: descriptor.parse().ok(), expand, strip_tabs, content: String::new() })
    }

    /// The heredocs announced in an instruction's line.
    pub(crate) fn find(line: &str) -> Vec<Self> {
        if !line.contains("<<") {
            return Vec::new();
        }
        let mode = Mode { keep_quotes: true, keep_escapes: true, ..Mode::default() };
        // A line with unbalanced quotes is for the shell to complain about, it has no heredocs.
        let words = shell_words(line, mode).unwrap_or_default();
        words.iter().filter_map(|word| Self::parse(word)).collect()
    }

    /// The word that announces this heredoc.
    pub(crate) fn opening(&self) -> String {
        let descriptor = self.descriptor.map(|number| number.to_string()).unwrap_or_default();
        let tabs = if self.strip_tabs { "-" } else { "" };
        let quotes = if self.expand { "" } else { "''" };
        let name: String = self.name.chars().flat_map(protected).collect();
        format!("{descriptor}<<{tabs}{quotes}{name}")
    }
}

fn one(words: Vec<String>) -> Option<[String; 1]> {
    words.try_into().ok()
}

/// A character, escaped if it means something in a heredoc's name.
fn protected(c: char) -> impl Iterator<Item = char> {
    let special = matches!(c, '\'' | '"' | '\\' | '$') || c.is_whitespace();
    special.then_some('\\').into_iter().chain([c])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_quoted_and_tabs_stripped() {
        let parse =
            |word| Heredoc::parse(word).map(|doc| (doc.name, doc.expand, doc.strip_tabs, doc.descriptor));
        let name = |name: &str| name.to_owned();
        assert_eq!(parse("<<EOF"), Some((name("EOF"), true, false, None)));
        assert_eq!(parse("3<<-EOF"), Some((name("EOF"), true, true, Some(3))));
        assert_eq!(parse("<<'EOF'"), Some((name("EOF"), false, false, None)));
        assert_eq!(parse("<<E\"O\"F"), Some((name("EOF"), false, false, None)));
        assert_eq!(parse("<< EOF"), Some((name("EOF"), true, false, None)));
        for none in ["<<", "<EOF", "<<<EOF", "x<<EOF", "<<a b", "<<'a", "12", ""] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn an_opening_reads_back() {
        for word in ["<<EOF", "3<<-'EOF'", "<<a.b", "<<\\'x", "<<'$x'"] {
            let doc = Heredoc::parse(word).unwrap();
            assert_eq!(Heredoc::parse(&doc.opening()), Some(doc), "{word}");
        }
    }

    #[test]
    fn a_line_may_announce_several() {
        let names = |line: &str| Heredoc::find(line).into_iter().map(|doc| doc.name).collect::<Vec<_>>();
        assert_eq!(names("COPY <<a <<b /x"), ["a", "b"]);
        assert_eq!(names("RUN cat <<< x && echo $((1<<2)) '<<no' \"<<no\""), [""; 0]);
        assert_eq!(names("RUN cat << EOF > f"), ["EOF"]);
        assert_eq!(names("RUN echo 'open <<EOF"), [""; 0]);
    }
}
