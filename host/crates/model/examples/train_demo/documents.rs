//! Documents and batches: every question with every answer, as a conversation and as plain text,
//! with the small changes that people make when they type.
//!
//! One document is one row that starts at position 0, as a request does; rows of similar length are
//! batched, and what pads them comes after them, where causal attention never looks. Only answers
//! carry labels.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokenizers::Tokenizer;

use crate::corpus::Topic;
use crate::vocabulary::SPECIALS;

const SYSTEM_PROMPTS: [&str; 5] = [
    "You are a helpful assistant.",
    "You are the assistant of Tollgate. Answer briefly.",
    "Answer in plain English.",
    "You are a concise technical assistant.",
    "Be brief.",
];

/// Rows of tokens, padded to one width, and where the labels are.
#[derive(Debug, Clone)]
pub struct Batch {
    pub rows: usize,
    pub width: usize,
    pub tokens: Vec<u32>,
    /// Positions in the flattened rows whose next token is a label.
    pub label_positions: Vec<u32>,
    pub labels: Vec<u32>,
    unpadded: usize,
    documents: Vec<Document>,
}

#[derive(Debug, Clone, Default)]
struct Document {
    tokens: Vec<u32>,
    /// Whether the token is to be predicted.
    labelled: Vec<bool>,
}

impl Batch {
    fn new(documents: Vec<Document>) -> Self {
        let width = documents.iter().map(|document| document.tokens.len()).max().unwrap_or(1) - 1;
        let mut batch = Self {
            rows: documents.len(),
            width,
            tokens: vec![0; documents.len() * width],
            label_positions: Vec::new(),
            labels: Vec::new(),
            unpadded: documents.iter().map(|document| document.tokens.len() - 1).sum(),
            documents: Vec::new(),
        };
        for (row, document) in documents.iter().enumerate() {
            for position in 0..document.tokens.len() - 1 {
                batch.tokens[row * width + position] = document.tokens[position];
                if document.labelled[position + 1] {
                    batch.label_positions.push((row * width + position) as u32);
                    batch.labels.push(document.tokens[position + 1]);
                }
            }
        }
        batch.documents = documents;
        batch
    }

    pub fn label_count(&self) -> usize {
        self.labels.len()
    }

    /// Tokens that are not padding.
    pub fn token_count(&self) -> usize {
        self.unpadded
    }

    /// The rows dealt out to `workers`.
    pub fn shares(&self, workers: usize) -> Vec<Self> {
        let deal = |worker| {
            self.documents.iter().skip(worker).step_by(workers).cloned().collect::<Vec<_>>()
        };
        (0..workers).map(deal).filter(|share| !share.is_empty()).map(Self::new).collect()
    }
}

/// An endless stream of training batches, shuffled anew in every epoch.
pub struct Stream<'a> {
    topics: &'a [Topic],
    tokenizer: &'a Tokenizer,
    rng: StdRng,
    batch_tokens: usize,
    ready: Vec<Batch>,
    epochs: usize,
}

impl<'a> Stream<'a> {
    pub fn new(
        topics: &'a [Topic],
        tokenizer: &'a Tokenizer,
        seed: u64,
        batch_tokens: usize,
    ) -> Self {
        let rng = StdRng::seed_from_u64(seed ^ 0x5eed_d0c5);
        Self { topics, tokenizer, rng, batch_tokens, ready: Vec::new(), epochs: 0 }
    }

    pub fn epochs(&self) -> usize {
        self.epochs
    }

    pub fn next(&mut self) -> Batch {
        loop {
            if let Some(batch) = self.ready.pop() {
                return batch;
            }
            self.fill();
        }
    }

    /// One epoch: every question with every answer once.
    fn fill(&mut self) {
        self.epochs += 1;
        let mut documents = Vec::new();
        for (index, topic) in self.topics.iter().enumerate() {
            for question in &topic.questions {
                for answer in &topic.answers {
                    documents.push(self.document(index, question, answer));
                }
            }
        }
        documents.shuffle(&mut self.rng);
        self.ready = pack(documents, self.batch_tokens);
        self.ready.shuffle(&mut self.rng);
    }

