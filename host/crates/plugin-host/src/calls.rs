//! The functions of a plugin: where a component has them, and those of one running copy.
//!
//! What is called for each request and each batch takes its arguments written whole (see [`wire`](crate::wire)); the types
//! that a component is checked against are the contract's all the same.

use wasmtime::component::{
    ComponentExportIndex, ComponentType, Instance, InstancePre, Lower, TypedFunc,
};
use wasmtime::{Error, Store};

use crate::bindings::cost_model::{PriceContext, Priced, Usage};
use crate::bindings::edits::EditList;
use crate::bindings::export_filter::Filtered;
use crate::bindings::lifecycle;
use crate::bindings::types::{PluginError, Slot, Span, TextRef};
use crate::instance::State;
use crate::interface::API;
use crate::role::Role;
use crate::wire::{All, Whole};

/// Where the exports of a component are.
#[derive(Clone)]
pub(crate) struct Exports {
    lifecycle: lifecycle::GuestIndices,
    currency: Option<ComponentExportIndex>,
    price: Option<ComponentExportIndex>,
    enrich: Option<ComponentExportIndex>,
    filter: Option<ComponentExportIndex>,
}

/// The exports of one running copy.
pub(crate) struct Functions {
    pub lifecycle: lifecycle::Guest,
    pub cost_model: Option<CostModel>,
    pub enrich: Option<Enrich<'static>>,
    pub filter: Option<Filter<'static>>,
}

/// What a cost model does.
#[derive(Clone, Copy)]
pub(crate) struct CostModel {
    pub currency: TypedFunc<(), (String,)>,
    pub price: Price<'static>,
}

/// `cost-model.price`.
pub(crate) type Price<'a> =
    TypedFunc<(Whole<PriceContext>, Whole<Usage<'a>>, &'a [u8]), (Result<Priced, PluginError>,)>;

/// `attribute-enricher.enrich`.
pub(crate) type Enrich<'a> =
    TypedFunc<(BatchContext<'a>, SpanBatch<'a>), (Result<EditList, PluginError>,)>;

/// `export-filter.filter`.
pub(crate) type Filter<'a> =
    TypedFunc<(BatchContext<'a>, SpanBatch<'a>), (Result<Filtered, PluginError>,)>;

/// What holds for a whole batch: the contract's `batch-context`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct BatchContext<'a> {
    pub tenant: Option<&'a str>,
    pub exporter: Option<&'a str>,
    pub now: u64,
    #[component(name = "resource-attributes")]
    pub resource_attributes: All<'a, Slot>,
    pub keys: All<'a, TextRef>,
    pub arena: &'a [u8],
}

/// Spans of one tenant: the contract's `span-batch`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct SpanBatch<'a> {
    pub spans: All<'a, Span>,
    pub slots: All<'a, Slot>,
    pub arena: &'a [u8],
}

impl Exports {
    /// Finds them; a role that a component has has all its functions.
    pub fn of(pre: &InstancePre<State>) -> wasmtime::Result<Self> {
        let find = |role: Role, function: &str| {
            let interface = format!("tollgate:plugin/{}@{API}", role.name());
            let Some(instance) = pre.component().get_export_index(None, &*interface) else {
                return Ok(None);
            };
            let found = pre.component().get_export_index(Some(&instance), function);
            let missing =
                || format!("instance export `{interface}` does not have export `{function}`");
            found.map(Some).ok_or_else(|| Error::msg(missing()))
        };
        Ok(Self {
            lifecycle: lifecycle::GuestIndices::new(pre)?,
            currency: find(Role::CostModel, "currency")?,
            price: find(Role::CostModel, "price")?,
            enrich: find(Role::AttributeEnricher, "enrich")?,
            filter: find(Role::ExportFilter, "filter")?,
        })
    }

    /// Whether the component does this.
    pub fn has(&self, role: Role) -> bool {
        match role {
            Role::CostModel => self.price.is_some(),
            Role::AttributeEnricher => self.enrich.is_some(),
            Role::ExportFilter => self.filter.is_some(),
        }
    }

    /// Those of one copy, if they are of the contract's types.
    pub fn load(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
    ) -> wasmtime::Result<Functions> {
        let lifecycle = self.lifecycle.load(&mut *store, instance)?;
        let cost_model = match (&self.currency, &self.price) {
            (Some(currency), Some(price)) => Some(CostModel {
                currency: instance.get_typed_func(&mut *store, currency)?,
                price: instance.get_typed_func(&mut *store, price)?,
            }),
            _ => None,
        };
        let enrich = self.enrich.as_ref();
        let filter = self.filter.as_ref();
        Ok(Functions {
            lifecycle,
            cost_model,
            enrich: enrich.map(|at| instance.get_typed_func(&mut *store, at)).transpose()?,
            filter: filter.map(|at| instance.get_typed_func(&mut *store, at)).transpose()?,
        })
    }
}
