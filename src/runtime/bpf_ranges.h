#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kelp::runtime {

/// Input of a seccomp filter. source: linux/seccomp.h, struct seccomp_data
struct BpfInput {
  std::uint32_t nr = 0, arch = 0;
  std::uint64_t instruction_pointer = 0;
  std::uint64_t args[6] = {};
};

/// Runs a seccomp filter (array of struct sock_filter, in bytes) as the kernel would; 0 (kill) for a broken program.
std::uint32_t run_bpf(std::string_view bpf, const BpfInput& input);

/// Rewrites a filter into one of equal effect that finds the action of a system call by binary search over ranges of
/// numbers. libseccomp compares the number with each of some 370 numbers per architecture; the kernel runs a filter
/// for every number when it is loaded (to remember which are always allowed), so a long chain costs 0.3 ms per start.
///
/// The rewriting reads nothing but the filter: it runs it for one number of each interval between the constants that
/// it compares with, keeps the pieces that look at arguments as they are, and returns the filter unchanged when it
/// meets an instruction it does not know, or when the result differs from the original on any tried input.
std::string with_binary_search(std::string bpf);

}  // namespace kelp::runtime