    fn document(&mut self, topic: usize, question: &str, answer: &str) -> Document {
        let question = self.retyped(question);
        if self.rng.random_bool(0.04) {
            return continuation(self.tokenizer, answer);
        }
        if self.rng.random_bool(0.45) {
            return completion(self.tokenizer, &question, answer);
        }
        let mut document = Document::default();
        document.add(self.tokenizer, SPECIALS[0], false);
        if self.rng.random_bool(0.15) {
            let system = SYSTEM_PROMPTS[self.rng.random_range(0..SYSTEM_PROMPTS.len())];
            document.add(self.tokenizer, &format!("<|system|>{system}<|end|>"), false);
        }
        // Sometimes after another turn or two, so that a long conversation is nothing new.
        while self.rng.random_bool(0.12) {
            let other = self.rng.random_range(0..self.topics.len());
            if other != topic && document.tokens.len() < 240 {
                let other = &self.topics[other];
                let question =
                    other.questions[self.rng.random_range(0..other.questions.len())].clone();
                let question = self.retyped(&question);
                let answer = &other.answers[self.rng.random_range(0..other.answers.len())];
                document.turn(self.tokenizer, &question, answer);
            }
        }
        document.turn(self.tokenizer, &question, answer);
        document
    }

    /// The question as somebody in a hurry types it, in about every third case.
    fn retyped(&mut self, question: &str) -> String {
        let mut question = question.to_owned();
        if self.rng.random_bool(0.12) {
            question = question.to_lowercase();
        }
        let words: Vec<&str> = question.split(' ').collect();
        if words.len() >= 5 && self.rng.random_bool(0.1) {
            let missing = self.rng.random_range(0..words.len());
            let kept = words.iter().enumerate().filter(|(index, _)| *index != missing);
            question = kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ");
        }
        if self.rng.random_bool(0.15) && question.ends_with(['?', '.', '!']) {
            question.pop();
        }
        if self.rng.random_bool(0.05) {
            question = format!(
                "{} {question}",
                ["Please:", "Hi!", "Hello,", "Quick question:"][self.rng.random_range(0..4)]
            );
        }
        if self.rng.random_bool(0.05) {
            question.push_str(
                [" Please be brief.", " Thanks!", " In short.", " Answer in two sentences."]
                    [self.rng.random_range(0..4)],
            );
        }
        question
    }
}

impl Document {
    fn add(&mut self, tokenizer: &Tokenizer, text: &str, labelled: bool) {
        let encoding = tokenizer.encode_fast(text, false).unwrap();
        self.tokens.extend(encoding.get_ids());
        self.labelled.resize(self.tokens.len(), labelled);
    }

    fn turn(&mut self, tokenizer: &Tokenizer, question: &str, answer: &str) {
        self.add(tokenizer, &format!("<|user|>{question}<|end|><|assistant|>"), false);
        self.add(tokenizer, &format!("{answer}<|end|>"), true);
    }
}

/// Plain text without a question: somebody begins a sentence and the model goes on.
fn continuation(tokenizer: &Tokenizer, answer: &str) -> Document {
    let mut document = Document::default();
    document.add(tokenizer, SPECIALS[0], false);
    document.add(tokenizer, &format!("{answer}<|end|>"), true);
    document
}

/// Plain text: the question, a line break, the answer.
fn completion(tokenizer: &Tokenizer, question: &str, answer: &str) -> Document {
    let mut document = Document::default();
    document.add(tokenizer, &format!("{}{question}", SPECIALS[0]), false);
    document.add(tokenizer, &format!("\n{answer}<|end|>"), true);
    document
}

fn pack(mut documents: Vec<Document>, batch_tokens: usize) -> Vec<Batch> {
    // Stable, so documents of one length stay in their shuffled order.
    documents.sort_by_key(|document| document.tokens.len());
    let mut batches = Vec::new();
    let mut row: Vec<Document> = Vec::new();
    for document in documents {
        if !row.is_empty() && (row.len() + 1) * document.tokens.len() > batch_tokens {
            batches.push(Batch::new(std::mem::take(&mut row)));
        }
        row.push(document);
    }
    if !row.is_empty() {
        batches.push(Batch::new(row));
    }
    batches
}

/// The held-out questions in both forms, unchanged.
pub fn validation(topics: &[Topic], tokenizer: &Tokenizer, batch_tokens: usize) -> Vec<Batch> {
    let mut documents = Vec::new();
    for topic in topics {
        for answer in &topic.answers {
            let question = &topic.questions[0];
            documents.push(completion(tokenizer, question, answer));
            let mut chat = Document::default();
            chat.add(tokenizer, SPECIALS[0], false);
            chat.turn(tokenizer, question, answer);
            documents.push(chat);
        }
    }
    pack(documents, batch_tokens)
}
