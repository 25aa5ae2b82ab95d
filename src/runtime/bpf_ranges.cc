#include "runtime/bpf_ranges.h"

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <vector>

namespace kelp::runtime {
namespace {

using Program = std::vector<sock_filter>;

constexpr std::uint32_t kNrOffset = offsetof(seccomp_data, nr);
constexpr std::uint32_t kArchOffset = offsetof(seccomp_data, arch);
constexpr size_t kMaxSteps = BPF_MAXINSNS;  // jumps only go forward

Program decode(std::string_view bpf) {
  Program program(bpf.size() / sizeof(sock_filter));
  bpf.copy(reinterpret_cast<char*>(program.data()), program.size() * sizeof(sock_filter));
  return program;
}

std::string encode(const Program& program) {
  return {reinterpret_cast<const char*>(program.data()), program.size() * sizeof(sock_filter)};
}

/// true when A passes the test of a conditional jump with a constant.
std::optional<bool> test(const sock_filter& instruction, std::uint32_t a) {
  if (BPF_SRC(instruction.code) != BPF_K) return std::nullopt;
  switch (BPF_OP(instruction.code)) {
    case BPF_JEQ:
      return a == instruction.k;
    case BPF_JGT:
      return a > instruction.k;
    case BPF_JGE:
      return a >= instruction.k;
    case BPF_JSET:
      return (a & instruction.k) != 0;
    default:
      return std::nullopt;
  }
}

/// What a filter does for one architecture and number: an action, or from `fragment` on it looks at the arguments.
struct Outcome {
  bool fixed = true;
  std::uint32_t action = 0;
  size_t fragment = 0;
  bool operator==(const Outcome&) const = default;
};

/// Follows the filter as long as only arch and nr matter; nullopt when it meets something it does not know.
/// `numbers` collects the constants that nr is compared with.
std::optional<Outcome> follow(const Program& program, std::uint32_t arch, std::uint32_t nr,
                              std::set<std::uint32_t>* numbers, std::set<std::uint32_t>* archs) {
  std::uint32_t a = 0;
  bool holds_nr = false;
  size_t pc = 0;
  for (size_t steps = 0; steps < kMaxSteps && pc < program.size(); ++steps) {
    const sock_filter& instruction = program[pc];
    switch (BPF_CLASS(instruction.code)) {
      case BPF_LD:
        if (instruction.code != (BPF_LD | BPF_W | BPF_ABS)) return std::nullopt;
        if (instruction.k != kNrOffset && instruction.k != kArchOffset) return Outcome{false, 0, pc};
        holds_nr = instruction.k == kNrOffset;
        a = holds_nr ? nr : arch;
        ++pc;
        break;
      case BPF_JMP: {
        if (BPF_OP(instruction.code) == BPF_JA) {
          pc += 1 + instruction.k;
          break;
        }
        const auto passes = test(instruction, a);
        // Bit tests are not constant between two constants; libseccomp makes none on the number.
        if (!passes || BPF_OP(instruction.code) == BPF_JSET) return std::nullopt;
        if (std::set<std::uint32_t>* seen = holds_nr ? numbers : archs; seen != nullptr) seen->insert(instruction.k);
        pc += 1U + (*passes ? instruction.jt : instruction.jf);
        break;
      }
      case BPF_RET:
        if (BPF_RVAL(instruction.code) != BPF_K) return std::nullopt;
        return Outcome{true, instruction.k, 0};
      default:
        return std::nullopt;
    }
  }
  return std::nullopt;
}

/// The instructions that can be reached from `start`, in order, with their jumps made to fit.
std::optional<Program> extract(const Program& program, size_t start) {
  std::set<size_t> reached = {start};
  for (auto it = reached.begin(); it != reached.end(); ++it) {  // jumps go forward: insertions land behind `it`
    const size_t pc = *it;
    if (pc >= program.size()) return std::nullopt;
    const sock_filter& instruction = program[pc];
    switch (BPF_CLASS(instruction.code)) {
      case BPF_RET:
        break;
      case BPF_JMP:
        if (BPF_OP(instruction.code) == BPF_JA) {
          reached.insert(pc + 1 + instruction.k);
        } else {
          reached.insert(pc + 1 + instruction.jt);
          reached.insert(pc + 1 + instruction.jf);
        }
        break;
      default:
        reached.insert(pc + 1);
    }
  }
  std::map<size_t, size_t> place;
  for (const size_t pc : reached) place.emplace(pc, place.size());
  Program piece;
  for (const size_t pc : reached) {
    sock_filter instruction = program[pc];
    const size_t here = place[pc];
    if (BPF_CLASS(instruction.code) == BPF_JMP) {
      if (BPF_OP(instruction.code) == BPF_JA) {
        instruction.k = static_cast<__u32>(place[pc + 1 + instruction.k] - here - 1);
      } else {
        // Leaving out instructions only brings targets nearer, so the eight bits suffice.
        instruction.jt = static_cast<__u8>(place[pc + 1 + instruction.jt] - here - 1);
        instruction.jf = static_cast<__u8>(place[pc + 1 + instruction.jf] - here - 1);
      }
    }
    piece.push_back(instruction);
  }
  return piece;
}

struct Interval {
  std::uint32_t first;
  Outcome outcome;
};

/// Intervals of numbers with one outcome each, ascending, the first begins at 0.
std::optional<std::vector<Interval>> intervals_of(const Program& program, std::uint32_t arch) {
  // The constants are found by following; each new one may open a path with further ones, so until nothing is new.
  std::set<std::uint32_t> constants;
  std::set<std::uint32_t> tried;
  std::set<std::uint32_t> starts = {0};
  std::map<std::uint32_t, Outcome> outcome_at;
  while (starts.size() > tried.size()) {
    for (const std::uint32_t nr : std::set<std::uint32_t>(starts)) {
      if (!tried.insert(nr).second) continue;
      const auto outcome = follow(program, arch, nr, &constants, nullptr);
      if (!outcome) return std::nullopt;
      outcome_at[nr] = *outcome;
    }
    for (const std::uint32_t constant : constants) {
      starts.insert(constant);
      if (constant != UINT32_MAX) starts.insert(constant + 1);
    }
  }
  std::vector<Interval> intervals;
  for (const auto& [first, outcome] : outcome_at)
    if (intervals.empty() || intervals.back().outcome != outcome) intervals.push_back({first, outcome});
  return intervals;
}

bool emit_leaf(const Program& program, const Outcome& outcome, Program& out) {
  if (outcome.fixed) {
    out.push_back(BPF_STMT(BPF_RET | BPF_K, outcome.action));
    return true;
  }
  const auto piece = extract(program, outcome.fragment);
  if (!piece) return false;
  out.insert(out.end(), piece->begin(), piece->end());
  return true;
}

/// Binary search over [begin, end): A holds the number. Lower half first, then the upper one.
bool emit_search(const Program& program, const std::vector<Interval>& intervals, size_t begin, size_t end,
                 Program& out) {
  if (end - begin == 1) return emit_leaf(program, intervals[begin].outcome, out);
  const size_t middle = begin + (end - begin) / 2;
  Program lower;
  if (!emit_search(program, intervals, begin, middle, lower)) return false;
  const auto skip = static_cast<__u32>(lower.size());
  if (skip <= 255) {
    out.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, intervals[middle].first, static_cast<__u8>(skip), 0));
  } else {
    out.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, intervals[middle].first, 0, 1));
    out.push_back(BPF_STMT(BPF_JMP | BPF_JA, skip));
  }
  out.insert(out.end(), lower.begin(), lower.end());
  return emit_search(program, intervals, middle, end, out);
}

