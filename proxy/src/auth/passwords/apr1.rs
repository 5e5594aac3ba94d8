//! `$apr1$`: what Apache's `htpasswd -m` writes, a thousand rounds of MD5. Nobody should begin with it; ingress-nginx and
//! Kong have files full of it.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use md5::{Digest, Md5};

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ROUNDS: usize = 1_000;
/// Bytes of the salt that count.
const SALT: usize = 8;

/// Whether a password has that hash.
pub(super) fn verify(password: &[u8], hash: &str) -> bool {
    let mut parts = hash.split('$').skip(2);
    let (Some(salt), Some(wanted)) = (parts.next(), parts.next()) else { return false };
    let salt = &salt.as_bytes()[..salt.len().min(SALT)];
    verify_slices_are_equal(&encode(password, salt), wanted.as_bytes()).is_ok()
}

/// As `apr_md5_encode` of Apache's APR has it.
fn encode(password: &[u8], salt: &[u8]) -> [u8; 22] {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut outer = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    let mut left = password.len();
    while left > 0 {
        outer.update(&inner[..left.min(16)]);
        left = left.saturating_sub(16);
    }
    let mut bits = password.len();
    while bits > 0 {
        let first = password.first().copied().unwrap_or_default();
        outer.update([if bits & 1 == 1 { 0 } else { first }]);
        bits >>= 1;
    }
    let mut sum = outer.finalize();
    for round in 0..ROUNDS {
        let mut next = Md5::new();
        let sum_or_password = |odd: bool| if odd { password } else { &sum[..] };
        next.update(sum_or_password(round % 2 == 1));
        if !round.is_multiple_of(3) {
            next.update(salt);
        }
        if !round.is_multiple_of(7) {
            next.update(password);
        }
        next.update(sum_or_password(round % 2 == 0));
        sum = next.finalize();
    }
    let mut text = [0; 22];
    let triples = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    let numbers =
        triples.map(|[a, b, c]| u32::from(sum[a]) << 16 | u32::from(sum[b]) << 8 | u32::from(sum[c]));
    let digits = numbers.into_iter().flat_map(|number| (0..4).map(move |n| number >> (6 * n)));
    let last = (0..2).map(|n| u32::from(sum[11]) >> (6 * n));
    for (to, digit) in text.iter_mut().zip(digits.chain(last)) {
        *to = ALPHABET[(digit & 63) as usize];
    }
    text
}
