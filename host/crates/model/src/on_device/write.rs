//! Rows of one tensor written over rows of another, which candle has no parallel operation for.

use candle_core::{CpuStorage, InplaceOp3, Layout, Result};
use half::{bf16, f16};

/// Writes row `i` of the second (f32, `[rows, width]`, the numbers of a row side by side) over row
/// `third[i]` of the first (`[_, width]`), in its type.
pub(super) struct WriteRows;

impl InplaceOp3 for WriteRows {
    fn name(&self) -> &'static str {
        "write-rows"
    }

    fn cpu_fwd(
        &self,
        to: &mut CpuStorage,
        to_layout: &Layout,
        from: &CpuStorage,
        from_layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
    ) -> Result<()> {
        check(to_layout, from_layout, rows_layout)?;
        let from = from.as_slice::<f32>()?.get(from_layout.start_offset()..).unwrap_or_default();
        let rows = rows.as_slice::<u32>()?.get(rows_layout.start_offset()..).unwrap_or_default();
        let (start, shape) = (to_layout.start_offset(), from_layout);
        match to {
            CpuStorage::F32(to) => copy(to.get_mut(start..), from, rows, shape, |number| number),
            CpuStorage::F16(to) => copy(to.get_mut(start..), from, rows, shape, f16::from_f32),
            CpuStorage::BF16(to) => copy(to.get_mut(start..), from, rows, shape, bf16::from_f32),
            _ => candle_core::bail!("write-rows: f32, f16 and bf16 are written"),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        to: &mut candle_core::CudaStorage,
        to_layout: &Layout,
        from: &candle_core::CudaStorage,
        from_layout: &Layout,
        rows: &candle_core::CudaStorage,
        rows_layout: &Layout,
    ) -> Result<()> {
        check(to_layout, from_layout, rows_layout)?;
        super::cuda::write_rows((to, to_layout), (from, from_layout), (rows, rows_layout))
    }
}

fn check(to: &Layout, from: &Layout, rows: &Layout) -> Result<()> {
    let (count, width) = from.shape().dims2()?;
    let (_, to_width) = to.shape().dims2()?;
    let side_by_side =
        from.stride().last() == Some(&1) && to.is_contiguous() && rows.is_contiguous();
    if rows.shape().dims1()? != count || to_width != width || !side_by_side {
        candle_core::bail!("write-rows: {from:?} does not go to {rows:?} of {to:?}");
    }
    Ok(())
}

fn copy<T>(
    to: Option<&mut [T]>,
    from: &[f32],
    rows: &[u32],
    shape: &Layout,
    cast: impl Fn(f32) -> T,
) -> Result<()> {
    let to = to.unwrap_or_default();
    let (count, width) = shape.shape().dims2()?;
    let stride = shape.stride().first().copied().unwrap_or(width);
    for (index, row) in rows.iter().enumerate().take(count) {
        let from = from.get(index * stride..index * stride + width);
        let start = *row as usize * width;
        let (Some(from), Some(to)) = (from, to.get_mut(start..start + width)) else {
            candle_core::bail!("write-rows: no row {row}");
        };
        to.iter_mut().zip(from).for_each(|(to, from)| *to = cast(*from));
    }
    Ok(())
}
