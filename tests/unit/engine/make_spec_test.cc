#include "engine/make_spec.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>

#include "base/error.h"
#include "sys/lock.h"

using namespace kelp;
using namespace kelp::engine;

namespace {

/// Compares with tests/golden/<name>.json; KELP_ACCEPT=1 writes it anew.
void check_golden(const std::string& name, const SpecInput& input) {
  const std::string path = std::string(KELP_GOLDEN_DIR) + "/" + name + ".json";
  const std::string made = spec::print_runtime_config_pretty(make_runtime_config(input)) + "\n";
  if (std::getenv("KELP_ACCEPT") != nullptr) sys::replace_file(path, made, 0644);
  CHECK(sys::read_small_file(path).value_or("") == made);
}

struct Fixture {
  store::ContainerRecord record;
  SpecInput input;
  Fixture() {
    record.id = std::string(64, 'c');
    record.name = "web";
    record.image.env = {"PATH=/bin", "LANG=C"};
    record.image.cmd = {"/bin/sh"};
    record.map_key = "full";
    input.record = &record;
    input.user.home = "/root";
    input.rootfs = "merged";
    input.files = "/data/containers/c";
    input.hostname = "cccccccccccc";
    input.has_hosts = input.has_resolv_conf = input.has_hostname = true;
    input.known_caps = 0x1ffffffffff;
    input.host_rlimits = {{"RLIMIT_NOFILE", 4096, 1024}};
  }
  [[nodiscard]] spec::RuntimeConfig make() const { return make_runtime_config(input); }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "golden: plain") { check_golden("plain", input); }

TEST_CASE_FIXTURE(Fixture, "golden: everything on") {
  record.config.command = {"server", "--port", "80"};
  record.config.env = {{"LANG", "de"}, {"A", "b"}};
  record.config.tty = record.config.init = record.config.read_only = true;
  record.config.cap_add = {"NET_ADMIN"};
  record.config.cap_drop = {"CHOWN"};
  record.config.security_opt = {"no-new-privileges", "mask=/proc/cpuinfo", "unmask=/proc/acpi:/sys/*"};
  record.config.sysctl = {{"net.core.somaxconn", "4096"}};
  record.config.ulimits = {{"nofile", 10, 20}};
  record.config.resources.memory = 1 << 26;
  record.config.resources.cpus = 0.5;
  record.config.workdir = "/srv";
  record.uid_map = {{0, 1, 1000}, {1000, 0, 1}};
  record.gid_map = record.uid_map;
  input.user = {1000, 1000, {29}, "/home/web", "web", true};
  input.init_program = "/usr/libexec/kelp/kelp-init";
  input.cgroup_path = "/user.slice/kelp/container";
  input.mounts = {{"/data", "bind", "/home/me/data", {"rbind", "rslave"}, {}, {}}};
  input.devices = {{"/dev/fuse", "/dev/fuse", "rw"}};
  check_golden("everything", input);
}

TEST_CASE_FIXTURE(Fixture, "golden: privileged in the host's namespaces") {
  record.config.privileged = true;
  input.network.kind = input.pid.kind = input.ipc.kind = input.uts.kind = NamespaceChoice::Kind::host;
  check_golden("privileged_host", input);
}

TEST_CASE_FIXTURE(Fixture, "the command is the user's over the image's") {
  record.image.entrypoint = {"/entry"};
  CHECK(make().process->args == store::Strings{"/entry", "/bin/sh"});
  record.config.command = {"x"};
  CHECK(make().process->args == store::Strings{"/entry", "x"});
  record.config.entrypoint = store::Strings{"/other"};
  CHECK(make().process->args == store::Strings{"/other", "x"});
  record.config.entrypoint.emplace();
  record.config.command = {};
  CHECK_THROWS_AS(static_cast<void>(make()), UsageError);
}

TEST_CASE_FIXTURE(Fixture, "another user than root has no capabilities but those added by name") {
  input.user.uid = 1000;
  CHECK(make().process->capabilities->effective.empty());
  CHECK(make().process->capabilities->bounding.size() == 11);
  record.config.cap_add = {"net_raw"};
  CHECK(make().process->capabilities->ambient == spec::Strings{"CAP_NET_RAW"});
  record.config.cap_drop = {"ALL"};
  CHECK(make().process->capabilities->bounding == spec::Strings{"CAP_NET_RAW"});
  record.config.cap_add = {"nope"};
  CHECK_THROWS_AS(static_cast<void>(make()), UsageError);
  record.config.cap_add = record.config.cap_drop = {"KILL"};
  CHECK_THROWS_AS(static_cast<void>(make()), UsageError);
}

TEST_CASE_FIXTURE(Fixture, "labels are those of the process and of what is mounted for it") {
  CHECK(make_runtime_config(input).linux_.mount_label.empty());
  input.selinux_label = "system_u:system_r:container_t:s0:c1,c2";
  input.mount_label = "system_u:object_r:container_file_t:s0:c1,c2";
  const spec::RuntimeConfig made = make_runtime_config(input);
  CHECK(made.process->selinux_label == input.selinux_label);
  CHECK(made.linux_.mount_label == input.mount_label);
}

TEST_CASE_FIXTURE(Fixture, "a sysctl needs its own namespace") {
  record.config.sysctl = {{"kernel.shmmax", "1"}};
  CHECK(make().linux_.sysctl.count("kernel.shmmax") == 1);
  input.ipc.kind = NamespaceChoice::Kind::host;
  CHECK_THROWS_AS(static_cast<void>(make()), UsageError);
  record.config.sysctl = {{"vm.swappiness", "1"}};
  CHECK_THROWS_AS(static_cast<void>(make()), UsageError);
}

TEST_CASE_FIXTURE(Fixture, "what the user mounts takes the place of kelp's own") {
  input.mounts = {{"/etc/hosts", "bind", "/mine", {"bind"}, {}, {}}};
  int found = 0;
  for (const spec::Mount& mount : make().mounts)
    if (mount.destination == "/etc/hosts") {
      ++found;
      CHECK(mount.source == "/mine");
    }
  CHECK(found == 1);
}

TEST_CASE_FIXTURE(Fixture, "one id: calls that need others succeed and do nothing") {
  input.single_id = true;
  input.seccomp.emplace();
  input.seccomp->syscalls.push_back({{"chown", "read"}, spec::SeccompAction::allow, {}, {}});
  const spec::Seccomp filter = *make().linux_.seccomp;
  CHECK(filter.syscalls.front().names == spec::Strings{"read"});
  CHECK(filter.syscalls.back().errno_ret == 0U);
}

TEST_CASE("security options") {
  CHECK(parse_security_options({"seccomp=unconfined"}).seccomp == "unconfined");
  CHECK(parse_security_options({"label:disable"}).label_disable);
  CHECK(parse_security_options({"no-new-privileges:false"}).no_new_privileges == false);
  for (const char* bad : {"", "x", "seccomp", "mask=relative", "no-new-privileges=maybe"})
    CHECK_THROWS_AS(parse_security_options({bad}), UsageError);
}
