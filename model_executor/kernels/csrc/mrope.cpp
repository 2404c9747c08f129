// The CPU body of `tessera::mrope_`: rotary embedding by sections, in place on strided queries and keys.
//
// It must agree bit for bit with `reference.py`: the same float32 products and sums in the same order (so no fused
// multiply-add: compile with -ffp-contract=off), rounded once to the nearest even bfloat16.
//
// It is written against torch's stable interface, so that one build serves every later torch, and contains the same
// loops for AVX-512, for AVX2 and for any machine, and those of bfloat16 once more for processors that round to it by
// themselves; which ones run is decided when the library is loaded. Threads are torch's own (`parallel_for`), as the
// process configured them.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#define TESSERA_AVX512 "avx512f,avx512bw,avx512dq,avx512vl"
#endif

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

/// A thread is worth waking for this many bytes of queries and keys, about ten microseconds of work.
constexpr int64_t kMinBytesPerThread = 128 * 1024;

#define TESSERA_INLINE inline __attribute__((always_inline))  // a function for one instruction set inlines only these

template <typename T>
struct Heads {  // strides count elements
  explicit Heads(const Tensor& x)
      : data(static_cast<T*>(x.data_ptr())),
        num_heads(x.size(1)),
        token_stride(x.stride(0)),
        head_stride(x.stride(1)) {}

  T* data;
  int64_t num_heads, token_stride, head_stride;
};

struct Rotation {
  const Tensor &q, &k;
  const int64_t* positions;
  int64_t num_tokens, num_axes, axis_stride, token_stride;  // num_axes is 1 for positions [T]
  const float* table;
  int64_t num_rows, row_stride, half;
  const int64_t* section;
};

/// Asks for the same head of the next token: the processor's own prefetching ends with a page, which is often a token.
/// Past the last token it asks in vain; a prefetch never faults.
template <typename T>
TESSERA_INLINE void prefetch(const T* head, int64_t size) {
  for (int64_t i = 0; i < size; i += 64 / sizeof(T)) __builtin_prefetch(head + i, 1);
}

/// Rotates the heads of one token. `row` holds the cosines, then the sines.
TESSERA_INLINE void rotate_token(const Heads<float>& heads, int64_t token, const float* __restrict row, int64_t half) {
  float* head = heads.data + token * heads.token_stride;
  for (int64_t n = 0; n < heads.num_heads; ++n, head += heads.head_stride) {
    prefetch(head + heads.token_stride, 2 * half);
    float* __restrict first = head;
    float* __restrict second = head + half;
    for (int64_t i = 0; i < half; ++i) {
      const float a = first[i], b = second[i], cosine = row[i], sine = row[half + i];
      first[i] = a * cosine - b * sine;
      second[i] = b * cosine + a * sine;
    }
  }
}

// bfloat16 is worked on two neighbors at a time, as the halves of one 32-bit lane: either half widens with a single
// operation, and nothing has to be packed. The row must then come with even and odd pairs apart (`split`).
static_assert(std::endian::native == std::endian::little, "the even neighbor is taken for the low half");
using Neighbors = uint32_t __attribute__((aligned(2), may_alias));

TESSERA_INLINE float even(uint32_t neighbors) { return std::bit_cast<float>(neighbors << 16); }
TESSERA_INLINE float odd(uint32_t neighbors) { return std::bit_cast<float>(neighbors & 0xffff0000); }

/// Nearest even bfloat16, in the upper half. A NaN stays one: it comes from a bfloat16 or from the arithmetic itself,
/// so its lower half is zero and the sum does not carry.
TESSERA_INLINE uint32_t rounded(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return bits + 0x7fff + ((bits >> 16) & 1);
}
TESSERA_INLINE uint32_t joined(float even, float odd) { return (rounded(even) >> 16) | (rounded(odd) & 0xffff0000); }

/// Rotates one pair.
TESSERA_INLINE void rotate_pair(uint16_t& first, uint16_t& second, float cosine, float sine) {
  const float a = even(first), b = even(second);
  first = static_cast<uint16_t>(rounded(a * cosine - b * sine) >> 16);
  second = static_cast<uint16_t>(rounded(b * cosine + a * sine) >> 16);
}

