// One step of the whole decoder, run by all threads of a team at once: each computes its share of the rows of a matrix
// or of the heads, and waits for the others where it needs theirs. What is cheap every thread computes for itself.

struct Step {
  const Model& model;
  const Batch& batch;
  Workspace& space;
};

// Adapters add to so many rows at a time.
constexpr int64_t kTile = 16;

struct Share {
  int64_t first, last;
};

static Share share(int64_t total, int64_t unit, const Team& team, int rank) {
  const int64_t units = (total + unit - 1) / unit;
  const int64_t first = units * rank / team.size() * unit, last = units * (rank + 1) / team.size() * unit;
  return {first, last < total ? last : total};
}

static void embed(const Linear& table, int32_t row, float* y) {
  const int64_t size = table.in_features;
  for (int64_t i = 0; i < size; i += kLanes) {
    if (table.kind == kFloat32) store(y + i, load(static_cast<const float*>(table.data) + row * size + i));
    else store(y + i, load(static_cast<const uint16_t*>(table.data) + row * size + i));
  }
}

static void norm_input(const Step& step, const float* norm, int32_t kind, const Input& in) {
  const int64_t size = step.model.hidden_size;
  for (int64_t token = 0; token < step.batch.num_tokens; ++token) {
    rms_norm(step.space.x + token * size, norm, step.model.eps, size, in.floats + token * in.stride);
    quantize(in, token, size, kind);
  }
}

static inline int64_t first_visible(const Layer& layer, int64_t position) {
  return layer.window && position >= layer.window ? position - layer.window + 1 : 0;
}

static inline const int32_t* block_table(const Batch& b, const Layer& layer, int64_t token) {
  return b.tables[layer.table] + b.slots[token] * b.table_stride;
}

// Rotates the step's keys and writes keys and values into the cache; heads are shared out.
template <typename Cache>
static void write_keys(const Step& step, const Layer& layer, const Team& team, int rank) {
  const Model& m = step.model;
  const Batch& b = step.batch;
  const int64_t size = m.head_dim, width = (m.num_heads + 2 * m.num_kv_heads) * size;
  const Share mine = share(b.num_tokens * m.num_kv_heads, 1, team, rank);
  float* rotated = step.space.thread(rank).query;
  for (int64_t task = mine.first; task < mine.last; ++task) {
    const int64_t token = task / m.num_kv_heads, head = task % m.num_kv_heads, position = b.positions[token];
    const int32_t block = block_table(b, layer, token)[position / m.block_size];
    const int64_t place = ((block * m.num_kv_heads + head) * m.block_size + position % m.block_size) * size;
    const float* key = step.space.qkv + token * width + (m.num_heads + head) * size;
    rotate(key, layer.k_norm, m.eps, b.rotary + position * 2 * size, size, rotated);
    write_cache(rotated, size, static_cast<Cache*>(layer.keys) + place);
    write_cache(key + m.num_kv_heads * size, size, static_cast<Cache*>(layer.values) + place);
  }
}

// Attention of every token, piece by piece of its past; pieces are shared out.
template <typename Cache>
static void attend_pieces(const Step& step, const Layer& layer, const Team& team, int rank) {
  const Model& m = step.model;
  const Batch& b = step.batch;
  Workspace& s = step.space;
  const int64_t size = m.head_dim, group = m.num_heads / m.num_kv_heads;
  const int64_t width = (m.num_heads + 2 * m.num_kv_heads) * size;
  Workspace::Thread& own = s.thread(rank);
  int64_t task = 0;
  for (int64_t token = 0; token < b.num_tokens; ++token) {
    const int64_t position = b.positions[token], low = first_visible(layer, position);
    const float* rotary = b.rotary + position * 2 * size;
    for (int64_t head = 0; head < m.num_kv_heads; ++head) {
      const int64_t offset = head * m.block_size * size;
      const Pages<Cache> keys{static_cast<const Cache*>(layer.keys) + offset,
                              block_table(b, layer, token), m.block_size,
                              m.num_kv_heads * m.block_size * size, size};
      Pages<Cache> values = keys;
      values.base = static_cast<const Cache*>(layer.values) + offset;
      bool rotated = false;
      for (int64_t piece = low / kPiece; piece <= position / kPiece; ++piece) {
        if (task++ % team.size() != rank) continue;
        if (!rotated) {
          for (int64_t g = 0; g < group; ++g)
            rotate(s.qkv + token * width + (head * group + g) * size, layer.q_norm, m.eps, rotary, size,
                   own.query + g * size);
          rotated = true;
        }
        const int64_t first = piece * kPiece > low ? piece * kPiece : low;
        const int64_t last = (piece + 1) * kPiece < position + 1 ? (piece + 1) * kPiece : position + 1;
        const int64_t at = ((token * s.pieces + piece - low / kPiece) * m.num_kv_heads + head) * group;
        attend_all(group, own.query, keys, values, first, last, own.weights, s.partial + at * size, s.peaks + at,
                   s.totals + at);
      }
    }
  }
}

