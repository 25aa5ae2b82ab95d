#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/owned.h"
#include "spec/runtime_config.h"

namespace kelp::runtime {

/// A compiled filter, ready for seccomp(2).
///
/// bpf          array of struct sock_filter, in bytes; empty = no filter
/// flags        SECCOMP_FILTER_FLAG_* for seccomp(2); NEW_LISTENER when a rule notifies
/// listener     true when install_seccomp() returns a descriptor for listener_path
struct SeccompProgram {
  std::string bpf;
  unsigned flags = 0;
  bool listener = false;
  std::string listener_path, listener_metadata;
  [[nodiscard]] bool empty() const noexcept { return bpf.empty(); }
};

/// All of compile_seccomp() but the filter itself: flags and listener, checked.
SeccompProgram describe_seccomp(const spec::Seccomp& profile);

/// Profile → BPF by libseccomp; syscalls it does not know are skipped (as the specification allows), a bad
/// architecture, flag or operator is an Error naming it.
SeccompProgram compile_seccomp(const spec::Seccomp& profile);

/// As compile_seccomp, through a cache of finished filters: key = hash of profile, architecture and libseccomp version,
/// published by rename; a damaged file (checksum) is rebuilt. cache_dir "" or unusable = compile.
SeccompProgram cached_seccomp(const spec::Seccomp& profile, const std::string& cache_dir);

/// Directory for the cache: $KELP_SECCOMP_CACHE, else $XDG_CACHE_HOME/kelp/seccomp, else $HOME/.cache/kelp/seccomp; ""
/// if none of them is set. Not created here.
std::string seccomp_cache_dir();

/// Loads the filter into this process. Without no_new_privs it needs CAP_SYS_ADMIN in the user namespace.
/// returns the notify descriptor when program.listener, else an empty Fd
Fd install_seccomp(const SeccompProgram& program);

/// Connects to listener_path and hands it the notify descriptor with the container process state (JSON).
/// throws SysError naming the path.
void send_seccomp_listener(const std::string& listener_path, int notify_fd, const std::string& state_json);

/// Names for `features`: actions, operators, architectures and flags that this build and kernel know.
std::vector<std::string> seccomp_known_flags();
std::vector<std::string> seccomp_supported_flags();
std::vector<std::string> seccomp_known_archs();
std::string seccomp_library_version();

}  // namespace kelp::runtime
