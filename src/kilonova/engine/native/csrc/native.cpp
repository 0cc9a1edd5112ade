// The C interface: contexts, and the choice of instruction set at run time.
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <initializer_list>

#include "model.h"
#include "team.h"
#include "workspace.h"

#define KILONOVA_INSTRUCTIONS                                                                             \
  using Workspace = BasicWorkspace<Input>;                                                                \
  struct Context {                                                                                        \
    Team team;                                                                                            \
    Workspace space;                                                                                      \
    std::mutex mutex;                                                                                     \
  };

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace avx2 {
#include "simd_avx2.h"
#include "linear.inl"
#include "attention.inl"
KILONOVA_INSTRUCTIONS
#include "step.inl"
#include "sampling.inl"
#include "entry.inl"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
namespace avx512 {
#include "simd_avx512.h"
#include "linear.inl"
#include "attention.inl"
KILONOVA_INSTRUCTIONS
#include "step.inl"
#include "sampling.inl"
#include "entry.inl"
}  // namespace avx512
#pragma GCC pop_options

#define KILONOVA_VNNI
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
namespace avx512_vnni {
#include "simd_avx512.h"
#include "linear.inl"
#include "attention.inl"
KILONOVA_INSTRUCTIONS
#include "step.inl"
#include "sampling.inl"
#include "entry.inl"
}  // namespace avx512_vnni
#pragma GCC pop_options

namespace {

struct Instructions {
  const char* name;
  int lanes;
  void* (*create)();
  void (*destroy)(void*);
  int (*decode)(void*, const Model*, const Batch*, int);
  int (*multiply)(void*, const Linear*, const float*, int64_t, float*, int);
  float (*sweep)(void*, const float*, int64_t, int);
  int (*expand)(void*, const Linear*, void*, int, int);
  void (*pointwise)(void*, const float*, const float*, float, int64_t, int64_t, float*, int);
  int (*choose)(void*, const float*, int64_t, int64_t, const Draw*, int32_t*, int);
};

#define KILONOVA_ENTRY(set) \
  {#set, set::kLanes, set::create, set::destroy, set::decode, set::multiply, set::sweep, set::expand, \
   set::pointwise, set::choose_tokens}
const Instructions kAll[] = {KILONOVA_ENTRY(avx512_vnni), KILONOVA_ENTRY(avx512), KILONOVA_ENTRY(avx2)};

bool runs(int index) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (index == 2) return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return index == 1 ? avx512 : avx512 && __builtin_cpu_supports("avx512vnni");
}

struct Handle {
  const Instructions* instructions;
  void* context;
};

}  // namespace

extern "C" {

// Changes whenever the structures in model.h do.
int kilonova_abi() { return 3; }

// The instruction sets of this machine, best first: name `index`, or null.
const char* kilonova_instructions(int index) {
  for (int i = 0; i < 3; ++i)
    if (runs(i) && index-- == 0) return kAll[i].name;
  return nullptr;
}

// A context of the named instruction set; null where the machine lacks it.
void* kilonova_create(const char* name) {
  for (int i = 0; i < 3; ++i)
    if (runs(i) && !std::strcmp(kAll[i].name, name)) return new Handle{&kAll[i], kAll[i].create()};
  return nullptr;
}

void kilonova_destroy(void* handle) {
  auto* own = static_cast<Handle*>(handle);
  own->instructions->destroy(own->context);
  delete own;
}

int kilonova_lanes(void* handle) { return static_cast<Handle*>(handle)->instructions->lanes; }

// 0, or 1 when memory ran out.
int kilonova_decode(void* handle, const Model* model, const Batch* batch, int threads) {
  auto* own = static_cast<Handle*>(handle);
  return own->instructions->decode(own->context, model, batch, threads);
}

int kilonova_multiply(void* handle, const Linear* weights, const float* x, int64_t tokens, float* y, int threads) {
  auto* own = static_cast<Handle*>(handle);
  return own->instructions->multiply(own->context, weights, x, tokens, y, threads);
}

float kilonova_sweep(void* handle, const float* data, int64_t count, int threads) {
  auto* own = static_cast<Handle*>(handle);
  return own->instructions->sweep(own->context, data, count, threads);
}

int kilonova_expand(void* handle, const Linear* weights, void* y, int bfloat16, int threads) {
  auto* own = static_cast<Handle*>(handle);
  return own->instructions->expand(own->context, weights, y, bfloat16, threads);
}

// The norm of each row, or without a weight silu(gate) * up of rows in which the two lie in turn.
void kilonova_pointwise(void* handle, const float* x, const float* weight, float eps, int64_t rows, int64_t size,
                        float* y, int threads) {
  auto* own = static_cast<Handle*>(handle);
  own->instructions->pointwise(own->context, x, weight, eps, rows, size, y, threads);
}

int kilonova_choose(void* handle, const float* logits, int64_t rows, int64_t vocabulary, const Draw* draws,
                    int32_t* tokens, int threads) {
  auto* own = static_cast<Handle*>(handle);
  return own->instructions->choose(own->context, logits, rows, vocabulary, draws, tokens, threads);
}

// Asks for large pages, which a walk over many megabytes of weights needs fewer of.
void kilonova_advise(void* data, int64_t bytes) {
  const uintptr_t page = 1 << 21, first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}
}
