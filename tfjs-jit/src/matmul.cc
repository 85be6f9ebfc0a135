// Matrix products for compiled programs on a CPU, as a custom call of XLA. XLA's own products of many rows are as fast where
// it has them in AVX-512, but it makes a float32 copy of a bfloat16 factor first, and multiplies few rows slowly; these do neither.
//
//   custom call "heddle_matmul": (a, b) -> c        c[i] = a[i] @ b[i] for each of `batch` pairs of matrices, float32
//   a, b: float32 or bfloat16, row by row, transposed where its text says so:
//   text: "batch m n k", then 0 or 1 for each of: a is transposed, b is transposed, a is bfloat16, b is bfloat16
//
// The same bits on any number of threads. Other bits for another m: few rows are multiplied by other loops than many.

#include "custom-calls.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <sched.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// TensorFlow's thread pool, of which the wheel has no header that compiles alone (xla/tsl/platform/threadpool.h).
namespace tsl {
class Env {
 public:
  static Env *Default();
};
namespace thread {
class ThreadPool {
 public:
  ThreadPool(Env *env, const std::string &name, int threads);
  void Schedule(std::function<void()> task);

 private:
  void *members_[8];  // at least as large as it is
};
}  // namespace thread
}  // namespace tsl

namespace heddle {

// What is known here of the pools that XLA's programs run on, and of their threads (Eigen/src/ThreadPool in TensorFlow 2.21). Not
// in the namespace below, for in that a compiler may take it for granted that it sees all classes derived from this one.
class Pool {
 public:
  virtual void Schedule(std::function<void()> task) = 0;
  virtual void ScheduleWithHint(std::function<void()> task, int start, int end) = 0;
  virtual void Cancel() = 0;
  virtual int NumThreads() const = 0;
};

// A thread of Eigen's, as it knows itself.
struct PoolThread {
  Pool *pool;  // null for a thread that is in none
  uint64_t random;
  int number;
};
extern __thread PoolThread this_thread asm("_ZZN5Eigen15ThreadPoolTemplIN3tsl6thread16EigenEnvironmentEE12GetPerThreadEvE11per_thread_");

namespace {

// ---- Threads: those of the pool that the program runs on. Others would be in the way of its threads, which stay awake for a
// while to look for work. A program that runs on a thread of no pool, such as the main one, has ours.

int OwnThreads() {
  static const int threads = [] {
    cpu_set_t set;
    const char *const told = std::getenv("TF_NUM_INTRAOP_THREADS");
    if (told && std::atoi(told) > 0) return std::atoi(told);
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  }();
  return threads;
}

int Threads() { return this_thread.pool ? this_thread.pool->NumThreads() : OwnThreads(); }

void Schedule(std::function<void()> task) {
  if (this_thread.pool) return this_thread.pool->Schedule(std::move(task));
  // It lives as long as the process.
  static auto *const own = new tsl::thread::ThreadPool(tsl::Env::Default(), "heddle", OwnThreads() - 1);
  own->Schedule(std::move(task));
}

// Runs tasks on all threads, this one among them.
template <typename Task>
void RunAll(int tasks, const Task &task) {
  struct State {
    std::atomic<int> next{0}, done{0};
  };
  const auto state = std::make_shared<State>();
  // A thread that comes too late finds no task left, and `task` may be gone by then.
  const auto take = [state, tasks, &task] {
    for (int i = state->next++; i < tasks; i = state->next++) {
      task(i);
      state->done.fetch_add(1, std::memory_order_release);
    }
  };
  const int helpers = std::min(Threads(), tasks) - 1;
  for (int i = 0; i < helpers; i++) Schedule(take);
  take();
  while (state->done.load(std::memory_order_acquire) < tasks) std::this_thread::yield();
}

// ---- Data

struct Bfloat16 {
  uint16_t bits;
};

inline float ToFloat(float value) { return value; }
inline float ToFloat(Bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float number;
  __builtin_memcpy(&number, &bits, sizeof number);
  return number;
}

struct Product {
  int64_t batch, m, n, k;
  int64_t a_row, a_column, b_row, b_column;  // distances in elements
};

using Kernel = void (*)(const Product &, const void *a, const void *b, float *c);

// Memory of a thread, on a cache line, kept for the next product.
class AlignedFloats {
 public:
  explicit AlignedFloats(size_t count) : memory_(count + 16) {}
  float *data() { return reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(memory_.data()) + 63) / 64 * 64); }

 private:
  std::vector<float> memory_;
};

constexpr int kDepth = 256;    // a panel of the right factor takes most of a first-level cache
constexpr int kFewRows = 16;   // up to here a product costs what reading its weights costs

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
namespace avx512 {
#define LANES 16
constexpr int ROWS = 14;
#include "matmul-kernels.h"
#undef LANES
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#define LANES 8
constexpr int ROWS = 6;
#include "matmul-kernels.h"
#undef LANES
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__

// By whether each factor is bfloat16; null on a processor for which readsBfloat16On (processor.ts) says no.
const Kernel (*KernelsOfThisMachine())[2] {
#if defined(__x86_64__)
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512) return avx512::kKernels;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::kKernels;
#endif
  return nullptr;
}

const Kernel (*const kernels)[2] = KernelsOfThisMachine();

}  // namespace

void MatMul(void *result, const void **operands, const char *text, size_t length, void *status) {
  Product p;
  int is_transposed_a, is_transposed_b, is_bfloat16_a, is_bfloat16_b;
  std::istringstream(std::string(text, length)) >> p.batch >> p.m >> p.n >> p.k >> is_transposed_a >> is_transposed_b >>
      is_bfloat16_a >> is_bfloat16_b;
  p.a_row = is_transposed_a ? 1 : p.k, p.a_column = is_transposed_a ? p.m : 1;
  p.b_row = is_transposed_b ? 1 : p.n, p.b_column = is_transposed_b ? p.k : 1;
  kernels[is_bfloat16_a][is_bfloat16_b](p, operands[0], operands[1], ResultOf<float>(result, status));
}

}  // namespace heddle
