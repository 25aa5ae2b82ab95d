#include "sys/capability.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "base/error.h"
#include "base/text.h"
#include "sys/procfs.h"

namespace kelp::sys {
namespace {

/// In bit order, without CAP_. source: linux/capability.h
constexpr std::array<std::string_view, 41> kNames = {"CHOWN",
                                                     "DAC_OVERRIDE",
                                                     "DAC_READ_SEARCH",
                                                     "FOWNER",
                                                     "FSETID",
                                                     "KILL",
                                                     "SETGID",
                                                     "SETUID",
                                                     "SETPCAP",
                                                     "LINUX_IMMUTABLE",
                                                     "NET_BIND_SERVICE",
                                                     "NET_BROADCAST",
                                                     "NET_ADMIN",
                                                     "NET_RAW",
                                                     "IPC_LOCK",
                                                     "IPC_OWNER",
                                                     "SYS_MODULE",
                                                     "SYS_RAWIO",
                                                     "SYS_CHROOT",
                                                     "SYS_PTRACE",
                                                     "SYS_PACCT",
                                                     "SYS_ADMIN",
                                                     "SYS_BOOT",
                                                     "SYS_NICE",
                                                     "SYS_RESOURCE",
                                                     "SYS_TIME",
                                                     "SYS_TTY_CONFIG",
                                                     "MKNOD",
                                                     "LEASE",
                                                     "AUDIT_WRITE",
                                                     "AUDIT_CONTROL",
                                                     "SETFCAP",
                                                     "MAC_OVERRIDE",
                                                     "MAC_ADMIN",
                                                     "SYSLOG",
                                                     "WAKE_ALARM",
                                                     "BLOCK_SUSPEND",
                                                     "AUDIT_READ",
                                                     "PERFMON",
                                                     "BPF",
                                                     "CHECKPOINT_RESTORE"};

bool equal_ignoring_case(std::string_view upper, std::string_view text) {
  if (upper.size() != text.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i] >= 'a' && text[i] <= 'z' ? static_cast<char>(text[i] - 'a' + 'A') : text[i];
    if (c != upper[i]) return false;
  }
  return true;
}

std::uint64_t bits_up_to(int last) { return last >= 63 ? ~0ULL : (1ULL << (last + 1)) - 1; }

}  // namespace

std::optional<int> capability_from_name(std::string_view name) {
  if (name.size() > 4 && equal_ignoring_case("CAP_", name.substr(0, 4))) name.remove_prefix(4);
  for (size_t i = 0; i < kNames.size(); ++i)
    if (equal_ignoring_case(kNames[i], name)) return static_cast<int>(i);
  return std::nullopt;
}

std::string capability_name(int bit) {
  if (bit >= 0 && static_cast<size_t>(bit) < kNames.size())
    return "CAP_" + std::string(kNames[static_cast<size_t>(bit)]);
  return fmt::format("CAP_{}", bit);
}

const std::vector<std::string>& capability_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (size_t i = 0; i < kNames.size(); ++i) all.push_back(capability_name(static_cast<int>(i)));
    return all;
  }();
  return names;
}

std::uint64_t known_caps() {
  static const std::uint64_t known = [] {
    std::optional<std::string> text;
    try {
      text = try_read_file("/proc/sys/kernel/cap_last_cap", 64);
    } catch (const Error&) {  // a masked /proc: ask the kernel bit by bit instead
    }
    if (text)
      if (const auto last = to_int(trim(*text), 0, 63)) return bits_up_to(static_cast<int>(*last));
    int last = -1;
    while (last < 63 && ::prctl(PR_CAPBSET_READ, last + 1, 0, 0, 0) >= 0) ++last;
    return last < 0 ? 0 : bits_up_to(last);
  }();
  return known;
}

CapSets current_caps() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (::syscall(SYS_capget, &header, data.data()) < 0) throw_errno("read the capabilities of this process");
  const auto both = [](__u32 low, __u32 high) { return static_cast<std::uint64_t>(high) << 32 | low; };
  CapSets sets;
  sets.effective = both(data[0].effective, data[1].effective);
  sets.permitted = both(data[0].permitted, data[1].permitted);
  sets.inheritable = both(data[0].inheritable, data[1].inheritable);
  return sets;
}

CapSets all_current_caps() {
  CapSets sets = current_caps();
  const std::uint64_t known = known_caps();
  for (int bit = 0; bit < 64 && (known >> bit & 1) != 0; ++bit) {
    if (::prctl(PR_CAPBSET_READ, bit, 0, 0, 0) == 1) sets.bounding |= 1ULL << bit;
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, bit, 0, 0) == 1) sets.ambient |= 1ULL << bit;
  }
  return sets;
}

void drop_bounding(std::uint64_t keep) {
  const std::uint64_t known = known_caps();
  for (int bit = 0; bit < 64 && (known >> bit & 1) != 0; ++bit) {
    if ((keep >> bit & 1) != 0) continue;
    if (::prctl(PR_CAPBSET_DROP, bit, 0, 0, 0) < 0) {
      // Already gone is as good; only then may the process lack CAP_SETPCAP.
      const int saved = errno;
      if (::prctl(PR_CAPBSET_READ, bit, 0, 0, 0) == 0) continue;
      throw SysError(fmt::format("drop {} from the bounding set", capability_name(bit)), saved);
    }
  }
}

void set_caps(std::uint64_t effective, std::uint64_t permitted, std::uint64_t inheritable) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  for (size_t half = 0; half < 2; ++half) {
    data[half].effective = static_cast<__u32>(effective >> (32 * half));
    data[half].permitted = static_cast<__u32>(permitted >> (32 * half));
    data[half].inheritable = static_cast<__u32>(inheritable >> (32 * half));
  }
  if (::syscall(SYS_capset, &header, data.data()) < 0)
    throw_errno("set capabilities (effective {:#x}, permitted {:#x}, inheritable {:#x})", effective, permitted,
                inheritable);
}

void set_ambient(std::uint64_t ambient) {
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) {
    if (errno == EINVAL && ambient == 0) return;  // before Linux 4.3: nothing to clear
    throw_errno("clear the ambient capabilities");
  }
  for (int bit = 0; bit < 64 && (ambient >> bit) != 0; ++bit) {
    if ((ambient >> bit & 1) == 0) continue;
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit, 0, 0) < 0)
      throw_errno("raise the ambient capability {}", capability_name(bit));
  }
}

}  // namespace kelp::sys
