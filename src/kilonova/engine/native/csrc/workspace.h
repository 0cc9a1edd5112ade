// Memory a step works in: what the threads share, and what each has to itself.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

// Zeroed memory that starts on a cache line and is replaced by a larger piece when more is needed.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr, other.size_ = 0; }
  ~Buffer() { std::free(data_); }

  T* reserve(int64_t size) {
    if (size > size_) {
      const size_t bytes = (size * sizeof(T) + 127) / 64 * 64;
      void* fresh = std::aligned_alloc(64, bytes);
      if (!fresh) throw std::bad_alloc();
      __builtin_memset(fresh, 0, bytes);
      std::free(data_);
      data_ = static_cast<T*>(fresh), size_ = size;
    }
    return data_;
  }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// Input and Thread are of the instruction set's own; pointers are set by reserve().
template <typename Input>
class BasicWorkspace {
 public:
  struct Thread {
    Input input;
    float* query;
    float* weights;
    Buffer<float> floats, scales, queries, scores;
    Buffer<int16_t> words;
    Buffer<int32_t> offsets;
  };

  float *x, *qkv, *gate_up, *gated, *reduced, *partial, *peaks, *totals;
  int64_t pieces;  // of attention, at most, of any token

  Thread& thread(int rank) { return threads_[rank]; }

  void reserve_inputs(int threads, int64_t tokens, int64_t columns, int64_t lanes, int64_t queries,
                      int64_t scores) {
    const int64_t stride = (columns + 63) / 64 * 64;
    while (static_cast<int>(threads_.size()) < threads) threads_.emplace_back();
    for (auto& thread : threads_) {
      thread.input = {thread.floats.reserve(tokens * stride), thread.words.reserve(tokens * stride),
                      thread.scales.reserve(tokens), thread.offsets.reserve(tokens * stride / 32 * lanes), stride};
      thread.query = thread.queries.reserve(queries);
      thread.weights = thread.scores.reserve(scores);
    }
  }

  void reserve_shared(int64_t tokens, int64_t hidden, int64_t qkv_width, int64_t intermediate, int64_t heads,
                      int64_t head_dim, int64_t rank, int64_t piece_count) {
    pieces = piece_count;
    x = x_.reserve(tokens * hidden);
    qkv = qkv_.reserve(tokens * qkv_width);
    gate_up = gate_up_.reserve(2 * tokens * intermediate);
    gated = gated_.reserve(tokens * intermediate);
    reduced = reduced_.reserve(tokens * rank);
    partial = partial_.reserve(tokens * pieces * heads * head_dim);
    peaks = peaks_.reserve(tokens * pieces * heads);
    totals = totals_.reserve(tokens * pieces * heads);
  }

 private:
  Buffer<float> x_, qkv_, gate_up_, gated_, reduced_, partial_, peaks_, totals_;
  std::vector<Thread> threads_;
};