/// Architectures that the filter tells apart, found by following it with each constant it compares arch with.
std::optional<std::set<std::uint32_t>> architectures_of(const Program& program) {
  std::set<std::uint32_t> found;
  std::set<std::uint32_t> tried;
  std::set<std::uint32_t> to_try = {0};
  while (!to_try.empty()) {
    const std::uint32_t arch = *to_try.begin();
    to_try.erase(to_try.begin());
    if (!tried.insert(arch).second) continue;
    std::set<std::uint32_t> seen;
    if (!follow(program, arch, 0, nullptr, &seen)) return std::nullopt;
    for (const std::uint32_t other : seen) {
      found.insert(other);
      to_try.insert(other);
    }
  }
  return found;
}

std::optional<Program> rewrite(const Program& program) {
  const auto archs = architectures_of(program);
  if (!archs) return std::nullopt;
  Program out = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kArchOffset)};
  for (const std::uint32_t arch : *archs) {
    const auto intervals = intervals_of(program, arch);
    if (!intervals) return std::nullopt;
    Program search = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNrOffset)};
    if (!emit_search(program, *intervals, 0, intervals->size(), search)) return std::nullopt;
    out.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arch, 1, 0));
    out.push_back(BPF_STMT(BPF_JMP | BPF_JA, static_cast<__u32>(search.size())));
    out.insert(out.end(), search.begin(), search.end());
  }
  // Any other architecture: 0 stands for it, since no architecture has that number.
  const auto others = intervals_of(program, 0);
  if (!others || others->size() != 1 || !emit_leaf(program, (*others)[0].outcome, out)) return std::nullopt;
  return out;
}

