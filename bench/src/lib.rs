//! What benchmarks of their own crates share with this one.

pub mod machine;
