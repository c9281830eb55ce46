//! NVIDIA GPUs: how one is opened, and kernels of our own (`kernels.cu`), which are compiled for whatever
//! GPU is there when they are first used.

#![expect(unsafe_code, reason = "what the driver and a kernel do to memory is not checked")]

use std::ffi::c_void;
use std::sync::OnceLock;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc;
use candle_core::cuda_backend::{CudaDType, CudaDevice, WrapErr};
use candle_core::{CudaStorage, DType, Device, Error, Layout, Result, Shape, Storage, Tensor};
use half::{bf16, f16};

const MODULE: &str = "tollgate";
/// Threads of a block where each does its own.
const THREADS: u32 = 256;
/// `WARPS` of 32 threads.
const ATTENDING: u32 = 256;
/// `HELD` times 32.
pub(super) const WIDEST_HEAD: usize = 256;

/// The GPU of this number, with a stream of its own: any thread may use it.
pub(crate) fn open(number: usize) -> Result<Device> {
    let device = CudaDevice::new_with_stream(number)?;
    // SAFETY: all that is computed on it is in that one stream, in order, so nothing needs to be waited for.
    unsafe { device.disable_event_tracking() };
    if let Err(error) = keep_memory(&device) {
        tracing::debug!(%error, "memory of the GPU goes back to the system after each pass");
    }
    Ok(Device::Cuda(device))
}

/// What a pass let go of is kept for the next, which needs as much: to ask the system takes longer than
/// to compute a token.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let mut all = u64::MAX;
    // SAFETY: the device is one that was opened, the pool its own, and the threshold a number of 64 bits.
    unsafe {
        let pool = device::get_default_mem_pool(stream.context().cu_device()).w()?;
        let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        mem_pool::set_attribute(pool, threshold, (&raw mut all).cast::<c_void>()).w()
    }
}

/// As [`super::write::WriteRows`], after its checks.
pub(super) fn write_rows(
    (to, to_layout): (&mut CudaStorage, &Layout),
    (from, from_layout): (&CudaStorage, &Layout),
    (rows, rows_layout): (&CudaStorage, &Layout),
) -> Result<()> {
    let (count, width) = from_layout.shape().dims2()?;
    let stride = from_layout.stride().first().copied().unwrap_or(width) as u64;
    let device = to.device().clone();
    let from = from.as_cuda_slice::<f32>()?.slice(from_layout.start_offset()..);
    let rows = rows.as_cuda_slice::<u32>()?.slice(rows_layout.start_offset()..);
    let kernel = kernel(&device, "write_rows", to.dtype())?;
    let numbers = u32::try_from(count * width).map_err(Error::wrap)?;
    let shape = LaunchConfig {
        grid_dim: (numbers.div_ceil(THREADS).max(1), 1, 1),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: 0,
    };
    let (start, dtype) = (to_layout.start_offset(), to.dtype());
    let (width, count) = (width as u64, count as u64);
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&from).arg(&stride).arg(&rows);
    macro_rules! over {
        ($number:ty) => {{
            let mut to = to.as_cuda_slice_mut::<$number>()?.slice_mut(start..);
            launch.arg(&mut to).arg(&width).arg(&count);
            // SAFETY: `from` has `count` rows of `width` numbers and `rows` as many, by their layouts;
            // each of `rows` is a row of `to`: a place in a block that there is.
            unsafe { launch.launch(shape) }.w()?;
        }};
    }
    match dtype {
        DType::F32 => over!(f32),
        DType::F16 => over!(f16),
        DType::BF16 => over!(bf16),
        other => candle_core::bail!("write-rows: {other:?} is not written"),
    }
    Ok(())
}

/// Sequences of one token each, and what they look at.
pub(super) struct Attend<'a> {
    pub(super) keys: &'a Tensor,
    pub(super) values: &'a Tensor,
    /// `[sequences, most]`.
    pub(super) places: &'a Tensor,
    /// How many of its places each sequence has.
    pub(super) lengths: &'a Tensor,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Attend<'_> {
    /// Of queries `[sequences, heads * head_dim]`, f32 and one after another, what they take.
    pub(super) fn forward(
        &self,
        queries: &CudaStorage,
        layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        match self.keys.dtype() {
            DType::F32 => self.launch::<f32>(queries, layout),
            DType::F16 => self.launch::<f16>(queries, layout),
            DType::BF16 => self.launch::<bf16>(queries, layout),
            other => candle_core::bail!("attend: no keys of {other:?}"),
        }
    }

    fn launch<T: CudaDType + DeviceRepr>(
        &self,
        queries: &CudaStorage,
        layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let device = queries.device().clone();
        let (sequences, width) = layout.shape().dims2()?;
        let (_, most) = self.places.dims2()?;
        if !layout.is_contiguous() || self.head_dim > WIDEST_HEAD {
            candle_core::bail!("attend: queries are not one after another, or too wide");
        }
        let kernel = kernel(&device, "attend", self.keys.dtype())?;
        let count = |number: usize| u32::try_from(number).map_err(Error::wrap);
        let shape = LaunchConfig {
            grid_dim: (count(width / self.head_dim)?, count(sequences)?, 1),
            block_dim: (ATTENDING, 1, 1),
            shared_mem_bytes: 0,
        };
        let (kv_heads, dim, most) = (count(self.kv_heads)?, count(self.head_dim)?, count(most)?);
        let queries = queries.as_cuda_slice::<f32>()?.slice(layout.start_offset()..);
        // SAFETY: all of it is written below.
        let mut taken = unsafe { device.alloc::<f32>(sequences * width) }?;
        let (keys, _) = self.keys.storage_and_layout();
        let (values, _) = self.values.storage_and_layout();
        let (places, _) = self.places.storage_and_layout();
        let (lengths, _) = self.lengths.storage_and_layout();
        let (keys, values) = (slice::<T>(&keys)?, slice::<T>(&values)?);
        let (places, lengths) = (slice::<u32>(&places)?, slice::<u32>(&lengths)?);
        let stream = device.cuda_stream();
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&queries).arg(keys).arg(values).arg(places).arg(lengths).arg(&mut taken);
        launch.arg(&kv_heads).arg(&dim).arg(&most);
        // SAFETY: a block of threads for each head of each sequence reads `lengths` places of rows that
        // there are and writes its own numbers of `taken`; heads are no wider than a block holds.
        unsafe { launch.launch(shape) }.w()?;
        let taken = CudaStorage::wrap_cuda_slice(taken, device);
        Ok((taken, Shape::from((sequences, width))))
    }
}

/// All of a tensor that begins where its memory does.
fn slice<T: CudaDType>(storage: &Storage) -> Result<&CudaSlice<T>> {
    match storage {
        Storage::Cuda(storage) => storage.as_cuda_slice::<T>(),
        _ => candle_core::bail!("attend: keys and values are not on the GPU"),
    }
}

fn kernel(device: &CudaDevice, name: &str, dtype: DType) -> Result<CudaFunction> {
    static COMPILED: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| {
        let compiled = nvrtc::compile_ptx(include_str!("kernels.cu"));
        compiled.map(|compiled| compiled.to_src()).map_err(|error| error.to_string())
    });
    let compiled = compiled.as_ref().map_err(|error| Error::Msg(error.clone()))?;
    let name = format!("{name}_{}", dtype.as_str());
    Ok(device.get_or_load_custom_func(&name, MODULE, compiled)?.into_cuda_function())
}
