//! The lines of a transcript, whoever plays in it.

use std::time::Duration;

use mtun_signaling::Envelope;

use super::text::{seconds, words};

/// Who acts in a transcript.
pub trait Stage {
    /// A line of the scene, by its words; false when it is none of this stage's.
    fn set(&mut self, words: &[&str]) -> bool;
    /// Lets time pass until `end`. From the first call on, the scene is set.
    fn run_until(&mut self, end: Duration);
    /// What happens then.
    fn event(&mut self, words: &[&str]);
    /// The messages that the machines sent so far.
    fn sent(&self) -> &[(Envelope, Vec<u8>)];
    /// What came out so far, with its time.
    fn trace(&self) -> &[(Duration, String)];
}

/// The words after `roles`; empty when there is no such line.
pub fn roles(text: &str) -> Vec<&str> {
    text.lines().find_map(|line| line.strip_prefix("roles ")).map_or_else(Vec::new, words)
}

/// Plays one transcript and gives it back with the outputs as they came.
pub fn play(text: &str, stage: &mut dyn Stage) -> String {
    let mut played = String::new();
    let mut shown = 0;
    // Comments wait for the event they belong to, so that outputs stand before them.
    let mut comments = String::new();
    for line in text.lines() {
        let words = words(line);
        match words.as_slice() {
            [] => comments += "\n",
            [first, ..] if first.starts_with('#') => comments += &format!("{line}\n"),
            [time, ">", event @ ..] => {
                let now = time.strip_prefix('@').expect("@seconds").parse().expect("seconds");
                stage.run_until(Duration::from_secs_f64(now));
                played += &outputs(stage, &mut shown);
                played += &format!("{comments}{line}\n");
                comments.clear();
                stage.event(event);
                played += &outputs(stage, &mut shown);
            }
            [_, "<", ..] => {}
            setting => {
                assert!(stage.set(setting), "not a line of a transcript: {setting:?}");
                played += &format!("{comments}{line}\n");
                comments.clear();
            }
        }
    }
    played + &comments
}

fn outputs(stage: &dyn Stage, shown: &mut usize) -> String {
    let new = &stage.trace()[*shown..];
    *shown = stage.trace().len();
    new.iter().map(|(at, output)| format!("@{} < {output}\n", seconds(*at))).collect()
}
