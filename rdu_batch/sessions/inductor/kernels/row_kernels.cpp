// Decode kernels: one row of activations against weights and cache that come from memory.
//
// At batch size 1 a token costs one read of the weights, so these loops are written to keep the
// memory busy and do little else: a thread reads one weight row after the other, in order, with
// 32-byte loads and four sums in flight. Measured against other forms (two rows at once, 64-byte
// loads, software prefetch) in tests/benchmarks/LOG.md.
//
// Promises: the order of every sum is fixed by the shapes alone, never by the number of threads or
// by the instruction set; only GCC's vector extensions are used, so any target compiles it.
// Does not: check shapes or types, which ops.py does when a graph is traced.
//
// Shapes: I inputs, O outputs, H query heads, J key/value heads, G = H / J, N positions attended to,
// D head size.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <vector>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "int8_row.h"
#include "row_pool.h"

#define RDU_JOIN_(name, suffix) name##_##suffix
#define RDU_JOIN(name, suffix) RDU_JOIN_(name, suffix)
// The name that a compiled graph calls; RDU_SUFFIX is a digest of this file and its flags, so that
// two versions live side by side in one process.
#define RDU_SHIM(name) RDU_JOIN(aoti_torch_cpu_##name, RDU_SUFFIX)

namespace {

using namespace rdu_batch;

typedef float float8 __attribute__((vector_size(32)));
typedef uint32_t word8 __attribute__((vector_size(32)));
typedef int32_t int8x32 __attribute__((vector_size(32)));
// Weights lie at even addresses, not always at multiples of 32 bytes.
typedef float float8u __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t word8u __attribute__((vector_size(32), aligned(2), may_alias));

constexpr int64_t kBlock = 128;  // Positions of one attention task.
// What a thread takes of its own share at once, and of another's.
constexpr int64_t kLongestRunBytes = 256 * 1024, kShortestRunBytes = 16 * 1024;

// Sixteen bf16 numbers as two vectors of fp32: those with even index, those with odd index.
inline float8 even(word8 pairs) { return (float8)(pairs << 16); }
inline float8 odd(word8 pairs) { return (float8)(pairs & 0xffff0000u); }

inline float widen(const float* p) { return *p; }
inline float widen(const uint16_t* p) {
  uint32_t bits = (uint32_t)*p << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline float sum_of(float8 v) {
  float s0 = v[0] + v[4], s1 = v[1] + v[5], s2 = v[2] + v[6], s3 = v[3] + v[7];
  return (s0 + s2) + (s1 + s3);
}

// Sums of eight vectors at once, as one vector.
inline float8 pair_sums(float8 a, float8 b) {
  return __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) +
         __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
}
inline float8 sums_of(const float8* v) {
  float8 a = pair_sums(v[0], v[1]), b = pair_sums(v[2], v[3]);
  float8 c = pair_sums(v[4], v[5]), d = pair_sums(v[6], v[7]);
  float8 e = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
             __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
  float8 f = __builtin_shufflevector(c, d, 0, 1, 8, 9, 4, 5, 12, 13) +
             __builtin_shufflevector(c, d, 2, 3, 10, 11, 6, 7, 14, 15);
  return __builtin_shufflevector(e, f, 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(e, f, 4, 5, 6, 7, 12, 13, 14, 15);
}

// exp(x) for x <= 0, within 2 units in the last place: 2^n times a polynomial of the rest.
inline float8 exp_of(float8 x) {
  x = x < -87.0f ? (float8){} - 87.0f : x;
  float8 scaled = x * 1.44269504088896341f;
  int8x32 whole = __builtin_convertvector(scaled - 0.5f, int8x32);  // Truncated: x is not above 0.
  float8 n = __builtin_convertvector(whole, float8);
  float8 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float8 p = (float8){} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return p * (float8)((whole + 127) << 23);
}

// The order in which a row of activations meets weights of a type: for bf16, sixteen at a time,
// even ones first.
inline void arrange(const float* x, int64_t num, float* out, const uint16_t*) {
  int64_t i = 0;
  for (; i + 16 <= num; i += 16)
    for (int64_t k = 0; k < 8; k++) {
      out[i + k] = x[i + 2 * k];
      out[i + 8 + k] = x[i + 2 * k + 1];
    }
  for (; i < num; i++) out[i] = x[i];
}
inline void arrange(const float* x, int64_t num, float* out, const float*) {
  std::memcpy(out, x, num * sizeof(float));
}

// Two vectors of eight weights each, in that order.
inline void load16(const uint16_t* w, float8& a, float8& b) {
  word8 pairs = *(const word8u*)w;
  a = even(pairs);
  b = odd(pairs);
}
inline void load16(const float* w, float8& a, float8& b) {
  a = *(const float8u*)w;
  b = *(const float8u*)(w + 8);
}

// R rows at once. The order of a row's sum does not depend on R.
template <typename W, int R>
inline void dot_rows(const W* const (&rows)[R], const float* x, int64_t num, float (&y)[R]) {
  float8 s[R][4] = {}, a, b;
  int64_t i = 0;
  for (; i + 32 <= num; i += 32)
    for (int k = 0; k < 2; k++) {
      float8 x0 = *(const float8u*)(x + i + 16 * k), x1 = *(const float8u*)(x + i + 16 * k + 8);
      for (int r = 0; r < R; r++) {
        load16(rows[r] + i + 16 * k, a, b);
        s[r][2 * k] += a * x0;
        s[r][2 * k + 1] += b * x1;
      }
    }
  if (i + 16 <= num) {
    for (int r = 0; r < R; r++) {
      load16(rows[r] + i, a, b);
      s[r][0] += a * *(const float8u*)(x + i);
      s[r][1] += b * *(const float8u*)(x + i + 8);
    }
    i += 16;
  }
  for (int r = 0; r < R; r++) {
    y[r] = sum_of((s[r][0] + s[r][1]) + (s[r][2] + s[r][3]));
    for (int64_t k = i; k < num; k++) y[r] += widen(rows[r] + k) * x[k];
  }
}

struct Matrix {
  const void* weight_OI;
  int64_t num_outputs;
  const float* scale_O = nullptr;  // Where weights are int8.
};

// Which call came after which, by the address of their first weights: a graph makes the same calls
// in the same order for every token, so the last token tells what to read ahead in this one.
const std::vector<Ahead>* note_call(const std::vector<Matrix>& matrices, int64_t num_rows,
                                    int64_t row_bytes, int threads) {
  struct Noted {
    std::vector<Ahead> shares;
    const Noted* next = nullptr;
  };
  static thread_local std::unordered_map<const void*, Noted> calls;
  static thread_local Noted* last = nullptr;
  Noted& noted = calls[matrices[0].weight_OI];
  if ((int)noted.shares.size() != threads) {
    noted.shares.resize(threads);
    for (int t = 0; t < threads; t++) {
      int64_t row = num_rows * t / threads, first = 0;
      for (const Matrix& matrix : matrices) {
        if (row < first + matrix.num_outputs) {
          noted.shares[t] = {(const char*)matrix.weight_OI + (row - first) * row_bytes,
                             (first + matrix.num_outputs - row) * row_bytes};
          break;
        }
        first += matrix.num_outputs;
      }
    }
  }
  if (last) last->next = &noted;
  last = &noted;
  return noted.next && (int)noted.next->shares.size() == threads ? &noted.next->shares : nullptr;
}

// y = what `dot` makes of every row of the matrices, end to end. A thread that is alone takes two
// rows at a time, half a matrix apart: one row is too short to keep the memory busy, and neighbours
// would come from one page. Several threads read several rows anyway. Which thread computes a row
// changes from call to call, its sum never does.
template <typename Dot>
void each_row(const std::vector<Matrix>& matrices, int64_t row_bytes, float* y, const Dot& dot) {
  int64_t num_rows = 0;
  for (const Matrix& matrix : matrices) num_rows += matrix.num_outputs;
  int threads = num_threads();
  auto rows = [&](int64_t row, int64_t end) {
    int64_t first = 0;
    for (const Matrix& matrix : matrices) {
      const char* weights = (const char*)matrix.weight_OI;
      int64_t o = row - first, stop = std::min(end - first, matrix.num_outputs);
      int64_t half = threads == 1 && stop > o ? (stop - o) / 2 : 0;
      for (int64_t last = o + half; o < last; o++) {
        float pair[2];
        dot.rows({weights + o * row_bytes, weights + (o + half) * row_bytes}, pair);
        y[first + o] = dot.scaled(pair[0], matrix, o);
        y[first + o + half] = dot.scaled(pair[1], matrix, o + half);
        row += 2;
      }
      for (o = row - first; o < stop; o++, row++) {
        float one[1];
        dot.rows({weights + o * row_bytes}, one);
        y[row] = dot.scaled(one[0], matrix, o);
      }
      first += matrix.num_outputs;
    }
  };
  for_all(rows, num_rows, threads, std::max<int64_t>(1, kLongestRunBytes / row_bytes),
          std::max<int64_t>(1, kShortestRunBytes / row_bytes),
          threads > 1 ? note_call(matrices, num_rows, row_bytes, threads) : nullptr);
}

template <typename W>
struct PlainDot {
  const float* x_I;
  int64_t num_inputs;

  template <int R>
  void rows(const char* const (&rows)[R], float (&y)[R]) const {
    const W* typed[R];
    for (int r = 0; r < R; r++) typed[r] = (const W*)rows[r];
    dot_rows<W, R>(*(const W* const(*)[R])typed, x_I, num_inputs, y);
  }
  float scaled(float sum, const Matrix&, int64_t) const { return sum; }
};

struct Int8Dot {
  const WholeRow& x_I;

  template <int R>
  void rows(const char* const (&rows)[R], float (&y)[R]) const {
    x_I.times(rows, y);
  }
  float scaled(float sum, const Matrix& matrix, int64_t o) const { return sum * matrix.scale_O[o]; }
};

// y = [W0; W1; ...] x.
template <typename W>
void products(const std::vector<Matrix>& matrices, const float* x, int64_t num_inputs, float* y) {
  static thread_local std::vector<float> buffer;
  buffer.resize(num_inputs);
  arrange(x, num_inputs, buffer.data(), (const W*)nullptr);
  each_row(matrices, num_inputs * sizeof(W), y, PlainDot<W>{buffer.data(), num_inputs});
}

void int8_products(const std::vector<Matrix>& matrices, const float* x, int64_t num_inputs,
                   float* y) {
  static thread_local WholeRow whole;
  whole.set(x, num_inputs);
  each_row(matrices, num_inputs, y, Int8Dot{whole});  // Others read this thread's row too.
}

struct Attention {
  const float* query_HD;
  const void* keys;
  const void* values;
  float* out_HD;
  int64_t num_heads, num_kv_heads, head_size;
  int64_t kv_stride;  // Numbers from one key/value head to the next.
  int64_t first, end;  // Positions attended to.
  float scale, softcap;
};

// The largest of `num` numbers, which are padded with -inf to whole vectors.
inline float largest_of(const float* scores, int64_t num) {
  float8 m = *(const float8*)scores;
  for (int64_t n = 8; n < num; n += 8) {
    float8 s = *(const float8*)(scores + n);
    m = s > m ? s : m;
  }
  float largest = m[0];
  for (int k = 1; k < 8; k++) largest = std::max(largest, m[k]);
  return largest;
}

// Scores become softmax numerators; gives back their sum.
inline float exponentials(float* scores, int64_t num, float largest) {
  float8 total{};
  for (int64_t n = 0; n < num; n += 8) {
    float8 s = *(float8*)(scores + n);
    float8 e = s == -INFINITY ? (float8){} : exp_of(s - largest);
    total += e;
    *(float8*)(scores + n) = e;
  }
  return sum_of(total);
}

// Softmax numerators over one block of positions and their sum of values, for G query heads of one
// key/value head, whose keys and values are read once for all of them. `parts` gets for each head:
// largest score, sum of numerators, D mixed values.
template <typename W, int G>
void attend_heads(const Attention& a, int64_t kv_head, int64_t first_head, int64_t block,
                  float* parts) {
  int64_t D = a.head_size, begin = std::max(a.first, block * kBlock);
  int64_t num = std::min(a.end, (block + 1) * kBlock) - begin, padded = (num + 7) / 8 * 8;
  const W* keys = (const W*)a.keys + kv_head * a.kv_stride + begin * D;
  const W* values = (const W*)a.values + kv_head * a.kv_stride + begin * D;
  alignas(32) float scores[G][kBlock] = {};
  alignas(32) float query[G * D];
  for (int g = 0; g < G; g++)
    arrange(a.query_HD + (first_head + g) * D, D, query + g * D, (const W*)nullptr);
  for (int64_t n = 0; n < padded; n += 8) {
    float8 sums[G][8] = {};
    for (int64_t m = 0; m < std::min<int64_t>(8, num - n); m++) {
      // The values are read next; alone their reads would wait for the first ones.
      for (int64_t d = 0; d < D; d += 64 / sizeof(W))
        __builtin_prefetch(values + (n + m) * D + d, 0, 2);
      float8 s[G][2] = {}, k0, k1;
      for (int64_t d = 0; d < D; d += 16) {
        load16(keys + (n + m) * D + d, k0, k1);
        for (int g = 0; g < G; g++) {
          s[g][0] += k0 * *(const float8u*)(query + g * D + d);
          s[g][1] += k1 * *(const float8u*)(query + g * D + d + 8);
        }
      }
      for (int g = 0; g < G; g++) sums[g][m] = s[g][0] + s[g][1];
    }
    for (int g = 0; g < G; g++) *(float8*)(scores[g] + n) = sums_of(sums[g]) * a.scale;
  }
  for (int g = 0; g < G; g++) {
    if (a.softcap > 0)
      for (int64_t n = 0; n < num; n++)
        scores[g][n] = a.softcap * std::tanh(scores[g][n] / a.softcap);
    for (int64_t n = num; n < padded; n++) scores[g][n] = -INFINITY;
    float* part = parts + g * (D + 2);
    part[0] = largest_of(scores[g], padded);
    part[1] = exponentials(scores[g], padded, part[0]);
  }
  for (int64_t d = 0; d < D; d += 16) {
    // Four positions at a time, each with sums of its own: an addition waits for the one before.
    float8 s[G][4][2] = {}, v0, v1;
    for (int64_t n = 0; n < num; n += 4)
      for (int m = 0; m < 4; m++) {
        // Behind the last position numerators are 0; its values are read again, not what follows.
        load16(values + std::min(n + m, num - 1) * D + d, v0, v1);
        for (int g = 0; g < G; g++) {
          s[g][m][0] += scores[g][n + m] * v0;
          s[g][m][1] += scores[g][n + m] * v1;
        }
      }
    for (int g = 0; g < G; g++)
      for (int h = 0; h < 2; h++)
        *(float8u*)(parts + g * (D + 2) + 2 + d + 8 * h) =
            (s[g][0][h] + s[g][1][h]) + (s[g][2][h] + s[g][3][h]);
  }
}

// All query heads of one key/value head, at most four at a time.
template <typename W>
void attend_block(const Attention& a, int64_t kv_head, int64_t group, int64_t block, float* parts) {
  for (int64_t g = 0; g < group; g += 4, parts += 4 * (a.head_size + 2)) {
    int64_t head = kv_head * group + g;
    switch (std::min<int64_t>(4, group - g)) {
      case 1: attend_heads<W, 1>(a, kv_head, head, block, parts); break;
      case 2: attend_heads<W, 2>(a, kv_head, head, block, parts); break;
      case 3: attend_heads<W, 3>(a, kv_head, head, block, parts); break;
      default: attend_heads<W, 4>(a, kv_head, head, block, parts);
    }
  }
}

inline void unarrange(const float* in, int64_t num, float* out, const uint16_t*) {
  for (int64_t i = 0; i < num; i += 16)
    for (int64_t k = 0; k < 8; k++) {
      out[i + 2 * k] = in[i + k];
      out[i + 2 * k + 1] = in[i + 8 + k];
    }
}
inline void unarrange(const float* in, int64_t num, float* out, const float*) {
  std::memcpy(out, in, num * sizeof(float));
}

// One head's blocks as one softmax: each block's numbers are brought to the largest score of all.
template <typename W>
void merge_blocks(const Attention& a, const float* parts, int64_t stride, int64_t num_blocks,
                  float* out) {
  int64_t D = a.head_size;
  float largest = -INFINITY, total = 0;
  for (int64_t b = 0; b < num_blocks; b++) largest = std::max(largest, parts[b * stride]);
  float mixed[D];
  std::fill(mixed, mixed + D, 0.0f);
  for (int64_t b = 0; b < num_blocks; b++) {
    const float* part = parts + b * stride;
    float factor = std::exp(part[0] - largest);
    total += factor * part[1];
    for (int64_t d = 0; d < D; d++) mixed[d] += factor * part[2 + d];
  }
  for (int64_t d = 0; d < D; d++) mixed[d] /= total;
  unarrange(mixed, D, out, (const W*)nullptr);
}

template <typename W>
void attend(const Attention& a) {
  static thread_local std::vector<float> buffer;
  int64_t group = a.num_heads / a.num_kv_heads, size = group * (a.head_size + 2);
  int64_t first_block = a.first / kBlock, num_blocks = (a.end + kBlock - 1) / kBlock - first_block;
  int64_t num_tasks = a.num_kv_heads * num_blocks;
  buffer.resize(num_tasks * size);
  float* parts = buffer.data();
  // Below this the other threads cost more than the work.
  bool worth_it = (a.end - a.first) * a.num_heads * a.head_size > 32768;
  auto blocks = [&](int64_t task, int64_t end) {
    for (; task < end; task++)
      attend_block<W>(a, task / num_blocks, group, first_block + task % num_blocks,
                      parts + task * size);
  };
  for_all(blocks, num_tasks, worth_it ? num_threads() : 1, 4, 1);
  for (int64_t head = 0; head < a.num_heads; head++)
    merge_blocks<W>(a, parts + head / group * num_blocks * size + head % group * (a.head_size + 2),
                    size, num_blocks, a.out_HD + head * a.head_size);
}

#define RDU_CHECK(call)                                    \
  do {                                                     \
    if ((call) != AOTI_TORCH_SUCCESS) return AOTI_TORCH_FAILURE; \
  } while (0)

AOTITorchError new_row(int64_t dims, const int64_t* sizes, AtenTensorHandle* out, float** data) {
  int64_t strides[4] = {1, 1, 1, 1};
  for (int64_t d = dims - 2; d >= 0; d--) strides[d] = strides[d + 1] * sizes[d + 1];
  RDU_CHECK(aoti_torch_empty_strided(dims, sizes, strides, aoti_torch_dtype_float32(),
                                     aoti_torch_device_type_cpu(), -1, out));
  return aoti_torch_get_data_ptr(*out, (void**)data);
}

struct Matrices {
  std::vector<Matrix> matrices;
  int64_t num_inputs = 0;
  int64_t sizes[3] = {1, 1, 0};  // Of all results.
};

AOTITorchError read_matrices(const AtenTensorHandle* weights, int64_t num_weights, Matrices* found) {
  found->matrices.resize(num_weights);
  for (int64_t k = 0; k < num_weights; k++) {
    Matrix& matrix = found->matrices[k];
    RDU_CHECK(aoti_torch_get_data_ptr(weights[k], (void**)&matrix.weight_OI));
    RDU_CHECK(aoti_torch_get_size(weights[k], 0, &matrix.num_outputs));
    RDU_CHECK(aoti_torch_get_size(weights[k], 1, &found->num_inputs));
    found->sizes[2] += matrix.num_outputs;
  }
  return AOTI_TORCH_SUCCESS;
}

}  // namespace

extern "C" {

// y_11O = concatenated (W_k x); see ops.py.
AOTITorchError RDU_SHIM(row_products)(AtenTensorHandle x, const AtenTensorHandle* weights,
                                      int64_t num_weights, AtenTensorHandle* out) {
  float *row, *y;
  int32_t dtype;
  Matrices found;
  RDU_CHECK(aoti_torch_get_data_ptr(x, (void**)&row));
  RDU_CHECK(aoti_torch_get_dtype(weights[0], &dtype));
  RDU_CHECK(read_matrices(weights, num_weights, &found));
  RDU_CHECK(new_row(3, found.sizes, out, &y));
  if (dtype == aoti_torch_dtype_bfloat16())
    products<uint16_t>(found.matrices, row, found.num_inputs, y);
  else
    products<float>(found.matrices, row, found.num_inputs, y);
  return AOTI_TORCH_SUCCESS;
}

// The same for int8 weights with a scale for each output; see ops.py.
AOTITorchError RDU_SHIM(row_products_int8)(AtenTensorHandle x, const AtenTensorHandle* weights,
                                           int64_t num_weights, const AtenTensorHandle* scales,
                                           int64_t, AtenTensorHandle* out) {
  float *row, *y;
  Matrices found;
  RDU_CHECK(aoti_torch_get_data_ptr(x, (void**)&row));
  RDU_CHECK(read_matrices(weights, num_weights, &found));
  for (int64_t k = 0; k < num_weights; k++)
    RDU_CHECK(aoti_torch_get_data_ptr(scales[k], (void**)&found.matrices[k].scale_O));
  RDU_CHECK(new_row(3, found.sizes, out, &y));
  int8_products(found.matrices, row, found.num_inputs, y);
  return AOTI_TORCH_SUCCESS;
}

// Attention of one row of queries over N cache positions; see ops.py.
AOTITorchError RDU_SHIM(row_attention)(AtenTensorHandle query_1H1D, AtenTensorHandle keys_1JND,
                                       AtenTensorHandle values_1JND, double scale, int64_t window,
                                       double softcap, AtenTensorHandle* out) {
  Attention a;
  int32_t dtype;
  int64_t num_positions;
  RDU_CHECK(aoti_torch_get_data_ptr(query_1H1D, (void**)&a.query_HD));
  RDU_CHECK(aoti_torch_get_data_ptr(keys_1JND, (void**)&a.keys));
  RDU_CHECK(aoti_torch_get_data_ptr(values_1JND, (void**)&a.values));
  RDU_CHECK(aoti_torch_get_size(query_1H1D, 1, &a.num_heads));
  RDU_CHECK(aoti_torch_get_size(keys_1JND, 1, &a.num_kv_heads));
  RDU_CHECK(aoti_torch_get_stride(keys_1JND, 1, &a.kv_stride));
  RDU_CHECK(aoti_torch_get_size(keys_1JND, 2, &num_positions));
  RDU_CHECK(aoti_torch_get_size(keys_1JND, 3, &a.head_size));
  RDU_CHECK(aoti_torch_get_dtype(keys_1JND, &dtype));
  a.end = num_positions;
  a.first = window > 0 ? std::max<int64_t>(0, num_positions - window) : 0;
  a.scale = (float)scale;
  a.softcap = (float)softcap;
  int64_t sizes[4] = {1, 1, a.num_heads, a.head_size};
  RDU_CHECK(new_row(4, sizes, out, &a.out_HD));
  if (dtype == aoti_torch_dtype_bfloat16())
    attend<uint16_t>(a);
  else
    attend<float>(a);
  return AOTI_TORCH_SUCCESS;
}

// Reads memory and does nothing else: what a benchmark holds a session against. Gives back the
// exclusive or of all words, so that no read can be left out.
uint32_t RDU_JOIN(rdu_batch_read, RDU_SUFFIX)(const void* memory, int64_t num_bytes) {
  std::atomic<uint32_t> result{0};
  auto read = [&](int64_t begin, int64_t end) {
    const char* p = (const char*)memory;
    word8 a{}, b{}, c{}, d{};
    for (int64_t i = begin * 128; i < end * 128; i += 128) {
      a ^= *(const word8u*)(p + i);
      b ^= *(const word8u*)(p + i + 32);
      c ^= *(const word8u*)(p + i + 64);
      d ^= *(const word8u*)(p + i + 96);
    }
    a ^= b ^ c ^ d;
    for (int k = 0; k < 8; k++) result ^= a[k];
  };
  for_all(read, num_bytes / 128, num_threads(), kLongestRunBytes / 128, kShortestRunBytes / 128);
  return result;
}

}  // extern "C"
