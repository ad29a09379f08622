// One row of activations against rows of int8 weights, in whole numbers.
//
// The activations are made whole once a call: in blocks of 1024, each with a scale of its own, as
// numbers of fourteen bits and a sign. A block's sum of products then stays below 2^31, so it is
// exact, in whatever order and with whatever instructions it is taken. Eight bits would do with less
// work on paper; these loops wait for memory with either (tests/benchmarks/LOG.md).
//
// Promises: a result depends on nothing but numbers: per output one product of fp32 a block and one
// more, in order. A block that holds no finite maximum makes every result NaN, never a number.
// Does not: quantise weights; see int8.py.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace rdu_batch {

constexpr int64_t kInt8Block = 1024;
constexpr float kInt8Levels = 16384;  // 1024 * 16384 * 127 is below 2^31.
constexpr float kInt8Smallest = 1e-30f;  // What is smaller everywhere in a block counts as zero.

// A row of activations as whole numbers. Kept from call to call for its memory.
class WholeRow {
 public:
  void set(const float* x, int64_t num_inputs) {
    num_inputs_ = num_inputs;
    lines_.resize((num_inputs + 31) / 32);
    scales_.resize((num_inputs + kInt8Block - 1) / kInt8Block);
    int16_t* numbers = lines_.data()->numbers;
    for (int64_t i = 0; i < num_inputs; i += kInt8Block)
      scales_[i / kInt8Block] = set_block(x + i, std::min(kInt8Block, num_inputs - i), numbers + i);
  }

  // The row times R rows of weights, but for the weights' scales.
  template <int R>
  void times(const char* const (&rows)[R], float (&y)[R]) const {
    for (int r = 0; r < R; r++) y[r] = 0;
    for (int64_t i = 0; i < num_inputs_; i += kInt8Block) {
      const int8_t* w[R];
      for (int r = 0; r < R; r++) w[r] = (const int8_t*)rows[r] + i;
      int32_t sums[R];
      whole_sums<R>(w, lines_.data()->numbers + i, std::min(kInt8Block, num_inputs_ - i), sums);
      for (int r = 0; r < R; r++) y[r] += (float)sums[r] * scales_[i / kInt8Block];
    }
  }

 private:
  struct alignas(64) Line {
    int16_t numbers[32];
  };

  // Gives back the scale of the block.
  static float set_block(const float* x, int64_t num, int16_t* numbers) {
    // As bits, so that what is not finite is the largest.
    uint32_t bits = 0;
    for (int64_t i = 0; i < num; i++) {
      uint32_t one;
      std::memcpy(&one, x + i, 4);
      bits = std::max(bits, one & 0x7fffffffu);
    }
    float largest;
    std::memcpy(&largest, &bits, 4);
    bool finite = bits < 0x7f800000u;
    if (!finite || largest < kInt8Smallest) {
      std::fill(numbers, numbers + num, (int16_t)0);
      return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    }
    float inverse = kInt8Levels / largest;
    for (int64_t i = 0; i < num; i++)
      numbers[i] = (int16_t)(int32_t)__builtin_nearbyintf(x[i] * inverse);  // Ties to even.
    return largest / kInt8Levels;
  }

  template <int R>
  static void whole_sums(const int8_t* const (&w)[R], const int16_t* x, int64_t num,
                         int32_t (&sums)[R]) {
    int64_t i = 0;
    for (int r = 0; r < R; r++) sums[r] = 0;
#if defined(__AVX2__)
    __m256i s[R][4] = {};
    for (; i + 64 <= num; i += 64)
      for (int k = 0; k < 4; k++)
        for (int r = 0; r < R; r++)
          s[r][k] = _mm256_add_epi32(s[r][k], sixteen(w[r] + i + 16 * k, x + i + 16 * k));
    for (; i + 16 <= num; i += 16)
      for (int r = 0; r < R; r++) s[r][0] = _mm256_add_epi32(s[r][0], sixteen(w[r] + i, x + i));
    for (int r = 0; r < R; r++)
      sums[r] = sum_of(_mm256_add_epi32(_mm256_add_epi32(s[r][0], s[r][1]),
                                        _mm256_add_epi32(s[r][2], s[r][3])));
#endif
    for (; i < num; i++)
      for (int r = 0; r < R; r++) sums[r] += (int32_t)w[r][i] * x[i];
  }

#if defined(__AVX2__)
  // Sums of two products each.
  static __m256i sixteen(const int8_t* w, const int16_t* x) {
    return _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)w)),
                             _mm256_load_si256((const __m256i*)x));
  }

  static int32_t sum_of(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
  }
#endif

  std::vector<Line> lines_;
  std::vector<float> scales_;
  int64_t num_inputs_ = 0;
};

}  // namespace rdu_batch
