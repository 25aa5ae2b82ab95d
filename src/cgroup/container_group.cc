// The group X of one container of kelp, with its leaves.
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "cgroup/cgroupfs.h"
#include "cgroup/systemd_scope.h"
#include "sys/procfs.h"
#include "sys/sd_bus.h"

namespace kelp::cgroup {
namespace {

constexpr int kTries = 1000, kPause = 10'000;  ///< microseconds

}  // namespace

struct ContainerGroup::Impl {
  Place place;
  std::string id, path;
  std::optional<sys::Systemd> systemd;
  pid_t child = -1;
  bool made = false, scope_is_there = false;

  /// X/container, and with systemd, whose scope lives as long as a process in it, X/monitor: the controllers go from X
  /// to both, so X itself must hold no process.
  void make_leaves() {
    if (child > 0) {
      make_group(path + "/monitor");
      move_into(path + "/monitor", child);
    }
    for (const std::string& name : place.controllers)
      for (int tries = 1; !give(name) && child > 0 && tries < kTries; ++tries) move_all();
    make_group(path + "/container");
  }
  /// false: X still holds a process.
  bool give(const std::string& controller) {
    try {
      sys::write_file(path + "/cgroup.subtree_control", "+" + controller);
    } catch (const SysError& error) {
      if (error.code() == EBUSY) return false;
      log::debug("enable the controller {} in {}: {}", controller, path, errno_text(error.code()));
    }
    return true;
  }
  /// What the child started (fuse-overlayfs, say) after systemd had moved it and before we did.
  void move_all() {
    for (const std::string& line : split(sys::try_read_file(path + "/cgroup.procs").value_or(""), '\n')) {
      try {
        if (const auto pid = to_int(line, 1, INT32_MAX)) move_into(path + "/monitor", static_cast<pid_t>(*pid));
      } catch (const SysError& error) {
        log::debug("move process {} out of {}: {}", line, path, errno_text(error.code()));  // it has ended
      }
    }
  }
  void request() {
    systemd->request_scope({scope_name(id), slice_of(place), "kelp container " + id.substr(0, 12), {child}});
  }
  /// A container that is started again soon: its old scope is empty, and systemd is about to forget it.
  void wait_for_scope() {
    for (int tries = 1; !systemd->wait_scope(); ++tries) {
      if (tries == kTries) throw_error("systemd still has the scope {} of an earlier start", scope_name(id));
      if (tries == kTries / 4 && !populated(path)) systemd->stop_scope(scope_name(id));
      ::usleep(kPause);
      request();
    }
  }
  void undo() noexcept {
    if (!made) return;
    made = false;
    try {
      if (systemd)
        systemd->stop_scope(scope_name(id));
      else if (!remove_tree(path, 200))
        log::debug("the cgroup {} is still in use", path);
    } catch (const Error& error) {
      log::debug("{}", error.message());
    }
  }
};

ContainerGroup::ContainerGroup() = default;

ContainerGroup::ContainerGroup(const Place& place, const std::string& id) {
  if (place.manager == Manager::none) return;
  impl_ = std::make_unique<Impl>();
  impl_->place = place;
  impl_->id = id;
  impl_->path = foretold_path(place, id);
  if (place.manager != Manager::cgroupfs) return;
  // A group of that name can only be an old one of this very container: the id is unique.
  if (!make_group(impl_->path) && !remove_tree(impl_->path, 500))
    throw_error("the cgroup {} still holds processes of an earlier start", impl_->path);
  if (!exists(impl_->path)) make_group(impl_->path);
  impl_->made = true;
  try {
    impl_->make_leaves();
  } catch (...) {
    impl_->undo();
    throw;
  }
}

ContainerGroup::~ContainerGroup() {
  if (impl_) impl_->undo();
}
ContainerGroup::ContainerGroup(ContainerGroup&&) noexcept = default;
ContainerGroup& ContainerGroup::operator=(ContainerGroup&& other) noexcept {
  if (impl_) impl_->undo();
  impl_ = std::move(other.impl_);
  return *this;
}

void ContainerGroup::adopt(pid_t child) {
  if (!impl_ || impl_->place.manager != Manager::systemd) return;
  impl_->child = child;
  impl_->systemd = sys::Systemd::connect();
  impl_->request();
  impl_->made = true;
}

void ContainerGroup::wait() {
  if (!impl_ || !impl_->systemd || impl_->scope_is_there) return;
  impl_->wait_for_scope();
  // The truth is where the child is now; the foretold path goes into config.json, so both must agree.
  const std::string actual = group_of(impl_->child);
  if (actual != impl_->path)
    throw_error("systemd put the scope of the container at {} instead of {}", actual, impl_->path);
  impl_->make_leaves();
  impl_->scope_is_there = true;
}

void ContainerGroup::release() noexcept {
  if (impl_) impl_->made = false;
}

const std::string& ContainerGroup::path() const noexcept {
  static const std::string none;
  return impl_ ? impl_->path : none;
}
std::string ContainerGroup::container_path() const { return impl_ ? impl_->path + "/container" : ""; }
bool ContainerGroup::comes_later() const noexcept { return impl_ && impl_->place.manager == Manager::systemd; }

std::string foretold_path(const Place& place, const std::string& id) {
  switch (place.manager) {
    case Manager::systemd:
      return place.parent + "/" + scope_name(id);
    case Manager::cgroupfs:
      return place.parent + "/kelp-" + id;
    case Manager::none:
      break;
  }
  return "";
}

}  // namespace kelp::cgroup
