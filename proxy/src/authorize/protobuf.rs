//! The two messages of Envoy's `ext_authz` (envoy.service.auth.v3), read and written by their field numbers.
//!
//! Only what is used of them. Unknown fields are passed over, as the format wants it; what is malformed is `None`. Does no
//! I/O.

/// A message being written.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer; 0 is left out.
    pub(super) fn number(&mut self, field: u32, value: i64) {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            // Negative numbers have ten bytes.
            self.varint(value.cast_unsigned());
        }
    }

    /// Bytes or text; empty is left out.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.delimited(field, value);
        }
    }

    /// A message within.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.delimited(field, &inner.0);
    }

    fn delimited(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

/// A field's value.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed size: nothing that we use.
    Fixed,
}

/// Reads all fields of a message.
fn fields<'a>(mut from: &'a [u8], mut field: impl FnMut(u64, Value<'a>) -> Option<()>) -> Option<()> {
    while !from.is_empty() {
        let tag = varint(&mut from)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut from)?),
            1 => take(&mut from, 8).map(|_| Value::Fixed)?,
            2 => {
                let length = varint(&mut from)?;
                Value::Bytes(take(&mut from, length)?)
            }
            5 => take(&mut from, 4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        field(tag >> 3, value)?;
    }
    Some(())
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(from: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(taken)
}

/// What becomes of fields of that name that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Append {
    /// They stay.
    Add,
    /// They stay alone.
    IfAbsent,
    /// They go.
    Overwrite,
    /// They go; without any, nothing is done.
    IfPresent,
}

/// A field that the authorizer sets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Set<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) append: Append,
}

/// `CheckResponse`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Check<'a> {
    /// Of `google.rpc.Status`; 0 lets the request pass.
    pub(super) code: u64,
    /// Of the answer that a denied request gets; 0: not said.
    pub(super) status: u64,
    /// For the backend, or for the client when it is denied.
    pub(super) headers: Vec<Set<'a>>,
    /// Not for the backend.
    pub(super) remove: Vec<&'a [u8]>,
    /// For the client, when it passes.
    pub(super) response_headers: Vec<Set<'a>>,
    /// Of the answer that a denied request gets.
    pub(super) body: &'a [u8],
}

/// Reads a `CheckResponse`.
pub(super) fn read(from: &[u8]) -> Option<Check<'_>> {
    let mut check = Check::default();
    let (mut ok, mut denied) = (None, None);
    fields(from, |number, value| {
        match (number, value) {
            (1, Value::Bytes(status)) => fields(status, |number, value| {
                if let (1, Value::Number(code)) = (number, value) {
                    check.code = code;
                }
                Some(())
            })?,
            (2, Value::Bytes(response)) => denied = Some(response),
            (3, Value::Bytes(response)) => ok = Some(response),
            (_, Value::Number(_) | Value::Bytes(_) | Value::Fixed) => {}
        }
        Some(())
    })?;
    match (check.code, ok, denied) {
        (0, Some(ok), _) => read_ok(ok, &mut check)?,
        (1.., _, Some(denied)) => read_denied(denied, &mut check)?,
        (0, None, _) | (1.., _, None) => {}
    }
    Some(check)
}

fn read_ok<'a>(from: &'a [u8], check: &mut Check<'a>) -> Option<()> {
    fields(from, |number, value| {
        match (number, value) {
            (2, Value::Bytes(set)) => check.headers.push(read_set(set)?),
            (5, Value::Bytes(name)) => check.remove.push(name),
            (6, Value::Bytes(set)) => check.response_headers.push(read_set(set)?),
            (_, Value::Number(_) | Value::Bytes(_) | Value::Fixed) => {}
        }
        Some(())
    })
}

fn read_denied<'a>(from: &'a [u8], check: &mut Check<'a>) -> Option<()> {
    fields(from, |number, value| {
        match (number, value) {
            (1, Value::Bytes(status)) => fields(status, |number, value| {
                if let (1, Value::Number(code)) = (number, value) {
                    check.status = code;
                }
                Some(())
            })?,
            (2, Value::Bytes(set)) => check.headers.push(read_set(set)?),
            (3, Value::Bytes(body)) => check.body = body,
            (_, Value::Number(_) | Value::Bytes(_) | Value::Fixed) => {}
        }
        Some(())
    })
}