/// As above; `row` holds even cosines, odd cosines, even sines, odd sines, then cosine and sine of an unpaired last.
TESSERA_INLINE void rotate_token(const Heads<uint16_t>& heads, int64_t token, const float* __restrict row,
                                 int64_t half) {
  const int64_t num_lanes = half / 2;
  const float* const cosines[] = {row, row + num_lanes};
  const float* const sines[] = {row + 2 * num_lanes, row + 3 * num_lanes};
  uint16_t* head = heads.data + token * heads.token_stride;
  for (int64_t n = 0; n < heads.num_heads; ++n, head += heads.head_stride) {
    prefetch(head + heads.token_stride, 2 * half);
    Neighbors* __restrict first = reinterpret_cast<Neighbors*>(head);
    Neighbors* __restrict second = reinterpret_cast<Neighbors*>(head + half);
    for (int64_t i = 0; i < num_lanes; ++i) {
      const uint32_t a = first[i], b = second[i];
      first[i] = joined(even(a) * cosines[0][i] - even(b) * sines[0][i], odd(a) * cosines[1][i] - odd(b) * sines[1][i]);
      second[i] =
          joined(even(b) * cosines[0][i] + even(a) * sines[0][i], odd(b) * cosines[1][i] + odd(a) * sines[1][i]);
    }
    if (half % 2) rotate_pair(head[half - 1], head[2 * half - 1], row[2 * half - 2], row[2 * half - 1]);
  }
}

/// Reorders a row for bfloat16.
TESSERA_INLINE void split(const float* __restrict row, int64_t half, float* __restrict out) {
  const int64_t num_lanes = half / 2;
  for (int64_t i = 0; i < num_lanes; ++i) {
    out[i] = row[2 * i];
    out[num_lanes + i] = row[2 * i + 1];
    out[2 * num_lanes + i] = row[half + 2 * i];
    out[3 * num_lanes + i] = row[half + 2 * i + 1];
  }
  if (half % 2) {
    out[2 * half - 2] = row[half - 1];
    out[2 * half - 1] = row[2 * half - 1];
  }
}

#if defined(__x86_64__)
constexpr int64_t kPairs = 32;  // of bfloat16, in a pair of 512-bit registers

/// Takes evens before odds to evens beside odds.
alignas(64) constexpr uint16_t kSideBySide[kPairs] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

/// Even neighbors and odd ones, rounded by the processor and put side by side.
__attribute__((target(TESSERA_AVX512 ",avx512bf16"), always_inline)) inline __m512i joined(__m512 even, __m512 odd,
                                                                                           __m512i side_by_side) {
  return _mm512_permutexvar_epi16(side_by_side, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even)));
}

/// As above, with the rounding of AVX512-BF16, for heads of whole registers; `row` holds cosines, then sines.
/// That rounding takes what is too small for a normal number to zero, so where a zero comes out `rotate_pair` decides.
__attribute__((target(TESSERA_AVX512 ",avx512bf16"))) void rotate_token_rounding(const Heads<uint16_t>& heads,
                                                                                 int64_t token, const float* row,
                                                                                 int64_t half) {
  const __m512i side_by_side = _mm512_load_si512(kSideBySide), magnitude = _mm512_set1_epi16(0x7fff);
  const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odds = _mm512_or_si512(evens, _mm512_set1_epi32(1)), high = _mm512_set1_epi32(~0xffff);
  for (int64_t i = 0; i < half; i += kPairs) {
    const float *cosine = row + i, *sine = cosine + half;
    const __m512 cosines[] = {_mm512_loadu_ps(cosine), _mm512_loadu_ps(cosine + kPairs / 2)};
    const __m512 sines[] = {_mm512_loadu_ps(sine), _mm512_loadu_ps(sine + kPairs / 2)};
    const __m512 even_cosine = _mm512_permutex2var_ps(cosines[0], evens, cosines[1]);
    const __m512 odd_cosine = _mm512_permutex2var_ps(cosines[0], odds, cosines[1]);
    const __m512 even_sine = _mm512_permutex2var_ps(sines[0], evens, sines[1]);
    const __m512 odd_sine = _mm512_permutex2var_ps(sines[0], odds, sines[1]);
    uint16_t* first = heads.data + token * heads.token_stride + i;
    for (int64_t n = 0; n < heads.num_heads; ++n, first += heads.head_stride) {
      uint16_t* second = first + half;
      prefetch(first + heads.token_stride, 1);
      prefetch(second + heads.token_stride, 1);
      const __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
      const __m512 even_a = _mm512_castsi512_ps(_mm512_slli_epi32(a, 16));
      const __m512 even_b = _mm512_castsi512_ps(_mm512_slli_epi32(b, 16));
      const __m512 odd_a = _mm512_castsi512_ps(_mm512_and_si512(a, high));
      const __m512 odd_b = _mm512_castsi512_ps(_mm512_and_si512(b, high));
      const __m512i rotated_a = joined(even_a * even_cosine - even_b * even_sine, odd_a * odd_cosine - odd_b * odd_sine,
                                       side_by_side);
      const __m512i rotated_b = joined(even_b * even_cosine + even_a * even_sine, odd_b * odd_cosine + odd_a * odd_sine,
                                       side_by_side);
      if (_mm512_testn_epi16_mask(rotated_a, magnitude) | _mm512_testn_epi16_mask(rotated_b, magnitude)) [[unlikely]] {
        for (int j = 0; j < kPairs; ++j) rotate_pair(first[j], second[j], cosine[j], sine[j]);
      } else {
        _mm512_storeu_si512(first, rotated_a);
        _mm512_storeu_si512(second, rotated_b);
      }
    }
  }
}
#endif

