//! The fields that say how long a body is, read strictly (security.md §1, 3): one length of plain digits, or one `chunked`.

/// What is wrong with such a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// A length that isn't a number, or the second one.
    Length,
    /// A transfer coding other than `chunked`, or the second one.
    Coding,
}

/// What such fields say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lengths {
    /// `Content-Length`.
    pub(crate) length: Option<u64>,
    /// `Transfer-Encoding: chunked`.
    pub(crate) chunked: bool,
}

impl Lengths {
    /// Notes a `Content-Length`.
    pub(crate) fn content_length(&mut self, digits: &[u8]) -> Result<(), Bad> {
        // 18 digits are below 2^63 (security.md §1) and far beyond any body.
        if self.length.is_some() || digits.is_empty() || digits.len() > 18 {
            return Err(Bad::Length);
        }
        let mut length = 0;
        for digit in digits {
            if !digit.is_ascii_digit() {
                return Err(Bad::Length);
            }
            length = length * 10 + u64::from(digit - b'0');
        }
        self.length = Some(length);
        Ok(())
    }

    /// Notes a `Transfer-Encoding`.
    pub(crate) fn transfer_encoding(&mut self, coding: &[u8]) -> Result<(), Bad> {
        if self.chunked || !coding.eq_ignore_ascii_case(b"chunked") {
            return Err(Bad::Coding);
        }
        self.chunked = true;
        Ok(())
    }
}

/// Whether one of the members of a list, such as `Connection`'s, is this token.
pub(crate) fn lists(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|member| member.trim_ascii().eq_ignore_ascii_case(token))
}
