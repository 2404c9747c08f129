// The CPU bodies of the vision tower's operators, `tessera::attend` and `tessera::quick_gelu_`, for processors with
// AVX-512 (float32) and its bfloat16 dot product (bfloat16); elsewhere nothing is registered and plain torch runs.
//
// Attention is computed as in FlashAttention (arXiv 2205.14135): scores of a few queries against a block of keys live
// in the first-level cache, their softmax is kept up to date from block to block, and no P x P matrix is ever made.
// Keys and values of a head are packed once, in the order in which the innermost loop reads them. Sums are float32.
//
// It must agree with `tower.py`'s plain bodies to rounding.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// One set of attributes for both types: no compiler puts a bfloat16 instruction where there is no bfloat16 arithmetic.
#define TESSERA_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))

constexpr int64_t kLanes = 16;          // of a register of float32
constexpr int kRows = 5;                // queries at a time: 5 x 5 sums, and what they need, fit 32 registers
constexpr int kKeyVectors = 4;          // registers of keys at a time
constexpr int kMaxVectors = 5;          // registers of a head's dimensions at a time
constexpr int64_t kPanel = kKeyVectors * kLanes;
constexpr int64_t kBlock = 4 * kPanel;  // keys between two updates of the softmax
constexpr int64_t kTaskQueries = 1024;
constexpr float kLog2E = 1.44269504f;
constexpr float kMasked = -1e30f;       // a score of padding; finite, so that differences are no NaN

constexpr int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

/// How many numbers of a column lie side by side in packed form: what one instruction multiplies and adds up.
template <typename T>
constexpr int64_t kStep = sizeof(float) / sizeof(T);


/// sums[R][16 C] (+)= a[R][depth] * b[depth][16 C], b packed with `b_stride` numbers from one step of depth to the next.
template <typename T, int R, int C>
TESSERA_AVX512 void multiply(const T* a, int64_t a_stride, const T* b, int64_t b_stride, int64_t depth, float* sums,
                             int64_t sums_stride, bool add) {
  __m512 sum[R][C];
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) {
      sum[r][c] = add ? _mm512_loadu_ps(sums + r * sums_stride + c * kLanes) : _mm512_setzero_ps();
    }
  }
  for (int64_t d = 0; d < depth; d += kStep<T>, b += b_stride) {
    __m512 column[C];
    for (int c = 0; c < C; ++c) column[c] = _mm512_loadu_ps(b + c * kLanes * kStep<T>);
    for (int r = 0; r < R; ++r) {
      float bits;
      std::memcpy(&bits, a + r * a_stride + d, sizeof bits);
      const __m512 row = _mm512_set1_ps(bits);
      for (int c = 0; c < C; ++c) {
        if constexpr (std::is_same_v<T, float>) {
          sum[r][c] = _mm512_fmadd_ps(row, column[c], sum[r][c]);
        } else {
          sum[r][c] = _mm512_dpbf16_ps(sum[r][c], (__m512bh)row, (__m512bh)column[c]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) _mm512_storeu_ps(sums + r * sums_stride + c * kLanes, sum[r][c]);
  }
}

/// As above for any number of columns.
template <typename T, int R>
TESSERA_AVX512 void multiply_wide(const T* a, int64_t a_stride, const T* b, int64_t b_stride, int64_t depth,
                                  float* sums, int64_t sums_stride, int64_t num_vectors) {
  for (int64_t done = 0; done < num_vectors;) {
    const int64_t left = num_vectors - done;
    const int64_t take = left <= kMaxVectors ? left : std::min<int64_t>(4, left);
    const T* columns = b + done * kLanes * kStep<T>;
    float* out = sums + done * kLanes;
    switch (take) {
      case 1: multiply<T, R, 1>(a, a_stride, columns, b_stride, depth, out, sums_stride, true); break;
      case 2: multiply<T, R, 2>(a, a_stride, columns, b_stride, depth, out, sums_stride, true); break;
      case 3: multiply<T, R, 3>(a, a_stride, columns, b_stride, depth, out, sums_stride, true); break;
      case 4: multiply<T, R, 4>(a, a_stride, columns, b_stride, depth, out, sums_stride, true); break;
      default: multiply<T, R, 5>(a, a_stride, columns, b_stride, depth, out, sums_stride, true);
    }
    done += take;
  }
}

/// 2^x to a float32's last bits, for x up to 127; below -126 it is 2^-126, next to nothing. A NaN stays one.
TESSERA_AVX512 inline __m512 exp2(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-126.f), x);
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 part = _mm512_sub_ps(x, whole);  // within half of 0: the powers of ln 2 over factorials converge fast
  __m512 sum = _mm512_set1_ps(1.52527338e-5f);
  for (const float factor : {1.54035304e-4f, 1.33335581e-3f, 9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f,
                             6.93147181e-1f, 1.f}) {
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(factor));
  }
  return _mm512_scalef_ps(sum, whole);
}

