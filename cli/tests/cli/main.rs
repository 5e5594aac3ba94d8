//! The binary as people use it: started as a process, asked over sockets, and judged by answers, stderr and exit codes.

mod bad_input;
mod certificates;
mod client;
mod docs;
mod echo;
mod examples;
mod exit_codes;
mod files;
mod manifests;
mod process;
mod translation;
