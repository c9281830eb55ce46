//! Writes a component that no toolchain makes, for tests of the whole program: `craft compile-bomb BYTES FILE`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    missing_docs,
    reason = "a tool for tests"
)]

#[path = "../tests/support/craft.rs"]
#[allow(dead_code, reason = "the tests of this crate use the rest")]
mod craft;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, size, file] = <[String; 3]>::try_from(arguments).unwrap();
    let size: usize = size.parse().unwrap();
    let bytes = match what.as_str() {
        "compile-bomb" => craft::compile_bomb(size),
        "nested" => {
            let nested = craft::nested(size);
            craft::with_section("tollgate/nesting", (craft::COMPONENT_SECTION, &nested))
        }
        "types" => {
            let types = craft::module_of_types(size);
            craft::with_section("tollgate/typeful", (craft::MODULE_SECTION, &types))
        }
        "custom-section" => {
            craft::with_custom_section(&craft::component(craft::Craft::default()), size)
        }
        _ => panic!("nothing is crafted by the name of {what}"),
    };
    std::fs::write(file, bytes).unwrap();
}
