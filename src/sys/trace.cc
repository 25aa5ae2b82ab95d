#include "sys/trace.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/owned.h"

namespace kelp::sys {
namespace {

constexpr unsigned kSlots = 120;  // of about forty that a start needs; what comes after is lost

struct Slot {
  std::atomic<int> ready;  ///< the members below are whole
  std::atomic<std::int64_t> took;
  std::int64_t started;
  bool failed;
  char program[12];
  char name[48];
};
struct Page {
  std::atomic<unsigned> used;
  Slot slots[kSlots];
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<unsigned>::is_always_lock_free);

Page* current = nullptr;
const char* current_program = "";

void note(const char* name, std::int64_t started, std::int64_t took, bool failed) noexcept {
  const unsigned at = current->used.fetch_add(1);
  if (at >= kSlots) return;
  Slot& slot = current->slots[at];
  slot.started = started;
  slot.took = took;
  slot.failed = failed;
  // The last byte stays 0, as the memory came.
  std::strncpy(slot.program, current_program, sizeof slot.program - 1);
  std::strncpy(slot.name, name, sizeof slot.name - 1);
  slot.ready.store(1);
}

void note_step(const char* name, long micros, bool failed) {
  if (current != nullptr) note(name, kelp::detail::step_clock_micros() - micros, micros, failed);
}

}  // namespace

TracePage::TracePage(int fd) {
  const int kind = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
  void* const memory = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, kind, fd, 0);
  if (memory == MAP_FAILED) throw_errno("map the memory of a trace");
  memory_ = memory;
}

TracePage::TracePage(TracePage&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}

TracePage::~TracePage() {
  if (memory_ == nullptr) return;
  if (current == memory_) {
    current = nullptr;
    set_step_listener(nullptr);
  }
  ::munmap(memory_, sizeof(Page));
}

TracePage TracePage::anonymous() { return TracePage(-1); }

TracePage TracePage::file(const std::string& path, bool make) {
  const Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | (make ? O_CREAT | O_EXCL : 0), 0600));
  if (!fd) throw_errno("open the trace {}", path);
  if (::ftruncate(fd.get(), sizeof(Page)) < 0) throw_errno("make room in the trace {}", path);
  return TracePage(fd.get());
}

void TracePage::listen(const char* program) {
  current = static_cast<Page*>(memory_);
  current_program = program;
  set_step_listener(note_step);
}

std::vector<TraceEntry> TracePage::entries() const {
  const Page& page = *static_cast<const Page*>(memory_);
  std::vector<TraceEntry> found;
  const unsigned used = std::min(page.used.load(), kSlots);
  for (unsigned i = 0; i < used; ++i) {
    const Slot& slot = page.slots[i];
    if (slot.ready.load() == 0) continue;
    found.push_back({slot.started, slot.took.load(), slot.failed, slot.program, slot.name});
  }
  return found;
}

void trace_begin(const char* name) noexcept {
  if (current != nullptr) note(name, kelp::detail::step_clock_micros(), -1, false);
}

void trace_end(const char* name) noexcept {
  if (current == nullptr) return;
  const unsigned used = std::min(current->used.load(), kSlots);
  for (unsigned i = 0; i < used; ++i) {
    Slot& slot = current->slots[i];
    if (slot.ready.load() != 0 && slot.took == -1 && std::strcmp(slot.name, name) == 0)
      slot.took = kelp::detail::step_clock_micros() - slot.started;
  }
}

}  // namespace kelp::sys
