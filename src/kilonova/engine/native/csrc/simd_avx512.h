// Vectors of 512 bits: 16 floats, 16 32-bit or 32 16-bit integers.
constexpr int kLanes = 16;
constexpr int kWords = 32;
using Floats = __m512;
using Ints = __m512i;
using Words = __m512i;

static inline Floats zero() { return _mm512_setzero_ps(); }
static inline Floats splat(float value) { return _mm512_set1_ps(value); }
// p[0], p[1], p[0] and so on.
static inline Floats splat_pair(const float* p) {
  double pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return _mm512_castpd_ps(_mm512_set1_pd(pair));
}
static inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
static inline Floats load(const uint16_t* bfloat16) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bfloat16));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}
static inline void store(float* p, Floats value) { _mm512_storeu_ps(p, value); }
static inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
static inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
static inline Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
static inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
static inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
static inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
static inline Floats magnitude(Floats a) { return _mm512_abs_ps(a); }
static inline Floats nearest(Floats a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline Floats power_of_two(Floats whole) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(whole), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
}
static inline float sum(Floats v) { return _mm512_reduce_add_ps(v); }
static inline float largest(Floats v) { return _mm512_reduce_max_ps(v); }

static inline Ints zero_ints() { return _mm512_setzero_si512(); }
static inline Ints load_ints(const int32_t* p) { return _mm512_loadu_si512(p); }
static inline void store_ints(int32_t* p, Ints v) { _mm512_storeu_si512(p, v); }
static inline Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
static inline Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }

static inline Words load_words(const int16_t* p) { return _mm512_loadu_si512(p); }
static inline Words splat_word(int16_t value) { return _mm512_set1_epi16(value); }
static inline Words widen(const int8_t* p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// c + a0 b0 + a1 b1 for each pair of words.
static inline Ints dot_add(Words a, Words b, Ints c) {
#ifdef KILONOVA_VNNI
  return _mm512_dpwssd_epi32(c, a, b);
#else
  return _mm512_add_epi32(c, _mm512_madd_epi16(a, b));
#endif
}
// 16 floats, rounded, as 16 words.
static inline void store_words(int16_t* p, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v)));
}

// The 64 nibbles of 32 bytes, in order of column.
struct Nibbles {
  static constexpr int kPerHalf = 1;
  Words part[2];
  explicit inline Nibbles(const uint8_t* p) {
    const __m512i twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const __m512i mask = _mm512_set1_epi16(15);
    const __m512i low = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(8));
    part[0] = _mm512_and_si512(_mm512_srlv_epi16(twice, low), mask);
    part[1] = _mm512_and_si512(_mm512_srlv_epi16(twice, high), mask);
  }
};
