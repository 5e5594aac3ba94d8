//! From a request head to the rule that takes it: host, then path, then the other conditions.

use crate::model::{ListenerId, Text, Timeouts};
use crate::rejection::Rejection;
use std::sync::Arc;