// Puts the pieces of each head together: the input of the output projection.
static void merge_pieces(const Step& step, const Layer& layer, const Input& in) {
  const Model& m = step.model;
  const Workspace& s = step.space;
  const int64_t size = m.head_dim;
  for (int64_t token = 0; token < step.batch.num_tokens; ++token) {
    const int64_t position = step.batch.positions[token];
    const int64_t pieces = position / kPiece - first_visible(layer, position) / kPiece + 1;
    for (int64_t head = 0; head < m.num_heads; ++head) {
      const int64_t first = token * s.pieces * m.num_heads + head;
      float peak = s.peaks[first], total = 0.0f;
      for (int64_t piece = 1; piece < pieces; ++piece) {
        const float other = s.peaks[first + piece * m.num_heads];
        peak = other > peak || other != other ? other : peak;
      }
      float* out = in.floats + token * in.stride + head * size;
      for (int64_t i = 0; i < size; i += kLanes) store(out + i, zero());
      for (int64_t piece = 0; piece < pieces; ++piece) {
        const int64_t at = first + piece * m.num_heads;
        const float weight = pieces == 1 ? 1.0f : __builtin_expf(s.peaks[at] - peak);
        total += weight * s.totals[at];
        for (int64_t i = 0; i < size; i += kLanes)
          store(out + i, multiply_add(splat(weight), load(s.partial + at * size + i), load(out + i)));
      }
      const Floats inverse = splat(1.0f / total);
      for (int64_t i = 0; i < size; i += kLanes) store(out + i, multiply(load(out + i), inverse));
    }
    quantize(in, token, m.num_heads * size, layer.output.kind);
  }
}

// silu(gate) * up for the rows computed by this thread; gate and up lie in turn.
static void gate(const float* pairs, int64_t first, int64_t last, float* y) {
  float gates[kLanes], ups[kLanes], out[kLanes];
  for (int64_t i = first; i < last; i += kLanes) {
    const int64_t count = last - i < kLanes ? last - i : kLanes;
    for (int64_t j = 0; j < kLanes; ++j) {
      gates[j] = j < count ? pairs[2 * (i + j)] : 0.0f;
      ups[j] = j < count ? pairs[2 * (i + j) + 1] : 0.0f;
    }
    const Floats g = load(gates);
    store(out, multiply(load(ups), divide(g, add(splat(1.0f), exponential(multiply(g, splat(-1.0f)))))));
    for (int64_t j = 0; j < count; ++j) y[i + j] = out[j];
  }
}

// Tokens from `first` on that lie together and have the same adapter.
static int64_t count_same(const Batch& b, int64_t first) {
  int64_t last = first + 1;
  while (last < b.num_tokens && b.adapters[last] == b.adapters[first]) ++last;
  return last - first;
}

// The first half of what adapters add: a x, of which each thread computes some rows. The inputs are the product's own.
static void reduce_for_adapters(const Step& step, int64_t layer, Product product, const Team& team, int rank) {
  const Batch& b = step.batch;
  if (!b.adapters) return;
  for (int64_t token = 0, count; token < b.num_tokens; token += count) {
    count = count_same(b, token);
    if (b.adapters[token] < 0) continue;
    const LowRank& pair = b.low_rank[b.adapters[token]][layer * kProducts + product];
    if (!pair.a.data) continue;
    Input x = step.space.thread(rank).input;
    x.floats += token * x.stride;
    const Share mine = share(pair.a.out_features, 1, team, rank);
    linear(pair.a, x, count, step.space.reduced + token * b.max_rank, b.max_rank, false, mine.first, mine.last);
  }
}

// y += b z for one tile of rows, of which `count` exist; interleaved, z holds pairs for even and odd rows.
template <typename Weight>
static inline void add_tile(const Weight* b, int64_t rank, bool interleaved, const float* z, float* y, int64_t count) {
  constexpr int kVectors = kTile / kLanes;
  Floats total[kVectors];
  for (int v = 0; v < kVectors; ++v) total[v] = zero();
  for (int64_t j = 0; j < rank; ++j) {
    const Floats value = interleaved ? splat_pair(z + 2 * j) : splat(z[j]);
    for (int v = 0; v < kVectors; ++v) total[v] = multiply_add(load(b + j * kTile + v * kLanes), value, total[v]);
  }
  if (count == kTile) {
    for (int v = 0; v < kVectors; ++v) store(y + v * kLanes, add(load(y + v * kLanes), total[v]));
  } else {
    float values[kTile];
    for (int v = 0; v < kVectors; ++v) store(values + v * kLanes, total[v]);
    for (int64_t i = 0; i < count; ++i) y[i] += values[i];
  }
}

