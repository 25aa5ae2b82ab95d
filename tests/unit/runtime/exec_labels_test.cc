#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "base/error.h"
#include "runtime/node_settings.h"
#include "sys/procfs.h"
#include "sys/safe_path.h"

using namespace kelp;

namespace {

/// A directory that stands for /proc, with the files that the kernel's security modules read.
struct FalseProc {
  FalseProc() {
    char name[] = "/tmp/kelp-labels-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
    sys::mkdirs(path + "/self/attr/apparmor", 0755);
    file("self/attr/exec");
    file("self/attr/apparmor/exec");
    fd = Fd(::open(name, O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  ~FalseProc() {
    for (const char* name : {"self/attr/exec", "self/attr/apparmor/exec"}) ::unlink((path + "/" + name).c_str());
    for (const char* name : {"/self/attr/apparmor", "/self/attr", "/self", ""}) ::rmdir((path + name).c_str());
  }
  void file(const char* name) const {
    const Fd made(::open((path + "/" + name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    REQUIRE(made.valid());
  }
  [[nodiscard]] std::string text(const char* name) const { return sys::read_file(path + "/" + name); }

  std::string path;
  Fd fd;
};

void label(const FalseProc& proc, const char* profile, const char* selinux) {
  spec::Process process;
  process.apparmor_profile = profile;
  process.selinux_label = selinux;
  runtime::ExecLabels labels;
  labels.open(process, proc.fd.get());
  CHECK((labels.apparmor_fd() >= 0) == !process.apparmor_profile.empty());
  CHECK((labels.selinux_fd() >= 0) == !process.selinux_label.empty());
  labels.apply(process);
}

}  // namespace

TEST_CASE("security labels of the payload reach the kernel's files") {
  const FalseProc proc;
  SUBCASE("an AppArmor profile, in the directory of its own") {
    label(proc, "docker-default", "");
    CHECK(proc.text("self/attr/apparmor/exec") == "exec docker-default");
    CHECK(proc.text("self/attr/exec").empty());
  }
  SUBCASE("an AppArmor profile, before Linux 5.8") {
    ::unlink((proc.path + "/self/attr/apparmor/exec").c_str());
    label(proc, "docker-default", "");
    CHECK(proc.text("self/attr/exec") == "exec docker-default");
  }
  SUBCASE("an SELinux label") {
    label(proc, "", "system_u:system_r:container_t:s0:c1,c2");
    CHECK(proc.text("self/attr/exec") == "system_u:system_r:container_t:s0:c1,c2");
    CHECK(proc.text("self/attr/apparmor/exec").empty());
  }
  SUBCASE("neither") {
    label(proc, "", "");
    CHECK(proc.text("self/attr/exec").empty());
  }
}
