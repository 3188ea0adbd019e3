//! Subject: the name that a certificate gives to who holds it, as Kafka writes it (RFC 2253, in Java's spelling).
//! Caller: `tls`, for certificates that the handshake has verified; foreign bytes all the same. Pure.
//! Source: RFC 5280 §4.1.2.6, RFC 2253 §2; `javax.security.auth.x500.X500Principal.getName()` where the RFC leaves a choice.

use std::fmt::Write as _;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// The explicit version of a certificate.
const VERSION: u8 = 0xa0;
/// UTF8String, PrintableString, T61String, IA5String, GeneralString, UniversalString, BMPString.
const STRINGS: [u8; 7] = [0x0c, 0x13, 0x14, 0x16, 0x1b, 0x1c, 0x1e];
/// What stands behind a backslash.
const ESCAPED: &str = ",=+<>#;\"\\";

/// The types that have a name; others are written as their numbers.
const TYPES: [(&[u8], &str); 9] = [
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    // 0.9.2342.19200300.100.1.25 and .1
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19],
        "DC",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01],
        "UID",
    ),
];

/// The subject of a certificate in DER; None if these bytes are none.
pub(super) fn of_certificate(der: &[u8]) -> Option<String> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut fields, _) = element(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = any(fields)?.rest;
    }
    // Serial number, signature, issuer, validity.
    for _ in 0..4 {
        fields = any(fields)?.rest;
    }
    let (subject, _) = element(fields, SEQUENCE)?;
    text(subject)
}

/// The parts of a name, the last one first, with commas between them.
fn text(mut name: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    while !name.is_empty() {
        let (mut set, rest) = element(name, SET)?;
        name = rest;
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let (attribute, rest) = element(set, SEQUENCE)?;
            set = rest;
            attributes.push(attribute_text(attribute)?);
        }
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute_text(attribute: &[u8]) -> Option<String> {
    let (identifier, value) = element(attribute, OBJECT_IDENTIFIER)?;
    let Element { tag, content, .. } = any(value)?;
    let known = TYPES.iter().find(|(bytes, _)| *bytes == identifier);
    if let Some((_, name)) = known
        && STRINGS.contains(&tag)
    {
        return Some(format!(
            "{name}={}",
            escaped(&String::from_utf8_lossy(content))
        ));
    }
    let mut text =
        known.map_or_else(|| numbers(identifier), |(_, name)| Some((*name).to_owned()))?;
    text.push_str("=#");
    for byte in &value[..value.len() - any(value)?.rest.len()] {
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

/// A value as RFC 2253 writes it.
fn escaped(value: &str) -> String {
    let is_blank = |character: &char| matches!(character, ' ' | '\r');
    let lead = value.chars().take_while(is_blank).count();
    let trail = value.chars().rev().take_while(is_blank).count();
    let count = value.chars().count();
    let mut text = String::with_capacity(value.len());
    for (index, character) in value.chars().enumerate() {
        if character == '\0' {
            text.push_str("\\00");
            continue;
        }
        if ESCAPED.contains(character) || index < lead || index >= count - trail {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// An object identifier with dots.
fn numbers(bytes: &[u8]) -> Option<String> {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc: u64 = 0;
    for byte in bytes {
        arc = arc.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            match arcs.is_empty() {
                true => arcs.extend([(arc / 40).min(2), arc - 40 * (arc / 40).min(2)]),
                false => arcs.push(arc),
            }
            arc = 0;
        }
    }
    let arcs: Vec<String> = arcs.iter().map(u64::to_string).collect();
    Some(arcs.join("."))
}

/// One element of DER.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    /// What stands behind it.
    rest: &'a [u8],
}

/// The first element of these bytes, which must have this tag, and what stands behind it.
fn element(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let Element { tag, content, rest } = any(bytes)?;
    (tag == wanted).then_some((content, rest))
}

fn any(bytes: &[u8]) -> Option<Element<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (digits, behind) = rest.split_at_checked(usize::from(first & 0x7f))?;
        // Lengths of indefinite form are not DER, and none of more than four bytes is a certificate's.
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        length = digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = behind;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Element { tag, content, rest })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn of(parts: Vec<(DnType, DnValue)>) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind, value);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        of_certificate(certificate.der()).unwrap()
    }

    #[test]
    fn parts_stand_in_the_order_of_rfc_2253() {
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let subject = of(vec![
            (
                DnType::CountryName,
                DnValue::PrintableString("DE".try_into().unwrap()),
            ),
            (DnType::OrganizationName, utf8("Plant, Inc.")),
            (DnType::OrganizationalUnitName, utf8(" press #4 ")),
            (
                DnType::CustomDnType(vec![0, 9, 2342, 19200300, 100, 1, 1]),
                utf8("m4"),
            ),
            (DnType::CommonName, utf8("Müller")),
        ]);
        assert_eq!(
            subject,
            r"CN=Müller,UID=m4,OU=\ press \#4\ ,O=Plant\, Inc.,C=DE"
        );
    }

    #[test]
    fn what_has_no_name_is_written_as_its_bytes() {
        // An e-mail address, which is an IA5String.
        let kind = DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]);
        let value = DnValue::Ia5String("a@b".try_into().unwrap());
        assert_eq!(of(vec![(kind, value)]), "1.2.840.113549.1.9.1=#1603614062");
    }

    #[test]
    fn what_is_no_certificate_has_no_subject() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let whole = certificate.der();
        assert!(of_certificate(whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(of_certificate(&whole[..length]), None, "{length} bytes");
        }
        for bad in [&[0x30, 0x80][..], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30]] {
            assert_eq!(of_certificate(bad), None);
        }
    }
}
