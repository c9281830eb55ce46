//! The pool alone, under random sequences that grow, seal and go.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

const BLOCK_TOKENS: usize = 2;

#[derive(Clone, Debug)]
enum Act {
    /// A sequence over this text takes what is found of it.
    Open(Prefixes, Vec<u32>),
    /// The nth sequence fills up to so many more blocks.
    Fill(usize, usize),
    /// The nth sequence goes.
    Release(usize),
}

struct Open {
    table: Table,
    text: Vec<u32>,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let prefixes = prop_oneof![
        Just(Prefixes::Shared),
        Just(Prefixes::Within("a".into())),
        Just(Prefixes::Unused)
    ];
    let act = prop_oneof![
        (prefixes, prop::collection::vec(0..2u32, 1..12)).prop_map(|(p, text)| Act::Open(p, text)),
        (0..8usize, 1..4usize).prop_map(|(which, blocks)| Act::Fill(which, blocks)),
        (0..8usize).prop_map(Act::Release),
    ];
    prop::collection::vec(act, 0..60)
}

fn full_blocks(text: &[u32]) -> impl Iterator<Item = Vec<u32>> {
    text.chunks_exact(BLOCK_TOKENS).map(<[u32]>::to_vec)
}

fn audit(pool: &BlockPool, open: &[Open]) -> Result<(), TestCaseError> {
    let mut holders: BTreeMap<BlockId, usize> = BTreeMap::new();
    for id in open.iter().flat_map(|sequence| sequence.table.blocks()) {
        *holders.entry(*id).or_default() += 1;
    }
    let free: HashSet<_> = pool.free.iter().copied().collect();
    prop_assert_eq!(free.len(), pool.free.len(), "no block is free twice");
    let contents: HashSet<_> =
        pool.blocks.iter().filter_map(|block| Some(block.seal.as_ref()?.content)).collect();
    for (id, block) in pool.blocks.iter().enumerate() {
        let id = BlockId(id as u32);
        prop_assert_eq!(block.holders, holders.get(&id).copied().unwrap_or_default());
        let idle = block.idle_since.and_then(|since| pool.idle.get(&since)) == Some(&id);
        prop_assert_eq!(idle, block.holders == 0 && block.seal.is_some());
        prop_assert_eq!(free.contains(&id), block.holders == 0 && block.seal.is_none());
        prop_assert!(block.holders < 2 || block.seal.is_some(), "shared and not full");
        let Some(seal) = &block.seal else { continue };
        prop_assert_eq!(pool.sealed.get(&seal.key), Some(&id), "found under its key");
        if let Before::Content(before) = seal.key.before {
            prop_assert!(contents.contains(&before), "outlived the block it is found through");
        }
    }
    prop_assert_eq!(pool.sealed.len(), contents.len());
    let usage = pool.usage();
    prop_assert_eq!(usage.held, holders.len());
    prop_assert_eq!(usage.free + usage.cached + usage.held, usage.total);
    Ok(())
}

proptest! {
    /// After each act every block is in one place, has the holders that hold it, and is found if it is kept.
    #[test]
    fn blocks_are_conserved(total in 1..10usize, acts in acts()) {
        let mut pool = BlockPool::new(total, BLOCK_TOKENS);
        let mut open: Vec<Open> = Vec::new();
        for act in acts {
            match act {
                Act::Open(prefixes, text) => {
                    let found = pool.find(&prefixes, full_blocks(&text));
                    open.push(Open { table: pool.open(&prefixes, found), text });
                }
                Act::Fill(which, blocks) => {
                    let Some(sequence) = open.get_mut(which) else { continue };
                    for piece in full_blocks(&sequence.text).skip(sequence.table.sealed()).take(blocks) {
                        let filled = (sequence.table.sealed() + 1) * BLOCK_TOKENS;
                        if !pool.grow(&mut sequence.table, filled) {
                            prop_assert_eq!(pool.available_besides(&[]), 0);
                            break;
                        }
                        pool.seal(&mut sequence.table, piece);
                    }
                }
                Act::Release(which) => {
                    if which < open.len() {
                        pool.release(open.remove(which).table);
                    }
                }
            }
            audit(&pool, &open)?;
        }
        open.drain(..).for_each(|sequence| pool.release(sequence.table));
        audit(&pool, &open)?;
        prop_assert_eq!(pool.available_besides(&[]), total);
    }
}

/// A sequence over `text` that fills and seals all of it.
fn computed(pool: &mut BlockPool, text: &[u32]) -> Table {
    let found = pool.find(&Prefixes::Shared, full_blocks(text));
    let mut table = pool.open(&Prefixes::Shared, found);
    for piece in full_blocks(text).skip(table.sealed()) {
        let filled = (table.sealed() + 1) * BLOCK_TOKENS;
        assert!(pool.grow(&mut table, filled));
        pool.seal(&mut table, piece);
    }
    table
}

#[test]
fn the_end_of_what_was_used_longest_ago_goes_first() {
    let mut pool = BlockPool::new(4, BLOCK_TOKENS);
    for text in [[1, 1, 1, 1], [2, 2, 2, 2]] {
        let table = computed(&mut pool, &text);
        pool.release(table);
    }
    let found = |pool: &BlockPool, text| pool.find(&Prefixes::Shared, full_blocks(text)).len();
    let mut other = pool.open(&Prefixes::Unused, Vec::new());
    let expected = [(2, 2), (1, 2), (0, 2), (0, 1), (0, 0)];
    for (blocks, expected) in expected.into_iter().enumerate() {
        assert!(pool.grow(&mut other, blocks * BLOCK_TOKENS));
        assert_eq!((found(&pool, &[1, 1, 1, 1]), found(&pool, &[2, 2, 2, 2])), expected);
    }
}

#[test]
fn what_two_have_computed_is_kept_once() {
    let mut pool = BlockPool::new(4, BLOCK_TOKENS);
    let mut tables = [0, 1].map(|_| pool.open(&Prefixes::Shared, Vec::new()));
    for table in &mut tables {
        assert!(pool.grow(table, 4));
    }
    assert_eq!(pool.usage().held, 4);
    for table in &mut tables {
        pool.seal(table, vec![7, 7]);
        pool.seal(table, vec![8, 8]);
    }
    assert_eq!(tables[0].blocks(), tables[1].blocks());
    assert_eq!(pool.usage(), BlockUse { total: 4, free: 2, cached: 0, held: 2 });
}
