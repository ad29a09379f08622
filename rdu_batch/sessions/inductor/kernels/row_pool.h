// The threads of the decode kernels, and what they do while there is nothing to do.
//
// A token is a chain of some hundred short calls with serial work between them. Threads of OpenMP
// would idle there; these read the weights of the next call into their own cache meanwhile, which at
// two threads is worth a sixth of a token (tests/benchmarks/LOG.md).
//
// Promises: a call ends when all of its work is done, whether or not a worker ever shows up: the
// calling thread takes what is left, so sleeping or descheduled workers cost speed alone. Reading
// ahead is a hint to the processor and cannot fault. Does not: decide how many threads there are;
// torch.set_num_threads does.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include <omp.h>

namespace rdu_batch {

constexpr int kMostThreads = 256;

// Memory that a later call will read from its beginning: one worker's share of it.
struct Ahead {
  const char* memory = nullptr;
  int64_t num_bytes = 0;
};

// Work of one call: `run` is called once by each thread that takes part, with that thread's number.
struct Call {
  void (*run)(void* context, int thread) = nullptr;
  void* context = nullptr;
  int threads = 0;
  const std::vector<Ahead>* ahead = nullptr;  // One for each thread; outlives the program.
};

class Pool {
 public:
  // Never destroyed: workers may still look at it while the process ends.
  static Pool& get() {
    static Pool* pool = new Pool();
    return *pool;
  }

  // Runs a call on this thread and on all workers that are awake. One caller at a time: others wait.
  void run(const Call& call) {
    if (call.threads <= 1) {
      call.run(call.context, 0);
      return;
    }
    std::lock_guard<std::mutex> one_caller(callers_);
    start_workers(call.threads - 1);
    call_ = call;
    number_.fetch_add(1);  // Odd: open.
    if (sleeping_.load() > 0) wake();
    call.run(call.context, 0);
    number_.fetch_add(1);  // Even: closed; who is inside finishes, nobody else enters.
    if (call.ahead) read_ahead((*call.ahead)[0], [&] { return inside_.load() == 0; });
    while (inside_.load() > 0) pause();
  }

 private:
  static constexpr int64_t kAheadBytes = 512 * 1024;  // Half of a usual core's own cache.
  static constexpr auto kSpin = std::chrono::microseconds(500);

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void start_workers(int count) {
    while (num_workers_ < count) std::thread(&Pool::work, this, ++num_workers_).detach();
  }

  void wake() {
    { std::lock_guard<std::mutex> lock(sleep_); }
    awake_.notify_all();
  }

  void work(int thread) {
    uint64_t done = 0;
    for (;;) {
      uint64_t number = wait_for_call(done);
      inside_.fetch_add(1);
      // Counted before looking again: either the caller sees this thread inside and waits for it,
      // or this thread sees that the call is closed.
      Ahead ahead;
      if (number_.load() == number) {
        if (thread < call_.threads) {
          if (call_.ahead) ahead = (*call_.ahead)[thread];
          call_.run(call_.context, thread);
        }
        done = number;
      }
      inside_.fetch_sub(1);
      // Until the next call is open.
      read_ahead(ahead, [&] { return number_.load(std::memory_order_relaxed) > number + 1; });
    }
  }

  // Spins for a while, then sleeps: a session between rows should not heat a core.
  uint64_t wait_for_call(uint64_t done) {
    auto until = std::chrono::steady_clock::now() + kSpin;
    for (int turn = 1;; turn++) {
      uint64_t number = number_.load();
      if ((number & 1) && number != done) return number;
      pause();
      if (turn % 64 == 0 && std::chrono::steady_clock::now() > until) break;
    }
    std::unique_lock<std::mutex> lock(sleep_);
    sleeping_.fetch_add(1);
    uint64_t number;
    awake_.wait(lock, [&] {
      number = number_.load();
      return (number & 1) && number != done;
    });
    sleeping_.fetch_sub(1);
    return number;
  }

  template <typename Until>
  static void read_ahead(const Ahead& ahead, Until until) {
    int64_t end = std::min(ahead.num_bytes, kAheadBytes);
    for (int64_t i = 0; i < end && !until(); i += 1024)
      for (int64_t line = i; line < i + 1024; line += 64)
        __builtin_prefetch(ahead.memory + line, 0, 2);
  }

  std::mutex callers_, sleep_;
  std::condition_variable awake_;
  Call call_;
  int num_workers_ = 0;
  alignas(64) std::atomic<uint64_t> number_{0};
  alignas(64) std::atomic<int> inside_{0};
  alignas(64) std::atomic<int> sleeping_{0};
};

// Calls `each(begin, end)` until 0 .. total is covered. Each thread has a share of its own, taken in
// runs; who is done early takes runs of the others' shares, so a slow core keeps nobody waiting.
// `longest` and `shortest` are lengths of a run: one's own, and one taken from another.
template <typename Each>
class Shares {
 public:
  Shares(Each& each, int64_t total, int threads, int64_t longest, int64_t shortest)
      : each_(each), threads_(threads), longest_(longest), shortest_(shortest) {
    for (int t = 0; t < threads; t++) {
      shares_[t].next.store(total * t / threads, std::memory_order_relaxed);
      shares_[t].end = total * (t + 1) / threads;
    }
  }

  static void run(void* context, int thread) {
    Shares& all = *(Shares*)context;
    for (int k = 0; k < all.threads_; k++)
      all.take(all.shares_[(thread + k) % all.threads_], k == 0 ? all.longest_ : all.shortest_);
  }

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> next;  // Left unset where there is no thread: most of them.
    int64_t end;
  };

  void take(Share& share, int64_t longest) {
    for (;;) {
      // Toward the end of a share runs get short, so that they can be shared out evenly.
      int64_t begin = share.next.load(std::memory_order_relaxed), run;
      do {
        if (begin >= share.end) return;
        run = std::max(shortest_, std::min(longest, (share.end - begin) / 2));
      } while (!share.next.compare_exchange_weak(begin, begin + run, std::memory_order_relaxed));
      each_(begin, std::min(share.end, begin + run));
    }
  }

  Each& each_;
  int threads_;
  int64_t longest_, shortest_;
  Share shares_[kMostThreads];
};

inline int num_threads() { return std::min(omp_get_max_threads(), kMostThreads); }

template <typename Each>
void for_all(Each each, int64_t total, int threads, int64_t longest, int64_t shortest,
             const std::vector<Ahead>* ahead = nullptr) {
  if (threads <= 1) {
    each(0, total);
    return;
  }
  Shares<Each> shares(each, total, threads, longest, shortest);
  Pool::get().run({&Shares<Each>::run, &shares, threads, ahead});
}

}  // namespace rdu_batch
