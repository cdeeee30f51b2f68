//! Single values of KDL as the types they stand for.

use std::ops::RangeInclusive;

use crate::diagnostic::Code;
use crate::reader::Value;
use crate::terms::Role;
use crate::value::{self, Problem, Read};
use crate::words::advice;

/// Text, quoted or not.
pub(super) fn text(value: &Value) -> Read<&str> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(kind(other, "text")),
    }
}

pub(super) fn given(value: &Value) -> Read<String> {
    value::given_name(text(value)?).map(str::to_owned)
}

pub(super) fn interface(value: &Value) -> Read<String> {
    value::interface_name(text(value)?).map(str::to_owned)
}

pub(super) fn truth(value: &Value) -> Read<bool> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        other => Err(kind(other, "#true or #false")),
    }
}

pub(super) fn whole(value: &Value, range: RangeInclusive<i128>) -> Read<i128> {
    match value {
        Value::Integer(number) if range.contains(number) => Ok(*number),
        Value::Integer(number) => Err(Problem::new(
            Code::Range,
            format!("{number} is out of range"),
            format!("from {} to {}", range.start(), range.end()),
        )),
        other => Err(kind(other, "a whole number")),
    }
}

/// One value that is a name or a number.
pub(super) fn one<T>(value: &Value, read: impl Fn(&str) -> Read<T>) -> Read<T> {
    match value {
        Value::Integer(number) => read(&number.to_string()),
        other => read(text(other)?),
    }
}

/// A value that is written with its unit; `usual` is the unit that a bare number lacks.
pub(super) fn quantity<T>(
    value: &Value,
    usual: &str,
    read: impl FnOnce(&str) -> Read<T>,
) -> Read<T> {
    let bare = match value {
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        other => return read(text(other)?),
    };
    Err(Problem::new(
        Code::Unit,
        format!("{bare} has no unit"),
        format!("write \"{bare}{usual}\" if {usual} is meant"),
    ))
}

pub(super) fn lifetime(value: &Value) -> Read<std::time::Duration> {
    match value {
        Value::Integer(number) => Err(Problem::new(
            Code::Unit,
            format!("{number} has no unit"),
            format!("write \"{number}s\" if seconds are meant; the units are ms, s, m, h, d"),
        )),
        other => value::lifetime(text(other)?),
    }
}

pub(super) fn role(value: &Value) -> Read<Role> {
    match text(value)? {
        "mobile-node" => Ok(Role::MobileNode),
        "mobile-router" => Ok(Role::MobileRouter),
        "home-agent" => Ok(Role::HomeAgent),
        "correspondent" => Ok(Role::Correspondent),
        other => Err(choice(
            other,
            "role",
            &["mobile-node", "mobile-router", "home-agent", "correspondent"],
        )),
    }
}

pub(super) fn security_choice(value: &Value) -> Read<Option<String>> {
    Ok(match given(value)? {
        none if none == "none" => None,
        name => Some(name),
    })
}

/// A word that is none of the few that fit.
pub(super) fn choice(word: &str, what: &str, known: &[&str]) -> Problem {
    let word: String = word.chars().take(64).collect();
    let help = advice(&word, known.iter().copied(), "words");
    let article = if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    Problem::new(Code::Value, format!("`{word}` is not {article} {what}"), help)
}

/// A value of the wrong kind.
pub(super) fn kind(value: &Value, wanted: &str) -> Problem {
    let (found, help) = match value {
        Value::Text(text)
            if wanted.starts_with("#true") && matches!(text.as_str(), "yes" | "on" | "true") =>
        {
            ("text".to_owned(), "write #true".to_owned())
        }
        Value::Text(text)
            if wanted.starts_with("#true") && matches!(text.as_str(), "no" | "off" | "false") =>
        {
            ("text".to_owned(), "write #false".to_owned())
        }
        Value::Text(text) if wanted.contains("number") && text.parse::<u64>().is_ok() => {
            ("text".to_owned(), format!("write {text} without quotes"))
        }
        Value::Text(_) => ("text".to_owned(), format!("write {wanted}")),
        Value::Integer(number) => (
            format!("the number {number}"),
            if wanted == "text" {
                format!("quote it: \"{number}\"")
            } else {
                format!("write {wanted}")
            },
        ),
        Value::Float(_) => ("a number with a fraction".to_owned(), format!("write {wanted}")),
        Value::Bool(_) => ("#true or #false".to_owned(), format!("write {wanted}")),
        Value::Null => ("#null".to_owned(), format!("write {wanted}, or leave the line out")),
    };
    Problem::new(Code::Value, format!("{wanted} is due here, not {found}"), help)
}
