//! What to do with a query: answer it from the network's names, or ask somebody else.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, Record as DnsRecord, RecordType};

use crate::ledger::{Reader, Record};

/// Names move with containers, so nobody should remember them for long.
const TTL_SECONDS: u32 = 5;

/// What the names of networks are looked up in.
pub(super) trait Names {
    /// The addresses of everybody called `name`, which is in lower case.
    fn addresses(&self, name: &str) -> Vec<IpAddr>;
    /// What the owner of `address` is called, if anybody has it.
    fn name_of(&self, address: IpAddr) -> Option<String>;
}

/// One network as a container sees it.
#[derive(Clone, Debug)]
pub(crate) struct NamedNetwork {
    /// What users call it: names may end in it.
    pub(crate) name: String,
    pub(crate) reader: Reader,
    /// Names only this container knows, and whom they mean.
    pub(crate) links: Vec<(String, String)>,
}

impl NamedNetwork {
    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let link = self.links.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name));
        let name = link.map_or(name, |(_, target)| target);
        let own = name.rsplit_once('.').filter(|(_, network)| network.eq_ignore_ascii_case(&self.name));
        let mut records = self.reader.live();
        records.retain(|record| {
            let is_called = |name: &str| record.names.iter().any(|own| own.eq_ignore_ascii_case(name));
            is_called(name) || own.is_some_and(|(name, _)| is_called(name))
        });
        records.iter().flat_map(Record::addresses).collect()
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        let mut records = self.reader.live();
        records.retain(|record| record.addresses().any(|own| own == address));
        Some(format!("{}.{}", records.pop()?.names.first()?, self.name))
    }
}

impl Names for [NamedNetwork] {
    /// The first network that knows the name has the word.
    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.iter().map(|network| network.addresses(name)).find(|found| !found.is_empty()).unwrap_or_default()
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.iter().find_map(|network| network.name_of(address))
    }
}

/// What to do with a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send this.
    Reply(Vec<u8>),
    /// Ask a server of the host.
    Forward {
        /// What to send if no server answers.
        on_failure: Vec<u8>,
        /// The name has no dot: nobody out there is likely to know it.
        is_single_label: bool,
    },
    /// Not a query: say nothing.
    Ignore,
}

/// Decides about one query.
pub(super) fn decide(query: &[u8], names: &(impl Names + ?Sized)) -> Decision {
    let Ok(message) = Message::from_vec(query) else { return decide_malformed(query) };
    if message.metadata.message_type != MessageType::Query {
        return Decision::Ignore;
    }
    let [question] = message.queries.as_slice() else {
        return reply(&message, ResponseCode::FormErr, Vec::new());
    };
    if message.metadata.op_code != OpCode::Query {
        return reply(&message, ResponseCode::NotImp, Vec::new());
    }
    if let Some(records) = look_up(question, names) {
        return reply(&message, ResponseCode::NoError, records);
    }
    let is_single_label = question.name().num_labels() <= 1 && !question.name().is_root();
    let code = if is_single_label { ResponseCode::NXDomain } else { ResponseCode::ServFail };
    match reply(&message, code, Vec::new()) {
        Decision::Reply(on_failure) => Decision::Forward { on_failure, is_single_label },
        other => other,
    }
}

/// The records for a name that is ours, which may be none of the wanted type; `None` if it is not ours.
fn look_up(question: &Query, names: &(impl Names + ?Sized)) -> Option<Vec<DnsRecord>> {
    let record = |data| DnsRecord::from_rdata(question.name().clone(), TTL_SECONDS, data);
    if question.query_type() == RecordType::PTR {
        let address = question.name().parse_arpa_name().ok()?.addr();
        let name = Name::from_ascii(names.name_of(address)? + ".").ok()?;
        return Some(vec![record(RData::PTR(PTR(name)))]);
    }
    let name = question.name().to_lowercase().to_ascii();
    let addresses = names.addresses(name.trim_end_matches('.'));
    if addresses.is_empty() {
        return None;
    }
    let wanted = question.query_type();
    let data = |address| match address {
        IpAddr::V4(ip) => (wanted == RecordType::A).then(|| RData::A(ip.into())),
        IpAddr::V6(ip) => (wanted == RecordType::AAAA).then(|| RData::AAAA(ip.into())),
    };
    Some(addresses.into_iter().filter_map(data).map(record).collect())
}

