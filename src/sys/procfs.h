#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kelp::sys {

/// Part of /proc/<pid>/stat. source: proc(5)
struct ProcStat {
  pid_t pid = 0;
  std::string comm;  ///< at most 15 bytes, may hold anything
  char state = '?';  ///< R S D Z T t X …
  pid_t ppid = 0, pgrp = 0, session = 0;
  std::uint64_t utime = 0, stime = 0;  ///< clock ticks
  std::uint64_t start_time = 0;        ///< clock ticks since boot: with the pid and the boot id, a process' identity
};

/// nullopt when there is no such process (any more).
std::optional<ProcStat> read_stat(pid_t pid);
/// Start time of a process in clock ticks since boot, 0 when it is gone.
std::uint64_t start_time(pid_t pid);
/// /proc/sys/kernel/random/boot_id without its newline; read once.
const std::string& boot_id();
/// true when prctl(PR_GET_NO_NEW_PRIVS) says so for this process.
bool no_new_privs();

/// One line of mountinfo; octal escapes are decoded.
struct MountInfo {
  int id = 0, parent_id = 0;
  unsigned major = 0, minor = 0;
  std::string root, mount_point, options;
  std::string fs_type, source, super_options;
  std::vector<std::string> propagation;  ///< "shared:12", "master:3", "unbindable"
};
/// Parses the text of /proc/<pid>/mountinfo; lines it does not know are skipped.
std::vector<MountInfo> parse_mountinfo(std::string_view text);
std::vector<MountInfo> read_mountinfo(const std::string& path = "/proc/self/mountinfo");

/// The whole file, at most `max` bytes. throws SysError; Error when it is larger.
std::string read_file(const std::string& path, size_t max = 1 << 20);
/// As read_file, nullopt when it does not exist or its process is gone (ENOENT, ESRCH).
std::optional<std::string> try_read_file(const std::string& path, size_t max = 1 << 20);
/// One write(2) to an existing file of /proc, /sys or a cgroup: no O_CREAT (a missing file is then ENOENT and not
/// EACCES). throws SysError naming path and value.
void write_file(const std::string& path, std::string_view value);

}  // namespace kelp::sys