TESSERA_AVX512 inline __m512 load(const float* from, __mmask16 lanes) { return _mm512_maskz_loadu_ps(lanes, from); }
TESSERA_AVX512 inline __m512 load(const uint16_t* from, __mmask16 lanes) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
TESSERA_AVX512 inline void store(float* to, __mmask16 lanes, __m512 values) {
  _mm512_mask_storeu_ps(to, lanes, values);
}
TESSERA_AVX512 inline void store(uint16_t* to, __mmask16 lanes, __m512 values) {
  _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh(values));
}
__mmask16 lanes_of(int64_t num_left) { return num_left >= kLanes ? 0xffff : (1u << num_left) - 1; }

template <typename T>
struct Heads {  // [P, N, D], strides in elements
  explicit Heads(const Tensor& x)
      : data(static_cast<T*>(x.data_ptr())), patch_stride(x.stride(0)), head_stride(x.stride(1)) {}

  T* at(int64_t patch, int64_t head) const { return data + patch * patch_stride + head * head_stride; }

  T* data;
  int64_t patch_stride, head_stride;
};

/// Keys and values of one head in one slice, in the order `multiply` reads them; padding is zero.
template <typename T>
struct Packed {
  void pack(const Heads<T>& k, const Heads<T>& v, int64_t first, int64_t num_keys, int64_t head, int64_t head_dim) {
    constexpr int64_t step = kStep<T>;
    const int64_t num_padded = rounded_up(num_keys, kPanel), width = rounded_up(head_dim, kLanes);
    keys.assign(num_padded * head_dim, 0);
    values.assign(num_padded * width, 0);
    for (int64_t i = 0; i < num_keys; ++i) {
      const T* key = k.at(first + i, head);
      const T* value = v.at(first + i, head);
      T* key_out = keys.data() + i / kPanel * kPanel * head_dim + i % kPanel * step;
      T* value_out = values.data() + i / step * step * width + i % step;
      for (int64_t d = 0; d < head_dim; d += step) std::memcpy(key_out + d * kPanel, key + d, sizeof(float));
      for (int64_t d = 0; d < head_dim; ++d) value_out[d * step] = value[d];
    }
  }

  std::vector<T> keys;    // [panel][D / step][64 keys][step]
  std::vector<T> values;  // [key / step][D, rounded up to 16][step]
};

/// What a few queries have summed up so far.
struct Sums {
  Sums(int64_t width) : values(kRows * width), scores(kRows * kBlock) {}

  std::vector<float> values;  // [kRows][width], times the sum of weights
  std::vector<float> scores;  // [kRows][kBlock]
  float highest[kRows];       // score, in powers of two
  float weights[kRows];
};

/// Turns scores into weights relative to the highest so far, and brings the sums to that.
template <typename T>
TESSERA_AVX512 void soften(Sums& sums, T* weights, int row, int64_t num_keys, int64_t num_padded, int64_t width,
                           float scale) {
  float* scores = sums.scores.data() + row * kBlock;
  for (int64_t i = num_keys; i < num_padded; ++i) scores[i] = kMasked;
  __m512 highest = _mm512_loadu_ps(scores);
  for (int64_t i = kLanes; i < num_padded; i += kLanes) highest = _mm512_max_ps(highest, _mm512_loadu_ps(scores + i));
  const float before = sums.highest[row], now = std::max(before, _mm512_reduce_max_ps(highest) * scale);
  const __m512 factor = _mm512_set1_ps(scale), top = _mm512_set1_ps(now);
  __m512 total = _mm512_setzero_ps();
  for (int64_t i = 0; i < num_padded; i += kLanes) {
    const __m512 weight = exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), factor, top));
    total = _mm512_add_ps(total, weight);
    store(weights + i, 0xffff, weight);
  }
  const float fading = std::exp2f(before - now);
  sums.highest[row] = now;
  sums.weights[row] = sums.weights[row] * fading + _mm512_reduce_add_ps(total);
  if (fading == 1) return;
  float* values = sums.values.data() + row * width;
  for (int64_t d = 0; d < width; d += kLanes) {
    _mm512_storeu_ps(values + d, _mm512_mul_ps(_mm512_loadu_ps(values + d), _mm512_set1_ps(fading)));
  }
}


/// Attends with R queries from `patch` on to all keys of their slice.
template <typename T, int R>
TESSERA_AVX512 void attend_rows(const Heads<T>& q, const Heads<T>& out, const Packed<T>& packed, Sums& sums, T* weights,
                                int64_t patch, int64_t head, int64_t num_keys, int64_t head_dim) {
  const int64_t width = rounded_up(head_dim, kLanes);
  const float scale = kLog2E / std::sqrt(static_cast<float>(head_dim));
  std::fill(sums.values.begin(), sums.values.end(), 0.f);
  std::fill_n(sums.highest, R, kMasked);
  std::fill_n(sums.weights, R, 0.f);
  for (int64_t first = 0; first < num_keys; first += kBlock) {
    const int64_t num_here = std::min(kBlock, num_keys - first), num_padded = rounded_up(num_here, kPanel);
    for (int64_t key = 0; key < num_padded; key += kPanel) {
      multiply<T, R, kKeyVectors>(q.at(patch, head), q.patch_stride, packed.keys.data() + (first + key) * head_dim,
                                  kPanel * kStep<T>, head_dim, sums.scores.data() + key, kBlock, false);
    }
    for (int r = 0; r < R; ++r) soften(sums, weights + r * kBlock, r, num_here, num_padded, width, scale);
    multiply_wide<T, R>(weights, kBlock, packed.values.data() + first * width, width * kStep<T>, num_padded,
                        sums.values.data(), width, width / kLanes);
  }
  for (int r = 0; r < R; ++r) {
    const __m512 share = _mm512_set1_ps(1 / sums.weights[r]);
    for (int64_t d = 0; d < head_dim; d += kLanes) {
      const __m512 value = _mm512_loadu_ps(sums.values.data() + r * width + d);
      store(out.at(patch + r, head) + d, lanes_of(head_dim - d), _mm512_mul_ps(value, share));
    }
  }
}

