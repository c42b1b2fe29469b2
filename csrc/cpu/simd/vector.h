// Vectors of the widest native width, on GNU vector extensions; intrinsics only where those have no word for it.
#pragma once

#include <stdint.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace maskmatch {
namespace MASKMATCH_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

#define MASKMATCH_INLINE static inline __attribute__((always_inline))

MASKMATCH_INLINE Floats splat(float value) { return Floats{} + value; }
MASKMATCH_INLINE Ints splat(int32_t value) { return Ints{} + value; }

MASKMATCH_INLINE Floats load(const float* from) {
  Floats value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}
MASKMATCH_INLINE Ints load(const int32_t* from) {
  Ints value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}
MASKMATCH_INLINE void store(float* to, Floats value) { __builtin_memcpy(to, &value, sizeof(value)); }

// The first `count` lanes; the others are zero when loaded and left alone when stored.
MASKMATCH_INLINE Floats load_some(const float* from, int64_t count) {
  if (count >= kLanes) return load(from);
  Floats value{};
  for (int64_t i = 0; i < count; ++i) value[i] = from[i];
  return value;
}
template <class Vector, class Element>
MASKMATCH_INLINE void store_some(Element* to, Vector value, int64_t count) {
  if (count >= kLanes) {
    __builtin_memcpy(to, &value, sizeof(value));
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = value[i];
  }
}

// kLanes bytes; GCC takes __builtin_convertvector apart here, lane by lane.
MASKMATCH_INLINE Ints widen(const uint8_t* from) {
#if defined(__AVX512F__)
  return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)from));
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from));
#elif defined(__SSE2__)
  int32_t bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  const __m128i zero = _mm_setzero_si128();
  return (Ints)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(bytes), zero), zero);
#else
  return Ints{from[0], from[1], from[2], from[3]};
#endif
}

// 0, 1, 2, ...
MASKMATCH_INLINE Ints lanes() {
  Ints lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane;
}

MASKMATCH_INLINE bool any(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#else
  int32_t found = 0;
  for (int i = 0; i < kLanes; ++i) found |= mask[i];
  return found != 0;
#endif
}

MASKMATCH_INLINE float sum_lanes(Floats value) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += value[i];
  return total;
}
MASKMATCH_INLINE int32_t sum_lanes(Ints value) {
  int32_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += value[i];
  return total;
}

// table[index] in every lane.
MASKMATCH_INLINE Floats gather(const float* table, Ints index) {
#if defined(__AVX512F__)
  return (Floats)_mm512_i32gather_ps((__m512i)index, table, 4);
#elif defined(__AVX2__)
  return (Floats)_mm256_i32gather_ps(table, (__m256i)index, 4);
#else
  Floats value;
  for (int i = 0; i < kLanes; ++i) value[i] = table[index[i]];
  return value;
#endif
}

// 2 ** x for x <= 0 (a NaN stays one): 2 ** n times a polynomial of degree 5 in the rest of [-1/2, 1/2], within 2e-7.
MASKMATCH_INLINE Floats exp2_of_negative(Floats x) {
#if defined(__AVX512F__)
  const Floats whole = (Floats)_mm512_roundscale_ps((__m512)x, 0);
  const Floats rest = x - whole;
#else
  x = x < -126.0f ? splat(-126.0f) : x;
  const Floats magic = splat(12582912.0f);  // 1.5 * 2 ** 23: adding it rounds to an integer
  const Floats shifted = x + magic;
  const Floats rest = x - (shifted - magic);
#endif
  Floats power = splat(0.00132647272f);
  power = power * rest + 0.0096715127f;
  power = power * rest + 0.0555073374f;
  power = power * rest + 0.240222421f;
  power = power * rest + 0.693146978f;
  power = power * rest + 1.0f;
#if defined(__AVX512F__)
  return (Floats)_mm512_scalef_ps((__m512)power, (__m512)whole);
#else
  return (Floats)((Ints)power + ((Ints)shifted << 23));
#endif
}

// term(0) .. term(count - 1) in one, by an associative `combine`: in chains of their own, so that no step waits for the
// last one's result.
template <class Combine, class Term>
MASKMATCH_INLINE Floats reduce(int64_t count, Floats start, const Combine& combine, const Term& term) {
  constexpr int kChains = 4;
  Floats chains[kChains] = {start, start, start, start};
  int64_t i = 0;
  for (; i + kChains <= count; i += kChains) {
    chains[0] = combine(chains[0], term(i));
    chains[1] = combine(chains[1], term(i + 1));
    chains[2] = combine(chains[2], term(i + 2));
    chains[3] = combine(chains[3], term(i + 3));
  }
  for (; i < count; ++i) chains[0] = combine(chains[0], term(i));
  return combine(combine(chains[0], chains[1]), combine(chains[2], chains[3]));
}

// A NaN in b is passed over: it reaches the sum of powers instead.
MASKMATCH_INLINE Floats larger(Floats a, Floats b) { return b > a ? b : a; }
MASKMATCH_INLINE Floats plus(Floats a, Floats b) { return a + b; }

// log2 of normal positive numbers (a NaN stays one): the exponent, and an atanh series in (m - 1) / (m + 1) for the
// mantissa m of [1/sqrt 2, sqrt 2], |argument| < 0.172, within 2e-7.
MASKMATCH_INLINE Floats log2_of_positive(Floats x) {
  const Ints bits = (Ints)x;
  const Ints exponent = (bits - 0x3f3504f3) >> 23;
  const Floats mantissa = (Floats)(bits - (exponent << 23));
  const Floats t = (mantissa - 1.0f) / (mantissa + 1.0f);
  const Floats t2 = t * t;
  Floats series = splat(0.320598898f);  // 2 / ln 2 / 9
  series = series * t2 + 0.412198583f;
  series = series * t2 + 0.577078016f;
  series = series * t2 + 0.961796694f;
  series = series * t2 + 2.88539008f;
  return series * t + __builtin_convertvector(exponent, Floats) + (x - x);
}

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