/// `HeaderValueOption`. `append`, where it is said, goes before the newer `append_action`, whose default would add; an
/// authorizer that says neither overwrites.
fn read_set(from: &[u8]) -> Option<Set<'_>> {
    let mut set = Set { name: b"", value: b"", append: Append::Overwrite };
    fields(from, |number, value| {
        match (number, value) {
            (1, Value::Bytes(header)) => fields(header, |number, value| {
                match (number, value) {
                    (1, Value::Bytes(name)) => set.name = name,
                    (2 | 3, Value::Bytes(value)) if !value.is_empty() => set.value = value,
                    (_, Value::Number(_) | Value::Bytes(_) | Value::Fixed) => {}
                }
                Some(())
            })?,
            (2, Value::Bytes(wrapped)) => fields(wrapped, |number, value| {
                if let (1, Value::Number(append)) = (number, value) {
                    set.append = if append == 0 { Append::Overwrite } else { Append::Add };
                }
                Some(())
            })?,
            (3, Value::Number(action)) => {
                set.append = match action {
                    0 => Append::Add,
                    1 => Append::IfAbsent,
                    2 => Append::Overwrite,
                    3 => Append::IfPresent,
                    _ => return None,
                }
            }
            (_, Value::Number(_) | Value::Bytes(_) | Value::Fixed) => {}
        }
        Some(())
    })?;
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(writer: &mut Writer, field: u32, name: &str, value: &str, append: Option<i64>) {
        writer.message(field, |option| {
            option.message(1, |header| {
                header.bytes(1, name.as_bytes());
                header.bytes(2, value.as_bytes());
            });
            if let Some(append) = append {
                option.message(2, |wrapped| wrapped.number(1, append));
            }
        });
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let mut writer = Writer::default();
        writer.message(1, |_| {});
        writer.message(3, |ok| {
            set(ok, 2, "x-user", "ann", None);
            set(ok, 2, "x-group", "a", Some(1));
            ok.bytes(5, b"authorization");
            set(ok, 6, "x-seen", "yes", Some(0));
            ok.number(99, 300);
        });
        let bytes = writer.into_bytes();
        let check = read(&bytes).unwrap();
        let overwrite = |name, value| Set { name, value, append: Append::Overwrite };
        let add = Set { name: b"x-group", value: b"a", append: Append::Add };
        assert_eq!(check.headers, [overwrite(b"x-user", b"ann"), add]);
        assert_eq!(check.remove, [b"authorization"]);
        assert_eq!(check.response_headers, [overwrite(b"x-seen", b"yes")]);
        assert_eq!(check.code, 0);
    }

    #[test]
    fn a_refusal_says_what_the_client_gets() {
        let mut writer = Writer::default();
        writer.message(1, |status| status.number(1, 16));
        writer.message(2, |denied| {
            denied.message(1, |status| status.number(1, 401));
            set(denied, 2, "www-authenticate", "Bearer", None);
            denied.bytes(3, b"who are you?");
        });
        let bytes = writer.into_bytes();
        let check = read(&bytes).unwrap();
        assert_eq!((check.code, check.status, check.body), (16, 401, b"who are you?".as_slice()));
        assert_eq!(check.headers.len(), 1);
    }

    #[test]
    fn what_lets_pass_and_what_denies_are_not_mixed_up() {
        let mut writer = Writer::default();
        writer.message(1, |status| status.number(1, 7));
        writer.message(3, |ok| set(ok, 2, "x-user", "ann", None));
        let bytes = writer.into_bytes();
        assert_eq!(read(&bytes).unwrap(), Check { code: 7, ..Check::default() });
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
        }

        #[test]
        fn numbers_are_read_as_they_were_written(number in any::<i64>()) {
            let mut writer = Writer::default();
            writer.number(7, number);
            let bytes = writer.into_bytes();
            let mut seen = 0;
            fields(&bytes, |field, value| {
                assert_eq!(field, 7);
                let Value::Number(value) = value else { panic!("a number") };
                seen = value.cast_signed();
                Some(())
            }).unwrap();
            prop_assert_eq!(seen, number);
        }
    }
}
