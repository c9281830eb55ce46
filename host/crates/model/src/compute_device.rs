//! Where models are computed, as it is written on a command line, and what is found there.
//!
//! `auto` is the first GPU that this build can use and the machine has, and the CPU otherwise. What was
//! asked for by name and is not there is an error: a model that silently runs fifty times slower than
//! was planned for is worse than one that does not start.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::ModelError;

/// Where to compute. Parsed from `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComputeDevice {
    /// The first GPU, if this build can use one and there is one, or the CPU.
    #[default]
    Auto,
    /// The CPU, with kernels of our own.
    Cpu,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
    /// The code for GPUs, computed by the CPU: for tests where no GPU is.
    #[cfg(feature = "fixture")]
    CpuTensors,
}

/// What computes a decoder whose sequences share passes.
pub(crate) enum Opened {
    /// The CPU's kernels.
    Kernels,
    /// Tensors on a device of this name.
    #[cfg_attr(
        not(any(feature = "cuda", feature = "fixture")),
        expect(dead_code, reason = "such a build opens no other device than the CPU")
    )]
    Tensors(Device, String),
}

impl ComputeDevice {
    /// Its name as it is shown for a model that is computed there: `cpu`, `cuda:0`.
    ///
    /// # Errors
    /// [`ModelError::NoDevice`] if it was asked for by name and cannot be used.
    pub fn resolve(self) -> Result<String, ModelError> {
        Ok(match self.open()? {
            Opened::Kernels => CPU.to_owned(),
            Opened::Tensors(_, name) => name,
        })
    }

    pub(crate) fn open(self) -> Result<Opened, ModelError> {
        match self {
            Self::Cpu => Ok(Opened::Kernels),
            Self::Auto if !cfg!(feature = "cuda") => Ok(Opened::Kernels),
            Self::Auto => Ok(match cuda(0) {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::info!(reason = reason(&error), "no GPU: models run on the CPU");
                    Opened::Kernels
                }
            }),
            Self::Cuda(number) => cuda(number),
            #[cfg(feature = "fixture")]
            Self::CpuTensors => Ok(Opened::Tensors(Device::Cpu, "cpu, by tensors".to_owned())),
        }
    }
}

/// The name of the CPU.
pub(crate) const CPU: &str = "cpu";

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<Opened, ModelError> {
    let name = format!("cuda:{number}");
    match crate::on_device::cuda::open(number) {
        Ok(device) => Ok(Opened::Tensors(device, name)),
        Err(error) => Err(ModelError::NoDevice { device: name, reason: error.to_string() }),
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(number: usize) -> Result<Opened, ModelError> {
    let reason = "this build has no support for it: build with `--features cuda` (host/MODELS.md)";
    Err(ModelError::NoDevice { device: format!("cuda:{number}"), reason: reason.to_owned() })
}

fn reason(error: &ModelError) -> String {
    match error {
        ModelError::NoDevice { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

impl FromStr for ComputeDevice {
    type Err = ModelError;

    fn from_str(given: &str) -> Result<Self, ModelError> {
        let number = given.strip_prefix("cuda:").map(str::parse);
        match (given, number) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err(ModelError::UnknownDevice { given: given.to_owned() }),
        }
    }
}

impl fmt::Display for ComputeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str(CPU),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            #[cfg(feature = "fixture")]
            Self::CpuTensors => f.write_str("cpu, by tensors"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let table = [
            ("auto", ComputeDevice::Auto),
            ("cpu", ComputeDevice::Cpu),
            ("cuda", ComputeDevice::Cuda(0)),
            ("cuda:3", ComputeDevice::Cuda(3)),
        ];
        for (given, expected) in table {
            assert_eq!(given.parse::<ComputeDevice>().unwrap(), expected, "{given}");
        }
        for given in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "metal"] {
            let message = given.parse::<ComputeDevice>().unwrap_err().to_string();
            assert!(
                message.contains("`auto`") && message.contains("`cuda:N`"),
                "{given}: {message}"
            );
        }
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_refused_by_name_and_auto_goes_without() {
        assert_eq!(ComputeDevice::Cpu.resolve().unwrap(), "cpu");
        assert!(ComputeDevice::Auto.resolve().is_ok());
        let message = ComputeDevice::Cuda(4096).resolve().unwrap_err().to_string();
        assert!(message.contains("cuda:4096"), "{message}");
        assert_eq!(message.contains("--features cuda"), !cfg!(feature = "cuda"), "{message}");
    }
}