/// Same answers on both sides of every boundary, with arguments of several kinds?
bool same_effect(const std::string& a, const std::string& b, const Program& program) {
  const auto archs = architectures_of(program);
  if (!archs) return false;
  std::set<std::uint32_t> all_archs = *archs;
  all_archs.insert({0, UINT32_MAX});
  std::set<std::uint64_t> values = {0, 1, UINT32_MAX, UINT64_MAX};
  for (const sock_filter& instruction : program)
    if (BPF_CLASS(instruction.code) == BPF_JMP && BPF_OP(instruction.code) != BPF_JA && values.size() < 64)
      if (instruction.k > 1000 || instruction.k < 64) values.insert(instruction.k);
  for (const std::uint32_t arch : all_archs) {
    const auto intervals = intervals_of(program, arch);
    if (!intervals) return false;
    for (const Interval& interval : *intervals)
      for (const std::uint32_t nr : {interval.first, interval.first + 1, interval.first - 1}) {
        BpfInput input;
        input.nr = nr;
        input.arch = arch;
        if (run_bpf(a, input) != run_bpf(b, input)) return false;
        if (interval.outcome.fixed) continue;
        for (const std::uint64_t value : values)
          for (auto& arg : input.args) {
            arg = value;
            if (run_bpf(a, input) != run_bpf(b, input)) return false;
          }
      }
  }
  return true;
}

}  // namespace

std::uint32_t run_bpf(std::string_view bpf, const BpfInput& input) {
  const Program program = decode(bpf);
  seccomp_data data{};
  data.nr = static_cast<int>(input.nr);
  data.arch = input.arch;
  data.instruction_pointer = input.instruction_pointer;
  std::memcpy(data.args, input.args, sizeof data.args);
  std::uint32_t a = 0;
  for (size_t pc = 0; pc < program.size();) {
    const sock_filter& instruction = program[pc];
    switch (BPF_CLASS(instruction.code)) {
      case BPF_LD:
        if (instruction.code != (BPF_LD | BPF_W | BPF_ABS) || instruction.k > sizeof data - 4) return 0;
        std::memcpy(&a, reinterpret_cast<const char*>(&data) + instruction.k, 4);
        ++pc;
        break;
      case BPF_ALU:
        if (instruction.code != (BPF_ALU | BPF_AND | BPF_K)) return 0;
        a &= instruction.k;
        ++pc;
        break;
      case BPF_JMP: {
        if (BPF_OP(instruction.code) == BPF_JA) {
          pc += 1 + instruction.k;
          break;
        }
        const auto passes = test(instruction, a);
        if (!passes) return 0;
        pc += 1U + (*passes ? instruction.jt : instruction.jf);
        break;
      }
      case BPF_RET:
        return BPF_RVAL(instruction.code) == BPF_A ? a : instruction.k;
      default:
        return 0;
    }
  }
  return 0;
}

std::string with_binary_search(std::string bpf) {
  const Program program = decode(bpf);
  const auto shorter = rewrite(program);
  if (!shorter || shorter->size() >= program.size() + 64 || shorter->size() > BPF_MAXINSNS) return bpf;
  std::string result = encode(*shorter);
  return same_effect(bpf, result, program) ? result : bpf;
}

}  // namespace kelp::runtime