template <typename Weight>
static void add_rows(const LowRank& pair, const LowRankRows& part, const float* z, int64_t z_stride, int64_t tokens,
                     Share mine, float* y, int64_t stride) {
  const int64_t first = mine.first > part.first ? mine.first : part.first;
  const int64_t last = mine.last < part.last ? mine.last : part.last;
  for (int64_t row = first; row < last; row += kTile) {
    const Weight* b = static_cast<const Weight*>(part.b) + (row - part.first) * pair.rank;
    const int64_t count = last - row < kTile ? last - row : kTile;
    for (int64_t token = 0; token < tokens; ++token)
      add_tile(b, pair.rank, pair.interleaved, z + token * z_stride, y + token * stride + row, count);
  }
}

// The second half, for the rows of y that this thread has computed: its share begins where a tile does.
static void add_adapters(const Step& step, int64_t layer, Product product, Team& team, Share mine, float* y,
                         int64_t stride) {
  const Batch& b = step.batch;
  if (!b.adapters) return;
  team.barrier();
  for (int64_t token = 0, count; token < b.num_tokens; token += count) {
    count = count_same(b, token);
    if (b.adapters[token] < 0) continue;
    const LowRank& pair = b.low_rank[b.adapters[token]][layer * kProducts + product];
    if (!pair.a.data) continue;
    for (int32_t part = 0; part < pair.num_parts; ++part) {
      const float* z = step.space.reduced + token * b.max_rank + part * pair.rank;
      float* rows = y + token * stride;
      if (pair.a.kind == kFloat32) add_rows<float>(pair, pair.parts[part], z, b.max_rank, count, mine, rows, stride);
      else add_rows<uint16_t>(pair, pair.parts[part], z, b.max_rank, count, mine, rows, stride);
    }
  }
}

static void run_layer(const Step& step, int64_t index, Team& team, int rank) {
  const Model& m = step.model;
  const Batch& b = step.batch;
  Workspace& s = step.space;
  const Layer& layer = m.layers[index];
  const Input in = s.thread(rank).input;
  const int64_t tokens = b.num_tokens, unit = b.adapters ? kTile : 4;

  norm_input(step, layer.input_norm, layer.qkv.kind, in);
  reduce_for_adapters(step, index, kQkv, team, rank);
  Share mine = share(layer.qkv.out_features, unit, team, rank);
  linear(layer.qkv, in, tokens, s.qkv, layer.qkv.out_features, false, mine.first, mine.last);
  add_adapters(step, index, kQkv, team, mine, s.qkv, layer.qkv.out_features);
  team.barrier();
  if (m.cache_kind == kFloat32) write_keys<float>(step, layer, team, rank);
  else write_keys<uint16_t>(step, layer, team, rank);
  team.barrier();
  if (m.cache_kind == kFloat32) attend_pieces<float>(step, layer, team, rank);
  else attend_pieces<uint16_t>(step, layer, team, rank);
  team.barrier();
  merge_pieces(step, layer, in);
  reduce_for_adapters(step, index, kOutput, team, rank);
  mine = share(m.hidden_size, unit, team, rank);
  linear(layer.output, in, tokens, s.x, m.hidden_size, true, mine.first, mine.last);
  add_adapters(step, index, kOutput, team, mine, s.x, m.hidden_size);
  team.barrier();

  norm_input(step, layer.mlp_norm, layer.gate_up.kind, in);
  reduce_for_adapters(step, index, kGateUp, team, rank);
  mine = share(2 * m.intermediate_size, 4 * kLanes, team, rank);
  linear(layer.gate_up, in, tokens, s.gate_up, 2 * m.intermediate_size, false, mine.first, mine.last);
  add_adapters(step, index, kGateUp, team, mine, s.gate_up, 2 * m.intermediate_size);
  for (int64_t token = 0; token < tokens; ++token)
    gate(s.gate_up + token * 2 * m.intermediate_size, mine.first / 2, mine.last / 2,
         s.gated + token * m.intermediate_size);
  team.barrier();
  for (int64_t token = 0; token < tokens; ++token) {
    __builtin_memcpy(in.floats + token * in.stride, s.gated + token * m.intermediate_size,
                     sizeof(float) * m.intermediate_size);
    quantize(in, token, m.intermediate_size, layer.down.kind);
  }
  reduce_for_adapters(step, index, kDown, team, rank);
  mine = share(m.hidden_size, unit, team, rank);
  linear(layer.down, in, tokens, s.x, m.hidden_size, true, mine.first, mine.last);
  add_adapters(step, index, kDown, team, mine, s.x, m.hidden_size);
  team.barrier();
}

