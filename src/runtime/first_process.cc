#include "runtime/first_process.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "runtime/node_settings.h"
#include "sys/idmap.h"
#include "sys/namespaces.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace kelp::runtime {
namespace {

struct OpenJoin {
  const NamespaceJoin* join;
  Fd fd;
};

/// All are opened before the first is joined: a joined mount namespace would change what the paths mean.
std::vector<OpenJoin> open_joins(const NamespacePlan& plan) {
  std::vector<OpenJoin> open;
  for (const NamespaceJoin& join : plan.joins) {
    Fd fd(::open(join.path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) throw_errno("open the {} namespace {}", join.type, join.path);
    open.push_back({&join, std::move(fd)});
  }
  return open;
}

/// A namespace may belong to the user namespace we are in or to the one that is joined: those that refuse us before
/// are tried again after it.
void join_all(const NamespacePlan& plan) {
  std::vector<OpenJoin> open = open_joins(plan);
  const auto attempt = [](const OpenJoin& entry) { return ::setns(entry.fd.get(), entry.join->flag) == 0; };
  const auto fail = [](const OpenJoin& entry) {
    throw_errno("join the {} namespace {}", entry.join->type, entry.join->path);
  };
  std::vector<const OpenJoin*> later;
  for (const OpenJoin& entry : open) {
    if (entry.join->flag == CLONE_NEWUSER) continue;
    // The mount namespace last: our own is needed for nothing any more then.
    if (entry.join->flag == CLONE_NEWNS || !attempt(entry)) {
      if (entry.join->flag != CLONE_NEWNS && (errno != EPERM || !plan.joined_user)) fail(entry);
      later.push_back(&entry);
    }
  }
  for (const OpenJoin& entry : open) {
    if (entry.join->flag != CLONE_NEWUSER) continue;
    if (!attempt(entry)) fail(entry);
    become_namespace_root(false);
  }
  for (const bool mount : {false, true})
    for (const OpenJoin* entry : later)
      if ((entry->join->flag == CLONE_NEWNS) == mount && !attempt(*entry)) fail(*entry);
}

int join_and_clone(const NamespacePlan& plan, const FirstProcessOptions& options, sys::Link child_end,
                   const std::function<int(ChildLink)>& body, bool ask_for_group) {
  ChildLink link(std::move(child_end));
  try {
    if (ask_for_group) link.ask(Msg::enter_group);
    if (plan.hidden && options.oom_score_adj) set_oom_score_adj(*options.oom_score_adj, plan.joined_user);
    step("join namespaces", [&] { join_all(plan); });
    std::uint64_t flags = plan.clone_flags;
    if (plan.user_before_offsets) {
      step("make the user namespace", [] { sys::unshare(CLONE_NEWUSER); });
      link.ask(Msg::map_ids);
      become_namespace_root(false);
      flags &= ~static_cast<std::uint64_t>(CLONE_NEWUSER);
    }
    if (!plan.time_offsets.empty()) {
      step("set the clocks", [&] {
        sys::unshare(CLONE_NEWTIME);
        set_time_offsets(0, plan.time_offsets);
      });
      flags &= ~static_cast<std::uint64_t>(CLONE_NEWTIME);
    }
    if (plan.hidden && ::prctl(PR_SET_DUMPABLE, 0) < 0) throw_errno("become non-dumpable");
    tell_staged(link, flags, [&] { return body(std::move(link)); });
    return 0;
  } catch (const Error& error) {
    link.tell_failed(error);
    return error.exit_code();
  }
}

}  // namespace

bool maps_itself(const NamespacePlan& plan) noexcept { return plan.new_user && !plan.user_before_offsets; }

void become_namespace_root(bool hidden) {
  if (::setresgid(0, 0, 0) < 0 && errno != EINVAL) throw_errno("become gid 0 of the user namespace");
  if (::setresuid(0, 0, 0) < 0 && errno != EINVAL) throw_errno("become uid 0 of the user namespace");
  // The change of ids has made us non-dumpable, and our own files below /proc root's.
  if (!hidden && ::prctl(PR_SET_DUMPABLE, 1) < 0) throw_errno("stay dumpable");
}

void tell_staged(ChildLink& link, std::uint64_t clone_flags, const std::function<int()>& body) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  Fd turn(ends[0]);
  Fd hold(ends[1]);
  sys::Child child = sys::clone_child(clone_flags,
                                      [&] {
                                        hold.reset();
                                        char none = 0;
                                        while (::read(turn.get(), &none, 1) < 0 && errno == EINTR) {
                                        }
                                        turn.reset();
                                        return body();
                                      },
                                      {.parent = true});
  link.tell(Msg::staged, std::to_string(child.pid), child.pidfd.get());
  child.detach();
}

sys::Child start_first_process(const NamespacePlan& plan, const FirstProcessOptions& options, ParentLink& parent,
                               sys::Link child_end, const std::function<int(ChildLink)>& body) {
  const auto direct = [&](const sys::CloneOptions& clone) {
    return sys::clone_child(
        plan.clone_flags,
        [&] {
          parent.close();
          return body(ChildLink(std::move(child_end)));
        },
        clone);
  };
  const auto helped = [&](const sys::CloneOptions& clone, bool ask_for_group) {
    return sys::clone_child(
        0,
        [&] {
          parent.close();
          return join_and_clone(plan, options, std::move(child_end), body, ask_for_group);
        },
        clone);
  };
  sys::CloneOptions clone{.cgroup_fd = options.cgroup_fd, .parent = options.sibling};
  sys::Child helper;
  try {
    if (!plan.staged) return direct(clone);
    helper = helped(clone, false);
  } catch (const SysError& error) {
    if (error.code() != EACCES || clone.cgroup_fd < 0) throw;
    clone.cgroup_fd = -1;
    helper = helped(clone, true);
  }
  child_end.close();
  for (;;) {
    ParentLink::Event event = parent.require("join namespaces");
    if (event.msg == Msg::enter_group) {
      options.enter_group(helper.pid);
      parent.go();
      continue;
    }
    if (event.msg == Msg::map_ids) {
      step("map ids", [&] { sys::write_id_maps(helper.pid, plan.maps); });
      parent.go();
      continue;
    }
    if (event.msg != Msg::staged || event.fds.empty()) throw_error("unexpected answer of the joining process");
    if (options.sibling) {
      helper.detach();  // its parent reaps it
    } else {
      helper.wait();
    }
    return {static_cast<pid_t>(to_int(event.text).value_or(-1)), std::move(event.fds[0])};
  }
}

}  // namespace kelp::runtime
