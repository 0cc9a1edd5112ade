// Products of few inputs with a matrix. A value is summed over the columns in the same order whatever else is computed
// beside it, so that a token's result does not depend on its batch.

// Tokens as the kernels read them: floats for float weights, else 13-bit integers with a scale a token and, for each 32
// columns, what subtracting 8 from each nibble takes away.
struct Input {
  float* floats;
  int16_t* words;
  float* scales;
  int32_t* offsets;
  int64_t stride;  // columns of a token, a multiple of 64
};

constexpr float kLargestWord = 4095.0f;

static inline int64_t padded(int64_t columns) { return (columns + 63) / 64 * 64; }

// Readies token `token`, whose floats are in place, for weights of `kind`.
static void quantize(const Input& in, int64_t token, int64_t columns, int32_t kind) {
  float* x = in.floats + token * in.stride;
  for (int64_t i = columns; i < in.stride; ++i) x[i] = 0.0f;
  if (kind != kInt8 && kind != kInt4) return;
  Floats most = zero();
  for (int64_t i = 0; i < in.stride; i += kLanes) most = larger(most, magnitude(load(x + i)));
  const float peak = largest(most);
  const float scale = peak > 0.0f ? peak / kLargestWord : 1.0f;
  in.scales[token] = scale;
  const Floats inverse = splat(1.0f / scale);
  int16_t* words = in.words + token * in.stride;
  for (int64_t i = 0; i < in.stride; i += kLanes) store_words(words + i, multiply(load(x + i), inverse));
  if (kind != kInt4) return;
  int32_t* offsets = in.offsets + token * (in.stride / 32) * kLanes;
  const Words eight = splat_word(-8);
  for (int64_t i = 0; i < in.stride; i += 32, offsets += kLanes) {
    Ints taken = zero_ints();
    for (int64_t j = 0; j < 32; j += kWords) taken = dot_add(load_words(words + i + j), eight, taken);
    store_ints(offsets, taken);
  }
}

// Fetches ahead the rows that this thread reads after these: hardware follows a stream within a page only.
template <int R>
static inline void prefetch(const void* rows, int64_t row_bytes) {
  for (int r = 0; r < R; ++r)
    __builtin_prefetch(static_cast<const char*>(rows) + (R + r) * row_bytes, 0, 3);
}

