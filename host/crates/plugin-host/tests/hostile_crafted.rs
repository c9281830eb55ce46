//! What no compiler would emit, against the real host: core start code, the allocator and the clean-up that the host calls,
//! memories and tables that are too large, answers whose pointers lie. Each is the same page of text with a line put in.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::fs;
use std::time::Duration;

use support::craft::{Craft, component};
use support::{Fixture, expect, shown, usage, verdict};
use tollgate_plugin_host::Limits;

/// Something put into the page, or replaced in it.
enum Change {
    Put(&'static [(&'static str, &'static str)]),
    Replace(&'static [(&'static str, &'static str)]),
}
use Change::{Put, Replace};

const SPIN: &str = "(loop (br 0))";

const CASES: &[(&str, Change)] = &[
    ("as it stands", Put(&[])),
    ("spins in its start code", Put(&[("items", "(func $spin (loop (br 0))) (start $spin)")])),
    ("traps in its start code", Put(&[("items", "(func $trap unreachable) (start $trap)")])),
    ("spins in describe", Put(&[("describe", SPIN)])),
    ("spins in configure", Put(&[("configure", SPIN)])),
    ("spins in price", Put(&[("price", SPIN)])),
    // What Rust has for this is a panic; here the processor meets it. There are zeros at address 0.
    (
        "divides by zero",
        Put(&[("price", "(drop (i32.div_s (i32.const 1) (i32.load (i32.const 0))))")]),
    ),
    (
        "divides the least number by minus one",
        Put(&[(
            "price",
            "(drop (i32.div_s (i32.const -2147483648) (i32.sub (i32.load (i32.const 0)) (i32.const 1))))",
        )]),
    ),
    (
        "spins in cabi_realloc",
        Put(&[("realloc", "(if (i32.eq (local.get $size) (i32.const 16)) (then (loop (br 0))))")]),
    ),
    (
        "traps in cabi_realloc",
        Put(&[("realloc", "(if (i32.eq (local.get $size) (i32.const 16)) (then unreachable))")]),
    ),
    (
        "cabi_realloc answers past the end",
        Put(&[(
            "realloc",
            "(if (i32.eq (local.get $size) (i32.const 16)) (then (return (i32.const -8))))",
        )]),
    ),
    (
        "cabi_realloc answers misaligned",
        Put(&[(
            "realloc",
            "(if (i32.eq (local.get $align) (i32.const 8)) (then (return (i32.const 4097))))",
        )]),
    ),
    ("spins in post-return", Put(&[("post", SPIN)])),
    ("traps in post-return", Put(&[("post", "unreachable")])),
    (
        "copies all of its memory for ever",
        Put(&[(
            "price",
            "(drop (memory.grow (i32.const 900))) (loop (memory.copy (i32.const 0) (i32.const 65536) (i32.const 58000000)) (br 0))",
        )]),
    ),
    (
        "fills all of its memory for ever",
        Put(&[(
            "price",
            "(drop (memory.grow (i32.const 900))) (loop (memory.fill (i32.const 65536) (i32.const 7) (i32.const 58000000)) (br 0))",
        )]),
    ),
    (
        "recurses without end",
        Put(&[
            (
                "items",
                "(func $down (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))",
            ),
            ("price", "(drop (call $down (i32.const 1)))"),
        ]),
    ),
    (
        "recurses in two branches",
        Put(&[
            (
                "items",
                "(func $twice (param i32) (if (local.get 0) (then (call $twice (i32.sub (local.get 0) (i32.const 1))) (call $twice (i32.sub (local.get 0) (i32.const 1))))))",
            ),
            ("price", "(call $twice (i32.const 60))"),
        ]),
    ),
    (
        "ten memories of 60 MiB",
        Put(&[(
            "items",
            "(memory 960) (memory 960) (memory 960) (memory 960) (memory 960) (memory 960) (memory 960) (memory 960) (memory 960)",
        )]),
    ),
    ("three memories of 30 MiB", Put(&[("items", "(memory 480) (memory 480) (memory 480)")])),
    (
        "its least memory is above the limit",
        Replace(&[("(memory (export \"memory\") 1)", "(memory (export \"memory\") 2000)")]),
    ),
    (
        "its least memory is all there is",
        Replace(&[("(memory (export \"memory\") 1)", "(memory (export \"memory\") 65536)")]),
    ),
    ("its least table is above the limit", Put(&[("items", "(table 10000000 funcref)")])),
    (
        "twenty tables",
        Put(&[(
            "items",
            "(table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)",
        )]),
    ),
    (
        "grows a table and takes no for an answer",
        Put(&[
            ("items", "(table $t 1 funcref)"),
            ("price", "(drop (table.grow $t (ref.null func) (i32.const 10000000)))"),
        ]),
    ),
    (
        "grows a table and dies of a no",
        Put(&[
            ("items", "(table $t 1 funcref)"),
            (
                "price",
                "(if (i32.eq (table.grow $t (ref.null func) (i32.const 10000000)) (i32.const -1)) (then unreachable))",
            ),
        ]),
    ),
    (
        "grows memory and dies of a no",
        Put(&[(
            "price",
            "(if (i32.eq (memory.grow (i32.const 60000)) (i32.const -1)) (then unreachable))",
        )]),
    ),
    ("its answer lies past the end", Put(&[("price", "(return (i32.const 65532))")])),
    ("its answer lies at the last address", Put(&[("price", "(return (i32.const -4))")])),
    ("its answer is misaligned", Put(&[("price", "(return (i32.const 769))")])),
    ("its answer is a case that is none", Put(&[("data", "(data (i32.const 768) \"\\07\")")])),
    ("its price is a case that is none", Put(&[("data", "(data (i32.const 772) \"\\63\")")])),
    ("its line is of a kind that is none", Put(&[("data", "(data (i32.const 800) \"\\ff\")")])),
    (
        "its list has 100 million lines",
        Put(&[("data", "(data (i32.const 780) \"\\00\\e1\\f5\\05\")")]),
    ),
    (
        "its list has 4 billion lines",
        Put(&[("data", "(data (i32.const 780) \"\\ff\\ff\\ff\\ff\")")]),
    ),
    (
        "its list has 1000 lines within its memory",
        Put(&[("data", "(data (i32.const 780) \"\\e8\\03\\00\\00\")")]),
    ),
    ("its list is misaligned", Put(&[("data", "(data (i32.const 776) \"\\21\\03\\00\\00\")")])),
    ("its list lies past the end", Put(&[("data", "(data (i32.const 776) \"\\f8\\ff\\ff\\ff\")")])),
    (
        "it failed with words past the end",
        Put(&[(
            "data",
            "(data (i32.const 772) \"\\02\\00\\00\\00\\fc\\ff\\ff\\ff\\ff\\00\\00\\00\")",
        )]),
    ),
    (
        "it failed with words that are no text",
        Put(&[(
            "data",
            "(data (i32.const 772) \"\\02\\00\\00\\00\\00\\09\\00\\00\\03\\00\\00\\00\") (data (i32.const 2304) \"\\ff\\fe\\fd\")",
        )]),
    ),
    (
        "its call failed with a case that is none",
        Put(&[("data", "(data (i32.const 768) \"\\01\\00\\00\\00\\09\")")]),
    ),
    ("its name lies past the end", Put(&[("data", "(data (i32.const 512) \"\\fc\\ff\\ff\\ff\")")])),
    ("its name is no text", Put(&[("data", "(data (i32.const 1024) \"\\ff\\ff\\ff\\ff\")")])),
    ("its name has a line break", Put(&[("data", "(data (i32.const 1024) \"a\\nb\")")])),
    ("its version is none", Put(&[("data", "(data (i32.const 1040) \"v0.1.\")")])),
    (
        "it reads 100 million keys",
        Put(&[("data", "(data (i32.const 536) \"\\04\\00\\00\\00\\00\\e1\\f5\\05\")")]),
    ),
    (
        "its schema is no JSON",
        Put(&[(
            "data",
            "(data (i32.const 564) \"\\01\\00\\00\\00\\00\\04\\00\\00\\03\\00\\00\\00\")",
        )]),
    ),
    ("its currency is lower case", Put(&[("data", "(data (i32.const 1056) \"usd\")")])),
    ("its currency is empty", Put(&[("data", "(data (i32.const 708) \"\\00\")")])),
    (
        "it refuses its configuration with a case that is none",
        Put(&[("data", "(data (i32.const 640) \"\\01\\00\\00\\00\\05\")")]),
    ),
    ("it asks for more and more handles", Put(&[])),
];

#[test]
fn each_is_refused_or_fails_alone() {
    let limits = || Limits {
        trial_call: false,
        deadline_call: Duration::from_millis(300),
        deadline_start: Duration::from_millis(300),
        ..Limits::default()
    };
    let healthy = Fixture::new(&[("cost_per_token", "cost.wasm")], Limits::default());
    let mut found = Vec::new();
    for (what, change) in CASES {
        let bytes = match change {
            _ if what.contains("handles") => flood_of_handles(),
            Put(put) => component(Craft { put, ..Craft::default() }),
            Replace(module) => component(Craft { module, ..Craft::default() }),
        };
        let fixture = Fixture::prepared(limits(), |folder| {
            fs::write(folder.join("crafted.wasm"), bytes).unwrap();
        });
        let file = verdict(&fixture.host, "crafted.wasm");
        let set = fixture.host.pin();
        if set.plugins().next().is_none() {
            found.push(format!("{what}: refused, {file}"));
        } else {
            // The sixteen letters of its names are what the allocator is asked for.
            let ask = || shown(&set.price(Some("ten"), &usage("m", 1, 1)));
            let outcome = ask();
            assert_eq!(ask(), outcome, "{what}: the next call is like the first");
            found.push(format!("{what}: {outcome}"));
        }
        assert_eq!(healthy.amount("mistral-7b", 7, 3), "0.0000013", "after {what}");
    }
    expect("hostile-crafted.txt", &found);
}

/// Subscribes to a clock a million times and never lets go.
fn flood_of_handles() -> Vec<u8> {
    let contract = [
        ("world base {", "world base { import wasi:clocks/monotonic-clock@0.2.6;"),
        (
            "package tollgate:plugin@0.1.0;",
            "package tollgate:plugin@0.1.0;
             package wasi:io@0.2.6 { interface poll { resource pollable; } }
             package wasi:clocks@0.2.6 {
                 interface monotonic-clock {
                     use wasi:io/poll@0.2.6.{pollable};
                     subscribe-duration: func(when: u64) -> pollable;
                 }
             }",
        ),
    ];
    let put = [
        (
            "imports",
            "(import \"wasi:clocks/monotonic-clock@0.2.6\" \"subscribe-duration\" (func $subscribe (param i64) (result i32)))",
        ),
        (
            "price",
            "(local $n i32) (loop (drop (call $subscribe (i64.const 1)))
               (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000000))))",
        ),
    ];
    component(Craft { put: &put, contract: &contract, ..Craft::default() })
}