/// Copies by eights: sections are short, and a loop the compiler makes wider ends with too many single ones.
TESSERA_INLINE void copy(const float* from, int64_t size, float* to) {
  constexpr int64_t kEight = 8;
  for (; size >= kEight; size -= kEight, from += kEight, to += kEight) std::memcpy(to, from, kEight * sizeof(float));
  for (int64_t i = 0; i < size; ++i) to[i] = from[i];
}

/// The row of a token whose axes stand at different positions.
TESSERA_INLINE void mix(const Rotation& r, const int64_t* position, float* __restrict out) {
  for (int64_t axis = 0, start = 0; axis < r.num_axes; start += r.section[axis++]) {
    const float* row = r.table + position[axis * r.axis_stride] * r.row_stride + start;
    copy(row, r.section[axis], out + start);
    copy(row + r.half, r.section[axis], out + r.half + start);
  }
}

template <typename T, bool is_split, void (*rotate_token)(const Heads<T>&, int64_t, const float*, int64_t)>
TESSERA_INLINE void rotate_tokens(const Rotation& r, int64_t begin, int64_t end) {
  const Heads<T> queries(r.q), keys(r.k);
  std::vector<float> mixed_row(2 * r.half), split_row(2 * r.half);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t* position = r.positions + token * r.token_stride;
    const float* row = r.table + *position * r.row_stride;
    bool is_mixed = false;
    for (int64_t axis = 1; axis < r.num_axes; ++axis) is_mixed |= position[axis * r.axis_stride] != *position;
    if (is_mixed) {
      mix(r, position, mixed_row.data());
      row = mixed_row.data();
    }
    if (is_split) {
      split(row, r.half, split_row.data());
      row = split_row.data();
    }
    rotate_token(queries, token, row, r.half);
    rotate_token(keys, token, row, r.half);
  }
}

struct Loops {  // the loops of one instruction set
  const char* name;
  bool (*runs_here)();
  void (*float32)(const Rotation&, int64_t begin, int64_t end);
  void (*bfloat16)(const Rotation&, int64_t begin, int64_t end);
};

#define TESSERA_LOOPS(set, attributes)                                                   \
  attributes void float32_##set(const Rotation& rotation, int64_t begin, int64_t end) {  \
    rotate_tokens<float, false, rotate_token>(rotation, begin, end);                     \
  }                                                                                      \
  attributes void bfloat16_##set(const Rotation& rotation, int64_t begin, int64_t end) { \
    rotate_tokens<uint16_t, true, rotate_token>(rotation, begin, end);                   \
  }

#if defined(__x86_64__)
TESSERA_LOOPS(avx512, __attribute__((target(TESSERA_AVX512))))
TESSERA_LOOPS(avx2, __attribute__((target("avx2"))))

__attribute__((target(TESSERA_AVX512))) void bfloat16_rounding(const Rotation& rotation, int64_t begin, int64_t end) {
  if (rotation.half % kPairs) return bfloat16_avx512(rotation, begin, end);
  rotate_tokens<uint16_t, false, rotate_token_rounding>(rotation, begin, end);
}

bool has_avx512() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2");
}
#endif
TESSERA_LOOPS(portable, )

const Loops kLoops[] = {
#if defined(__x86_64__)
    {"avx512_bf16", has_avx512_bf16, float32_avx512, bfloat16_rounding},
    {"avx512", has_avx512, float32_avx512, bfloat16_avx512},
    {"avx2", has_avx2, float32_avx2, bfloat16_avx2},
#endif
    {"portable", [] { return true; }, float32_portable, bfloat16_portable},
};

const Loops* fastest() {
  return std::find_if(std::begin(kLoops), std::end(kLoops), [](const Loops& loops) { return loops.runs_here(); });
}

const Loops* chosen = fastest();

