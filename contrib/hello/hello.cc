// The program of the built-in image `hello`: it tells what a process in a container can see, may use, has on disk and
// may do. Static and alone in its image, so it asks the kernel only.

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

using Words = std::vector<std::string>;

std::string read_file(const std::string& path) {
  std::string text;
  FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr) return text;
  char buffer[4096];
  size_t n = 0;
  while ((n = std::fread(buffer, 1, sizeof buffer, file)) > 0) text.append(buffer, n);
  std::fclose(file);
  return text;
}

Words split(const std::string& text, char separator) {
  Words words;
  size_t start = 0;
  while (start <= text.size()) {
    size_t end = text.find(separator, start);
    if (end == std::string::npos) end = text.size();
    if (end > start) words.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return words;
}

std::string first_line(const std::string& path) {
  const Words lines = split(read_file(path), '\n');
  return lines.empty() ? std::string() : lines[0];
}

void line(const char* title, const std::string& text) { std::printf("  %-13s %s\n", title, text.c_str()); }

/// The value of a line "Name:\tvalue" of /proc/self/status.
std::string status_field(const std::string& name) {
  for (const auto& entry : split(read_file("/proc/self/status"), '\n'))
    if (entry.compare(0, name.size() + 1, name + ":") == 0) {
      const size_t start = entry.find_first_not_of(" \t", name.size() + 1);
      return start == std::string::npos ? std::string() : entry.substr(start);
    }
  return {};
}

/// Namespaces by inode. Those of the first boot have fixed numbers (linux/proc_ns.h), so a shared one can be told.
std::string namespaces() {
  struct Known {
    const char* name;
    unsigned long first;
  };
  static constexpr Known kNames[] = {
      {"user", 4026531837}, {"mnt", 0},          {"pid", 4026531836},    {"net", 0},
      {"ipc", 4026531839},  {"uts", 4026531838}, {"cgroup", 4026531835}, {"time", 4026531834}};
  std::string text;
  for (const auto& known : kNames) {
    struct stat st {};
    if (::stat((std::string("/proc/self/ns/") + known.name).c_str(), &st) != 0) continue;
    if (!text.empty()) text += "  ";
    text += std::string(known.name) + " " + std::to_string(st.st_ino);
    if (known.first != 0 && st.st_ino == known.first) text += " (the host's)";
  }
  return text;
}

std::string interfaces() {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return std::strerror(errno);
  Words found;
  for (const ifaddrs* entry = all; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || (entry->ifa_addr->sa_family != AF_INET && entry->ifa_addr->sa_family != AF_INET6))
      continue;
    char address[INET6_ADDRSTRLEN] = "";
    const void* source =
        entry->ifa_addr->sa_family == AF_INET
            ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)->sin_addr)
            : &reinterpret_cast<const sockaddr_in6*>(entry->ifa_addr)->sin6_addr;
    ::inet_ntop(entry->ifa_addr->sa_family, source, address, sizeof address);
    found.push_back(std::string(entry->ifa_name) + " " + address);
  }
  ::freeifaddrs(all);
  std::string text;
  for (const auto& word : found) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? "none with an address" : text;
}

/// A limit of the own cgroup: the file itself, or "none" where this container has no cgroup to be limited by.
std::string cgroup_limit(const char* file) {
  const std::string value = first_line(std::string("/sys/fs/cgroup/") + file);
  if (value.empty()) return "no limit";
  return value.compare(0, 3, "max") == 0 ? "no limit" : value;
}

std::string cgroup_path() {
  for (const auto& entry : split(read_file("/proc/self/cgroup"), '\n'))
    if (entry.compare(0, 3, "0::") == 0) return entry.substr(3);
  return "none";
}

std::string process_limit(int resource) {
  rlimit64 limit{};
  if (::getrlimit64(static_cast<__rlimit_resource_t>(resource), &limit) != 0) return "?";
  return limit.rlim_cur == RLIM64_INFINITY ? "no limit" : std::to_string(limit.rlim_cur);
}

size_t occurrences(const std::string& text, const std::string& word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + word.size())) ++count;
  return count;
}

