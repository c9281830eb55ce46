//! Components that are made here, and those that `cargo xtask build-plugins` makes.

use std::path::{Path, PathBuf};

use tollgate_domain::usage::{Phase, TokenUsage, UsageSource};
use tollgate_domain::{UnixNanos, Usage};
use wasm_encoder::{
    CodeSection, Component, ComponentExportKind, ComponentExportSection, ComponentInstanceSection,
    Function, FunctionSection, Instruction, Module, ModuleSection, TypeSection, ValType,
};

/// The file of a plugin that was built from `plugins/`.
pub fn built(name: &str) -> PathBuf {
    let plugins =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/target/wasm32-wasip2/release");
    let file = plugins.join(format!("{name}.wasm"));
    assert!(file.exists(), "{name}.wasm is missing: run `cargo xtask build-plugins`");
    file
}

/// A request that the bundled price list knows.
pub fn usage() -> Usage {
    Usage {
        provider: "tollgate".to_owned(),
        request_model: "mistral-7b".to_owned(),
        response_model: "mistral-7b".to_owned(),
        operation: "chat".to_owned(),
        service_tier: None,
        phase: Phase::Final,
        source: UsageSource::Counted,
        start: UnixNanos(1_760_000_000_000_000_000),
        tokens: TokenUsage { input: 7, output: 3, ..TokenUsage::default() },
        compute: None,
        units: Vec::new(),
    }
}

/// The beginning of a component that looks like a cost model from outside; more sections may follow.
pub fn with_roles() -> Vec<u8> {
    roles(Component::new()).finish()
}

fn roles(mut component: Component) -> Component {
    let mut instances = ComponentInstanceSection::new();
    instances.export_items(Vec::<(&str, ComponentExportKind, u32)>::new());
    component.section(&instances);
    let mut exports = ComponentExportSection::new();
    for (index, name) in [(0, "lifecycle"), (1, "cost-model")] {
        let name = format!("tollgate:plugin/{name}@0.1.0");
        exports.export(&name, ComponentExportKind::Instance, index, None);
    }
    component.section(&exports);
    component
}

/// A component with one function of about so many bytes that is as hard to compile as can be: every value it makes is
/// needed to the end of it.
pub fn bomb(bytes: usize) -> Vec<u8> {
    const LOCALS: u32 = 40_000;
    let mut function = Function::new([(LOCALS, ValType::I64)]);
    let mut body = 0;
    let mut n = 0_u32;
    while body < bytes {
        let (a, b) = (n.wrapping_mul(7919) % LOCALS, n.wrapping_mul(104_729) % LOCALS);
        function.instruction(&Instruction::LocalGet(a));
        function.instruction(&Instruction::LocalGet(b));
        function.instruction(&Instruction::I64Mul);
        function.instruction(&Instruction::LocalSet(n % LOCALS));
        if n.is_multiple_of(64) {
            // A branch back to the top of a loop keeps everything alive across it.
            function.instruction(&Instruction::Loop(wasm_encoder::BlockType::Empty));
            function.instruction(&Instruction::LocalGet(a));
            function.instruction(&Instruction::I64Eqz);
            function.instruction(&Instruction::BrIf(0));
            function.instruction(&Instruction::End);
            body += 10;
        }
        body += 13;
        n += 1;
    }
    function.instruction(&Instruction::End);
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut code = CodeSection::new();
    code.function(&function);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    let mut component = Component::new();
    component.section(&ModuleSection(&module));
    roles(component).finish()
}
