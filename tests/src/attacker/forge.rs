//! Certificates as no honest authority makes them, under its genuine key: taken apart, altered, signed again.

use trireme_core::RoleKind;
use trireme_crypto::certificate::chain;
use trireme_crypto::key::{Signer, signature_to_der};

use super::party::Party;
use crate::lab::{DAY_MS, Lab, now_ms};

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
/// `id-ce-subjectAltName`, `id-ce-basicConstraints`.
const ALTERNATIVE_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];

/// A value in DER, as a tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Der {
    /// Tag and content.
    Plain(u8, Vec<u8>),
    /// Tag and parts.
    Parts(u8, Vec<Der>),
}

impl Der {
    /// The values that these bytes are, one after the other.
    ///
    /// # Panics
    /// When the bytes are no DER.
    #[must_use]
    pub fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut values = Vec::new();
        while let [tag, first, ..] = *bytes {
            let more = usize::from(first).saturating_sub(0x80);
            let length = match more {
                0 => usize::from(first),
                _ => bytes[2..2 + more].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            };
            let (content, rest) = bytes[2 + more..].split_at(length);
            let constructed = tag & 0x20 != 0;
            values.push(match constructed {
                true => Self::Parts(tag, Self::all(content)),
                false => Self::Plain(tag, content.to_vec()),
            });
            bytes = rest;
        }
        values
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (tag, content) = match self {
            Self::Plain(tag, content) => (*tag, content.clone()),
            Self::Parts(tag, parts) => (*tag, parts.iter().flat_map(Self::bytes).collect()),
        };
        let length = content.len();
        let mut bytes = match length {
            0..0x80 => vec![tag, length as u8],
            0x80..0x100 => vec![tag, 0x81, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        bytes.extend(content);
        bytes
    }

    /// The parts of a value that has some.
    ///
    /// # Panics
    /// When it has none.
    pub fn parts(&mut self) -> &mut Vec<Self> {
        match self {
            Self::Parts(_, parts) => parts,
            Self::Plain(tag, _) => panic!("tag {tag:02x} has no parts"),
        }
    }
}

/// The first certificate of a chain, altered and signed again; what follows stays.
///
/// # Panics
/// When it is no certificate.
#[must_use]
pub fn resigned(certificate: &[u8], key: &dyn Signer, alter: impl FnOnce(&mut Vec<Der>)) -> Vec<u8> {
    let mut pieces = chain::split(certificate).unwrap();
    let mut whole = Der::all(&pieces[0]).remove(0);
    alter(whole.parts()[0].parts());
    let signature = signature_to_der(&key.sign(&whole.parts()[0].bytes()).unwrap()).unwrap();
    whole.parts()[2] = Der::Plain(0x03, [&[0], &signature[..]].concat());
    pieces[0] = whole.bytes();
    pieces.concat()
}

/// The content of an extension, altered; it is added where it is not there.
fn extension(content: &mut [Der], id: [u8; 3], alter: impl FnOnce(&mut Vec<u8>)) {
    let list = content.last_mut().unwrap().parts()[0].parts();
    let found = list.iter().position(|one| one.bytes().windows(3).any(|bytes| bytes == id));
    let at = found.unwrap_or_else(|| {
        let parts = vec![Der::Plain(0x06, id.to_vec()), Der::Plain(OCTETS, Vec::new())];
        list.push(Der::Parts(SEQUENCE, parts));
        list.len() - 1
    });
    let Some(Der::Plain(OCTETS, value)) = list[at].parts().last_mut() else { panic!("no value") };
    alter(value);
}

/// A certificate that must not count.
pub struct Bad {
    /// What is wrong with it.
    pub what: &'static str,
    /// Who shows it.
    pub party: Party,
    /// What an administrator reads.
    pub why: &'static str,
}

/// Every kind of them, for a node of this role and name, in a lab with an intermediate.
///
/// # Panics
/// When one cannot be made.
#[must_use]
pub fn bad(lab: &Lab, role: RoleKind, id: &str) -> Vec<Bad> {
    let (topic, models): (_, &[&str]) =
        if role == RoleKind::Manufacturer { (Some(id), &["MD-01"]) } else { (None, &[]) };
    let certify = |until| Party::new(id, &lab.certify_until(role, id, topic, models, until));
    let good = certify(now_ms() + 90 * DAY_MS);
    let key = lab.issuing.key.as_ref();
    let of = |certificate| Party { certificate, ..good.clone() };
    let altered = |alter: &dyn Fn(&mut Vec<Der>)| of(resigned(&good.certificate, key, alter));
    let leaf = chain::split(&good.certificate).unwrap().remove(0);
    let issuing = &lab.issuing.chain;
    let foreign = Lab::with_intermediate();
    let other_role = if role == RoleKind::Broker { RoleKind::Directory } else { RoleKind::Broker };

    let expired = certify(now_ms() - 60_000);
    let early = altered(&|content| {
        let time = |text: &str| Der::Plain(0x17, text.as_bytes().to_vec());
        content[4] = Der::Parts(SEQUENCE, vec![time("400101000000Z"), time("410101000000Z")]);
    });
    let two_names = altered(&|content| {
        extension(content, ALTERNATIVE_NAME, |value| {
            let mut names = Der::all(value).remove(0);
            let second = Der::Plain(0x86, format!("trireme://{other_role}/bk-1").into_bytes());
            names.parts().push(second);
            *value = names.bytes();
        });
    });
    let line_break = altered(&|content| {
        extension(content, ALTERNATIVE_NAME, |value| {
            let name = Der::Plain(0x86, format!("trireme://{role}/{id}\nfine: all").into_bytes());
            *value = Der::Parts(SEQUENCE, vec![name]).bytes();
        });
    });
    let authority = altered(&|content| {
        extension(content, BASIC_CONSTRAINTS, |value| *value = vec![SEQUENCE, 3, 1, 1, 0xff]);
    });
    let curve = altered(&|content| {
        let algorithm = content[6].parts()[0].parts();
        // P-384, and a point of its size.
        algorithm[1] = Der::Plain(0x06, vec![0x2b, 0x81, 0x04, 0x00, 0x22]);
        content[6].parts()[1] = Der::Plain(0x03, [&[0, 4][..], &[7; 96]].concat());
    });
    let bell = altered(&|content| {
        let mut name = content[5].clone();
        let Der::Plain(_, text) = &mut name.parts()[0].parts()[0].parts()[1] else { panic!("no name") };
        text.extend(b"\x07\x1b[2J");
        content[5] = name;
    });
    let twin = foreign.root.intermediate("issuing-1");
    let cases = [
        ("expired", expired, "expired on"),
        ("not yet valid", early, "is valid only from 2040"),
        ("two names", two_names, "it must name exactly one owner, it names 2"),
        ("a line break in the name", line_break, "not an owner like trireme://broker/<id>"),
        ("an authority's bit", authority, "may not claim to be an authority over others"),
        ("another curve", curve, "only P-256 is accepted"),
        ("control characters", bell, "a name in it has control characters"),
        ("a byte too much", of([&leaf[..], issuing, &[0]].concat()), "not a certificate that can be read"),
        ("cut short", of(leaf[..leaf.len() - 9].to_vec()), "not a certificate that can be read"),
        ("a length in another form", of([&longer(&leaf)[..], issuing].concat()), "certificate"),
        ("no issuer", of(leaf.clone()), "the authority trusted here is"),
        ("too long", of([&leaf[..], issuing, issuing, issuing, issuing].concat()), "at most 4 certificates"),
        ("another order", of([&issuing[..], &leaf].concat()), "put the node's first"),
        ("a foreign issuer", of([&leaf[..], &foreign.issuing.chain].concat()), ""),
        ("a foreign issuer of the same name", of([&leaf[..], &twin.chain].concat()), ""),
        ("another authority", Party::new(id, &foreign.certify(role, id, topic, models)), ""),
        ("nothing", of(Vec::new()), "there is no certificate"),
    ];
    cases.map(|(what, party, why)| Bad { what, party, why }).into()
}

/// The same content under a length of one byte more: BER, and not DER.
fn longer(der: &[u8]) -> Vec<u8> {
    assert_eq!(der[1], 0x82);
    [&[SEQUENCE, 0x83, 0], &der[2..]].concat()
}
