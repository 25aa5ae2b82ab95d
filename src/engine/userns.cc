#include "engine/userns.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <initializer_list>
#include <memory>

#include <fmt/core.h>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/host.h"
#include "store/containers.h"
#include "sys/lock.h"
#include "sys/map_helpers.h"
#include "sys/namespaces.h"
#include "sys/procfs.h"
#include "sys/subid.h"

namespace kelp::engine {
namespace {

struct Holder {
  int pid = 0;
  std::uint64_t start = 0;
};

std::string holder_path(const Context& context) { return context.layout.run + "/userns.json"; }

/// {"schema":1,"pid":1,"start":2,"boot":"…"}: written by publish() below, so a plain scan will do.
std::optional<Holder> read_holder(const Context& context) {
  const auto text = sys::read_small_file(holder_path(context), 4096);
  if (!text) return std::nullopt;
  int pid = 0;
  unsigned long long start = 0;
  char boot[64] = {};
  if (std::sscanf(text->c_str(), "{\"schema\":1,\"pid\":%d,\"start\":%llu,\"boot\":\"%63[0-9a-f]\"}", &pid, &start,
                  boot) != 3 ||
      store::boot_id() != boot)
    return std::nullopt;
  return Holder{pid, start};
}

/// The record of a newer kelp is left as it is: S is then found by the monitors.
bool newer_holder(const Context& context) {
  const auto text = sys::read_small_file(holder_path(context), 4096);
  int schema = 0;
  return text && std::sscanf(text->c_str(), "{\"schema\":%d", &schema) == 1 && schema > 1;
}

void publish(const Context& context, const Holder& holder) {
  if (newer_holder(context)) return;
  sys::replace_file(holder_path(context), fmt::format("{{\"schema\":1,\"pid\":{},\"start\":{},\"boot\":\"{}\"}}\n",
                                                      holder.pid, holder.start, store::boot_id()));
}

bool same_namespace(int a, int b) {
  struct stat first {
  }, second{};
  return ::fstat(a, &first) == 0 && ::fstat(b, &second) == 0 && first.st_ino == second.st_ino &&
         first.st_dev == second.st_dev;
}

bool owned_by_us_below_us(int ns) {
  uid_t owner = static_cast<uid_t>(-1);
  if (::ioctl(ns, NS_GET_OWNER_UID, &owner) < 0 || owner != ::geteuid()) return false;
  const Fd parent(::ioctl(ns, NS_GET_PARENT));
  if (!parent) return false;
  const Fd own(::open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC));
  return own.valid() && same_namespace(parent.get(), own.get());
}

bool maps_as_wanted(const sys::IdMaps& wanted, int pid) {
  const std::string proc = fmt::format("/proc/{}/", pid);
  return sys::canonical(sys::read_id_map(proc + "uid_map")) == sys::canonical(wanted.uids) &&
         sys::canonical(sys::read_id_map(proc + "gid_map")) == sys::canonical(wanted.gids);
}

/// The namespace of a recorded process, when it is S.
std::optional<Fd> check(Context& context, const Holder& holder) {
  auto ns = userns_of_process(holder.pid, holder.start);
  if (!ns) return std::nullopt;
  try {
    if (!owned_by_us_below_us(ns->get()) || !maps_as_wanted(wanted_maps(context), holder.pid)) return std::nullopt;
  } catch (const Error& error) {  // it ended while we looked
    log::debug("look at process {}: {}", holder.pid, error.message());
    return std::nullopt;
  }
  // All of that was about this process, if the pid still belongs to it now.
  if (sys::start_time(holder.pid) != holder.start) return std::nullopt;
  return ns;
}

std::optional<Fd> find_by_monitors(Context& context) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(context.layout.run.c_str()), ::closedir);
  if (!dir) return std::nullopt;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (sys::is_dead_draft(entry->d_name)) ::unlinkat(::dirfd(dir.get()), entry->d_name, 0);
    if (!is_full_id(entry->d_name)) continue;
    const auto state = store::read_run_state(context.layout, entry->d_name);
    if (!state) continue;
    const Holder holder{state->monitor_pid, state->monitor_start};
    if (auto ns = check(context, holder)) {
      publish(context, holder);
      return ns;
    }
  }
  return std::nullopt;
}

/// Why a user namespace could not be made, in words, with the command that lifts it.
[[noreturn]] void explain_refusal(Context& context, SysError& error) {
  error.add_context("make a user namespace");
  const UserNamespaceState state = user_namespace_state(context.host());
  if (state.level == UserNamespaceLevel::none) throw Error(state.why).with_hint(state.hint);
  throw SysError(error);  // it works now: the tables were full for a moment
}

