//! `mtun policy schema`.

use mtun_policy::{NodeSchema, Schema};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::Answer;
use super::super::screen::{Cell, Page};

/// The language.
#[derive(Serialize, JsonSchema)]
pub(in crate::cli) struct LanguageDocument {
    kind: &'static str,
    #[serde(flatten)]
    schema: Schema,
}

/// The language as a table of its nodes, or as the page of the documentation.
pub(super) fn run(markdown: bool, mut page: Page) -> Answer {
    let schema = mtun_policy::schema();
    if markdown {
        schema.markdown().lines().for_each(|line| page.line(line));
    } else {
        let rows: Vec<_> = schema.nodes.iter().map(row).collect();
        page.table(&["NODE", "PROPERTIES", "MEANING"], &rows, "");
        page.line("");
        page.line("`mtun policy schema --markdown` tells all of it");
    }
    Answer::new(&LanguageDocument { kind: "policy-schema", schema }, page)
}

fn row(node: &NodeSchema) -> Vec<Cell> {
    let names: Vec<_> = node.properties.iter().map(|property| property.name.as_str()).collect();
    let properties = match (names.as_slice(), node.free_properties) {
        ([], true) => "names of the file".to_owned(),
        ([], false) => "none".to_owned(),
        (names, _) => names.join(" "),
    };
    vec![Cell::new(node.path.join(" / ")), Cell::new(properties), Cell::new(node.meaning)]
}
