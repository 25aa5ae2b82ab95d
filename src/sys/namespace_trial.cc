#include "sys/namespace_trial.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cstring>

#include "base/error.h"
#include "base/text.h"
#include "sys/clone.h"
#include "sys/idmap.h"
#include "sys/mount_api.h"
#include "sys/namespaces.h"
#include "sys/procfs.h"

namespace kelp::sys {
namespace {

constexpr struct {
  int flag;
  const char* name;
} kOthers[] = {{CLONE_NEWPID, "pid"}, {CLONE_NEWNET, "network"}, {CLONE_NEWIPC, "ipc"}, {CLONE_NEWUTS, "uts"}};

/// What the child tells; plain bytes over a pipe.
struct Told {
  int mount = 0, others = 0, other = -1, proc = 0;
  char label[128] = "";
};

std::string label_of_self() {
  try {
    return std::string(trim(try_read_file("/proc/self/attr/current", 4096).value_or("")));
  } catch (const Error&) {
    return "";  // no security module answers
  }
}

/// "name (enforce)" → "name".
std::string enforced_profile(const std::string& label) {
  constexpr std::string_view kMode = " (enforce)";
  return ends_with(label, kMode) ? label.substr(0, label.size() - kMode.size()) : "";
}

template <typename Fn>
int errno_of(Fn&& body) {
  try {
    body();
    return 0;
  } catch (const SysError& error) {
    return error.code();
  } catch (const Error&) {
    return EINVAL;
  }
}

Told try_inside() {
  Told told;
  const std::string label = label_of_self();
  std::strncpy(told.label, label.c_str(), sizeof told.label - 1);
  told.mount = errno_of([] {
    unshare(CLONE_NEWNS);
    make_mounts_slave();
    (void)fs_mount("tmpfs", {{"size", "64k"}}, 0);
  });
  for (size_t i = 0; i < std::size(kOthers) && told.others == 0; ++i) {
    told.others = errno_of([&] { unshare(kOthers[i].flag); });
    if (told.others != 0) told.other = static_cast<int>(i);
  }
  // unshare() has put our children, not us, into the new pid namespace.
  told.proc = told.mount != 0    ? told.mount
              : told.others != 0 ? told.others
                                 : errno_of([&] {
                                     Child child = clone_child(
                                         0, [] { return errno_of([] { (void)fs_mount("proc", {}, 0); }) & 0xff; });
                                     if (const int code = child.wait()) throw SysError("proc", code);
                                   });
  return told;
}

struct Pipe {
  Fd read_end, write_end;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
    read_end = Fd(ends[0]);
    write_end = Fd(ends[1]);
  }
};

}  // namespace

NamespaceTrial try_namespaces() {
  NamespaceTrial trial;
  const std::string own_label = label_of_self();
  trial.confined_by = enforced_profile(own_label);
  Pipe go, answer;
  Child child;
  try {
    child = clone_child(CLONE_NEWUSER, [&]() -> int {
      go.write_end.reset();
      char byte = 0;
      if (::read(go.read_end.get(), &byte, 1) != 1) return 0;
      const Told told = try_inside();
      return ::write(answer.write_end.get(), &told, sizeof told) == static_cast<ssize_t>(sizeof told) ? 0 : 1;
    });
  } catch (const SysError& error) {
    trial.userns = trial.map = trial.mount = trial.others = trial.proc = error.code();
    return trial;
  }
  const IdMaps single{{{0, ::geteuid(), 1}}, {{0, ::getegid(), 1}}, false};
  trial.map = errno_of([&] { write_id_maps(child.pid, single); });
  if (trial.map != 0) {
    trial.mount = trial.others = trial.proc = trial.map;
    return trial;
  }
  answer.write_end.reset();
  Told told;
  if (::write(go.write_end.get(), "g", 1) != 1) throw_errno("start the trial");
  if (::read(answer.read_end.get(), &told, sizeof told) != static_cast<ssize_t>(sizeof told)) {
    const int code = child.wait();  // a filter that kills rather than refuses
    throw_error("the trial of namespaces ended with status {}", code);
  }
  child.wait();
  trial.mount = told.mount;
  trial.others = told.others;
  if (told.other >= 0) trial.other = kOthers[told.other].name;
  trial.proc = told.proc;
  told.label[sizeof told.label - 1] = '\0';
  if (own_label != told.label) trial.label = told.label;
  return trial;
}

bool is_filtered() {
  const std::string text = try_read_file("/proc/self/status").value_or("");
  const size_t at = text.find("\nSeccomp:");
  return at != std::string::npos && trim(std::string_view(text).substr(at + 9, 3)) == "2";
}

}  // namespace kelp::sys
