#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/text.h"
#include "engine/make_spec.h"
#include "sys/capability.h"

namespace kelp::engine {

namespace {

// What podman and docker leave a container: enough for package managers and daemons, nothing that reaches the host.
constexpr std::array kDefaultCapabilities = {"CAP_CHOWN",   "CAP_DAC_OVERRIDE",     "CAP_FOWNER",    "CAP_FSETID",
                                             "CAP_KILL",    "CAP_NET_BIND_SERVICE", "CAP_SETFCAP",   "CAP_SETGID",
                                             "CAP_SETPCAP", "CAP_SETUID",           "CAP_SYS_CHROOT"};

std::uint64_t bit_of(std::string_view name) {
  const auto bit = sys::capability_from_name(name);
  if (!bit) throw_usage("unknown capability {}", quoted(name));
  return std::uint64_t{1} << static_cast<unsigned>(*bit);
}

bool is_all(const std::string& name) { return to_lower(name) == "all"; }

void add_paths(store::Strings& to, std::string_view value) {
  for (std::string& path : split(value, ':')) {
    if (path.empty() || (path.front() != '/' && to_lower(path) != "all"))
      throw_usage("--security-opt mask and unmask take absolute paths: {}", quoted(path));
    to.push_back(to_lower(path) == "all" ? "ALL" : std::move(path));
  }
}

}  // namespace

std::uint64_t wanted_capabilities(const store::ContainerConfig& config, std::uint64_t known_caps) {
  std::uint64_t caps = 0;
  for (const char* name : kDefaultCapabilities) caps |= bit_of(name);
  if (config.privileged) caps = known_caps;
  // A name in both lists would depend on their order; podman refuses it too.
  for (const std::string& add : config.cap_add)
    for (const std::string& drop : config.cap_drop)
      if (!is_all(add) && !is_all(drop) && bit_of(add) == bit_of(drop))
        throw_usage("capability {} cannot be dropped and added", quoted(add));
  const bool add_all = std::any_of(config.cap_add.begin(), config.cap_add.end(), is_all);
  const bool drop_all = std::any_of(config.cap_drop.begin(), config.cap_drop.end(), is_all);
  if (drop_all) caps = 0;
  if (add_all) caps = known_caps;
  for (const std::string& name : config.cap_drop)
    if (!is_all(name)) caps &= ~bit_of(name);
  for (const std::string& name : config.cap_add)
    if (!is_all(name)) caps |= bit_of(name);
  return caps & known_caps;
}

SecurityOptions parse_security_options(const store::Strings& options) {
  SecurityOptions parsed;
  for (const std::string& option : options) {
    // Docker's old spelling has a colon: "seccomp:unconfined".
    const size_t at = option.find_first_of("=:");
    const std::string name = option.substr(0, at);
    const std::string value = at == std::string::npos ? "" : option.substr(at + 1);
    if (name == "no-new-privileges") {
      const auto flag = value.empty() ? std::optional(true) : to_bool(value);
      if (!flag) throw_usage("--security-opt no-new-privileges: {} is not true or false", quoted(value));
      parsed.no_new_privileges = *flag;
    } else if (name == "seccomp" && !value.empty()) {
      parsed.seccomp = value;
    } else if (name == "apparmor" && !value.empty()) {
      parsed.apparmor = value;
    } else if (name == "label" && !value.empty()) {
      if (value == "disable")
        parsed.label_disable = true;
      else if (value == "nested")  // whoever sees this directory takes SELinux for enabled, and sets labels
        parsed.unmask.emplace_back("/sys/fs/selinux");
      else
        parsed.labels.push_back(value);
    } else if (name == "mask" && !value.empty()) {
      add_paths(parsed.mask, value);
    } else if (name == "unmask" && !value.empty()) {
      add_paths(parsed.unmask, value);
    } else if (name == "proc-opts" && !value.empty()) {
      parsed.proc_options = split(value, ',');
    } else if (name == "systempaths" && value == "unconfined") {
      parsed.unmask.emplace_back("ALL");
    } else {
      throw_usage("invalid --security-opt {}", quoted(option));
    }
  }
  (void)selinux_labels(parsed.labels, "s0");  // the words are judged on every host
  return parsed;
}

SelinuxLabels selinux_labels(const store::Strings& labels, const std::string& own_level) {
  std::string user = "system_u", role = "system_r", type = "container_t", file_type = "container_file_t";
  std::string level = own_level;
  for (const std::string& label : labels) {
    const size_t colon = label.find(':');
    const std::string name = label.substr(0, colon);
    std::string* const part = name == "user"       ? &user
                              : name == "role"     ? &role
                              : name == "type"     ? &type
                              : name == "level"    ? &level
                              : name == "filetype" ? &file_type
                                                   : nullptr;
    if (part == nullptr || colon == std::string::npos || colon + 1 == label.size())
      throw_usage("--security-opt label={}: disable, nested, user:, role:, type:, level: and filetype: are possible",
                  quoted(label));
    *part = label.substr(colon + 1);
  }
  return {fmt::format("{}:{}:{}:{}", user, role, type, level), fmt::format("{}:object_r:{}:{}", user, file_type, level),
          fmt::format("{}:object_r:{}:s0", user, file_type)};
}

std::string selinux_level(std::string_view container_id) {
  std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
  for (const char letter : container_id) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3U;
  const std::uint64_t one = hash % 1024;
  const std::uint64_t other = (one + 1 + (hash >> 32U) % 1023) % 1024;
  return fmt::format("s0:c{},c{}", std::min(one, other), std::max(one, other));  // the kernel wants them in order
}

spec::Seccomp with_faked_ids(std::optional<spec::Seccomp> base) {
  static const store::Strings kCalls = {"chown",       "chown32",     "fchown",     "fchown32",    "lchown",
                                        "lchown32",    "fchownat",    "setuid",     "setuid32",    "setgid",
                                        "setgid32",    "setreuid",    "setreuid32", "setregid",    "setregid32",
                                        "setresuid",   "setresuid32", "setresgid",  "setresgid32", "setgroups",
                                        "setgroups32", "setfsuid",    "setfsuid32", "setfsgid",    "setfsgid32"};
  spec::Seccomp filter = base ? std::move(*base) : spec::Seccomp{};
  for (spec::SeccompRule& rule : filter.syscalls)
    std::erase_if(rule.names,
                  [](const std::string& name) { return std::count(kCalls.begin(), kCalls.end(), name) > 0; });
  std::erase_if(filter.syscalls, [](const spec::SeccompRule& rule) { return rule.names.empty(); });
  spec::SeccompRule faked;
  faked.names = kCalls;
  faked.action = spec::SeccompAction::error;
  faked.errno_ret = 0;  // "error 0" is success without the call
  filter.syscalls.push_back(std::move(faked));
  return filter;
}

}  // namespace kelp::engine
