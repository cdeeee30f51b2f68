//! Documents of `--json` held against what `mtun schema` says of them.
//!
//! Included by path: `#[path = "…/tests/support/schema.rs"] mod schema;`. A schema allows fields that it
//! does not name; here such a field is a fault, for it would be one that nobody described.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

/// Runs `mtun`: its exit code and the document, `null` for none.
pub fn mtun(words: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_mtun")).args(words).output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// The schema of a document, asked for once.
pub fn schema(name: &str) -> Value {
    static KNOWN: Mutex<BTreeMap<String, Value>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let fetch = || {
        let (code, schema) = mtun(&["schema", name]);
        assert_eq!(code, Some(0), "there is no schema of {name}");
        schema
    };
    known.entry(name.to_owned()).or_insert_with(fetch).clone()
}

/// Fails unless the document, or the line of `mtun monitor`, is what its schema says, without a field
/// that it does not name.
pub fn check(document: &Value) {
    let kind = document["result"]["kind"].as_str();
    let name = match (kind, document.get("ok"), document.get("event")) {
        (Some(kind), ..) => kind,
        (None, Some(_), _) => "error",
        (None, None, Some(_)) => "event",
        (None, None, None) => "line",
    };
    let faults = faults(document, name);
    assert!(faults.is_empty(), "{name}: {faults:#?}\n{document:#}");
}

/// What does not fit, each with its place.
pub fn faults(document: &Value, name: &str) -> Vec<String> {
    let schema = schema(name);
    let mut reader = Reader { schema: &schema, faults: Vec::new() };
    let mut named = Named::default();
    reader.read(&schema, document, "", &mut named);
    reader.unnamed(document, &named, "");
    reader.faults
}

/// Which fields a schema named, by their place.
#[derive(Default)]
struct Named {
    fields: BTreeMap<String, Named>,
    /// Nothing is said of what is inside.
    open: bool,
}

impl Named {
    fn merge(&mut self, other: Named) {
        self.open |= other.open;
        for (name, inner) in other.fields {
            self.fields.entry(name).or_default().merge(inner);
        }
    }
}

/// Reads by the words of JSON Schema that our schemas have; another word is a fault of its own.
struct Reader<'s> {
    schema: &'s Value,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn fault(&mut self, at: &str, what: String) {
        self.faults.push(format!("{at}: {what}"));
    }

    fn read(&mut self, schema: &Value, value: &Value, at: &str, named: &mut Named) {
        let Some(words) = schema.as_object() else {
            match schema {
                Value::Bool(true) => named.open = true,
                other => self.fault(at, format!("{other} is no schema")),
            }
            return;
        };
        let says = words.keys().any(|word| !matches!(word.as_str(), "description" | "title"));
        if !says {
            named.open = true;
        }
        for (word, wanted) in words {
            self.word(word, wanted, words, value, at, named);
        }
    }

    fn word(
        &mut self,
        word: &str,
        wanted: &Value,
        words: &Map<String, Value>,
        value: &Value,
        at: &str,
        named: &mut Named,
    ) {
        match word {
            "$schema" | "$defs" | "title" | "description" | "format" | "default" | "writeOnly" => {}
            "$ref" => {
                let pointer = wanted.as_str().unwrap().trim_start_matches('#');
                let inner = self.schema.pointer(pointer).cloned();
                match inner {
                    Some(inner) => self.read(&inner, value, at, named),
                    None => self.fault(at, format!("{wanted} leads nowhere")),
                }
            }
            "type" => {
                let is = |kind: &Value| match kind.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("{other} is no type"),
                };
                let fits = wanted.as_array().map_or_else(|| is(wanted), |all| all.iter().any(is));
                if !fits {
                    self.fault(at, format!("{value} is no {wanted}"));
                }
            }
            "const" if value != wanted => self.fault(at, format!("{value} is not {wanted}")),
            "const" => {}
            "enum" if !wanted.as_array().unwrap().contains(value) => {
                self.fault(at, format!("{value} is none of {wanted}"));
            }
            "enum" => {}
            // Bounds are for numbers; what else the type allows has none.
            "minimum" if value.is_number() && value.as_f64() < wanted.as_f64() => {
                self.fault(at, format!("{value} is less than {wanted}"));
            }
            "maximum" if value.is_number() && value.as_f64() > wanted.as_f64() => {
                self.fault(at, format!("{value} is more than {wanted}"));
            }
            "minimum" | "maximum" => {}
            "required" => {
                for name in wanted.as_array().unwrap() {
                    if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                        self.fault(at, format!("{name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, inner) in wanted.as_object().unwrap() {
                    let place = named.fields.entry(name.clone()).or_default();
                    if let Some(value) = value.get(name) {
                        self.read(inner, value, &format!("{at}/{name}"), place);
                    }
                }
            }
            "items" => {
                for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                    let mut inner = Named::default();
                    let at = format!("{at}/{number}");
                    self.read(wanted, item, &at, &mut inner);
                    self.unnamed(item, &inner, &at);
                }
            }
            "additionalProperties" => {
                let known = words.get("properties").and_then(Value::as_object);
                for (name, inner) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.contains_key(name)) {
                        continue;
                    }
                    if *wanted == json!(false) {
                        self.fault(at, format!("{name} is not allowed"));
                    } else {
                        let place = named.fields.entry(name.clone()).or_default();
                        self.read(wanted, inner, &format!("{at}/{name}"), place);
                    }
                }
            }
            "allOf" => {
                for inner in wanted.as_array().unwrap() {
                    self.read(inner, value, at, named);
                }
            }
            "anyOf" | "oneOf" => {
                let mut fitting = 0;
                let mut why = Vec::new();
                for inner in wanted.as_array().unwrap() {
                    let mut reader = Reader { schema: self.schema, faults: Vec::new() };
                    let mut said = Named::default();
                    reader.read(inner, value, at, &mut said);
                    if reader.faults.is_empty() {
                        fitting += 1;
                        named.merge(said);
                    }
                    why.extend(reader.faults);
                }
                if fitting == 0 || (word == "oneOf" && fitting > 1) {
                    self.fault(at, format!("{fitting} of its forms fit: {why:?}"));
                }
            }
            other => self.fault(at, format!("the word {other} is not read by this test")),
        }
    }

    /// Fields that no schema named.
    fn unnamed(&mut self, value: &Value, named: &Named, at: &str) {
        let Some(fields) = value.as_object().filter(|_| !named.open) else { return };
        for (name, inner) in fields {
            match named.fields.get(name) {
                Some(named) => self.unnamed(inner, named, &format!("{at}/{name}")),
                None => self.fault(at, format!("{name} is not in the schema")),
            }
        }
    }
}
