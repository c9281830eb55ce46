//! KV blocks: a fixed number of them, counted by holder, and kept for later prompts that begin alike.
//!
//! A block is free, held by at least one table, or idle: held by none, but full and findable. A full block is *sealed*: it is
//! found under its tokens and the sealed block before it, back to the start of the prompt and its scope. Tokens are compared
//! and not only hashed, so there is no collision by which one tenant could read another's context.
//!
//! When nothing is free the block that has been idle for longest is taken. A table is given back from its end, and whoever
//! holds a block holds all before it, so a block never outlives the one it is found through.
//!
//! A [`Table`] cannot be copied and [`BlockPool::release`] consumes it, so nothing is given back twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::sequence::Prefixes;

/// Number of a block, from 0: the place of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// Where all blocks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockUse {
    /// Blocks in all: the sum of the others.
    pub total: usize,
    /// Nothing of use is in them.
    pub free: usize,
    /// Nobody holds them, but a prompt that begins alike will find them; taken when nothing is free.
    pub cached: usize,
    /// At least one sequence holds them.
    pub held: usize,
}

/// All blocks.
#[derive(Debug)]
pub(crate) struct BlockPool {
    block_tokens: usize,
    blocks: Vec<Block>,
    free: Vec<BlockId>,
    /// Looked up and never walked, so its order does not matter.
    sealed: HashMap<Arc<Key>, BlockId>,
    /// By when they became idle, in `ticks`.
    idle: BTreeMap<u64, BlockId>,
    ticks: u64,
    contents: u64,
}

/// The blocks of one sequence, by position.
#[derive(Debug)]
pub(crate) struct Table {
    blocks: Vec<BlockId>,
    /// How many of them, from the start, are sealed.
    sealed: usize,
    /// What the next sealed block follows; `None` if this sequence leaves nothing to others.
    last: Option<Before>,
}

#[derive(Debug, Default)]
struct Block {
    holders: usize,
    idle_since: Option<u64>,
    seal: Option<Seal>,
}

#[derive(Debug)]
struct Seal {
    key: Arc<Key>,
    content: u64,
}

/// What a sealed block holds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    before: Before,
    tokens: Vec<u32>,
}

/// What stands before a block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Before {
    /// Nothing; prompts of another scope are not found.
    Start(Option<Arc<str>>),
    /// The content with this number. Numbers are not used again, unlike those of blocks.
    Content(u64),
}

impl BlockPool {
    /// `blocks` fits into a `u32`, `block_tokens` is not 0.
    pub(crate) fn new(blocks: usize, block_tokens: usize) -> Self {
        let count = u32::try_from(blocks).unwrap_or(u32::MAX);
        Self {
            block_tokens,
            blocks: (0..count).map(|_| Block::default()).collect(),
            free: (0..count).rev().map(BlockId).collect(),
            sealed: HashMap::new(),
            idle: BTreeMap::new(),
            ticks: 0,
            contents: 0,
        }
    }

    pub(crate) fn usage(&self) -> BlockUse {
        let (total, free, cached) = (self.blocks.len(), self.free.len(), self.idle.len());
        BlockUse { total, free, cached, held: total.saturating_sub(free + cached) }
    }

    /// Blocks that hold `tokens` tokens.
    pub(crate) fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// Blocks that a table could get, besides those that it already has and `found`.
    pub(crate) fn available_besides(&self, found: &[BlockId]) -> usize {
        let idle = found.iter().filter(|id| self.get(**id).is_some_and(|block| block.holders == 0));
        (self.free.len() + self.idle.len()).saturating_sub(idle.count())
    }

    /// The longest run of sealed blocks with these contents, from the start; `pieces` are the tokens of full blocks.
    pub(crate) fn find(
        &self,
        prefixes: &Prefixes,
        pieces: impl Iterator<Item = Vec<u32>>,
    ) -> Vec<BlockId> {
        let Some(mut before) = Before::start(prefixes) else { return Vec::new() };
        let mut found = Vec::new();
        for tokens in pieces {
            let Some(&id) = self.sealed.get(&Key { before, tokens }) else { break };
            let Some(content) = self.content(id) else { break };
            before = Before::Content(content);
            found.push(id);
        }
        found
    }

