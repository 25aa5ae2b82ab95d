#include "cgroup/limits.h"

#include <doctest/doctest.h>

#include "base/error.h"
#include "cgroup/cgroup.h"
#include "cgroup/device_filter.h"
#include "cgroup/stats.h"
#include "cgroup/systemd_scope.h"

using namespace kelp;
using namespace kelp::cgroup;

namespace {

/// "file=value" lines of a resources document.
std::string plan_text(const char* json) {
  std::string text;
  for (const LimitWrite& write : plan_limits(spec::parse_resources(json)))
    text += write.file + "=" + write.value + (write.lifts ? " (lifts)" : "") +
            (write.or_file.empty() ? "" : " (or " + write.or_file + "=" + write.or_value + ")") + "\n";
  return text;
}

std::string error_of(const char* json) {
  try {
    plan_text(json);
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

}  // namespace

TEST_CASE("resources become writes to files of cgroup v2") {
  struct Row {
    const char* json;
    const char* writes;
  };
  const Row rows[] = {
      {R"({})", ""},
      {R"({"memory":{"limit":1048576}})", "memory.max=1048576\n"},
      {R"({"memory":{"limit":-1,"swap":-1}})", "memory.max=max (lifts)\nmemory.swap.max=max (lifts)\n"},
      {R"({"memory":{"limit":100,"swap":300,"reservation":50}})",
       "memory.max=100\nmemory.low=50\nmemory.swap.max=200\n"},
      {R"({"memory":{"limit":100,"swap":100}})", "memory.max=100\nmemory.swap.max=0\n"},
      {R"({"cpu":{"shares":1024}})", "cpu.weight=39 (lifts)\n"},
      {R"({"cpu":{"shares":512}})", "cpu.weight=20\n"},
      {R"({"cpu":{"quota":50000,"period":100000}})", "cpu.max=50000 100000\n"},
      {R"({"cpu":{"quota":50000}})", "cpu.max=50000\n"},
      {R"({"cpu":{"quota":-1}})", "cpu.max=max (lifts)\n"},
      {R"({"cpu":{"period":50000}})", "cpu.max=max 50000\n"},
      {R"({"cpu":{"cpus":"0-1","mems":"0","burst":10}})", "cpu.max.burst=10\ncpuset.cpus=0-1\ncpuset.mems=0\n"},
      {R"({"cpu":{"idle":1,"shares":2}})", "cpu.idle=1\n"},
      {R"({"pids":{"limit":5}})", "pids.max=5\n"},
      {R"({"pids":{"limit":-1}})", "pids.max=max (lifts)\n"},
      {R"({"pids":{"limit":0}})", "pids.max=max (lifts)\n"},
      {R"({"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}]}})",
       "io.bfq.weight=default 500 (or io.weight=default 4950)\nio.bfq.weight=8:0 10 (or io.weight=8:0 1)\n"},
      {R"({"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}],"throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":0}]}})",
       "io.max=8:0 rbps=7\nio.max=8:1 wiops=max\n"},
      {R"({"hugepageLimits":[{"pageSize":"2MB","limit":9}]})", "hugetlb.2MB.max=9\n"},
      {R"({"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":4}}})", "rdma.max=mlx5_1 hca_handle=3 hca_object=4\n"},
      {R"({"unified":{"memory.high":"5","io.max":"8:0 rbps=1\n8:1 rbps=2"}})",
       "io.max=8:0 rbps=1\nio.max=8:1 rbps=2\nmemory.high=5\n"},
      {R"({"devices":[{"allow":false,"access":"rwm"}]})", ""},
  };
  for (const Row& row : rows) CHECK_MESSAGE(plan_text(row.json) == row.writes, row.json);
}

