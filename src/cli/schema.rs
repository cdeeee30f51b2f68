//! `mtun schema`: what the documents of `--json` hold, for programs (JSON Schema 2020-12).
//!
//! They are made from the types that write the documents, and their words are those of the source, so
//! neither can tell another story. Fields may be added within a version; none goes, and none gets
//! another meaning: whoever reads by a schema ignores what it does not name.

use clap::Args;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::screen::{Cell, Page, Screen};
use super::{Answer, demo, doctor, import, init, key, pages, policy, report};
use crate::control::documents as d;
use crate::control::protocol::VERSION;
use crate::control::{ControlError, ErrorCode};

/// The language of the descriptions.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Which document.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// Its `kind`, `error` for an answer without result, `event` or `line` for those of
    /// `mtun monitor`; without it the names are listed
    name: Option<String>,
}

/// The description of a document.
#[derive(Serialize, JsonSchema)]
pub(super) struct SchemaDocument {
    kind: &'static str,
    /// The document's own kind.
    name: String,
    /// Its JSON Schema.
    schema: Value,
}

/// The documents that are described.
#[derive(Serialize, JsonSchema)]
pub(super) struct SchemaListDocument {
    kind: &'static str,
    /// Their names, for `mtun schema NAME`.
    names: Vec<&'static str>,
}

type Describe = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Documents by their kind, and the commands that print them.
const RESULTS: &[(&str, &str, Describe)] = &[
    ("agent-changed", "mtun agent add, remove, revoke, permit", of::<d::AgentChangedDocument>),
    ("agent-list", "mtun agent list", of::<d::AgentListDocument>),
    ("agent-switched", "mtun agent switch", of::<d::AgentSwitchedDocument>),
    ("bindings", "mtun bindings", of::<d::BindingsDocument>),
    ("completions", "mtun completions", of::<pages::CompletionsDocument>),
    ("demo", "mtun demo", of::<demo::DemoDocument>),
    ("demo-stopped", "mtun demo --stop", of::<demo::DemoDocument>),
    ("doctor", "mtun doctor", of::<doctor::DoctorDocument>),
    ("explain", "mtun explain", of::<d::ExplainDocument>),
    ("flows", "mtun flows", of::<d::FlowsDocument>),
    ("import", "mtun import", of::<import::ImportDocument>),
    ("init", "mtun init", of::<init::InitDocument>),
    ("key", "mtun key new", of::<key::KeyDocument>),
    ("link", "mtun link drain, hold, release", of::<d::LinkAdminDocument>),
    ("man", "mtun man", of::<pages::ManDocument>),
    ("policy", "mtun policy show", of::<d::PolicyDocument>),
    ("policy-applied", "mtun policy apply", of::<d::PolicyAppliedDocument>),
    ("policy-check", "mtun policy check", of::<policy::CheckDocument>),
    ("policy-confirmed", "mtun policy confirm", of::<d::PolicyConfirmedDocument>),
    ("policy-diff", "mtun policy diff", of::<d::PolicyDiffDocument>),
    ("policy-fmt", "mtun policy fmt", of::<policy::FormatDocument>),
    ("policy-history", "mtun policy history", of::<d::PolicyHistoryDocument>),
    ("policy-rolled-back", "mtun policy rollback", of::<d::PolicyRolledBackDocument>),
    ("policy-schema", "mtun policy schema", of::<policy::LanguageDocument>),
    ("policy-test", "mtun policy test", of::<policy::TestDocument>),
    ("report", "mtun report", of::<report::ReportDocument>),
    ("schema", "mtun schema NAME", of::<SchemaDocument>),
    ("schema-list", "mtun schema", of::<SchemaListDocument>),
    ("status", "mtun status, mtun links", of::<d::StatusDocument>),
    ("steer", "mtun steer", of::<d::SteerDocument>),
    ("steer-list", "mtun steer list", of::<d::SteerListDocument>),
    ("steer-undo", "mtun steer undo", of::<d::SteerUndoDocument>),
];

/// Lines of `mtun monitor`, which are documents of their own.
const LINES: &[(&str, &str, Describe)] = &[
    ("event", "a line of mtun monitor", of::<d::EventDocument>),
    ("line", "a line of mtun monitor --message", of::<d::SubscriptionLine>),
];

/// What is printed where nothing could be done.
const ERROR: (&str, &str) = ("error", "every command that fails");

