#include "runtime/payload.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "base/error.h"
#include "base/log.h"
#include "base/owned.h"
#include "base/text.h"
#include "sys/clone.h"
#include "sys/lock.h"
#include "sys/safe_path.h"

#ifndef PIPEFS_MAGIC
#define PIPEFS_MAGIC 0x50495045
#endif

namespace kelp::runtime {
namespace {

std::optional<std::string> value_of(const spec::Strings& env, std::string_view name) {
  // The last one wins, as for whoever reads the environment with putenv semantics.
  for (auto it = env.rbegin(); it != env.rend(); ++it)
    if (starts_with(*it, name) && it->size() > name.size() && (*it)[name.size()] == '=')
      return it->substr(name.size() + 1);
  return std::nullopt;
}

/// The container's /etc/passwd. It may be anything: a pipe that nobody writes to, a device that never ends.
std::optional<std::string> read_passwd() {
  const Fd file(::open("/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat info {};
  if (!file || ::fstat(file.get(), &info) < 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  return sys::read_rest(file.get(), "/etc/passwd", 4U << 20U);
}

std::string home_of(uid_t uid) {
  const auto passwd = read_passwd();
  if (passwd) {
    size_t start = 0;
    while (start < passwd->size()) {
      size_t end = passwd->find('\n', start);
      if (end == std::string::npos) end = passwd->size();
      const std::vector<std::string> fields = split(std::string_view(*passwd).substr(start, end - start), ':');
      if (fields.size() >= 6 && to_int(fields[2]) == static_cast<std::int64_t>(uid) && !fields[5].empty())
        return fields[5];
      start = end + 1;
    }
  }
  return uid == 0 ? "/root" : "/";
}

[[noreturn]] void not_found(const std::string& name, const char* why) {
  throw Error(fmt::format("exec: \"{}\": {}", printable(name), why), kExitNotFound);
}
[[noreturn]] void cannot_invoke(const std::string& name, const char* why) {
  throw Error(fmt::format("exec: \"{}\": {}", printable(name), why), kExitCannotInvoke);
}

/// 0 = can be executed, else errno.
int check_executable(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) < 0) return errno;
  if (S_ISDIR(info.st_mode)) return EISDIR;
  return ::access(path.c_str(), X_OK) < 0 ? EACCES : 0;
}

std::vector<char*> c_strings(const spec::Strings& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (const std::string& text : strings) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

}  // namespace

void complete_environment(spec::Strings& env, uid_t uid) {
  if (const auto home = value_of(env, "HOME"); !home || home->empty()) env.push_back("HOME=" + home_of(uid));
}

std::string find_executable(const std::string& name, const spec::Strings& env) {
  if (name.find('/') != std::string::npos) {
    const int why = check_executable(name);
    if (why == ENOENT || why == ENOTDIR)
      not_found(name, fmt::format("stat {}: no such file or directory", printable(name)).c_str());
    if (why == EISDIR) cannot_invoke(name, "is a directory");
    if (why != 0) cannot_invoke(name, why == EACCES ? "permission denied" : errno_text(why).c_str());
    return name;
  }
  bool found_unusable = false;
  for (const std::string& dir :
       split(value_of(env, "PATH").value_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ':')) {
    const std::string path = (dir.empty() ? "." : dir) + "/" + name;
    const int why = check_executable(path);
    if (why == 0) return path;
    found_unusable = found_unusable || why == EACCES;
  }
  if (found_unusable) cannot_invoke(name, "permission denied");
  not_found(name, "executable file not found in $PATH");
}

void enter_working_dir(const std::string& cwd) {
  if (::chdir(cwd.c_str()) < 0)
    throw SysError(fmt::format("change to the working directory {}", cwd), errno,
                   errno == ENOENT ? kExitNotFound : kExitFailure);
  char now[PATH_MAX];
  // The raw call says "(unreachable)/…" for a directory outside our root, glibc's says ENOENT.
  if (::getcwd(now, sizeof now) == nullptr || now[0] != '/')
    throw_error("the working directory {} is outside the container", cwd);
}

void make_working_dir(int root, const std::string& cwd) {
  const Fd there = sys::try_open_in_root(root, cwd, O_PATH);
  if (!there && errno == ENOENT) sys::mkdirs_in_root(root, cwd, 0755);
}

void reset_signals() {
  for (int sig = 1; sig < NSIG; ++sig) ::signal(sig, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

void own_stdio_pipes(uid_t uid) {
  if (uid == 0) return;
  for (int fd = 0; fd < 3; ++fd) {
    struct statfs fs {};
    if (::fstatfs(fd, &fs) == 0 && fs.f_type == PIPEFS_MAGIC && ::fchown(fd, uid, static_cast<gid_t>(-1)) < 0)
      log::debug("descriptor {} stays the caller's: {}", fd, errno_text(errno));
  }
}

void close_all_but(int first, std::vector<int> keep) {
  std::sort(keep.begin(), keep.end());
  const auto close_between = [](unsigned from, unsigned to) {
    if (from > to || ::syscall(SYS_close_range, from, to, 0) == 0) return;
    const unsigned limit = std::min(to, static_cast<unsigned>(::sysconf(_SC_OPEN_MAX)));
    for (unsigned fd = from; fd <= limit; ++fd) ::close(static_cast<int>(fd));
  };
  auto from = static_cast<unsigned>(first);
  for (const int fd : keep) {
    if (fd < first) continue;
    const auto kept = static_cast<unsigned>(fd);
    if (kept > from) close_between(from, kept - 1);
    from = kept + 1;
  }
  close_between(from, ~0U);
}

void die_with_parent(int parent_pidfd) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) throw_errno("tie the container's life to its monitor's");
  if (parent_pidfd >= 0 && !sys::pidfd_alive(parent_pidfd)) ::_exit(kExitFailure);
}

void exec_payload(const std::string& path, const spec::Strings& args, const spec::Strings& env) {
  const std::vector<char*> argv = c_strings(args);
  const std::vector<char*> envp = c_strings(env);
  ::execve(path.c_str(), argv.data(), envp.data());
  const int why = errno;
  // ENOENT of a file that was just found: its interpreter (or the dynamic linker) is missing.
  if (why == ENOENT || why == ENOTDIR) throw SysError(fmt::format("exec {}", quoted(path)), why, kExitNotFound);
  throw SysError(fmt::format("exec {}", quoted(path)), why, kExitCannotInvoke);
}

}  // namespace kelp::runtime