static void run_step(Step& step, Team& team, int rank) {
  const Model& m = step.model;
  const Batch& b = step.batch;
  Workspace& s = step.space;
  const Share tokens = share(b.num_tokens, 1, team, rank);
  for (int64_t token = tokens.first; token < tokens.last; ++token)
    embed(m.embedding, b.token_ids[token], s.x + token * m.hidden_size);
  team.barrier();
  for (int64_t i = 0; i < m.num_layers; ++i) run_layer(step, i, team, rank);
  for (int64_t token = tokens.first; token < tokens.last; ++token)
    rms_norm(s.x + token * m.hidden_size, m.final_norm, m.eps, m.hidden_size, b.hidden + token * m.hidden_size);
}

struct Product {
  const Linear& weights;
  const float* x;
  int64_t tokens;
  float* y;
  Workspace& space;
};

// y = W x + bias.
static void run_product(Product& product, Team& team, int rank) {
  const Input in = product.space.thread(rank).input;
  const int64_t columns = product.weights.in_features;
  for (int64_t token = 0; token < product.tokens; ++token) {
    __builtin_memcpy(in.floats + token * in.stride, product.x + token * columns, sizeof(float) * columns);
    quantize(in, token, columns, product.weights.kind);
  }
  const Share mine = share(product.weights.out_features, 4, team, rank);
  linear(product.weights, in, product.tokens, product.y, product.weights.out_features, false, mine.first, mine.last);
}

struct Sweep {
  const float* data;
  int64_t count;
  float* totals;
};

// Reads memory once, for the rate at which that can be done.
static void run_sweep(Sweep& sweep, Team& team, int rank) {
  const Share mine = share(sweep.count, 64, team, rank);
  Floats total[4] = {zero(), zero(), zero(), zero()};
  int64_t i = mine.first;
  for (; i + 4 * kLanes <= mine.last; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) total[j] = add(total[j], load(sweep.data + i + j * kLanes));
  sweep.totals[rank] = sum(add(add(total[0], total[1]), add(total[2], total[3])));
}

struct Expansion {
  const Linear& weights;
  void* y;
  bool bfloat16;
};

static inline void put_expanded(const Floats v, float* y) { store(y, v); }
static inline void put_expanded(const Floats v, uint16_t* y) {
  float lanes[kLanes];
  store(lanes, v);
  write_cache(lanes, kLanes, y);
}

// One row of integers as numbers; `y` has room for the padding.
template <typename Out>
static void expand_row(const Linear& w, int64_t row, float* buffer, Out* y) {
  const int64_t columns = padded(w.in_features);
  if (w.kind == kInt8) {
    const int8_t* values = static_cast<const int8_t*>(w.data) + row * columns;
    for (int64_t i = 0; i < w.in_features; ++i) buffer[i] = float(values[i]) * w.scales[row];
  } else {
    const uint16_t* words = static_cast<const uint16_t*>(w.data) + row * columns / 4;
    const float* scales = w.scales + row * (columns / w.group_size);
    for (int64_t piece = 0; piece < columns; piece += 64)
      for (int64_t j = 0; j < 4; ++j) {
        const float scale = scales[(piece + 16 * j) / w.group_size];
        for (int64_t i = 0; i < 16; ++i)
          buffer[piece + 16 * j + i] = float(int32_t(words[piece / 4 + i] >> (4 * j) & 15) - 8) * scale;
      }
  }
  int64_t i = 0;
  for (; i + kLanes <= w.in_features; i += kLanes) put_expanded(load(buffer + i), y + i);
  write_cache(buffer + i, w.in_features - i, y + i);
}

static void run_expansion(Expansion& job, Team& team, int rank) {
  const Linear& w = job.weights;
  const Share mine = share(w.out_features, 1, team, rank);
  std::vector<float> buffer(padded(w.in_features));
  for (int64_t row = mine.first; row < mine.last; ++row) {
    const int64_t at = row * w.in_features;
    if (job.bfloat16) expand_row(w, row, buffer.data(), static_cast<uint16_t*>(job.y) + at);
    else expand_row(w, row, buffer.data(), static_cast<float*>(job.y) + at);
  }
}

struct Pointwise {
  const float* x;
  const float* weight;  // null: gate and up in turn, else those of the norm
  float eps;
  int64_t rows, size;
  float* y;
};

// What PyTorch takes several passes for: the norm of each row, or silu(gate) * up.
static void run_pointwise(Pointwise& job, Team& team, int rank) {
  const Share mine = share(job.rows, 1, team, rank);
  for (int64_t row = mine.first; row < mine.last; ++row) {
    if (job.weight) rms_norm(job.x + row * job.size, job.weight, job.eps, job.size, job.y + row * job.size);
    else gate(job.x + row * 2 * job.size, 0, job.size, job.y + row * job.size);
  }
}
