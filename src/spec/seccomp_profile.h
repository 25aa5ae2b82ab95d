#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "spec/runtime_config.h"

namespace kelp::spec {

/// What a profile in Docker's form depends on.
///
/// caps  bit per capability that the container's bounding set has (includes/excludes "caps")
/// arch  Go's name of the machine: amd64, arm64, … (includes/excludes "arches")
struct ProfileTarget {
  std::uint64_t caps = 0;
  std::string arch;
};

/// Go's name of the machine this program was built for: "amd64", "arm64", …
std::string_view native_arch() noexcept;

/// Converts a profile in Docker's form (archMap, includes, excludes, minKernel) to linux.seccomp for a target.
/// A plain OCI profile passes through unchanged. Errors name the JSON path, as parse_runtime_config's do.
Seccomp load_docker_profile(std::string_view text, const ProfileTarget& target);

/// kelp's own default profile (contrib/seccomp.json), compiled in: the same as load_docker_profile of that file.
Seccomp default_seccomp_profile(const ProfileTarget& target);
/// The default one without the calls that reach into other processes, widen the kernel's surface beyond what servers
/// and tools need, or tell of the host: io_uring, ptrace, userfaultfd, keys, handles of files, NUMA.
Seccomp hardened_seccomp_profile(const ProfileTarget& target);
/// contrib/seccomp.json without its comments and white space.
std::string_view default_seccomp_profile_text() noexcept;

}  // namespace kelp::spec
