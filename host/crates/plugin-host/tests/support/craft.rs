//! Components that no toolchain makes: the page of text in `plugins/fixtures/crafted`, with something put into it, and
//! files that are no plugins but look like one.

use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A plugin in text.
const PLUGIN: &str = include_str!("../../../../../plugins/fixtures/crafted/plugin.wat");
/// The contract.
const CONTRACT: &str = include_str!("../../../../../wit/since-v0.1.0/plugin.wit");
/// What every component begins with.
pub const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// What every core module begins with.
pub const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// How a plugin differs from the one that behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Craft<'a> {
    /// What to put in, by the name of the place.
    pub put: &'a [(&'a str, &'a str)],
    /// What to replace in the module's text.
    pub module: &'a [(&'a str, &'a str)],
    /// What to replace in the contract's text.
    pub contract: &'a [(&'a str, &'a str)],
}

/// A component.
pub fn component(craft: Craft<'_>) -> Vec<u8> {
    let mut text = PLUGIN.to_owned();
    for (place, instead) in craft.put {
        text = replaced(&text, &format!(";;@{place}\n"), &format!("{instead}\n"));
    }
    for (old, new) in craft.module {
        text = replaced(&text, old, new);
    }
    let mut contract = CONTRACT.to_owned();
    for (old, new) in craft.contract {
        contract = replaced(&contract, old, new);
    }
    let mut module = wat::parse_str(&text).unwrap();
    let mut resolve = Resolve::default();
    let package = resolve.push_str("plugin.wit", &contract).unwrap();
    let world = resolve.select_world(&[package], Some("cost-model-plugin")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(false).encode().unwrap()
}

fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old:?} is not in it");
    text.replace(old, new)
}

/// A plugin that behaves, under a name of sixteen letters, with a section more: what is put into it gets as far as the compiler.
pub fn with_section(name: &str, (id, content): (u8, &[u8])) -> Vec<u8> {
    assert_eq!(name.len(), 16, "as long as the one it takes the place of");
    let mut bytes = component(Craft { module: &[("tollgate/crafted", name)], ..Craft::default() });
    section(&mut bytes, id, content);
    bytes
}

/// The section of a component that lies in another.
pub const COMPONENT_SECTION: u8 = 4;
/// The section of a core module in a component.
pub const MODULE_SECTION: u8 = 1;
/// The section of instances of core modules in a component.
const CORE_INSTANCE_SECTION: u8 = 2;

/// A component of so many components, each inside the one before.
pub fn nested(depth: usize) -> Vec<u8> {
    let mut inner = COMPONENT.to_vec();
    for _ in 0..depth {
        let mut outer = COMPONENT.to_vec();
        section(&mut outer, 4, &inner);
        inner = outer;
    }
    inner
}

/// A component with a core module of so many types.
pub fn many_types(count: usize) -> Vec<u8> {
    let mut component = COMPONENT.to_vec();
    section(&mut component, MODULE_SECTION, &module_of_types(count));
    component
}

/// A core module of so many types.
pub fn module_of_types(count: usize) -> Vec<u8> {
    let mut types = leb(count);
    types.extend(b"\x60\0\0".repeat(count));
    let mut module = MODULE.to_vec();
    section(&mut module, 1, &types);
    module
}

/// A plugin with two instances more of its module, each of which imports the other.
pub fn plugin_with_cycle(name: &str) -> Vec<u8> {
    let plain = with_section(name, (0, b"\x04note"));
    let count = |part: wasmparser::Result<Payload<'_>>| match part.unwrap() {
        Payload::InstanceSection(instances) => usize::try_from(instances.count()).unwrap(),
        _ => 0,
    };
    let first: usize = Parser::new(0).parse_all(&plain).map(count).sum();
    let mut content = leb(2);
    for other in [first + 1, first] {
        // Instantiate module 0 with the other as "other".
        content.extend([0, 0, 1, 5]);
        content.extend(b"other");
        content.push(0x12);
        content.extend(leb(other));
    }
    let mut bytes = plain;
    section(&mut bytes, CORE_INSTANCE_SECTION, &content);
    bytes
}

/// `component` with a section of so many bytes that mean nothing.
pub fn with_custom_section(component: &[u8], bytes: usize) -> Vec<u8> {
    let mut content = b"\x04junk".to_vec();
    content.resize(bytes + 5, 0);
    let mut longer = component.to_vec();
    section(&mut longer, 0, &content);
    longer
}

/// Instances of core modules that are each made of the other.
pub fn import_cycle() -> Vec<u8> {
    wat::parse_str(
        r#"(component
             (core module (import "other" "f" (func)) (func (export "f")))
             (core instance (instantiate 0 (with "other" (instance 1))))
             (core instance (instantiate 0 (with "other" (instance 0)))))"#,
    )
    .unwrap()
}

/// A plugin that behaves, with one function of about so many bytes that is hard to compile.
pub fn compile_bomb(bytes: usize) -> Vec<u8> {
    // Every value stays alive to the end, and every block is a join of many.
    let locals = 512_usize;
    let mut body = String::new();
    let mut at = 0_usize;
    while at < bytes {
        let (a, b, c) = (at % locals, at * 7 % locals, at * 31 % locals);
        body += &format!(
            "(local.set {c} (i64.add (i64.rotl (local.get {a}) (local.get {b})) (i64.mul (local.get {b}) (local.get {c}))))\n"
        );
        if at.is_multiple_of(5) {
            body += &format!(
                "(block (br_if 0 (i64.eqz (local.get {a}))) (local.set {b} (i64.const {at})))\n"
            );
        }
        at += 22;
    }
    let sum = (0..locals).fold(String::new(), |sum, n| {
        sum + &format!("(local.set 0 (i64.xor (local.get 0) (local.get {n})))\n")
    });
    let function =
        format!("(func (export \"bomb\") (local {}) {body} {sum})", "i64 ".repeat(locals));
    component(Craft { put: &[("items", &function)], ..Craft::default() })
}

fn section(into: &mut Vec<u8>, id: u8, content: &[u8]) {
    into.push(id);
    into.extend(leb(content.len()));
    into.extend_from_slice(content);
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
