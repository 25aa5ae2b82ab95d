#include "spec/runtime_config.h"

#include <doctest/doctest.h>

#include <string>

#include "base/error.h"
#include "spec/runtime_state.h"
#include "spec/validate.h"

using namespace kelp;
using namespace kelp::spec;

namespace {

const char* const kFull = R"({
 "ociVersion": "1.2.0", "unknown": [1, {"a": null}], "hostname": "box", "domainname": "example",
 "process": {"terminal": true, "consoleSize": {"height": 24, "width": 80}, "cwd": "/w", "args": ["sh", "-c", "x \"y\"\n"],
   "env": ["A=b", "U=ü"], "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4]},
   "capabilities": {"bounding": ["CAP_CHOWN"], "ambient": ["CAP_KILL"]},
   "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 18446744073709551615, "soft": 10}],
   "noNewPrivileges": true, "oomScoreAdj": -5, "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
   "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3}, "execCPUAffinity": {"initial": "0-1"}},
 "root": {"path": "rootfs", "readonly": true},
 "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
   {"destination": "/d", "type": "bind", "source": "/s", "uidMappings": [{"containerID": 0, "hostID": 9, "size": 1}],
    "gidMappings": [{"containerID": 0, "hostID": 9, "size": 1}]}],
 "hooks": {"prestart": [{"path": "/h", "args": ["h"], "env": ["E=1"], "timeout": 3}], "poststop": [{"path": "/p"}]},
 "annotations": {"k": "v"},
 "linux": {
   "namespaces": [{"type": "pid"}, {"type": "user"}, {"type": "uts", "path": "/proc/1/ns/uts"}, {"type": "time"},
     {"type": "network"}, {"type": "mount"}],
   "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
   "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
   "timeOffsets": {"monotonic": {"secs": -3, "nanosecs": 4}},
   "devices": [{"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 5}],
   "cgroupsPath": "/a/b",
   "resources": {"memory": {"limit": 1, "swap": -1}, "cpu": {"shares": 2, "quota": -1, "cpus": "0-1"},
     "pids": {"limit": 7}, "unified": {"memory.high": "max"}, "hugepageLimits": [{"pageSize": "2MB", "limit": 3}],
     "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]},
     "devices": [{"allow": false, "access": "rwm"}], "rdma": {"mlx": {"hcaHandles": 2}}},
   "sysctl": {"net.ipv4.ip_forward": "1"},
   "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
     "flags": ["SECCOMP_FILTER_FLAG_LOG"],
     "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"},
       {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
        "args": [{"index": 0, "value": 2114060288, "valueTwo": 5, "op": "SCMP_CMP_MASKED_EQ"}]}]},
   "rootfsPropagation": "rslave", "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
   "mountLabel": "l", "personality": {"domain": "LINUX32"}
 }
})";