template <typename Weight, int R, int T>
static inline void tile_float(const Linear& w, int64_t row, const Input& in, int64_t token, float (&y)[R][T]) {
  constexpr int64_t kLine = 64 / sizeof(Weight);
  const Weight* rows = static_cast<const Weight*>(w.data) + row * w.in_features;
  const float* x = in.floats + token * in.stride;
  Floats total[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) total[r][t] = zero();
  for (int64_t line = 0; line < w.in_features; line += kLine) {
    prefetch<R>(rows + line, w.in_features * sizeof(Weight));
    const int64_t end = line + kLine < w.in_features ? line + kLine : w.in_features;
    for (int64_t i = line; i < end; i += kLanes) {
      Floats weight[R];
      for (int r = 0; r < R; ++r) weight[r] = load(rows + r * w.in_features + i);
      for (int t = 0; t < T; ++t) {
        const Floats column = load(x + t * in.stride + i);
        for (int r = 0; r < R; ++r) total[r][t] = multiply_add(weight[r], column, total[r][t]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) y[r][t] = sum(total[r][t]);
}

template <int R, int T>
static inline void tile_int8(const Linear& w, int64_t row, const Input& in, int64_t token, float (&y)[R][T]) {
  const int64_t columns = padded(w.in_features);
  const int8_t* rows = static_cast<const int8_t*>(w.data) + row * columns;
  const int16_t* x = in.words + token * in.stride;
  Ints total[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) total[r][t] = zero_ints();
  for (int64_t line = 0; line < columns; line += 64) {
    prefetch<R>(rows + line, columns);
    for (int64_t i = line; i < line + 64; i += kWords) {
      Words weight[R];
      for (int r = 0; r < R; ++r) weight[r] = widen(rows + r * columns + i);
      for (int t = 0; t < T; ++t) {
        const Words column = load_words(x + t * in.stride + i);
        for (int r = 0; r < R; ++r) total[r][t] = dot_add(weight[r], column, total[r][t]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) y[r][t] = sum(to_floats(total[r][t])) * (w.scales[row + r] * in.scales[token + t]);
}

// HALVES: groups of so many times 32 columns.
template <int R, int T, int HALVES>
static inline void tile_int4(const Linear& w, int64_t row, const Input& in, int64_t token, float (&y)[R][T]) {
  const int64_t columns = padded(w.in_features);
  const int64_t groups = columns / (HALVES * 32);
  const uint8_t* rows = static_cast<const uint8_t*>(w.data) + row * columns / 2;
  const float* scales = w.scales + row * groups;
  const int16_t* x = in.words + token * in.stride;
  const int64_t offset_stride = in.stride / 32 * kLanes;
  const int32_t* offsets = in.offsets + token * offset_stride;
  constexpr int kStep = HALVES == 1 ? 1 : HALVES / 2;  // 64-column pieces between two scalings
  Floats total[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) total[r][t] = zero();
  for (int64_t piece = 0; piece < columns / 64; piece += kStep) {
    prefetch<R>(rows + piece * 32, columns / 2);
    for (int r = 0; r < R; ++r) {
      Ints dot[T];
      for (int step = 0; step < kStep; ++step) {
        const int64_t at = piece + step;
        const Nibbles weight(rows + r * columns / 2 + at * 32);
        for (int half = 0; half < 2; ++half) {
          for (int t = 0; t < T; ++t) {
            Ints value = load_ints(offsets + t * offset_stride + (2 * at + half) * kLanes);
            for (int part = 0; part < Nibbles::kPerHalf; ++part) {
              const int index = half * Nibbles::kPerHalf + part;
              value = dot_add(weight.part[index], load_words(x + t * in.stride + at * 64 + index * kWords), value);
            }
            if (HALVES == 1) {
              const Floats scale = splat(scales[r * groups + 2 * at + half]);
              total[r][t] = multiply_add(to_floats(value), scale, total[r][t]);
            } else {
              dot[t] = step == 0 && half == 0 ? value : add_ints(dot[t], value);
            }
          }
        }
      }
      if (HALVES > 1) {
        const Floats scale = splat(scales[r * groups + piece / kStep]);
        for (int t = 0; t < T; ++t) total[r][t] = multiply_add(to_floats(dot[t]), scale, total[r][t]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) y[r][t] = sum(total[r][t]) * in.scales[token + t];
}

template <int R, int T>
static inline void tile(const Linear& w, int64_t row, const Input& in, int64_t token, float (&y)[R][T]) {
  switch (w.kind) {
    case kFloat32: return tile_float<float>(w, row, in, token, y);
    case kBFloat16: return tile_float<uint16_t>(w, row, in, token, y);
    case kInt8: return tile_int8(w, row, in, token, y);
    default:
      if (w.group_size == 32) return tile_int4<R, T, 1>(w, row, in, token, y);
      if (w.group_size == 64) return tile_int4<R, T, 2>(w, row, in, token, y);
      return tile_int4<R, T, 4>(w, row, in, token, y);
  }
}

template <int R, int T>
static inline void put(const Linear& w, int64_t row, const Input& in, int64_t token, float* y, int64_t stride,
                       bool accumulate) {
  float values[R][T];
  tile<R, T>(w, row, in, token, values);
  for (int t = 0; t < T; ++t) {
    float* out = y + (token + t) * stride + row;
    for (int r = 0; r < R; ++r) {
      const float value = values[r][t] + (w.bias ? w.bias[row + r] : 0.0f);
      out[r] = accumulate ? out[r] + value : value;
    }
  }
}

// Rows `first` to `last` for all tokens: R rows and at most T tokens at a time.
template <int R, int T>
static void rows(const Linear& w, const Input& in, int64_t tokens, float* y, int64_t stride, bool accumulate,
                 int64_t first, int64_t last) {
  int64_t row = first;
  for (; row + R <= last; row += R) {
    int64_t token = 0;
    for (; token + T <= tokens; token += T) put<R, T>(w, row, in, token, y, stride, accumulate);
    if (T > 4 && token + 4 <= tokens) put<R, 4>(w, row, in, token, y, stride, accumulate), token += 4;
    if (T > 2 && token + 2 <= tokens) put<R, 2>(w, row, in, token, y, stride, accumulate), token += 2;
    if (T > 1 && token < tokens) put<R, 1>(w, row, in, token, y, stride, accumulate);
  }
  if (R > 1 && row < last) rows<1, T>(w, in, tokens, y, stride, accumulate, row, last);
}

// y[token, row] (+)= W x + bias for rows `first` to `last` and all tokens. Bytes come fastest as one stream; floats and
// nibbles take so long to add up that several rows must be under way.
static void linear(const Linear& w, const Input& in, int64_t tokens, float* y, int64_t stride, bool accumulate,
                   int64_t first, int64_t last) {
  if (w.kind == kInt8) rows<1, 8>(w, in, tokens, y, stride, accumulate, first, last);
  else if (w.kind == kInt4 || tokens >= 4) rows<2, 4>(w, in, tokens, y, stride, accumulate, first, last);
  else rows<4, 2>(w, in, tokens, y, stride, accumulate, first, last);
}
