//! Whole requests through the plugin.

use crate::CostDeviceSeconds;
use tollgate_plugin::testing::{Case, Configured};

fn plugin(json: &str) -> Configured<CostDeviceSeconds> {
    Configured::configure(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

const HOUR: u64 = 3_600_000_000_000;

#[test]
fn time_and_energy() {
    let own = plugin(
        r#"{"devices":[
        {"match":"h200*","rate":"$3.60/h","energy":"$0.36/kWh","watts":700},
        {"match":"cpu","rate":"$0.10/h","minimum":"$0.0001/request"},
        {"match":"metered","energy":"$0.36/kWh"}]}"#,
    );
    // One second: a tenth of a cent, and 700 J at 0.0000001 dollars each.
    assert_eq!(
        own.price(Case::usage("m").compute("h200-sxm", 1_000_000_000)),
        Ok("0.00107".into())
    );
    let measured = Case::usage("m").compute("h200-sxm", 1_000_000_000);
    let measured =
        measured.with(|u| u.compute.as_mut().unwrap().energy_millijoules = Some(500_000));
    assert_eq!(own.price(measured), Ok("0.00105".into()));
    assert_eq!(own.price(Case::usage("m").compute("cpu", HOUR)), Ok("0.1".into()));
    assert_eq!(own.price(Case::usage("m").compute("cpu", 1)), Ok("0.0001".into()));
    assert_eq!(own.price(Case::usage("m").compute("metered", HOUR)), Err("MissingUsage".into()));
    assert_eq!(own.price(Case::usage("m").compute("tpu", HOUR)), Err("NotBillable".into()));
    assert_eq!(own.price(Case::usage("m").tokens(10, 10)), Err("MissingUsage".into()));
    assert!(
        own.price(Case::usage("m").compute("h200", u64::MAX)).unwrap_err().contains("out of range")
    );
}

#[test]
fn unconfigured_is_unpriced() {
    for json in ["", "{}", r#"{"devices":[]}"#] {
        assert_eq!(
            plugin(json).price(Case::usage("m").compute("cpu", HOUR)),
            Err("NotBillable".into())
        );
    }
}

#[test]
fn shares_and_tenants() {
    let own = plugin(
        r#"{"devices":[
        {"match":"gpu","rate":"$1/h"},
        {"match":"gpu","tenant":"reserved","rate":"$1/h","bill":"whole"}]}"#,
    );
    let quarter = |tenant: &str, ppm| {
        let case = Case::usage("m").compute("gpu", HOUR / 4).tenant(tenant);
        own.price(case.with(|u| u.compute.as_mut().unwrap().share_ppm = ppm))
    };
    assert_eq!(quarter("other", 250_000), Ok("0.25".into()));
    assert_eq!(quarter("reserved", 250_000), Ok("1".into()));
    assert!(quarter("reserved", 0).unwrap_err().contains("0 ppm"));
}

#[test]
fn refusals_point_at_the_fault() {
    let refused =
        |json: &str| Configured::<CostDeviceSeconds>::configure(json).expect_err(json).to_string();
    assert!(refused(r#"{"devices":[{"match":"x"}]}"#).starts_with("/devices/0: neither"));
    assert!(
        refused(r#"{"devices":[{"rate":"$2/M"}]}"#)
            .starts_with("/devices/0/rate: `$2/M` is not a price per device")
    );
    assert!(
        refused(r#"{"devices":[{"rate":"€2/h"}]}"#)
            .starts_with("/devices/0/rate: the price is in EUR")
    );
    assert!(refused(r#"{"devices":[{"rate":"$2/h","watts":1}]}"#).starts_with("/devices/0/watts"));
    assert!(refused(r#"{"device":[]}"#).starts_with("/device: unknown field"));
}