struct Task {  // some queries of one head in one slice
  int64_t slice_begin, slice_end, head, begin, end;
};

template <typename T>
void attend_tasks(const Tensor& out, const Tensor& q, const Tensor& k, const Tensor& v, const Task* task,
                  const Task* end) {
  const Heads<T> queries(q), keys(k), values(v), results(out);
  const int64_t head_dim = q.size(2);
  Packed<T> packed;
  Sums sums(rounded_up(head_dim, kLanes));
  std::vector<T> weights(kRows * kBlock);
  for (const Task* before = nullptr; task < end; before = task++) {
    const int64_t num_keys = task->slice_end - task->slice_begin;
    if (!before || before->slice_begin != task->slice_begin || before->head != task->head) {
      packed.pack(keys, values, task->slice_begin, num_keys, task->head, head_dim);
    }
    int64_t patch = task->begin;
    for (; patch + kRows <= task->end; patch += kRows) {
      attend_rows<T, kRows>(queries, results, packed, sums, weights.data(), patch, task->head, num_keys, head_dim);
    }
    for (; patch < task->end; ++patch) {
      attend_rows<T, 1>(queries, results, packed, sums, weights.data(), patch, task->head, num_keys, head_dim);
    }
  }
}

void require(bool holds, const char* fact) {
  if (!holds) throw std::invalid_argument(fact);
}

bool same_layout(const Tensor& x, const Tensor& q) {
  return x.dim() == 3 && x.size(0) == q.size(0) && x.size(1) == q.size(1) && x.size(2) == q.size(2) &&
         x.scalar_type() == q.scalar_type() && x.stride(2) == 1;
}

void attend(Tensor out, Tensor q, Tensor k, Tensor v, std::vector<int64_t> sizes) {
  require(q.dim() == 3 && same_layout(q, q) && same_layout(k, q) && same_layout(v, q) && same_layout(out, q),
          "out, q, k and v do not fit together");
  require(q.scalar_type() == ScalarType::Float || q.scalar_type() == ScalarType::BFloat16,
          "q, k and v must be float32 or bfloat16");
  require(q.size(2) % 2 == 0, "the head dimension must be even");
  std::vector<Task> tasks;
  int64_t begin = 0;
  for (const int64_t size : sizes) {
    require(size > 0, "every slice must have patches");
    for (int64_t head = 0; head < q.size(1); ++head) {
      for (int64_t query = begin; query < begin + size; query += kTaskQueries) {
        tasks.push_back({begin, begin + size, head, query, std::min(query + kTaskQueries, begin + size)});
      }
    }
    begin += size;
  }
  require(begin == q.size(0), "the slices do not add up to the patches");
  const auto run = q.scalar_type() == ScalarType::Float ? attend_tasks<float> : attend_tasks<uint16_t>;
  torch::stable::parallel_for(0, static_cast<int64_t>(tasks.size()), 1, [&](int64_t first, int64_t last) {
    run(out, q, k, v, tasks.data() + first, tasks.data() + last);
  });
}

template <typename T>
TESSERA_AVX512 void quick_gelu(T* x, int64_t size) {
  for (int64_t i = 0; i < size; i += kLanes) {
    const __mmask16 lanes = lanes_of(size - i);
    const __m512 value = load(x + i, lanes), one = _mm512_set1_ps(1);
    const __m512 power = _mm512_min_ps(_mm512_set1_ps(126), _mm512_mul_ps(value, _mm512_set1_ps(-1.702f * kLog2E)));
    store(x + i, lanes, _mm512_div_ps(value, _mm512_add_ps(one, exp2(power))));
  }
}

void quick_gelu_(Tensor x) {
  require(x.is_contiguous(), "x must be contiguous");
  require(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::BFloat16,
          "x must be float32 or bfloat16");
  torch::stable::parallel_for(0, x.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    if (x.scalar_type() == ScalarType::Float) {
      quick_gelu(static_cast<float*>(x.data_ptr()) + begin, end - begin);
    } else {
      quick_gelu(static_cast<uint16_t*>(x.data_ptr()) + begin, end - begin);
    }
  });
}

bool runs_here() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bf16");
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tessera, CPU, library) {
  if (!runs_here()) return;
  library.impl("attend", TORCH_BOX(&attend));
  library.impl("quick_gelu_", TORCH_BOX(&quick_gelu_));
}

#endif