std::string error_of(const std::string& text) {
  try {
    validate(parse_runtime_config(text));
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

/// A small valid document with `linux` and `process` additions.
std::string with(const std::string& linux_part, const std::string& process_part = "") {
  return R"({"ociVersion":"1.0.2","root":{"path":"r"},"process":{"cwd":"/","args":["a"])" + process_part +
         R"(},"linux":{"namespaces":[{"type":"mount"}])" + linux_part + "}}";
}

}  // namespace

TEST_CASE("a full document survives parse, print and parse") {
  const RuntimeConfig config = parse_runtime_config(kFull);
  CHECK_NOTHROW(validate(config));
  REQUIRE(config.process);
  CHECK(config.process->args[2] == "x \"y\"\n");
  CHECK(config.process->user.umask == 18);
  CHECK(config.process->user.additional_gids == std::vector<std::uint32_t>{3, 4});
  CHECK(config.process->rlimits[0].hard == UINT64_MAX);
  CHECK(config.process->console_size->width == 80);
  CHECK(config.process->oom_score_adj == -5);
  CHECK(config.root->readonly);
  CHECK(config.mounts[1].uid_mappings[0] == sys::IdRange{0, 9, 1});
  CHECK(config.hooks.prestart[0].timeout == 3);
  CHECK(config.linux_.time_offsets.at("monotonic").secs == -3);
  CHECK(config.linux_.resources.memory->swap == -1);
  CHECK(config.linux_.resources.unified.at("memory.high") == "max");
  CHECK(config.linux_.seccomp->syscalls[1].args[0].op == SeccompOp::masked_eq);
  CHECK(config.linux_.seccomp->default_errno_ret == 38);
  CHECK(config.find_namespace("uts")->path == "/proc/1/ns/uts");
  CHECK(config.find_namespace("ipc") == nullptr);

  const std::string printed = print_runtime_config(config);
  const RuntimeConfig again = parse_runtime_config(printed);
  CHECK(print_runtime_config(again) == printed);
  for (const char* part : {"\"consoleSize\":{\"height\":24,\"width\":80}",
                           "\"umask\":18",
                           "\"hard\":18446744073709551615",
                           "\"oomScoreAdj\":-5",
                           "\"policy\":\"SCHED_BATCH\"",
                           "\"IOPRIO_CLASS_BE\"",
                           "\"U=ü\"",
                           "\"initial\":\"0-1\"",
                           "\"monotonic\":{\"secs\":-3,\"nanosecs\":4}",
                           "\"fileMode\":438",
                           "\"swap\":-1",
                           "\"unified\":{\"memory.high\":\"max\"}",
                           "\"hcaHandles\":2",
                           "\"throttleReadBpsDevice\"",
                           "\"valueTwo\":5",
                           "\"errnoRet\":1",
                           "\"defaultErrnoRet\":38",
                           "\"mountLabel\":\"l\"",
                           "\"LINUX32\"",
                           "\"poststop\":[{\"path\":\"/p\"}]",
                           "\"sysctl\":{\"net.ipv4.ip_forward\":\"1\"}",
                           "\"x \\\"y\\\"\\n\""})
    CHECK_MESSAGE(printed.find(part) != std::string::npos, part);
  CHECK(print_runtime_config(parse_runtime_config(print_runtime_config_pretty(config))) == printed);
}

TEST_CASE("errors name the JSON path") {
  CHECK(error_of("{").find("line 1, column") == 0);
  CHECK(error_of("").find("line 1, column") == 0);
  CHECK(error_of("[]") == "must be an object");
  CHECK(error_of("{}") == "ociVersion: is required");
  CHECK(error_of(R"({"ociVersion":3})") == "ociVersion: must be a string");
  CHECK(
      error_of(with(
          R"(,"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW"},{"names":["b"],"action":"X"}]})")) ==
      "linux.seccomp.syscalls[1].action: unknown action \"X\"");
  CHECK(
      error_of(with(
          R"(,"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]})")) ==
      "linux.seccomp.syscalls[0].args[0].index: 6 is not in 0..5");
  CHECK(error_of(with("", R"(,"user":{"uid":-1})")) == "process.user.uid: -1 is not in 0..4294967294");
  CHECK(error_of(with("", R"(,"user":{"uid":1.5})")) == "process.user.uid: 1.5 is not an integer");
  CHECK(error_of(with("", R"(,"env":["A=b",7])")) == "process.env[1]: must be a string");
  CHECK(error_of(with("", R"(,"env":["A=\u0000"])")) == "process.env[0]: holds a NUL character");
  CHECK(error_of(with("", R"(,"noNewPrivileges":"yes")")) == "process.noNewPrivileges: must be true or false");
  CHECK(error_of(with(R"(,"devices":{})")) == "linux.devices: must be an array");
  CHECK(error_of(with(R"(,"devices":[{"type":"x","path":"/a"}])")) ==
        "linux.devices[0].type: \"x\" is not one of c, u, b, p");
  CHECK(error_of(with(R"(,"resources":{"pids":{}})")) == "linux.resources.pids.limit: is required");
  CHECK(error_of(with("")) == "");
  CHECK_THROWS_WITH_AS(parse_process(R"({"cwd":"/","args":[1]})"), "process.args[0]: must be a string", Error);
  CHECK_THROWS_WITH_AS(parse_resources(R"({"cpu":{"shares":-1}})"),
                       "linux.resources.cpu.shares: -1 is not in 0..18446744073709551615", Error);
}

