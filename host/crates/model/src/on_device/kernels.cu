// What tensors of candle have no operation for: rows written in place, and attention of single tokens over
// keys and values wherever they are. Compiled when a model is first computed on a GPU. Arithmetic is in
// f32, whatever keys and values are kept in.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct F16 { u16 bits; };
struct Bf16 { u16 bits; };

__device__ float read(float from) { return from; }
__device__ float read(Bf16 from) { return __uint_as_float((u32)from.bits << 16); }
__device__ float read(F16 from) {
    float number;
    asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(from.bits));
    return number;
}

__device__ void write(float number, float& to) { to = number; }
__device__ void write(float number, F16& to) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(number));
}
__device__ void write(float number, Bf16& to) {
    u32 bits = __float_as_uint(number);
    // Rounded to the nearest, to even between two; what is no number stays none.
    bits = number == number ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000;
    to.bits = bits >> 16;
}

// Row `i` of `from`, whose rows begin `stride` numbers apart, over row `rows[i]` of `to`.
template <typename T>
__device__ void write_rows(const float* from, u64 stride, const u32* rows, T* to, u64 width, u64 count) {
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < width * count) {
        u64 row = i / width, column = i % width;
        write(from[row * stride + column], to[rows[row] * width + column]);
    }
}

// Threads of a block are so many warps; each takes every so-many-th run of KEYS keys.
const u32 WARPS = 8;
const u32 KEYS = 4;
// The least of all scores: compilers at run time have no header to name it.
#define NONE __int_as_float(0xff800000)
// Numbers of a head that a lane holds: heads are at most 32 times as wide.
const u32 HELD = 8;

// One head of one sequence a block: `queries` are `[sequences, heads, dim]`, `places` are
// `[sequences, most]`, of which each sequence has as many as `lengths` says.
template <typename T>
__device__ void attend(const float* queries, const T* keys, const T* values, const u32* places,
                       const u32* lengths, float* taken_by_all, u32 kv_heads, u32 dim, u32 most) {
    __shared__ float largest_of[WARPS], sum_of[WARPS], taken_of[WARPS][HELD * 32];
    u32 head = blockIdx.x, heads = gridDim.x, sequence = blockIdx.y;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 length = lengths[sequence];
    places += (u64)sequence * most;
    u64 which = ((u64)sequence * heads + head) * dim;
    u64 width = (u64)kv_heads * dim, column = (u64)(head / (heads / kv_heads)) * dim;
    float query[HELD], taken[HELD];
    for (u32 i = 0; i < HELD; i++) {
        u32 d = lane + 32 * i;
        query[i] = d < dim ? queries[which + d] : 0.f;
        taken[i] = 0.f;
    }
    // Sums are kept relative to the largest score so far.
    float largest = NONE, sum = 0.f;
    for (u32 at = warp * KEYS; at < length; at += WARPS * KEYS) {
        float score[KEYS], most_now = largest;
        u64 row[KEYS];
        for (u32 k = 0; k < KEYS; k++) {
            score[k] = 0.f;
            row[k] = at + k < length ? places[at + k] * width + column : 0;
            for (u32 i = 0; i < HELD; i++) {
                u32 d = lane + 32 * i;
                if (d < dim && at + k < length) score[k] += query[i] * read(keys[row[k] + d]);
            }
        }
        for (u32 k = 0; k < KEYS; k++) {
            for (u32 o = 16; o > 0; o /= 2) score[k] += __shfl_xor_sync(0xffffffff, score[k], o);
            if (at + k < length) most_now = fmaxf(most_now, score[k]);
        }
        float kept = expf(largest - most_now);
        largest = most_now;
        sum *= kept;
        for (u32 i = 0; i < HELD; i++) taken[i] *= kept;
        for (u32 k = 0; k < KEYS && at + k < length; k++) {
            float weight = expf(score[k] - largest);
            sum += weight;
            for (u32 i = 0; i < HELD; i++) {
                u32 d = lane + 32 * i;
                if (d < dim) taken[i] += weight * read(values[row[k] + d]);
            }
        }
    }
    for (u32 i = 0; i < HELD; i++) taken_of[warp][lane + 32 * i] = taken[i];
    if (lane == 0) {
        largest_of[warp] = largest;
        sum_of[warp] = sum;
    }
    __syncthreads();
    float largest_of_all = NONE, sum_of_all = 0.f;
    for (u32 w = 0; w < WARPS; w++) largest_of_all = fmaxf(largest_of_all, largest_of[w]);
    for (u32 w = 0; w < WARPS; w++) sum_of_all += sum_of[w] * expf(largest_of[w] - largest_of_all);
    for (u32 d = threadIdx.x; d < dim; d += WARPS * 32) {
        float all = 0.f;
        for (u32 w = 0; w < WARPS; w++) all += taken_of[w][d] * expf(largest_of[w] - largest_of_all);
        taken_by_all[which + d] = all / sum_of_all;
    }
}

#define FOR(T, NAME)                                                                                      \
    extern "C" __global__ void write_rows_##NAME(const float* from, u64 stride, const u32* rows, T* to,  \
                                                 u64 width, u64 count) {                                 \
        write_rows<T>(from, stride, rows, to, width, count);                                             \
    }                                                                                                     \
    extern "C" __global__ void attend_##NAME(const float* queries, const T* keys, const T* values,       \
                                             const u32* places, const u32* lengths, float* taken,        \
                                             u32 kv_heads, u32 dim, u32 most) {                          \
        attend<T>(queries, keys, values, places, lengths, taken, kv_heads, dim, most);                   \
    }

FOR(float, f32)
FOR(F16, f16)
FOR(Bf16, bf16)
