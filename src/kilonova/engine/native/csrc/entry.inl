// What the C interface calls for this instruction set.

static void* create() { return new Context; }
static void destroy(void* context) { delete static_cast<Context*>(context); }

static int64_t most(std::initializer_list<int64_t> values) { return std::max(values); }

static int decode(void* context, const Model* model, const Batch* batch, int threads) try {
  auto& own = *static_cast<Context*>(context);
  std::lock_guard<std::mutex> lock(own.mutex);
  const Model& m = *model;
  int64_t pieces = 1;
  for (int64_t token = 0; token < batch->num_tokens; ++token)
    pieces = most({pieces, batch->positions[token] / kPiece + 1});
  const int64_t group = m.num_heads / m.num_kv_heads, tokens = batch->num_tokens;
  const int64_t columns = most({m.hidden_size, m.num_heads * m.head_dim, m.intermediate_size});
  own.space.reserve_inputs(threads, tokens, columns, kLanes, group * m.head_dim, 4 * kPiece);
  own.space.reserve_shared(batch->num_tokens, m.hidden_size, (m.num_heads + 2 * m.num_kv_heads) * m.head_dim,
                           m.intermediate_size, m.num_heads, m.head_dim, batch->max_rank, pieces);
  Step step{m, *batch, own.space};
  own.team.run<run_step>(threads, step);
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

static int multiply(void* context, const Linear* weights, const float* x, int64_t tokens, float* y, int threads) try {
  auto& own = *static_cast<Context*>(context);
  std::lock_guard<std::mutex> lock(own.mutex);
  own.space.reserve_inputs(threads, tokens, weights->in_features, kLanes, 1, 1);
  Product product{*weights, x, tokens, y, own.space};
  own.team.run<run_product>(threads, product);
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

static float sweep(void* context, const float* data, int64_t count, int threads) {
  auto& own = *static_cast<Context*>(context);
  std::lock_guard<std::mutex> lock(own.mutex);
  std::vector<float> totals(threads);
  Sweep job{data, count, totals.data()};
  own.team.run<run_sweep>(threads, job);
  return totals[0];
}

static int expand(void* context, const Linear* weights, void* y, int bfloat16, int threads) try {
  auto& own = *static_cast<Context*>(context);
  std::lock_guard<std::mutex> lock(own.mutex);
  Expansion job{*weights, y, bfloat16 != 0};
  own.team.run<run_expansion>(threads, job);
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

static int choose_tokens(void* context, const float* logits, int64_t rows, int64_t vocabulary, const Draw* draws,
                         int32_t* tokens, int threads) try {
  auto& own = *static_cast<Context*>(context);
  std::lock_guard<std::mutex> lock(own.mutex);
  Choice choice{logits, rows, vocabulary, draws, tokens};
  own.team.run<run_choice>(rows < threads ? int(rows) : threads, choice);
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

static void pointwise(void* context, const float* x, const float* weight, float eps, int64_t rows, int64_t size,
                      float* y, int threads) {
  auto& own = *static_cast<Context*>(context);
  std::lock_guard<std::mutex> lock(own.mutex);
  Pointwise job{x, weight, eps, rows, size, y};
  own.team.run<run_pointwise>(threads, job);
}