TEST_CASE("limits that cgroup v2 does not have are refused by name") {
  CHECK(error_of(R"({"memory":{"swap":5}})").find("linux.resources.memory.swap: 5 needs memory.limit") == 0);
  CHECK(error_of(R"({"memory":{"limit":10,"swap":5}})").find("linux.resources.memory.swap: 5 is memory and swap") == 0);
  CHECK(error_of(R"({"memory":{"kernel":5}})").find("linux.resources.memory.kernel") == 0);
  CHECK(error_of(R"({"cpu":{"realtimeRuntime":5}})").find("linux.resources.cpu.realtimeRuntime") == 0);
  CHECK(error_of(R"({"network":{"classID":5}})").find("linux.resources.network.classID") == 0);
  CHECK(error_of(R"({"unified":{"../x.y":"1"}})").find("linux.resources.unified") == 0);
  CHECK(error_of(R"({"unified":{"x":"1"}})").find("linux.resources.unified") == 0);
}

TEST_CASE("only real limits count as asked for") {
  CHECK(!asks_for_limits(spec::parse_resources(R"({"pids":{"limit":-1},"memory":{"limit":-1}})")));
  CHECK(asks_for_limits(spec::parse_resources(R"({"pids":{"limit":3}})")));
  CHECK(
      needed_controllers(plan_limits(spec::parse_resources(R"({"cpu":{"shares":2,"cpus":"0"},"pids":{"limit":3}})"))) ==
      std::vector<std::string>{"cpu", "cpuset", "pids"});
}

TEST_CASE("a missing controller is explained with its mend") {
  const MissingController v1 = explain_missing("memory", "linux.resources.memory.limit", "/sys/fs/cgroup/x", Lack::v1);
  CHECK(v1.text ==
        "linux.resources.memory.limit: the cgroup controller memory belongs to cgroup v1 on this host (hybrid layout)");
  CHECK(v1.hint.find("unified_cgroup_hierarchy=1") != std::string::npos);
  const MissingController missing =
      explain_missing("cpuset", "linux.resources.cpu.cpus", "/sys/fs/cgroup/x", Lack::delegation);
  CHECK(missing.text.find("cpuset is not delegated to /sys/fs/cgroup/x") != std::string::npos);
  CHECK(missing.hint.find("Delegate=") != std::string::npos);
  const MissingController kernel = explain_missing("cpuset", "--cpuset-cpus", "/sys/fs/cgroup/x", Lack::kernel);
  CHECK(kernel.text == "--cpuset-cpus: this kernel has no cgroup controller cpuset");
  CHECK(kernel.hint.find("CONFIG_CPUSETS") != std::string::npos);
  CHECK(kernel.hint.find("Delegate=") == std::string::npos);
}

TEST_CASE("conversions of v1 weights keep their ends") {
  CHECK(cpu_weight_of_shares(0) == 0);
  CHECK(cpu_weight_of_shares(2) == 1);
  CHECK(cpu_weight_of_shares(262144) == 10000);
  CHECK(io_weight_of_blkio(10) == 1);
  CHECK(io_weight_of_blkio(1000) == 10000);
}

TEST_CASE("texts of the kernel") {
  const char* text = "usage_usec 12\nuser_usec 7\nusage_usec_x 99\n";
  CHECK(stat_value(text, "usage_usec") == 12);
  CHECK(stat_value(text, "user_usec") == 7);
  CHECK(stat_value(text, "user") == 0);
  const auto io = parse_io_stat("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:1 rbytes=1\n");
  REQUIRE(io.size() == 2);
  CHECK(io[0].write_bytes == 20);
  CHECK(io[1].major == 253);
}

TEST_CASE("slices nest by their dashes") {
  CHECK(slice_path("user.slice") == "user.slice");
  CHECK(slice_path("a-b-c.slice") == "a.slice/a-b.slice/a-b-c.slice");
  CHECK(slice_path("-.slice").empty());
}

TEST_CASE("groups are optional") {
  ContainerGroup none(Place{}, "x");
  none.adopt(1);
  none.wait();
  CHECK(none.path().empty());
  CHECK(!none.comes_later());
  CHECK(foretold_path(Place{}, "x").empty());
  CHECK(foretold_path({Manager::cgroupfs, "/sys/fs/cgroup/a", {}, "", ""}, "x") == "/sys/fs/cgroup/a/kelp-x");
  CHECK(!exists(""));
  CHECK(!populated("/nonexistent"));
  CHECK(remove_tree("/nonexistent/x"));
  CHECK_THROWS_AS(probe("other"), UsageError);
}

