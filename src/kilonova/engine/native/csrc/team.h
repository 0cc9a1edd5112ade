// Threads that run one function together and wait for each other inside it.
#pragma once
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

static inline void spin_pause() { __builtin_ia32_pause(); }

// Waiting spins for about this many microseconds before it gives the processor away.
constexpr int kSpins = 2000;

class Team {
 public:
  Team() = default;
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  ~Team() {
    if (getpid() == owner_) stop();
    else for (auto& worker : workers_) worker.detach();
  }

  // Calls function(argument, team, rank) once for each rank below size, rank 0 on the caller's thread.
  template <auto function, typename Argument>
  void run(int size, Argument& argument) {
    size_ = size;
    if (size > 1) {
      resize(size - 1);
      function_ = [](void* own, Team& team, int rank) { function(*static_cast<Argument*>(own), team, rank); };
      argument_ = &argument;
      working_.store(size - 1, std::memory_order_relaxed);
      round_.fetch_add(1, std::memory_order_release);
      round_.notify_all();
    }
    function(argument, *this, 0);
    for (int spin = 0; size > 1 && working_.load(std::memory_order_acquire); ++spin) relax(spin);
  }

  int size() const { return size_; }

  // Returns when every rank of the run has come here.
  void barrier() {
    if (size_ == 1) return;
    const uint32_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int spin = 0; phase_.load(std::memory_order_acquire) == phase; ++spin) relax(spin);
  }

 private:
  static void relax(int spin) {
    if (spin < kSpins) spin_pause();
    else sched_yield();
  }

  void resize(int count) {
    if (getpid() != owner_) {  // A fork has copied this object, but not the threads.
      for (auto& worker : workers_) worker.detach();
      workers_.clear();
      owner_ = getpid();
    }
    if (static_cast<int>(workers_.size()) == count) return;
    stop();
    stopping_.store(false);
    const uint32_t round = round_.load();
    for (int rank = 1; rank <= count; ++rank) workers_.emplace_back(&Team::work, this, rank, round);
  }

  void stop() {
    stopping_.store(true);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
  }

  void work(int rank, uint32_t seen) {
    for (;;) {
      for (int spin = 0; round_.load(std::memory_order_acquire) == seen; ++spin) {
        if (spin < kSpins) spin_pause();
        else round_.wait(seen, std::memory_order_acquire);
      }
      seen += 1;
      if (stopping_.load()) return;
      function_(argument_, *this, rank);
      working_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> workers_;
  pid_t owner_ = getpid();
  int size_ = 1;
  void (*function_)(void*, Team&, int) = nullptr;
  void* argument_ = nullptr;
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<int> working_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};