TEST_CASE("null is the same as absent, the last of two equal members counts") {
  const RuntimeConfig config = parse_runtime_config(
      R"({"ociVersion":"1.2.0","process":null,"hooks":null,"hostname":"a","hostname":"b","linux":{"seccomp":null,"devices":null}})");
  CHECK(!config.process);
  CHECK(config.hostname == "b");
  CHECK(!config.linux_.seccomp);
}

TEST_CASE("cross-field rules") {
  CHECK(error_of(R"({"ociVersion":"2.0.0","root":{"path":"r"}})").find("ociVersion: version 2.0.0") == 0);
  CHECK(error_of(R"({"ociVersion":"1.0.0"})") == "root: is required");
  CHECK(error_of(R"({"ociVersion":"1.0.0","root":{"path":"r"},"hostname":"h"})").find("hostname: needs a uts") == 0);
  CHECK(error_of(with("", R"(,"rlimits":[{"type":"RLIMIT_NOFILE","soft":3,"hard":2}])"))
            .find("process.rlimits[0]: the soft") == 0);
  CHECK(error_of(with("", R"(,"rlimits":[{"type":"NOFILE","soft":1,"hard":2}])")).find("process.rlimits[0].type") == 0);
  CHECK(error_of(with("", R"(,"env":["novalue"])")) == "process.env[0]: \"novalue\" is not NAME=VALUE");
  CHECK(
      error_of(with(R"(,"sysctl":{"kernel.panic":"1"})")).find("linux.sysctl: \"kernel.panic\" belongs to the whole") ==
      0);
  CHECK(error_of(with(R"(,"sysctl":{"net.core.somaxconn":"1"})")).find("needs a network namespace") !=
        std::string::npos);
  CHECK(error_of(with(R"(,"uidMappings":[{"containerID":0,"hostID":0,"size":1}])"))
            .find("linux.uidMappings: mappings need") == 0);
  CHECK(error_of(with(R"(,"rootfsPropagation":"x")")).find("linux.rootfsPropagation") == 0);
  CHECK(error_of(with(R"(,"maskedPaths":["proc"])")) == "linux.maskedPaths[0]: \"proc\" is not an absolute path");
  CHECK(
      error_of(
          with(
              R"(,"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_NOTIFY"}]})"))
          .find("linux.seccomp.listenerPath: is required") == 0);
  CHECK(error_of(with(R"(,"intelRdt":{})")).find("linux.intelRdt") == 0);
  CHECK(error_of(
            R"({"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]}})") ==
        "linux.namespaces[1].type: pid appears twice");
  CHECK(error_of(R"({"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"namespaces":[{"type":"user"}]}})")
            .find("linux.uidMappings: a new user namespace needs") == 0);
}

TEST_CASE("namespaced sysctls in both spellings") {
  std::string_view ns;
  CHECK(is_namespaced_sysctl("net.ipv4.ip_forward", &ns));
  CHECK(ns == "network");
  CHECK(is_namespaced_sysctl("net/ipv4/conf/eth0.100/forwarding", &ns));
  CHECK(is_namespaced_sysctl("kernel.shmmax", &ns));
  CHECK(ns == "ipc");
  CHECK(is_namespaced_sysctl("kernel/hostname", &ns));
  CHECK(ns == "uts");
  CHECK(!is_namespaced_sysctl("vm.swappiness", &ns));
  CHECK(!is_namespaced_sysctl("kernel.shmmax.x", &ns));
}

TEST_CASE("state document") {
  RuntimeState state;
  state.id = "c1";
  state.status = "running";
  state.pid = 42;
  state.bundle = "/b";
  state.annotations["a"] = "b";
  CHECK(print_state(state) ==
        R"({"ociVersion":"1.3.0","id":"c1","pid":42,"status":"running","bundle":"/b","annotations":{"a":"b"}})");
  const RuntimeState again = parse_state(print_state(state, true));
  CHECK(again.pid == 42);
  CHECK(again.annotations.at("a") == "b");
  CHECK(print_container_process_state(state, 7, "m").find(R"("fds":["seccompFd"],"pid":7,"metadata":"m","state":{)") !=
        std::string::npos);
  CHECK(print_features(Features{}).find("\"ociVersionMax\": \"1.3.0\"") != std::string::npos);
}
