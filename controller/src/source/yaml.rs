//! YAML text, as values that know where they stand.
//!
//! Plain scalars mean what they mean to kubectl, which reads YAML 1.1: `yes` and `on` are booleans, `0777` is octal. JSON is
//! a subset. Knows nothing of Kubernetes; errors have a place and a text, the file's name comes from the caller.

use super::schema::{Path, Step};
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};
use std::collections::HashMap;
use std::fmt;

/// Nested deeper than that is no object; recursion has to end somewhere.
const DEPTH: usize = 100;
/// Nodes that aliases may stand for in one text, so that a few lines don't become gigabytes.
const ALIASED_NODES: usize = 100_000;
/// Bytes of text that count as a node there.
const TEXT: usize = 64;

/// A place in a text; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Character within the line.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub place: Place,
    pub message: String,
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Scalar(Value),
    List(Vec<Node>),
    /// Keys, where they stand, and their values.
    Map(Vec<(String, Place, Node)>),
}

/// The documents of a text that aren't empty, and what is wrong after them: reading ends there.
pub(super) fn read(text: &str) -> (Vec<Node>, Option<Fault>) {
    let mut documents = Vec::new();
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), aliased: 0 };
    let fault = reader.documents(&mut documents).err();
    (documents, fault)
}

impl Node {
    /// The value, without places.
    pub(super) fn value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::value).collect(),
            Content::Map(fields) => Value::Object(
                fields.iter().map(|(key, _, node)| (key.clone(), node.value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// The field of a map.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let Content::Map(fields) = &self.content else { return None };
        fields.iter().find(|(key, _, _)| key == name).map(|(_, _, node)| node)
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Option<&[Self]> {
        let Content::List(items) = &self.content else { return None };
        Some(items)
    }

    /// A string.
    pub(super) fn text(&self) -> Option<&str> {
        let Content::Scalar(Value::String(text)) = &self.content else { return None };
        Some(text)
    }

    /// Where a field stands, or what comes closest to it when it isn't there.
    pub(super) fn find(&self, path: &Path) -> Place {
        let (mut node, mut place) = (self, self.place);
        for step in path.steps() {
            let next = match (step, &node.content) {
                (Step::Field(name), Content::Map(fields)) => {
                    fields.iter().find(|(key, _, _)| key == name).map(|(_, place, node)| (*place, node))
                }
                (Step::Item(index), Content::List(items)) => items.get(*index).map(|node| (node.place, node)),
                (Step::Field(_) | Step::Item(_), Content::Scalar(_) | Content::List(_) | Content::Map(_)) => {
                    None
                }
            };
            let Some(next) = next else { break };
            (place, node) = next;
        }
        place
    }

    fn size(&self) -> usize {
        1 + match &self.content {
            Content::Scalar(value) => value.as_str().map_or(0, |text| text.len() / TEXT),
            Content::List(items) => items.iter().map(Self::size).sum(),
            Content::Map(fields) => fields.iter().map(|(_, _, node)| node.size()).sum(),
        }
    }
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
}

impl<'a> Reader<'a> {
    fn documents(&mut self, documents: &mut Vec<Node>) -> Result<(), Fault> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentStart(..) => {
                    self.anchors.clear();
                    let (event, span) = self.next()?;
                    let node = self.node(event, &span, 0)?;
                    // What follows it may show that it was no document.
                    match self.next()? {
                        (Event::DocumentEnd, _) => {}
                        (_, span) => return Err(fault(&span, "the document should end here")),
                    }
                    if !matches!(node.content, Content::Scalar(Value::Null)) {
                        documents.push(node);
                    }
                }
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::Alias(_)
                | Event::Comment(..)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => return Err(fault(&span, "a document should begin here")),
            }
        }
    }

    /// What comes next and is no comment.
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        loop {
            match self.events.next() {
                Some(Ok((Event::Comment(..) | Event::Nothing, _))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => return Err(error.into()),
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Fault> {
        if depth > DEPTH {
            return Err(fault(span, format!("nested deeper than {DEPTH} levels")));
        }
        let (anchor, content) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, Content::Scalar(scalar(&text, style, tag.as_deref(), span)?))
            }
            Event::SequenceStart(_, anchor, _) => (anchor, Content::List(self.list(depth)?)),
            Event::MappingStart(_, anchor, _) => (anchor, Content::Map(self.map(depth)?)),
            Event::Alias(anchor) => {
                let node = self
                    .anchors
                    .get(&anchor)
                    .ok_or_else(|| fault(span, "the alias has no anchor before it"))?;
                self.aliased += node.size();
                if self.aliased > ALIASED_NODES {
                    return Err(fault(span, format!("aliases stand for more than {ALIASED_NODES} values")));
                }
                return Ok(node.clone());
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Comment(..)
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(fault(span, "a value should be here")),
        };
        let node = Node { place: place(span), content };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(String, Place, Node)>, Fault> {
        let mut fields: Vec<(String, Place, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (key, key_span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(key, style, ..), span) => ((key, style), span),
                (_, span) => return Err(fault(&span, "a key has to be a string")),
            };
            let (event, span) = self.next()?;
            let node = self.node(event, &span, depth + 1)?;
            if key.0 == "<<" && key.1 == ScalarStyle::Plain {
                merge(node, &key_span, &mut merged)?;
                continue;
            }
            if fields.iter().any(|(known, _, _)| *known == key.0) {
                return Err(fault(&key_span, format!("key {:?} already set in map", key.0)));
            }
            fields.push((key.0.into_owned(), place(&key_span), node));
        }
        // What is written out wins, then what is merged first.
        for field in merged {
            if fields.iter().all(|(known, _, _)| *known != field.0) {
                fields.push(field);
            }
        }
        Ok(fields)
    }
}

