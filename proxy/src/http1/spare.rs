//! Buffers of connections that have nothing in them, for the thread's next one that needs some: what waits for a client or a
//! backend holds none.

use crate::shelf::Shelf;
use bytes::BytesMut;

/// Buffers of each sort that a thread keeps: 16 KiB each where requests are small, 48 KiB while bodies are big, so 1.5 MiB at most.
const KEPT: usize = 32;
/// Room for a head and a small body, so that few have to make more.
const OUT_ROOM: usize = 2 * 1024;
/// Larger buffers for heads are given up.
const LARGEST_OUT: usize = 4 * 1024;

thread_local! {
    static READ: Shelf<BytesMut> = const { Shelf::of(KEPT) };
    static OUT: Shelf<Vec<u8>> = const { Shelf::of(KEPT) };
}

/// A buffer to read into; it may have no room yet.
pub(super) fn read_buffer() -> BytesMut {
    READ.with(Shelf::take).unwrap_or_default()
}

/// Keeps what room a buffer has. It must be empty.
pub(super) fn keep_read_buffer(buffer: BytesMut) {
    if buffer.capacity() > 0 {
        READ.with(|shelf| shelf.keep(buffer));
    }
}

/// A buffer to write a head into.
pub(super) fn out_buffer() -> Vec<u8> {
    OUT.with(Shelf::take).unwrap_or_else(|| Vec::with_capacity(OUT_ROOM))
}

/// Keeps the room of such a buffer.
pub(super) fn keep_out_buffer(mut buffer: Vec<u8>) {
    if (1..=LARGEST_OUT).contains(&buffer.capacity()) {
        buffer.clear();
        OUT.with(|shelf| shelf.keep(buffer));
    }
}
