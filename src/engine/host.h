#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cgroup/cgroup.h"
#include "sys/idmap.h"
#include "sys/namespace_trial.h"

namespace kelp::engine {

struct GlobalOptions;

/// A value found out on first use and kept.
template <typename T>
class Lazy {
 public:
  using Find = T (*)(const GlobalOptions&);
  Lazy(std::shared_ptr<const GlobalOptions> options, Find find) : options_(std::move(options)), find_(find) {}
  const T& get() const {
    if (!value_) value_ = std::make_unique<T>(find_(*options_));
    return *value_;
  }

 private:
  std::shared_ptr<const GlobalOptions> options_;
  Find find_;
  mutable std::unique_ptr<T> value_;
};

struct KernelFacts {
  std::string release;
  int major = 0, minor = 0;
  std::string machine;  ///< uname: x86_64
};

struct CgroupFacts {
  std::string version;  ///< v2, hybrid, v1, none
  cgroup::Place place;  ///< the best rung of the ladder that works here
};

struct NetworkToolFacts {
  std::string path;     ///< "" = not found
  std::string version;  ///< "1.2.0"; asked only by version()
};

struct SecurityModules {
  bool selinux = false;
  bool apparmor = false;
  bool apparmor_restricts_userns = false;  ///< kernel.apparmor_restrict_unprivileged_userns = 1
};

enum class UserNamespaceLevel {
  full,       ///< subordinate ids and helpers that can map them
  single_id,  ///< only the caller's id
  none,       ///< unshare(CLONE_NEWUSER) is refused
};

struct UserNamespaceFacts {
  UserNamespaceLevel level = UserNamespaceLevel::full;
  std::string why;   ///< for single_id and none: what is missing
  std::string hint;  ///< the command that lifts it
  sys::IdMaps maps;  ///< of S
};

/// What the host can do. Each member is a question that costs something, asked once, only when needed.
struct HostFacts {
  explicit HostFacts(const GlobalOptions& options);

  uid_t uid;
  gid_t gid;
  std::string user_name, home;  ///< of the caller; name is the number when the passwd file has none
  Lazy<KernelFacts> kernel;
  Lazy<CgroupFacts> cgroup;
  Lazy<NetworkToolFacts> slirp4netns;
  Lazy<std::string> slirp4netns_version;
  Lazy<SecurityModules> security;
  /// By files alone (ranges, helper programs); that unshare works shows when it is tried.
  Lazy<UserNamespaceFacts> userns;
  Lazy<sys::NamespaceTrial> trial;  ///< by trying
  Lazy<bool> tun;                   ///< /dev/net/tun can be opened
  Lazy<bool> fuse;                  ///< /dev/fuse can be opened
  Lazy<std::string> host_name;
  Lazy<int> cpus;

 private:
  explicit HostFacts(const std::shared_ptr<const GlobalOptions>& options);
};

/// At which level user namespaces work here, by files and by trying: for people who ask, and after a failure.
struct UserNamespaceState {
  UserNamespaceLevel level = UserNamespaceLevel::full;
  std::string why, hint;  ///< "" with the full level
};
UserNamespaceState user_namespace_state(const HostFacts& host);
const char* level_name(UserNamespaceLevel level) noexcept;  ///< "full", "single-id", "none"

/// This process runs in a container of another engine.
bool is_nested();

}  // namespace kelp::engine
