//! Between the traits that authors implement and the functions that the gateway calls. Not for authors.
//!
//! An instance is single-threaded and lives in a thread-local, which costs nothing in WebAssembly. A trap poisons the
//! whole store, so nothing here has to survive one.

use crate::{
    Config, Context, CostModel, Edits, Enricher, Filter, Plugin, Usage, Verdict,
    arena::{self, Phase},
    attributes::{Hints, Keys, names},
    bindings::{
        cost_model::exports::tollgate::plugin::cost_model as cost,
        enricher::exports::tollgate::plugin::attribute_enricher as enricher,
        filter::exports::tollgate::plugin::export_filter as filter,
        lifecycle::{
            exports::tollgate::plugin::lifecycle,
            tollgate::plugin::{
                edits::EditList,
                types::{BatchContext, PluginError, SpanBatch},
            },
        },
    },
    edits::Packer,
    span::spans,
    usage::Texts,
};
use std::{cell::RefCell, thread::LocalKey};

/// A configured plugin with the keys it declared.
#[derive(Debug)]
pub struct Instance<P> {
    plugin: P,
    info: lifecycle::PluginInfo,
}

impl<P: Plugin> Instance<P> {
    /// Makes one of the operator's configuration.
    pub(crate) fn configure(config: Config) -> Result<Self, crate::ConfigError> {
        Ok(Self { plugin: P::configure(config)?, info: P::describe().0 })
    }

    fn keys<'a>(&'a self, found: &'a [Option<&'a str>], hints: &'a Hints) -> Keys<'a> {
        Keys { reads: &self.info.reads, found, hints: Some(hints) }
    }
}

impl<P: CostModel> Instance<P> {
    pub(crate) fn price(
        &self,
        ctx: &cost::PriceContext,
        usage: &cost::Usage,
        arena: &[u8],
    ) -> cost::Priced {
        let read = || {
            let texts = Texts::of(arena)?;
            Some((Context::of_usage(ctx, texts)?, Usage::read(usage, texts)?))
        };
        match read() {
            Some((context, usage)) => self.plugin.price(&context, &usage),
            None => cost::Priced::Failed("the call's arena lacks text of it".to_owned()),
        }
    }
}

impl<P: Enricher> Instance<P> {
    pub(crate) fn enrich(&self, ctx: &BatchContext, batch: &SpanBatch) -> EditList {
        let names = names(&ctx.keys, &ctx.arena);
        let hints = Hints::default();
        let keys = self.keys(&names, &hints);
        let context = Context::of_spans(ctx, keys);
        let mut packer = Packer::new(&self.info.writes);
        for (index, span) in (0..).zip(spans(batch, keys)) {
            self.plugin.enrich(&context, &span, &mut Edits::new(&mut packer, index));
        }
        packer.finish()
    }
}

impl<P: Filter> Instance<P> {
    pub(crate) fn filter(&self, ctx: &BatchContext, batch: &SpanBatch) -> filter::Filtered {
        let names = names(&ctx.keys, &ctx.arena);
        let hints = Hints::default();
        let keys = self.keys(&names, &hints);
        let context = Context::of_spans(ctx, keys);
        let mut packer = Packer::new(&self.info.writes);
        if self.plugin.batch(&context, spans(batch, keys)) == Verdict::Drop {
            let verdicts = vec![Verdict::Drop; batch.spans.len()];
            return filter::Filtered { verdicts, edits: packer.finish() };
        }
        let verdicts = (0..)
            .zip(spans(batch, keys))
            .map(|(index, span)| {
                self.plugin.filter(&context, &span, &mut Edits::new(&mut packer, index))
            })
            .collect();
        filter::Filtered { verdicts, edits: packer.finish() }
    }
}

/// Where the exported component keeps its instance; implemented by the export macro.
pub trait Hosted {
    /// The author's type.
    type Plugin: Plugin;
    /// The instance.
    fn instance() -> &'static LocalKey<RefCell<Option<Instance<Self::Plugin>>>>;
}

impl<H: Hosted> lifecycle::Guest for H {
    fn describe() -> lifecycle::PluginInfo {
        H::Plugin::describe().0
    }

    fn configure(host: lifecycle::HostInfo, json: String) -> Result<(), lifecycle::ConfigError> {
        arena::enter(Phase::Starting);
        H::instance().set(Some(Instance::configure(Config { json, host })?));
        arena::enter(Phase::Waiting);
        Ok(())
    }
}

