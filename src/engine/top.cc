#include "engine/top.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "base/error.h"
#include "base/owned.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/session.h"
#include "store/containers.h"
#include "sys/capability.h"
#include "sys/idmap.h"
#include "sys/lock.h"
#include "sys/procfs.h"
#include "sys/safe_path.h"

namespace kelp::engine {
namespace {

/// Everything about one process that a column may show.
struct Process {
  pid_t pid = 0;
  std::vector<std::string> stat;  ///< fields of /proc/PID/stat from the third on
  std::string comm, args;
  std::map<std::string, std::string> status;  ///< of /proc/PID/status
};

/// The container's view of its ids.
struct Names {
  sys::IdRanges uids, gids;
  std::map<std::uint32_t, std::string> users, groups;
};

struct Source {
  const Names& names;
  double uptime;  ///< seconds since boot
  double ticks;   ///< per second
};

std::string stat_field(const Process& process, size_t number) {
  return number >= 3 && number - 3 < process.stat.size() ? process.stat[number - 3] : "0";
}
double stat_number(const Process& process, size_t number) {
  return static_cast<double>(to_int(stat_field(process, number)).value_or(0));
}
std::string status_field(const Process& process, const std::string& key) {
  const auto found = process.status.find(key);
  return found == process.status.end() ? "" : found->second;
}
/// Which: 0 real, 1 effective, of "Uid: 0 0 0 0".
std::uint32_t id_field(const Process& process, const char* key, size_t which) {
  store::Strings words;
  for (auto& word : split(status_field(process, key), '\t')) words.push_back(std::move(word));
  return which < words.size() ? static_cast<std::uint32_t>(to_int(words[which], 0, UINT32_MAX).value_or(0)) : 0;
}

std::string id_name(const sys::IdRanges& map, const std::map<std::uint32_t, std::string>& names,
                    std::uint32_t outside) {
  std::uint32_t inside = 0;
  if (!sys::map_in(map, outside, inside)) return fmt::format("{}", outside);
  const auto found = names.find(inside);
  return found == names.end() ? fmt::format("{}", inside) : found->second;
}

/// "6,77,extra", as podman lists supplementary groups: inside by name, or as the host's numbers.
std::string group_list(const Process& process, const Names* inside) {
  std::vector<std::string> list;
  for (const auto& word : split(status_field(process, "Groups"), ' ')) {
    const auto gid = to_int(word, 0, UINT32_MAX);
    if (!gid) continue;
    list.push_back(inside == nullptr ? word : id_name(inside->gids, inside->groups, static_cast<std::uint32_t>(*gid)));
  }
  return join(list, ",");
}

/// The label that a security module gives the process; "?" where none does.
std::string security_label(const Process& process) {
  std::string label;
  try {
    label = sys::try_read_file(fmt::format("/proc/{}/attr/current", process.pid), 4096).value_or("");
  } catch (const Error&) {  // a kernel without such modules says EINVAL
  }
  while (!label.empty() && (label.back() == '\n' || label.back() == '\0')) label.pop_back();
  return label.empty() ? "?" : label;
}

std::string seconds_text(double seconds) {
  const auto whole = static_cast<long>(seconds);
  if (whole >= 3600) return fmt::format("{}h{}m{}s", whole / 3600, whole / 60 % 60, whole % 60);
  if (whole >= 60) return fmt::format("{}m{}s", whole / 60, whole % 60);
  return fmt::format("{}s", whole);
}

double elapsed(const Process& process, const Source& source) {
  return std::max(0.0, source.uptime - stat_number(process, 22) / source.ticks);
}
double cpu_seconds(const Process& process, const Source& source) {
  return (stat_number(process, 14) + stat_number(process, 15)) / source.ticks;
}

/// The last number of "NSpid: 4711 12": the pid inside.
std::string inner_pid(const Process& process, const char* key) {
  const std::string list = status_field(process, key);
  const size_t tab = list.rfind('\t');
  return tab == std::string::npos ? list : list.substr(tab + 1);
}

std::string terminal_name(const Process& process) {
  const auto number = static_cast<unsigned>(stat_number(process, 7));
  if (number == 0) return "?";
  const unsigned major = (number >> 8) & 0xfff, minor = (number & 0xff) | ((number >> 12) & 0xfff00);
  if (major >= 136 && major <= 143) return fmt::format("pts/{}", minor + (major - 136) * 256);
  return fmt::format("{}:{}", major, minor);
}

std::string seccomp_name(const Process& process) {
  const std::string mode = status_field(process, "Seccomp");
  return mode == "2" ? "filter" : mode == "1" ? "strict" : "disabled";
}

/// "CHOWN,KILL", "full", "none", as podman shows a set of capabilities.
std::string capability_set(const Process& process, const std::string& key) {
  const std::uint64_t bits = std::strtoull(status_field(process, key).c_str(), nullptr, 16);
  if (bits == 0) return "none";
  if ((bits & sys::known_caps()) == sys::known_caps()) return "full";
  std::vector<std::string> names;
  for (int bit = 0; bit < 64; ++bit) {
    if ((bits >> bit & 1) == 0) continue;
    const std::string name = sys::capability_name(bit);
    names.push_back(starts_with(name, "CAP_") ? name.substr(4) : name);
  }
  std::sort(names.begin(), names.end());
  return join(names, ",");
}

std::string show(std::string_view column, const Process& process, const Source& source) {
  const Names& names = source.names;
  if (column == "args") return process.args.empty() ? "[" + process.comm + "]" : process.args;
  if (column == "comm") return process.comm;
  if (column == "user") return id_name(names.uids, names.users, id_field(process, "Uid", 1));
  if (column == "ruser") return id_name(names.uids, names.users, id_field(process, "Uid", 0));
  if (column == "group") return id_name(names.gids, names.groups, id_field(process, "Gid", 1));
  if (column == "rgroup") return id_name(names.gids, names.groups, id_field(process, "Gid", 0));
  if (column == "groups") return group_list(process, &names);
  if (column == "hgroups") return group_list(process, nullptr);
  if (column == "label") return security_label(process);
  if (column == "huser") return fmt::format("{}", id_field(process, "Uid", 1));
  if (column == "hgroup") return fmt::format("{}", id_field(process, "Gid", 1));
  if (column == "pid") return inner_pid(process, "NSpid");
  if (column == "hpid") return fmt::format("{}", process.pid);
  if (column == "pgid") return inner_pid(process, "NSpgid");
  if (column == "pcpu") {
    const double age = elapsed(process, source);
    return fmt::format("{:.3f}", age > 0 ? 100 * cpu_seconds(process, source) / age : 0.0);
  }
  if (column == "etime") return seconds_text(elapsed(process, source));
  if (column == "time") return seconds_text(cpu_seconds(process, source));
  if (column == "stime") return seconds_text(stat_number(process, 22) / source.ticks);
  if (column == "tty") return terminal_name(process);
  if (column == "state") return stat_field(process, 3);
  if (column == "nice") return stat_field(process, 19);
  if (column == "vsz") return fmt::format("{:.0f}", stat_number(process, 23) / 1024);
  if (column == "rss")
    return fmt::format("{:.0f}", stat_number(process, 24) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1024);
  if (column == "seccomp") return seccomp_name(process);
  if (column == "capeff") return capability_set(process, "CapEff");
  if (column == "capbnd") return capability_set(process, "CapBnd");
  if (column == "capprm") return capability_set(process, "CapPrm");
  if (column == "capinh") return capability_set(process, "CapInh");
  if (column == "capamb") return capability_set(process, "CapAmb");
  return "";
}

std::optional<Process> read_process(pid_t pid) {
  const std::string directory = fmt::format("/proc/{}", pid);
  const auto stat = sys::try_read_file(directory + "/stat", 4096);
  const auto status = sys::try_read_file(directory + "/status", 65536);
  if (!stat || !status) return std::nullopt;
  Process process;
  process.pid = pid;
  const size_t open = stat->find('('), close = stat->rfind(')');
  if (open == std::string::npos || close == std::string::npos || close + 2 > stat->size()) return std::nullopt;
  process.comm = stat->substr(open + 1, close - open - 1);
  process.stat = split(trim(std::string_view(*stat).substr(close + 2)), ' ');
  for (const auto& line : split(*status, '\n')) {
    const size_t colon = line.find(':');
    if (colon != std::string::npos)
      process.status[line.substr(0, colon)] = trim(std::string_view(line).substr(colon + 1));
  }
  process.args = sys::try_read_file(directory + "/cmdline", 1U << 20U).value_or("");
  std::replace(process.args.begin(), process.args.end(), '\0', ' ');
  process.args = trim(process.args);
  return process;
}

std::string pid_namespace(pid_t pid) {
  char target[64];
  const ssize_t length = ::readlink(fmt::format("/proc/{}/ns/pid", pid).c_str(), target, sizeof target);
  return length < 0 ? "" : std::string(target, static_cast<size_t>(length));
}

/// All processes that share init's PID namespace; where that is the host's own (--pid host), init and its children.
std::vector<Process> processes_of(pid_t init) {
  const std::string wanted = pid_namespace(init);
  const bool shared_with_host = wanted.empty() || wanted == pid_namespace(::getpid());
  std::vector<Process> found;
  DIR* stream = ::opendir("/proc");
  if (stream == nullptr) throw_errno("read /proc");
  std::vector<pid_t> pids;
  while (const dirent* entry = ::readdir(stream)) {
    if (const auto pid = to_int(entry->d_name, 1, INT32_MAX)) pids.push_back(static_cast<pid_t>(*pid));
  }
  ::closedir(stream);
  std::sort(pids.begin(), pids.end());
  for (const pid_t pid : pids) {
    if (!shared_with_host && pid_namespace(pid) != wanted) continue;
    auto process = read_process(pid);
    if (!process) continue;
    if (shared_with_host && pid != init) {
      const auto parent = static_cast<pid_t>(stat_number(*process, 4));
      const bool child =
          std::any_of(found.begin(), found.end(), [&](const Process& other) { return other.pid == parent; });
      if (!child) continue;
    }
    found.push_back(std::move(*process));
  }
  return found;
}

/// "name:x:id:…" lines of passwd and group.
std::map<std::uint32_t, std::string> parse_names(std::string_view text) {
  std::map<std::uint32_t, std::string> names;
  for (const auto& line : split(text, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() < 3) continue;
    if (const auto id = to_int(fields[2], 0, UINT32_MAX)) names.emplace(static_cast<std::uint32_t>(*id), fields[0]);
  }
  return names;
}

/// A file of the container's root, read inside and handed over in memory; "" when it is not there.
std::string read_inside(Context& context, const store::ContainerRecord& record, const char* path) {
  const Fd memory(::memfd_create("kelp-top", MFD_CLOEXEC));
  if (!memory.valid()) return "";
  in_container(context, record, [&](int rootfd) {
    try {
      const Fd file = sys::open_in_root(rootfd, path, O_RDONLY | O_NONBLOCK);
      const std::string text = sys::read_rest(file.get(), path);
      size_t at = 0;
      while (at < text.size()) {
        const ssize_t written = ::write(memory.get(), text.data() + at, text.size() - at);
        if (written <= 0) break;
        at += static_cast<size_t>(written);
      }
    } catch (const Error&) {  // an image without the file: ids are shown as numbers
    }
  });
  if (::lseek(memory.get(), 0, SEEK_SET) != 0) return "";
  return sys::read_rest(memory.get(), path);
}

const TopColumn* find_column(std::string_view word) {
  for (const TopColumn& column : top_columns()) {
    if (column.name == word || (!column.code.empty() && column.code == word)) return &column;
  }
  return nullptr;
}

const TopColumn& column_named(std::string_view word) {
  if (const TopColumn* column = find_column(word)) return *column;
  std::vector<std::string> names;
  for (const TopColumn& column : top_columns()) names.emplace_back(column.name);
  throw_usage("top: unknown column {}; there are: {}", quoted(word), join(names, ", "));
}

}  // namespace

const std::vector<TopColumn>& top_columns() {
  static const std::vector<TopColumn> kColumns = {
      {"args", "%a", "COMMAND"},
      {"capamb", "", "AMBIENT CAPS"},
      {"capbnd", "", "BOUNDING CAPS"},
      {"capeff", "", "EFFECTIVE CAPS"},
      {"capinh", "", "INHERITED CAPS"},
      {"capprm", "", "PERMITTED CAPS"},
      {"comm", "%c", "COMMAND"},
      {"etime", "%t", "ELAPSED"},
      {"group", "%g", "GROUP"},
      {"groups", "", "GROUPS"},
      {"hgroup", "", "HGROUP"},
      {"hgroups", "", "HGROUPS"},
      {"hpid", "", "HPID"},
      {"huser", "", "HUSER"},
      {"label", "", "LABEL"},
      {"nice", "%n", "NI"},
      {"pcpu", "%C", "%CPU"},
      {"pgid", "%r", "PGID"},
      {"pid", "%p", "PID"},
      {"ppid", "%P", "PPID"},
      {"rgroup", "%G", "RGROUP"},
      {"rss", "", "RSS"},
      {"ruser", "%U", "RUSER"},
      {"seccomp", "", "SECCOMP"},
      {"state", "", "STATE"},
      {"stime", "", "STIME"},
      {"time", "%x", "TIME"},
      {"tty", "%y", "TTY"},
      {"user", "%u", "USER"},
      {"vsz", "%z", "VSZ"},
  };
  return kColumns;
}

bool is_top_column(std::string_view word) { return find_column(word) != nullptr; }

std::vector<store::Strings> container_processes(Context& context, const store::ContainerRecord& record,
                                                const store::Strings& wanted) {
  static constexpr std::string_view kDefault[] = {"user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args"};
  std::vector<TopColumn> columns;
  for (const auto& word : wanted) columns.push_back(column_named(word));
  if (wanted.empty()) {
    for (const auto name : kDefault) columns.push_back(column_named(name));
  }
  const auto status = store::status(context.layout, record);
  if (!status.run || status.run->pid <= 0 || status.status == store::Status::exited) {
    throw_error("container {} is not running", record.name);
  }
  const pid_t init = status.run->pid;
  Names names;
  names.uids = sys::read_id_map(fmt::format("/proc/{}/uid_map", init));
  names.gids = sys::read_id_map(fmt::format("/proc/{}/gid_map", init));
  names.users = parse_names(read_inside(context, record, "etc/passwd"));
  names.groups = parse_names(read_inside(context, record, "etc/group"));
  names.users.emplace(0, "root");
  names.groups.emplace(0, "root");
  const double uptime = std::strtod(sys::read_file("/proc/uptime").c_str(), nullptr);
  const Source source{names, uptime, static_cast<double>(::sysconf(_SC_CLK_TCK))};

  std::vector<store::Strings> rows;
  store::Strings heading;
  for (const TopColumn& column : columns) heading.emplace_back(column.heading);
  rows.push_back(std::move(heading));
  const auto processes = processes_of(init);
  std::map<std::string, std::string> inner;  // host pid → pid inside, for PPID
  for (const Process& process : processes) inner[fmt::format("{}", process.pid)] = inner_pid(process, "NSpid");
  for (const Process& process : processes) {
    store::Strings row;
    for (const TopColumn& column : columns) {
      if (column.name == "ppid") {
        const auto parent = inner.find(stat_field(process, 4));
        row.push_back(parent == inner.end() ? "0" : parent->second);
      } else {
        row.push_back(show(column.name, process, source));
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace kelp::engine