/// The fields that `<<` brings: of a map, or of a list of maps.
fn merge(node: Node, span: &Span, into: &mut Vec<(String, Place, Node)>) -> Result<(), Fault> {
    match node.content {
        Content::Map(fields) => into.extend(fields),
        Content::List(items) => {
            for item in items {
                merge(item, span, into)?;
            }
        }
        Content::Scalar(_) => return Err(fault(span, "only maps can be merged")),
    }
    Ok(())
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Result<Value, Fault> {
    match tag.map(Tag::core_suffix) {
        None if style == ScalarStyle::Plain => Ok(plain(text)),
        None | Some(Some("str")) => Ok(text.into()),
        Some(Some(_)) => Ok(plain(text)),
        Some(None) => Err(fault(span, "a tag that isn't one of YAML's own")),
    }
}

/// What a plain scalar means to go-yaml v2, which kubectl uses.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return true.into();
        }
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return false.into();
        }
        _ => {}
    }
    let begins = text.trim_start_matches(['+', '-']);
    if !begins.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return text.into();
    }
    integer(&text.replace('_', "")).or_else(|| float(text)).map_or_else(|| text.into(), Value::Number)
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    let number = i128::from_str_radix(digits, radix).ok()?;
    let number = if negative { -number } else { number };
    i64::try_from(number).map(Number::from).or_else(|_| u64::try_from(number).map(Number::from)).ok()
}

fn float(text: &str) -> Option<Number> {
    let decimal = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let number: f64 = text.chars().all(decimal).then(|| text.parse().ok())??;
    // JSON, which it becomes on the way to the API server, has `80` for `80.0`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return format!("{number:.0}").parse::<i64>().ok().map(Number::from);
    }
    Number::from_f64(number)
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line().max(1), column: span.start.col() + 1 }
}

fn fault(span: &Span, message: impl Into<String>) -> Fault {
    Fault { place: place(span), message: message.into() }
}

impl From<ScanError> for Fault {
    fn from(error: ScanError) -> Self {
        let mark = error.marker();
        let place = Place { line: mark.line().max(1), column: mark.col() + 1 };
        Self { place, message: format!("not YAML: {}", error.info()) }
    }
}

#[cfg(test)]
mod tests;