/// Type and layers of the root file system. mountinfo: … mountpoint options … - type source superoptions
std::string root_file_system() {
  std::string text = "unknown";
  for (const auto& entry : split(read_file("/proc/self/mountinfo"), '\n')) {
    const Words fields = split(entry, ' ');
    const size_t dash = entry.find(" - ");
    if (fields.size() < 6 || fields[4] != "/" || dash == std::string::npos) continue;
    const Words tail = split(entry.substr(dash + 3), ' ');
    text = tail.empty() ? "unknown" : tail[0];
    if (text != "overlay" || tail.size() < 3) continue;
    // Old mounts list "lowerdir=a:b:c", those of the mount API "lowerdir+=a,lowerdir+=b".
    size_t layers = occurrences(tail[2], "lowerdir+=");
    for (const auto& option : split(tail[2], ','))
      if (option.compare(0, 9, "lowerdir=") == 0) layers += 1 + occurrences(option, ":");
    // kelp's own bottom layer, empty files to mount on, is none of the image's.
    if (layers > 0) layers -= occurrences(tail[2], "/mount-points");
    text += ", " + std::to_string(layers) + (layers == 1 ? " layer" : " layers") + " of the image" +
            (tail[2].find("upperdir=") != std::string::npos ? " below one of the container" : "");
  }
  struct statvfs fs {};
  const bool read_only = ::statvfs("/", &fs) == 0 && (fs.f_flag & ST_RDONLY) != 0;
  return text + (read_only ? ", read-only" : ::access("/", W_OK) == 0 ? ", writable" : ", not writable for this user");
}

std::string mounts() {
  const Words entries = split(read_file("/proc/self/mountinfo"), '\n');
  size_t read_only = 0;
  for (const auto& entry : entries) {
    const Words fields = split(entry, ' ');
    if (fields.size() > 5 && fields[5].compare(0, 2, "ro") == 0) ++read_only;
  }
  return std::to_string(entries.size()) + " mounts, " + std::to_string(read_only) + " of them read-only";
}

std::string id_map(const char* path) {
  std::string text;
  for (const auto& entry : split(read_file(path), '\n')) {
    const Words fields = split(entry, ' ');
    if (fields.size() != 3) continue;
    if (!text.empty()) text += ", ";
    text += fields[0] + " is " + fields[1] + " outside";
    if (fields[2] != "1") text += " (" + fields[2] + " ids)";
  }
  return text.empty() ? "none" : text;
}

std::string capabilities() {
  static constexpr const char* kNames[] = {"chown",
                                           "dac_override",
                                           "dac_read_search",
                                           "fowner",
                                           "fsetid",
                                           "kill",
                                           "setgid",
                                           "setuid",
                                           "setpcap",
                                           "linux_immutable",
                                           "net_bind_service",
                                           "net_broadcast",
                                           "net_admin",
                                           "net_raw",
                                           "ipc_lock",
                                           "ipc_owner",
                                           "sys_module",
                                           "sys_rawio",
                                           "sys_chroot",
                                           "sys_ptrace",
                                           "sys_pacct",
                                           "sys_admin",
                                           "sys_boot",
                                           "sys_nice",
                                           "sys_resource",
                                           "sys_time",
                                           "sys_tty_config",
                                           "mknod",
                                           "lease",
                                           "audit_write",
                                           "audit_control",
                                           "setfcap",
                                           "mac_override",
                                           "mac_admin",
                                           "syslog",
                                           "wake_alarm",
                                           "block_suspend",
                                           "audit_read",
                                           "perfmon",
                                           "bpf",
                                           "checkpoint_restore"};
  const std::uint64_t set = std::strtoull(status_field("CapEff").c_str(), nullptr, 16);
  std::string text;
  unsigned count = 0;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((set >> bit & 1) == 0) continue;
    ++count;
    text += bit < sizeof kNames / sizeof *kNames ? std::string(" ") + kNames[bit] : " " + std::to_string(bit);
  }
  if (count == 0) return "none";
  if (count >= sizeof kNames / sizeof *kNames) return "all " + std::to_string(count);
  return std::to_string(count) + ":" + text;
}

std::string seccomp() {
  const std::string mode = status_field("Seccomp");
  const std::string filters = status_field("Seccomp_filters");
  if (mode == "2") return "filter" + (filters.empty() ? std::string() : " (" + filters + " loaded)");
  return mode == "1" ? "strict" : "off";
}

}  // namespace

int main() {
  utsname name{};
  ::uname(&name);
  std::printf("Hello from a container made by kelp.\n\nIt can see\n");
  line("process", "PID " + std::to_string(::getpid()) + (::getpid() == 1 ? ", the first of its PID namespace" : ""));
  line("namespaces", namespaces());
  line("hostname", name.nodename);
  line("interfaces", interfaces());
  std::printf("It may use\n");
  line("cgroup", cgroup_path());
  line("limits", "memory " + cgroup_limit("memory.max") + ", cpu " + cgroup_limit("cpu.max") + ", processes " +
                     cgroup_limit("pids.max") + ", open files " + process_limit(RLIMIT_NOFILE));
  std::printf("It has on disk\n");
  line("root", root_file_system());
  line("mounts", mounts());
  std::printf("It may do\n");
  line("user", "uid " + std::to_string(::getuid()) + ", gid " + std::to_string(::getgid()));
  line("uid map", id_map("/proc/self/uid_map"));
  line("capabilities", capabilities());
  line("no_new_privs", status_field("NoNewPrivs") == "1" ? "on" : "off");
  line("seccomp", seccomp());
  return 0;
}