/// A child in a new user namespace with the wanted maps; it waits for `go`, a byte on the pipe, and ends on its close.
sys::Child make_userns(Context& context, const UsernsClone& options, const std::function<int()>& body,
                       std::initializer_list<int> locks, Fd& go) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  Fd wait_end(ends[0]);
  go = Fd(ends[1]);
  sys::CloneOptions clone_options;
  clone_options.cgroup_fd = options.cgroup_fd;
  try {
    return sys::clone_child(
        CLONE_NEWUSER | options.flags,
        [&]() -> int {
          // Ours as well: the locks would live as long as this child, and the pipe would never end.
          for (const int lock : locks)
            if (lock >= 0) ::close(lock);
          go.reset();
          char byte = 0;
          ssize_t count = 0;
          do {
            count = ::read(wait_end.get(), &byte, 1);
          } while (count < 0 && errno == EINTR);
          if (count != 1) return kExitFailure;
          wait_end.reset();
          return body();
        },
        clone_options);
  } catch (SysError& error) {
    if (error.code() != EAGAIN && error.code() != ENOMEM) explain_refusal(context, error);
    throw;
  }
}

sys::Child clone_into(const Fd& userns, const UsernsClone& options, const std::function<int()>& body) {
  sys::CloneOptions clone_options;
  clone_options.cgroup_fd = options.cgroup_fd;
  return sys::clone_child(
      0,
      [&]() -> int {
        sys::join(userns.get(), CLONE_NEWUSER);
        if (options.flags != 0) sys::unshare(static_cast<int>(options.flags));
        return body();
      },
      clone_options);
}

}  // namespace

const sys::IdMaps& wanted_maps(Context& context) { return context.host().userns.get().maps; }

std::optional<Fd> userns_of_process(int pid, std::uint64_t start) {
  if (pid <= 0 || start == 0) return std::nullopt;
  Fd ns(::open(fmt::format("/proc/{}/ns/user", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!ns || sys::start_time(pid) != start) return std::nullopt;
  return ns;
}

std::optional<Fd> find_userns(Context& context) {
  if (const auto holder = read_holder(context))
    if (auto ns = check(context, *holder)) return ns;
  return find_by_monitors(context);
}

sys::Child clone_in_userns(Context& context, const UsernsClone& options, const std::function<int()>& body) {
  if (options.userns != nullptr) return clone_into(*options.userns, options, body);
  if (const auto ns = find_userns(context)) return clone_into(*ns, options, body);

  std::optional<sys::FileLock> lock;
  if (options.publish) {
    lock = sys::FileLock::exclusive(context.layout.run + "/userns.lock");
    if (const auto ns = find_userns(context)) {
      lock->unlock();
      return clone_into(*ns, options, body);
    }
  }
  Fd go;
  sys::Child child = make_userns(context, options, body, {lock ? lock->fd() : -1}, go);
  step("map ids", [&] { sys::write_id_maps(child.pid, wanted_maps(context)); });
  if (options.publish) publish(context, {child.pid, sys::start_time(child.pid)});
  if (::write(go.get(), "g", 1) != 1) throw_errno("start the first process of the user namespace");
  return child;
}

struct UpcomingUserns::Making {
  std::optional<sys::FileLock> lock;
  Fd go;  ///< the waiting child ends when this closes
  sys::Child holder;
  std::optional<sys::MapHelpers> helpers;
  Fd userns;
};

UpcomingUserns::UpcomingUserns(Context& context, int held_lock) : context_(context) {
  if (find_userns(context)) return;
  try {
    auto making = std::make_unique<Making>();
    making->lock = sys::FileLock::try_exclusive(context.layout.run + "/userns.lock");
    if (!making->lock || find_userns(context)) return;
    making->holder = make_userns(
        context, {}, [] { return 0; }, {making->lock->fd(), held_lock}, making->go);
    making->helpers.emplace(making->holder.pid, wanted_maps(context));
    making_ = std::move(making);
  } catch (const Error& error) {
    log::debug("make a user namespace ahead: {}", error.message());
  }
}

UpcomingUserns::~UpcomingUserns() = default;

const Fd* UpcomingUserns::join() {
  if (!making_) return nullptr;
  if (making_->helpers) {
    step("map ids", [&] { making_->helpers->finish(); });
    making_->helpers.reset();
    const Holder holder{making_->holder.pid, sys::start_time(making_->holder.pid)};
    auto userns = userns_of_process(holder.pid, holder.start);
    if (!userns) throw_error("the first process of the user namespace has ended");
    making_->userns = std::move(*userns);
    publish(context_, holder);
    making_->lock.reset();
  }
  return &making_->userns;
}

void UpcomingUserns::hand_over(pid_t pid) {
  if (!making_ || !making_->userns) return;
  try {
    publish(context_, {pid, sys::start_time(pid)});
  } catch (const Error& error) {  // it has ended already, or the directory was taken away: S is found by the monitors
    log::debug("publish the user namespace: {}", error.message());
  }
  making_.reset();
}

}  // namespace kelp::engine
