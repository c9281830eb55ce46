//! The corpus: topics with several ways to ask and one or two answers.
//!
//! A file is a list of topics separated by blank lines: `# name`, then `Q: ` lines, then `A: `
//! lines.

use std::path::Path;

/// One thing the model knows.
#[derive(Debug, Clone)]
pub struct Topic {
    pub questions: Vec<String>,
    pub answers: Vec<String>,
}

/// Reads every `.txt` file of the folder, in the order of their names.
pub fn read(folder: &Path) -> std::io::Result<Vec<Topic>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut topics = Vec::new();
    for path in files {
        for block in std::fs::read_to_string(&path)?.split("\n\n") {
            let lines = |prefix| block.lines().filter_map(move |line| line.strip_prefix(prefix));
            let trimmed =
                |prefix| lines(prefix).map(|line| line.trim().to_owned()).collect::<Vec<_>>();
            let topic = Topic { questions: trimmed("Q:"), answers: trimmed("A:") };
            if !topic.questions.is_empty() && !topic.answers.is_empty() {
                topics.push(topic);
            }
        }
    }
    Ok(topics)
}

/// Takes one way of asking out of every eighth topic that has at least four: questions the model
/// never sees, with answers it should still find.
pub fn split(mut topics: Vec<Topic>) -> (Vec<Topic>, Vec<Topic>) {
    let mut held_out = Vec::new();
    for topic in topics.iter_mut().step_by(8) {
        if topic.questions.len() >= 4 {
            let question = topic.questions.remove(2);
            held_out.push(Topic { questions: vec![question], answers: topic.answers.clone() });
        }
    }
    (topics, held_out)
}