pub(super) fn run(command: &Command, screen: Screen) -> Result<Answer, ControlError> {
    let mut page = Page::new(screen);
    let Some(name) = &command.name else {
        let known = RESULTS.iter().chain(LINES).map(|(name, about, _)| (*name, *about));
        let known: Vec<_> = known.chain([ERROR]).collect();
        let row = |(name, about): &(&str, &str)| vec![Cell::new(name), Cell::new(about)];
        page.table(&["NAME", "PRINTED BY"], &known.iter().map(row).collect::<Vec<_>>(), "");
        let names = known.into_iter().map(|(name, _)| name).collect();
        return Ok(Answer::new(&SchemaListDocument { kind: "schema-list", names }, page));
    };
    let schema = describe(name).ok_or_else(|| {
        ControlError::new(ErrorCode::NotFound, format!("there is no document {name}"))
            .help("`mtun schema` lists them")
    })?;
    page.verbatim(&format!("{schema:#}\n"));
    let document = SchemaDocument { kind: "schema", name: name.clone(), schema };
    Ok(Answer::new(&document, page))
}

/// The description of one whole document.
fn describe(name: &str) -> Option<Value> {
    let mut schema = raw(name)?;
    for_readers(&mut schema);
    Some(schema)
}

/// The same with the source's links in its words.
fn raw(name: &str) -> Option<Value> {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    if let Some((_, about, of)) = LINES.iter().find(|(known, ..)| *known == name) {
        let mut schema = of(&mut generator).to_value();
        let top = schema.as_object_mut()?;
        top.insert("$schema".to_owned(), DIALECT.into());
        top.insert("title".to_owned(), (*about).into());
        top.insert("$defs".to_owned(), Value::Object(generator.take_definitions(true)));
        return Some(schema);
    }
    let result = RESULTS.iter().find(|(known, ..)| *known == name);
    if result.is_none() && name != ERROR.0 {
        return None;
    }
    let error = generator.subschema_for::<ControlError>().to_value();
    let mut properties = Map::new();
    properties.insert("version".to_owned(), json!({ "const": VERSION }));
    properties.insert(
        "ok".to_owned(),
        json!({ "type": "boolean", "description": "Whether everything was done; else there is an error." }),
    );
    properties.insert("error".to_owned(), error);
    let mut required = vec!["version", "ok"];
    let about = match result {
        None => {
            required.push("error");
            ERROR.1
        }
        Some((_, about, of)) => {
            required.push("result");
            // The kind stands beside the fields of the type, or the type tells it by itself.
            let fields = of(&mut generator).to_value();
            let kind = json!({ "type": "object", "properties": { "kind": { "const": name } }, "required": ["kind"] });
            properties.insert("result".to_owned(), json!({ "allOf": [kind, fields] }));
            *about
        }
    };
    Some(json!({
        "$schema": DIALECT,
        "title": about,
        "type": "object",
        "properties": properties,
        "required": required,
        "$defs": generator.take_definitions(true),
    }))
}

/// Takes what only the source's own pages can follow out of the descriptions: of ``[`Phase`](path)``
/// the name stays.
fn for_readers(schema: &mut Value) {
    match schema {
        Value::Object(words) => {
            if let Some(Value::String(text)) = words.get_mut("description") {
                *text = without_links(text);
            }
            words.values_mut().for_each(for_readers);
        }
        Value::Array(items) => items.iter_mut().for_each(for_readers),
        _ => {}
    }
}

fn without_links(text: &str) -> String {
    let mut parts = text.split("[`");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some((name, rest)) = part.split_once("`]") else {
            plain.push_str("[`");
            plain.push_str(part);
            continue;
        };
        let target = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        plain.push_str(name);
        plain.push_str(target.map_or(rest, |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_the_source_become_words() {
        for (text, want) in [
            ("See [`BcRemove`].", "See BcRemove."),
            ("[`A`](super::a::A) and [`B`]", "A and B"),
            ("a list [1, 2] of `x`", "a list [1, 2] of `x`"),
            ("[`open", "[`open"),
        ] {
            assert_eq!(without_links(text), want);
        }
    }

    /// The lists are looked through by name.
    #[test]
    fn no_name_stands_twice() {
        let names = RESULTS.iter().chain(LINES).map(|(name, ..)| *name).chain([ERROR.0]);
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
