//! What containers are called.

/// How many random bytes an id shows.
const ID_BYTES: usize = 32;
/// How much of an id people are shown.
const SHORT_ID_CHARS: usize = 12;

/// Words that go well with a person.
const ADJECTIVES: [&str; 56] = [
    "agile",
    "amiable",
    "attentive",
    "balanced",
    "blithe",
    "brisk",
    "candid",
    "careful",
    "cheerful",
    "chipper",
    "civil",
    "composed",
    "cordial",
    "curious",
    "daring",
    "deft",
    "diligent",
    "earnest",
    "easygoing",
    "even",
    "fearless",
    "fluent",
    "frank",
    "generous",
    "genial",
    "gallant",
    "graceful",
    "hardy",
    "hearty",
    "inventive",
    "jaunty",
    "keen",
    "kindly",
    "lively",
    "lucid",
    "mellow",
    "merry",
    "methodical",
    "mindful",
    "neat",
    "nimble",
    "observant",
    "patient",
    "perky",
    "plucky",
    "poised",
    "prudent",
    "ready",
    "sincere",
    "spirited",
    "steady",
    "tidy",
    "unhurried",
    "upbeat",
    "warm",
    "witty",
];

/// People who found something out.
const SURNAMES: [&str; 112] = [
    "abel",
    "alhazen",
    "ampere",
    "anning",
    "arago",
    "avogadro",
    "banach",
    "barre",
    "bateson",
    "becquerel",
    "bessel",
    "birkhoff",
    "bolyai",
    "boole",
    "braun",
    "buchner",
    "burnell",
    "cannon",
    "cantor",
    "cauchy",
    "cavendish",
    "cayley",
    "celsius",
    "chandrasekhar",
    "chatelet",
    "clausius",
    "coulomb",
    "cuvier",
    "dalton",
    "dedekind",
    "descartes",
    "dirac",
    "dirichlet",
    "doppler",
    "eddington",
    "eratosthenes",
    "faraday",
    "fibonacci",
    "fischer",
    "fizeau",
    "flemming",
    "foucault",
    "fourier",
    "fresnel",
    "frege",
    "galvani",
    "gibbs",
    "golgi",
    "grassmann",
    "green",
    "halley",
    "hamilton",
    "harvey",
    "helmholtz",
    "henry",
    "herschel",
    "hilbert",
    "hooke",
    "hubble",
    "huygens",
    "ibnsina",
    "jacobi",
    "jenner",
    "joule",
    "kekule",
    "kirchhoff",
    "klein",
    "koch",
    "kolmogorov",
    "kummer",
    "lagrange",
    "landau",
    "laplace",
    "lavoisier",
    "legendre",
    "leibniz",
    "liebig",
    "linnaeus",
    "lorentz",
    "lyell",
    "maury",
    "mendel",
    "michelson",
    "minkowski",
    "moebius",
    "napier",
    "nernst",
    "oersted",
    "ohm",
    "omar",
    "onnes",
    "ostwald",
    "pauli",
    "peano",
    "planck",
    "poincare",
    "poisson",
    "raman",
    "ramsay",
    "rayleigh",
    "riemann",
    "roemer",
    "rutherford",
    "somerville",
    "steiner",
    "stokes",
    "sylvester",
    "torricelli",
    "volta",
    "wegener",
    "weyl",
    "young",
];

/// A text that cannot name a container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
pub struct InvalidName(String);

/// Takes off the slash Docker puts before names, and checks the rest.
pub fn check_name(text: &str) -> Result<&str, InvalidName> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    match first && name.len() > 1 && name.bytes().all(allowed) {
        true => Ok(name),
        false => Err(InvalidName(text.into())),
    }
}

/// What people are shown of an id.
pub fn short_id(id: &str) -> &str {
    id.get(..SHORT_ID_CHARS).unwrap_or(id)
}

/// Whether a text has the form of an id.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 2 * ID_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A new id: 64 random hexadecimal digits.
pub(crate) fn random_id() -> Result<String, getrandom::Error> {
    loop {
        let mut bytes = [0; ID_BYTES];
        getrandom::fill(&mut bytes)?;
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // A short id that is a number would be taken for one by programs that get it as host name.
        if short_id(&id).bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return Ok(id);
        }
    }
}

/// A name nobody chose: `patient_noether`. After a few taken ones a digit makes more room.
pub(crate) fn random_name(attempt: u32) -> Result<String, getrandom::Error> {
    const PLAIN_ATTEMPTS: u32 = 3;
    let adjective = ADJECTIVES[random_below(ADJECTIVES.len())?];
    let surname = SURNAMES[random_below(SURNAMES.len())?];
    let digit = if attempt < PLAIN_ATTEMPTS { String::new() } else { random_below(10)?.to_string() };
    Ok(format!("{adjective}_{surname}{digit}"))
}

/// Not perfectly even, which a name can live with.
fn random_below(bound: usize) -> Result<usize, getrandom::Error> {
    Ok(getrandom::u32()? as usize % bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for good in ["hello", "/hello", "a1", "A.b-c_d", "9lives"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/", "-a", "_ab", "a b", "a/b", "ü1"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert_eq!(check_name("/hello"), Ok("hello"));
    }

    #[test]
    fn made_up_names_are_names_and_differ() {
        let names: Vec<String> = (0..20).map(|attempt| random_name(attempt).unwrap()).collect();
        for name in &names {
            assert_eq!(check_name(name), Ok(name.as_str()));
        }
        assert!(names.iter().any(|name| name != &names[0]));
        assert_eq!(random_id().unwrap().len(), 64);
    }
}
