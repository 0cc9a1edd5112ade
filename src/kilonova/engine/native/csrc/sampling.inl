// The choice of a token from a row of logits; ../../sampling.py says what is chosen.

// Probabilities (times a common factor) of the tokens, e^((z - largest) / temperature), and their sum.
static double weigh(const float* logits, int64_t vocabulary, float most, float temperature, float* weights) {
  const Floats inverse = splat(1.0f / temperature), shift = splat(-most);
  double total = 0.0;
  int64_t i = 0;
  for (; i + kLanes <= vocabulary; i += kLanes) {
    const Floats weight = exponential(multiply(add(load(logits + i), shift), inverse));
    store(weights + i, weight);
    total += double(sum(weight));
  }
  for (; i < vocabulary; ++i) {
    weights[i] = __builtin_expf((logits[i] - most) / temperature);
    total += double(weights[i]);
  }
  return total;
}

static void gather(const float* weights, int64_t vocabulary, float floor, std::vector<float>& found) {
  found.clear();
  for (int64_t i = 0; i < vocabulary; ++i)
    if (weights[i] >= floor) found.push_back(weights[i]);
}

// Moves what is above `pivot` to the front of `first` to `last`, and adds it up; the end of it.
static float* split(float* first, float* last, float pivot, double& above) {
  float* end = first;
  for (float* at = first; at < last; ++at) {
    if (*at <= pivot) continue;
    const float weight = *at;
    *at = *end, *end++ = weight;
    above += double(weight);
  }
  return end;
}

// The weight at which the sum of the weights, largest first, reaches `wanted`; below 0 where all are less than that.
static float nucleus_floor(std::vector<float>& found, double wanted) {
  float *first = found.data(), *last = first + found.size();
  double before = 0.0;
  while (first < last) {
    const float a = first[0], b = first[(last - first) / 2], c = last[-1];
    const float pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
    double above = before;
    float* middle = split(first, last, pivot, above);
    if (above >= wanted) {
      last = middle;
      continue;
    }
    float* rest = middle;
    for (float* at = middle; at < last; ++at)
      if (*at == pivot) std::swap(*at, *rest++), above += double(pivot);
    if (above >= wanted) return pivot;
    first = rest, before = above;
  }
  return -1.0f;
}

// The least weight that the filters keep. The largest weight is 1: most of what is kept lies a few powers below it.
static float least_kept(const float* weights, int64_t vocabulary, double total, const Draw& draw,
                        std::vector<float>& found) {
  const bool has_top_k = draw.top_k > 0 && draw.top_k < vocabulary, has_top_p = draw.top_p < 1.0;
  if (!has_top_k && !has_top_p) return 0.0f;
  for (float floor = 1.0f / 64;; floor = floor > 1e-30f ? floor / 4096 : 0.0f) {
    gather(weights, vocabulary, floor, found);
    float least = 0.0f;
    double kept = total;
    if (has_top_k) {
      if (static_cast<int64_t>(found.size()) < draw.top_k) continue;
      std::nth_element(found.begin(), found.begin() + draw.top_k - 1, found.end(), std::greater<float>());
      least = found[draw.top_k - 1];
      kept = 0.0;
      for (const float weight : found) kept += weight >= least ? double(weight) : 0.0;
    }
    if (!has_top_p) return least;
    const float nucleus = nucleus_floor(found, draw.top_p * kept);
    if (nucleus >= 0.0f) return nucleus > least ? nucleus : least;
    if (floor == 0.0f) return least;
  }
}

// Above e^-87, which stands for a token ruled out.
constexpr float kLeastWeight = 1e-37f;

static int32_t choose(const float* logits, int64_t vocabulary, const Draw& draw, float* weights,
                      std::vector<float>& found) {
  int64_t best = 0;
  bool is_finite = true;
  for (int64_t i = 0; i < vocabulary; ++i) {
    is_finite &= logits[i] < __builtin_inff();  // Neither infinity nor no number; minus infinity is a token ruled out.
    if (logits[i] > logits[best]) best = i;
  }
  if (!is_finite || logits[best] == -__builtin_inff()) return -1;
  if (draw.temperature == 0.0f) return int32_t(best);
  const double total = weigh(logits, vocabulary, logits[best], draw.temperature, weights);
  const float least = least_kept(weights, vocabulary, total, draw, found);
  double kept = 0.0;
  for (int64_t i = 0; i < vocabulary; ++i) kept += weights[i] >= least ? double(weights[i]) : 0.0;
  const double target = draw.uniform * kept;
  double running = 0.0;
  int64_t last = best;
  for (int64_t i = 0; i < vocabulary; ++i) {
    if (weights[i] < least || weights[i] < kLeastWeight) continue;
    running += double(weights[i]);
    last = i;
    if (running > target) break;
  }
  return int32_t(last);
}

struct Choice {
  const float* logits;
  int64_t rows, vocabulary;
  const Draw* draws;
  int32_t* tokens;
};

static void run_choice(Choice& choice, Team& team, int rank) {
  const Share mine = share(choice.rows, 1, team, rank);
  if (mine.first >= mine.last) return;
  std::vector<float> weights(choice.vocabulary), found;
  for (int64_t row = mine.first; row < mine.last; ++row)
    choice.tokens[row] = choose(choice.logits + row * choice.vocabulary, choice.vocabulary, choice.draws[row],
                                weights.data(), found);
}