fn reply(query: &Message, code: ResponseCode, answers: Vec<DnsRecord>) -> Decision {
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.queries = query.queries.clone();
    response.answers = answers;
    response.to_vec().map_or(Decision::Ignore, Decision::Reply)
}

/// Says so to whoever sent at least an id; anything shorter is noise.
fn decide_malformed(query: &[u8]) -> Decision {
    let (Some(&[high, low]), Some(flags)) = (query.first_chunk(), query.get(2)) else {
        return Decision::Ignore;
    };
    if flags & 0x80 != 0 {
        return Decision::Ignore;
    }
    let id = u16::from_be_bytes([high, low]);
    let response = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    response.to_vec().map_or(Decision::Ignore, Decision::Reply)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// `redis` has an IPv4 address, `both` one of each family.
    struct Containers;

    impl Names for Containers {
        fn addresses(&self, name: &str) -> Vec<IpAddr> {
            let addresses: &[&str] = match name {
                "redis" => &["172.17.0.2"],
                "both" => &["172.17.0.3", "fd00::3"],
                _ => &[],
            };
            addresses.iter().map(|address| address.parse().unwrap()).collect()
        }

        fn name_of(&self, address: IpAddr) -> Option<String> {
            let known = ["172.17.0.2", "fd00::3"].map(|known| known.parse::<IpAddr>().unwrap());
            known.contains(&address).then(|| "redis.net".into())
        }
    }

    const NOBODY: &[NamedNetwork] = &[];

    fn query(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn show(decision: Decision) -> String {
        let code = |bytes: &[u8]| {
            let message = Message::from_vec(bytes).unwrap();
            let answers: Vec<_> = message.answers.iter().map(|record| format!(" {}", record.data)).collect();
            format!("{:?}{}", message.metadata.response_code, answers.concat())
        };
        match decision {
            Decision::Reply(bytes) => code(&bytes),
            Decision::Forward { on_failure, .. } => format!("forward, else {}", code(&on_failure)),
            Decision::Ignore => "ignore".into(),
        }
    }

    fn check(name: &str, kind: RecordType, expected: Expect) {
        expected.assert_eq(&show(decide(&query(name, kind), &Containers)));
    }

    #[test]
    fn container_names_are_answered_with_the_addresses_they_have() {
        check("redis.", RecordType::A, expect!["NoError 172.17.0.2"]);
        check("ReDis.", RecordType::A, expect!["NoError 172.17.0.2"]);
        check("redis.", RecordType::AAAA, expect!["NoError"]);
        check("both.", RecordType::A, expect!["NoError 172.17.0.3"]);
        check("both.", RecordType::AAAA, expect!["NoError fd00::3"]);
        check("both.", RecordType::TXT, expect!["NoError"]);
        check("2.0.17.172.in-addr.arpa.", RecordType::PTR, expect!["NoError redis.net."]);
        let nibbles = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
        check(nibbles, RecordType::PTR, expect!["NoError redis.net."]);
    }

    #[test]
    fn other_names_are_forwarded_and_short_ones_do_not_exist_if_nobody_answers() {
        check("mongo.", RecordType::A, expect!["forward, else NXDomain"]);
        check("example.com.", RecordType::A, expect!["forward, else ServFail"]);
        check("9.0.17.172.in-addr.arpa.", RecordType::PTR, expect!["forward, else ServFail"]);
        let unnamed = decide(&query("redis.", RecordType::A), NOBODY);
        assert_eq!(show(unnamed), "forward, else NXDomain");
    }

    #[test]
    fn noise_is_ignored_or_called_malformed() {
        assert_eq!(decide(b"", NOBODY), Decision::Ignore);
        assert_eq!(decide(b"\x00", NOBODY), Decision::Ignore);
        assert_eq!(decide(b"\x00\x07\x80\x00", NOBODY), Decision::Ignore);
        assert_eq!(show(decide(b"\x00\x07\x01\x00", NOBODY)), "FormErr");
        let mut cut = query("example.com.", RecordType::A);
        cut.truncate(20);
        assert_eq!(show(decide(&cut, NOBODY)), "FormErr");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered_or_ignored(flip in 0_usize..29, value: u8, cut in 0_usize..40) {
            let mut bytes = query("example.com.", RecordType::A);
            let flip = flip.min(bytes.len() - 1);
            bytes[flip] = value;
            bytes.truncate(cut);
            if let Decision::Reply(reply) = decide(&bytes, &Containers) {
                proptest::prop_assert_eq!(&reply[..2], &bytes[..2]);
            }
        }
    }
}