impl<H: Hosted<Plugin: CostModel>> cost::Guest for H {
    fn currency() -> String {
        // XXX is ISO 4217 for "no currency", which no host accepts.
        with::<H, _>(|instance| instance.plugin.currency().code().to_owned())
            .unwrap_or_else(|_| "XXX".to_owned())
    }

    fn price(
        ctx: cost::PriceContext,
        usage: cost::Usage,
        arena: Vec<u8>,
    ) -> Result<cost::Priced, PluginError> {
        with::<H, _>(|instance| instance.price(&ctx, &usage, &arena))
    }
}

impl<H: Hosted<Plugin: Enricher>> enricher::Guest for H {
    fn enrich(ctx: BatchContext, batch: SpanBatch) -> Result<EditList, PluginError> {
        with::<H, _>(|instance| instance.enrich(&ctx, &batch))
    }
}

impl<H: Hosted<Plugin: Filter>> filter::Guest for H {
    fn filter(ctx: BatchContext, batch: SpanBatch) -> Result<filter::Filtered, PluginError> {
        with::<H, _>(|instance| instance.filter(&ctx, &batch))
    }
}

fn with<H: Hosted, R>(call: impl FnOnce(&Instance<H::Plugin>) -> R) -> Result<R, PluginError> {
    H::instance().with_borrow(|instance| match instance {
        Some(instance) => {
            arena::enter(Phase::Working);
            let answer = call(instance);
            arena::enter(Phase::Waiting);
            Ok(answer)
        }
        None => Err(PluginError::InvalidInput("called before configure".to_owned())),
    })
}

/// Makes the crate a component that exports a [`Plugin`](crate::Plugin) in one or more roles:
/// `export_plugin!(MyType: CostModel)`, or `export_plugin!(MyType: CostModel + Enricher)`. Once per crate.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty: $first:ident $(+ $role:ident)*) => {
        const _: () = {
            struct Component;

            ::std::thread_local! {
                static INSTANCE: ::core::cell::RefCell<::core::option::Option<$crate::glue::Instance<$plugin>>> =
                    const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            impl $crate::glue::Hosted for Component {
                type Plugin = $plugin;

                fn instance() -> &'static ::std::thread::LocalKey<
                    ::core::cell::RefCell<::core::option::Option<$crate::glue::Instance<$plugin>>>,
                > {
                    &INSTANCE
                }
            }

            // On other targets the plugin is an ordinary crate, so that it can be tested as one; this keeps the
            // compiler from calling all of it unused there.
            const _: fn($crate::Config) -> ::core::result::Result<$plugin, $crate::ConfigError> =
                <$plugin as $crate::Plugin>::configure;
            #[cfg(target_family = "wasm")]
            $crate::bindings::lifecycle::export_lifecycle!(Component with_types_in $crate::bindings::lifecycle);
            $crate::__export_role!(Component, $plugin, $first);
            $($crate::__export_role!(Component, $plugin, $role);)*
        };
    };
}

/// One role of a component.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_role {
    ($component:ident, $plugin:ty, CostModel) => {
        const _: () = $crate::glue::plays_cost_model::<$plugin>();
        #[cfg(target_family = "wasm")]
        $crate::bindings::cost_model::export_cost_model_role!($component with_types_in $crate::in_place::cost_model);
    };
    ($component:ident, $plugin:ty, Enricher) => {
        const _: () = $crate::glue::plays_enricher::<$plugin>();
        #[cfg(target_family = "wasm")]
        $crate::bindings::enricher::export_enricher_role!($component with_types_in $crate::in_place::enricher);
    };
    ($component:ident, $plugin:ty, Filter) => {
        const _: () = $crate::glue::plays_filter::<$plugin>();
        #[cfg(target_family = "wasm")]
        $crate::bindings::filter::export_filter_role!($component with_types_in $crate::in_place::filter);
    };
    ($component:ident, $plugin:ty, $other:ident) => {
        ::core::compile_error!("a role is CostModel, Enricher or Filter");
    };
}

/// A type without the trait is told so on every target.
pub const fn plays_cost_model<P: CostModel>() {}
/// As for a cost model.
pub const fn plays_enricher<P: Enricher>() {}
/// As for a cost model.
pub const fn plays_filter<P: Filter>() {}
