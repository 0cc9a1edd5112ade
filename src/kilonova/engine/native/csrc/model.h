// What a decoder consists of and what one step reads, as the Python side lays it out (see ../library.py).
#pragma once
#include <cstdint>

enum WeightKind : int32_t { kFloat32 = 0, kBFloat16 = 1, kInt8 = 2, kInt4 = 3 };

// A matrix [out_features, in_features], row by row, and what turns its integers into numbers.
// Rows of integers are padded to 64 columns. kInt8 has one scale a row, kInt4 one for each group_size columns; 64 columns
// of it are 32 bytes, in which nibble j (lowest first) of 16-bit word i is column 16 j + i, plus 8.
struct Linear {
  const void* data;
  const float* scales;
  const float* bias;
  int64_t in_features;
  int64_t out_features;
  int32_t kind;
  int32_t group_size;
};

// gate_up has the rows of gate and up in turn. keys and values are [blocks, kv_heads, block_size, head_dim].
struct Layer {
  const float* input_norm;
  const float* mlp_norm;
  const float* q_norm;
  const float* k_norm;
  Linear qkv;
  Linear output;
  Linear gate_up;
  Linear down;
  void* keys;
  void* values;
  int32_t window;  // 0: none
  int32_t table;   // which of the batch's block tables
};

// Rows `first` to `last` of a product and what is added to them: b, as tiles [(last - first) / 16, rank, 16], the last
// one padded with zeros.
struct LowRankRows {
  const void* b;
  int64_t first, last;
};

// A low-rank addition to a product: y += b (a x). Absent where a has no data. The rows of a are those of each part, one
// after another; or, interleaved, there is one part whose even rows belong to the even rows of a and odd to odd.
struct LowRank {
  Linear a;  // kFloat32 or kBFloat16, as b
  int64_t rank;
  LowRankRows parts[3];
  int32_t num_parts;
  int32_t interleaved;
};

// The products of a layer to which adapters add.
enum Product : int32_t { kQkv = 0, kOutput = 1, kGateUp = 2, kDown = 3, kProducts = 4 };

struct Model {
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t num_layers;
  int64_t block_size;
  float eps;
  int32_t cache_kind;  // kFloat32 or kBFloat16
  const Layer* layers;
  Linear embedding;  // a table of rows; kFloat32 or kBFloat16
  const float* final_norm;
};

// Tokens of any sequences; of one sequence also several, in order of position.
struct Batch {
  int64_t num_tokens;
  const int32_t* token_ids;
  const int32_t* positions;
  const float* rotary;  // [positions, 2, head_dim]: cos, and sin with its first half negated
  const int32_t* slots;  // the row of each token's sequence in the block tables
  const int32_t* const* tables;  // [slots, table_stride] for each of the cache's groups of layers
  int64_t table_stride;
  const int32_t* adapters;  // of each token, -1: none; null: none at all
  const LowRank* const* low_rank;  // [layers, kProducts] of each adapter
  int64_t max_rank;  // the most rows of any a
  float* hidden;  // [num_tokens, hidden_size], after the final norm
};

// How a row's token is chosen; top_k 0 and top_p 1 keep everything.
struct Draw {
  double uniform;
  double top_p;
  float temperature;
  int32_t top_k;
};