    /// A table that begins with what [`Self::find`] found.
    pub(crate) fn open(&mut self, prefixes: &Prefixes, found: Vec<BlockId>) -> Table {
        for &id in &found {
            self.hold(id);
        }
        let content = found.last().and_then(|id| self.content(*id));
        let last = content.map(Before::Content).or_else(|| Before::start(prefixes));
        Table { sealed: found.len(), blocks: found, last }
    }

    /// Adds blocks until the table has room for `tokens` tokens; whether it has. What it got it keeps in any case.
    pub(crate) fn grow(&mut self, table: &mut Table, tokens: usize) -> bool {
        while table.blocks.len() < self.blocks_for(tokens) {
            let Some(id) = self.take() else { return false };
            table.blocks.push(id);
        }
        true
    }

    /// Seals the table's next block, which has just been filled with `tokens`. If another has the same content already, the
    /// table gets that one instead, and there is only one of each.
    pub(crate) fn seal(&mut self, table: &mut Table, tokens: Vec<u32>) {
        let Some(place) = table.blocks.get_mut(table.sealed) else { return };
        table.sealed += 1;
        let Some(before) = table.last.take() else { return };
        let key = Key { before, tokens };
        if let Some(&twin) = self.sealed.get(&key) {
            self.hold(twin);
            let ours = std::mem::replace(place, twin);
            self.let_go(ours);
            table.last = self.content(twin).map(Before::Content);
            return;
        }
        let id = *place;
        self.contents += 1;
        let (key, content) = (Arc::new(key), self.contents);
        if let Some(block) = self.get_mut(id) {
            block.seal = Some(Seal { key: Arc::clone(&key), content });
            self.sealed.insert(key, id);
            table.last = Some(Before::Content(content));
        }
    }

    /// Takes all of a table back.
    pub(crate) fn release(&mut self, table: Table) {
        for id in table.blocks.into_iter().rev() {
            self.let_go(id);
        }
    }

    fn get(&self, id: BlockId) -> Option<&Block> {
        self.blocks.get(id.0 as usize)
    }

    fn get_mut(&mut self, id: BlockId) -> Option<&mut Block> {
        self.blocks.get_mut(id.0 as usize)
    }

    fn content(&self, id: BlockId) -> Option<u64> {
        Some(self.get(id)?.seal.as_ref()?.content)
    }

    /// An empty block with one holder.
    fn take(&mut self) -> Option<BlockId> {
        let id = self.free.pop().or_else(|| Some(self.idle.pop_first()?.1))?;
        let block = self.get_mut(id)?;
        block.holders = 1;
        block.idle_since = None;
        if let Some(seal) = block.seal.take() {
            self.sealed.remove(&seal.key);
        }
        Some(id)
    }

    fn hold(&mut self, id: BlockId) {
        let Some(block) = self.get_mut(id) else { return };
        block.holders += 1;
        if let Some(since) = block.idle_since.take() {
            self.idle.remove(&since);
        }
    }

    fn let_go(&mut self, id: BlockId) {
        self.ticks += 1;
        let now = self.ticks;
        let Some(block) = self.get_mut(id) else { return };
        block.holders = block.holders.saturating_sub(1);
        if block.holders > 0 {
            return;
        }
        if block.seal.is_some() {
            block.idle_since = Some(now);
            self.idle.insert(now, id);
        } else {
            self.free.push(id);
        }
    }
}

impl Table {
    /// No block, nothing to leave behind.
    pub(crate) fn empty() -> Self {
        Self { blocks: Vec::new(), sealed: 0, last: None }
    }

    pub(crate) fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    pub(crate) fn sealed(&self) -> usize {
        self.sealed
    }
}

impl Before {
    fn start(prefixes: &Prefixes) -> Option<Self> {
        match prefixes {
            Prefixes::Unused => None,
            Prefixes::Shared => Some(Self::Start(None)),
            Prefixes::Within(scope) => Some(Self::Start(Some(Arc::clone(scope)))),
        }
    }
}

#[cfg(test)]
mod tests;