void require(bool holds, const char* fact) {
  if (!holds) throw std::invalid_argument(fact);
}

/// Shapes and types as `reference.py` demands them, with the same exceptions.
Rotation checked(const Tensor& q, const Tensor& k, const Tensor& positions, const Tensor& table,
                 const std::vector<int64_t>& section) {
  require(q.dim() == 3 && k.dim() == 3 && q.size(0) == k.size(0) && q.size(2) == k.size(2) &&
              q.scalar_type() == k.scalar_type(),
          "q and k do not fit together");
  require(q.scalar_type() == ScalarType::Float || q.scalar_type() == ScalarType::BFloat16,
          "q and k must be float32 or bfloat16");
  require(q.stride(2) == 1 && k.stride(2) == 1, "the last axis of q and k must be contiguous");
  require(table.dim() == 2 && table.size(1) % 2 == 0 && table.size(1) <= q.size(2) &&
              table.scalar_type() == ScalarType::Float && table.stride(1) == 1,
          "the table does not fit the heads");
  int64_t num_pairs = 0;
  for (const int64_t size : section) {
    require(size >= 0 && size <= table.size(1), "the sections do not add up to half of the table's width");
    num_pairs += size;
  }
  require(!section.empty() && 2 * num_pairs == table.size(1),
          "the sections do not add up to half of the table's width");
  const bool shared = positions.dim() == 1;
  const int64_t num_axes = static_cast<int64_t>(section.size()), num_tokens = q.size(0);
  require(positions.scalar_type() == ScalarType::Long &&
              ((shared && positions.size(0) == num_tokens) ||
               (positions.dim() == 2 && positions.size(0) == num_axes && positions.size(1) == num_tokens)),
          "the positions do not fit the tokens");
  return {
      .q = q,
      .k = k,
      .positions = static_cast<const int64_t*>(positions.data_ptr()),
      .num_tokens = num_tokens,
      .num_axes = shared ? 1 : num_axes,
      .axis_stride = shared ? 0 : positions.stride(0),
      .token_stride = positions.stride(shared ? 0 : 1),
      .table = static_cast<const float*>(table.data_ptr()),
      .num_rows = table.size(0),
      .row_stride = table.stride(0),
      .half = num_pairs,
      .section = section.data(),
  };
}

/// Every position is looked at before anything is written: a refused call leaves q and k as they were.
void check_positions(const Rotation& r) {
  for (int64_t axis = 0; axis < r.num_axes; ++axis) {
    for (int64_t token = 0; token < r.num_tokens; ++token) {
      const int64_t position = r.positions[axis * r.axis_stride + token * r.token_stride];
      if (position < 0 || position >= r.num_rows) {
        throw std::out_of_range("position " + std::to_string(position) + " is outside a table of " +
                                std::to_string(r.num_rows) + " rows");
      }
    }
  }
}

void rotate_(Tensor q, Tensor k, Tensor positions, Tensor table, std::vector<int64_t> section) {
  const Rotation rotation = checked(q, k, positions, table, section);
  check_positions(rotation);
  const bool is_float = q.scalar_type() == ScalarType::Float;
  const auto loops = is_float ? chosen->float32 : chosen->bfloat16;
  const int64_t num_heads = q.size(1) + k.size(1);
  const int64_t token_bytes = std::max<int64_t>(1, num_heads * 2 * rotation.half * (is_float ? 4 : 2));
  const int64_t grain = std::max<int64_t>(1, kMinBytesPerThread / token_bytes);
  if (rotation.num_tokens <= grain) return loops(rotation, 0, rotation.num_tokens);
  torch::stable::parallel_for(0, rotation.num_tokens, grain,
                              [&](int64_t begin, int64_t end) { loops(rotation, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(tessera, CPU, library) { library.impl("mrope_", TORCH_BOX(&rotate_)); }

#define TESSERA_EXPORT extern "C" __attribute__((visibility("default"), used))

/// What this library was built from and how; `build.py` compares it to know whether to build again.
TESSERA_EXPORT const char tessera_build_key[] = "tessera-build-key:" TESSERA_BUILD_KEY;

/// The instruction set in use.
TESSERA_EXPORT const char* tessera_instructions() { return chosen->name; }

/// Use another instruction set from now on, for tests and measurements.
/// Returns whether this machine has it; if not, nothing changes. Not to be called while the operator runs.
TESSERA_EXPORT bool tessera_use_instructions(const char* name) {
  for (const Loops& loops : kLoops) {
    if (std::string_view(name) == loops.name && loops.runs_here()) {
      chosen = &loops;
      return true;
    }
  }
  return false;
}
