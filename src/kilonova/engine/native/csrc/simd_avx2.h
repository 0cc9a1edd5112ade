// Vectors of 256 bits: 8 floats, 8 32-bit or 16 16-bit integers.
constexpr int kLanes = 8;
constexpr int kWords = 16;
using Floats = __m256;
using Ints = __m256i;
using Words = __m256i;

static inline Floats zero() { return _mm256_setzero_ps(); }
static inline Floats splat(float value) { return _mm256_set1_ps(value); }
// p[0], p[1], p[0] and so on.
static inline Floats splat_pair(const float* p) {
  double pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return _mm256_castpd_ps(_mm256_set1_pd(pair));
}
static inline Floats load(const float* p) { return _mm256_loadu_ps(p); }
static inline Floats load(const uint16_t* bfloat16) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bfloat16));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}
static inline void store(float* p, Floats value) { _mm256_storeu_ps(p, value); }
static inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
static inline Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
static inline Floats divide(Floats a, Floats b) { return _mm256_div_ps(a, b); }
static inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
static inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
static inline Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
static inline Floats magnitude(Floats a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline Floats nearest(Floats a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline Floats power_of_two(Floats whole) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
static inline float sum(Floats v) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
static inline float largest(Floats v) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

static inline Ints zero_ints() { return _mm256_setzero_si256(); }
static inline Ints load_ints(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline void store_ints(int32_t* p, Ints v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
static inline Ints add_ints(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
static inline Floats to_floats(Ints v) { return _mm256_cvtepi32_ps(v); }

static inline Words load_words(const int16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline Words splat_word(int16_t value) { return _mm256_set1_epi16(value); }
static inline Words widen(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
// c + a0 b0 + a1 b1 for each pair of words.
static inline Ints dot_add(Words a, Words b, Ints c) { return _mm256_add_epi32(c, _mm256_madd_epi16(a, b)); }
// 8 floats, rounded, as 8 words.
static inline void store_words(int16_t* p, Floats v) {
  const __m256i ints = _mm256_cvtps_epi32(v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256(ints, 1)));
}

// The 64 nibbles of 32 bytes, in order of column.
struct Nibbles {
  static constexpr int kPerHalf = 2;
  Words part[4];
  explicit inline Nibbles(const uint8_t* p) {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i mask = _mm256_set1_epi16(15);
    part[0] = _mm256_and_si256(raw, mask);
    part[1] = _mm256_and_si256(_mm256_srli_epi16(raw, 4), mask);
    part[2] = _mm256_and_si256(_mm256_srli_epi16(raw, 8), mask);
    part[3] = _mm256_srli_epi16(raw, 12);
  }
};