namespace {

/// Runs a device filter as the kernel would: the instructions it is made of, no more.
bool asks_filter(const std::vector<bpf_insn>& program, char type, std::uint64_t access, std::uint64_t major,
                 std::uint64_t minor) {
  std::uint64_t regs[11] = {};
  const std::uint64_t context[3] = {access << 16 | (type == 'b' ? 1U : 2U), major, minor};
  for (size_t at = 0; at < program.size(); ++at) {
    const bpf_insn& one = program[at];
    std::uint64_t& to = regs[one.dst_reg];
    const auto value = static_cast<std::uint64_t>(static_cast<std::int64_t>(one.imm));
    const auto jump = static_cast<size_t>(one.off);
    switch (one.code) {
      case BPF_LDX | BPF_MEM | BPF_W:
        to = context[one.off / 4];
        break;
      case BPF_ALU64 | BPF_X | BPF_MOV:
        to = regs[one.src_reg];
        break;
      case BPF_ALU64 | BPF_K | BPF_MOV:
        to = value;
        break;
      case BPF_ALU64 | BPF_K | BPF_AND:
        to &= value;
        break;
      case BPF_ALU64 | BPF_K | BPF_RSH:
        to >>= value;
        break;
      case BPF_JMP | BPF_K | BPF_JNE:
        if (to != value) at += jump;
        break;
      case BPF_JMP | BPF_K | BPF_JEQ:
        if (to == value) at += jump;
        break;
      case BPF_JMP | BPF_EXIT:
        return regs[0] != 0;
      default:
        FAIL("unexpected instruction ", int{one.code});
    }
  }
  FAIL("it runs off its end");
  return false;
}

}  // namespace

TEST_CASE("the device filter: the last rule that matches decides, each access by itself") {
  constexpr std::uint64_t m = 1, r = 2, w = 4;
  const auto rules = [](const char* json) {
    return compile_device_filter(spec::parse_resources(fmt::format(R"({{"devices": [{}]}})", json)).devices);
  };
  const auto none = rules(R"({"allow": false, "access": "rwm"})");
  CHECK(asks_filter(none, 'c', r | w, 1, 3));     // null
  CHECK(asks_filter(none, 'c', r | w, 136, 17));  // a terminal
  CHECK(asks_filter(none, 'b', m, 8, 0));         // any node can be made
  CHECK_FALSE(asks_filter(none, 'b', r, 8, 0));   // but not opened
  CHECK_FALSE(asks_filter(none, 'c', m | r, 1, 11));
  CHECK_FALSE(asks_filter(none, 'b', r, 1, 3));  // null's numbers on a block device are another thing

  const auto parts = rules(R"({"allow": true, "type": "b", "major": 8, "access": "r"},
      {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "w"})");
  CHECK(asks_filter(parts, 'b', r | w, 8, 1));  // one rule each
  CHECK(asks_filter(parts, 'b', r, 8, 2));
  CHECK_FALSE(asks_filter(parts, 'b', r | w, 8, 2));

  const auto order = rules(R"({"allow": true, "type": "a", "access": "rwm"},
      {"allow": false, "type": "c", "major": 10, "minor": -1, "access": "w"},
      {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"})");
  CHECK(asks_filter(order, 'b', r | w | m, 8, 0));
  CHECK(asks_filter(order, 'c', r, 10, 200));
  CHECK_FALSE(asks_filter(order, 'c', r | w, 10, 200));
  CHECK(asks_filter(order, 'c', r | w, 10, 229));

  CHECK_THROWS_WITH_AS(rules(R"({"allow": true, "access": "rx"})"), doctest::Contains("devices[0].access"), Error);
  CHECK_THROWS_WITH_AS(rules(R"({"allow": true, "type": "z"})"), doctest::Contains("devices[0].type"), Error);
}
