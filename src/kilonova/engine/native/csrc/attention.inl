// Normalisation, rotary positions, and attention of one token over the blocks of its sequence.

// e^x to a relative 2e-7 (Cephes: 2^n times a polynomial of what is left).
static inline Floats exponential(Floats x) {
  x = smaller(larger(x, splat(-87.0f)), splat(88.0f));
  const Floats n = nearest(multiply(x, splat(1.44269504088896341f)));
  Floats r = multiply_add(n, splat(-0.693359375f), x);
  r = multiply_add(n, splat(2.12194440e-4f), r);
  Floats p = splat(1.9875691500e-4f);
  p = multiply_add(p, r, splat(1.3981999507e-3f));
  p = multiply_add(p, r, splat(8.3334519073e-3f));
  p = multiply_add(p, r, splat(4.1665795894e-2f));
  p = multiply_add(p, r, splat(1.6666665459e-1f));
  p = multiply_add(p, r, splat(5.0000001201e-1f));
  p = multiply_add(p, multiply(r, r), add(r, splat(1.0f)));
  return multiply(p, power_of_two(n));
}

static void rms_norm(const float* x, const float* weight, float eps, int64_t size, float* y) {
  Floats squares = zero();
  for (int64_t i = 0; i < size; i += kLanes) squares = multiply_add(load(x + i), load(x + i), squares);
  const Floats factor = splat(1.0f / __builtin_sqrtf(sum(squares) / float(size) + eps));
  for (int64_t i = 0; i < size; i += kLanes)
    store(y + i, multiply(multiply(load(x + i), factor), load(weight + i)));
}

// A head's query or key: normed where the model does, then rotated by its position's cos and signed sin.
static void rotate(const float* x, const float* weight, float eps, const float* rotary, int64_t size, float* y) {
  if (weight) {
    rms_norm(x, weight, eps, size, y);
    x = y;
  }
  const float *cosine = rotary, *sine = rotary + size;
  const int64_t half = size / 2;
  for (int64_t i = 0; i < half; i += kLanes) {
    const Floats low = load(x + i), high = load(x + half + i);
    store(y + i, multiply_add(high, load(sine + i), multiply(low, load(cosine + i))));
    store(y + half + i, multiply_add(low, load(sine + half + i), multiply(high, load(cosine + half + i))));
  }
}

static inline void write_cache(const float* x, int64_t size, float* y) {
  for (int64_t i = 0; i < size; ++i) y[i] = x[i];
}

// To the nearest bfloat16, ties to even, as PyTorch rounds.
static inline void write_cache(const float* x, int64_t size, uint16_t* y) {
  for (int64_t i = 0; i < size; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, 4);
    y[i] = uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
  }
}

// Positions one piece of attention covers: pieces run on different threads and are put together afterwards.
constexpr int64_t kPiece = 512;

// Keys or values of one key-value head, found through a sequence's block table.
template <typename Cache>
struct Pages {
  const Cache* base;
  const int32_t* table;
  int64_t block_size, block_stride, head_dim;
  inline const Cache* at(int64_t position) const {
    return base + table[position / block_size] * block_stride + position % block_size * head_dim;
  }
};

template <int G, typename Cache>
static inline void score(const float* query, int64_t head_dim, const Cache* key, float scale, float* scores,
                         int64_t stride) {
  Floats total[G];
  for (int g = 0; g < G; ++g) total[g] = zero();
  for (int64_t i = 0; i < head_dim; i += kLanes) {
    const Floats k = load(key + i);
    for (int g = 0; g < G; ++g) total[g] = multiply_add(load(query + g * head_dim + i), k, total[g]);
  }
  for (int g = 0; g < G; ++g) scores[g * stride] = sum(total[g]) * scale;
}

template <int G, typename Cache>
static inline void blend(const float* weights, const Pages<Cache>& values, int64_t first, int64_t last, int64_t column,
                         int64_t head_dim, float* out) {
  Floats total[G];
  for (int g = 0; g < G; ++g) total[g] = zero();
  for (int64_t position = first; position < last;) {
    const int64_t stop = (position / values.block_size + 1) * values.block_size;
    const Cache* value = values.at(position) + column;
    for (; position < last && position < stop; ++position, value += head_dim) {
      const Floats v = load(value);
      for (int g = 0; g < G; ++g)
        total[g] = multiply_add(splat(weights[g * kPiece + position - first]), v, total[g]);
    }
  }
  for (int g = 0; g < G; ++g) store(out + g * head_dim + column, total[g]);
}

// G query heads `[G, head_dim]` over positions `first` to `last` (at most kPiece): sums weighted by e^(score - largest)
// go to `out`, the largest score and the sum of weights of each head to `peaks` and `totals`.
template <int G, typename Cache>
static void attend(const float* query, const Pages<Cache>& keys, const Pages<Cache>& values, int64_t first,
                   int64_t last, float* weights, float* out, float* peaks, float* totals) {
  const int64_t head_dim = keys.head_dim;
  const float scale = 1.0f / __builtin_sqrtf(float(head_dim));
  for (int64_t position = first; position < last; ++position)
    score<G>(query, head_dim, keys.at(position), scale, weights + position - first, kPiece);
  const int64_t count = last - first, whole = (count + kLanes - 1) / kLanes * kLanes;
  for (int g = 0; g < G; ++g) {
    float* row = weights + g * kPiece;
    for (int64_t i = count; i < whole; ++i) row[i] = -__builtin_inff();
    Floats most = splat(-__builtin_inff());
    for (int64_t i = 0; i < whole; i += kLanes) most = larger(most, load(row + i));
    peaks[g] = largest(most);
    Floats total = zero();
    for (int64_t i = count; i < whole; ++i) row[i] = peaks[g] - 1000.0f;
    for (int64_t i = 0; i < whole; i += kLanes) {
      const Floats weight = exponential(add(load(row + i), splat(-peaks[g])));
      store(row + i, weight);
      total = add(total, weight);
    }
    totals[g] = sum(total);
  }
  for (int64_t column = 0; column < head_dim; column += kLanes)
    blend<G>(weights, values, first, last, column, head_dim, out);
}

// The same for any number of query heads, four at a time.
template <typename Cache>
static void attend_all(int64_t heads, const float* query, const Pages<Cache>& keys, const Pages<Cache>& values,
                       int64_t first, int64_t last, float* weights, float* out, float* peaks, float* totals) {
  const int64_t head_dim = keys.head_dim;
  int64_t g = 0;
  for (; g + 4 <= heads; g += 4)
    attend<4>(query + g * head_dim, keys, values, first, last, weights, out + g * head_dim, peaks + g, totals + g);
  for (; g + 2 <= heads; g += 2)
    attend<2>(query + g * head_dim, keys, values, first, last, weights, out + g * head_dim, peaks + g, totals + g);
  for (; g < heads; ++g)
    attend<1>(query + g * head_dim, keys, values, first, last, weights, out + g * head_dim, peaks + g, totals + g);
}
