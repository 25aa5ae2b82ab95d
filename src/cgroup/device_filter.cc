#include "cgroup/device_filter.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>

#include "base/error.h"
#include "base/log.h"
#include "base/owned.h"
#include "base/text.h"
#include "sys/procfs.h"

namespace kelp::cgroup {
namespace {

// Registers of the program.
constexpr std::uint8_t kResult = BPF_REG_0, kContext = BPF_REG_1, kType = BPF_REG_2, kAccess = BPF_REG_3,
                       kMajor = BPF_REG_4, kMinor = BPF_REG_5, kMatched = BPF_REG_6;
constexpr std::int32_t kAllAccess = BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE;

bpf_insn instruction(unsigned code, std::uint8_t to, std::uint8_t from, std::int16_t offset, std::int32_t value) {
  bpf_insn made{};
  made.code = static_cast<std::uint8_t>(code);
  made.dst_reg = to & 0xfU;
  made.src_reg = from & 0xfU;
  made.off = offset;
  made.imm = value;
  return made;
}

bpf_insn compute(unsigned operation, std::uint8_t reg, std::int32_t value) {
  return instruction(BPF_ALU64 | BPF_K | operation, reg, 0, 0, value);
}
bpf_insn copy(std::uint8_t to, std::uint8_t from) { return instruction(BPF_ALU64 | BPF_X | BPF_MOV, to, from, 0, 0); }
bpf_insn load(std::uint8_t to, size_t offset) {
  return instruction(BPF_LDX | BPF_MEM | BPF_W, to, kContext, static_cast<std::int16_t>(offset), 0);
}
/// The place jumped to is filled in when it is known.
bpf_insn jump_if(unsigned comparison, std::uint8_t reg, std::int32_t value) {
  return instruction(BPF_JMP | BPF_K | comparison, reg, 0, 0, value);
}

void answer(std::vector<bpf_insn>& program, bool allow) {
  program.push_back(compute(BPF_MOV, kResult, allow ? 1 : 0));
  program.push_back(instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
}

std::int32_t access_bits(const std::string& access, size_t index) {
  std::int32_t bits = 0;
  for (const char letter : access) {
    switch (letter) {
      case 'r':
        bits |= BPF_DEVCG_ACC_READ;
        break;
      case 'w':
        bits |= BPF_DEVCG_ACC_WRITE;
        break;
      case 'm':
        bits |= BPF_DEVCG_ACC_MKNOD;
        break;
      default:
        throw_error("linux.resources.devices[{}].access: {} holds other letters than r, w and m", index,
                    quoted(access));
    }
  }
  return bits;
}

std::int32_t number(std::int64_t value, size_t index) {
  if (value < 0 || value > INT32_MAX)
    throw_error("linux.resources.devices[{}]: there is no device number {}", index, value);
  return static_cast<std::int32_t>(value);
}

/// One rule: what it decides of the accesses that are still open (kAccess), or nothing.
void add_rule(std::vector<bpf_insn>& program, const spec::DeviceRule& rule, size_t index) {
  const std::int32_t bits = rule.access.empty() ? kAllAccess : access_bits(rule.access, index);
  std::vector<size_t> to_next;
  const auto next_if = [&](unsigned comparison, std::uint8_t reg, std::int32_t value) {
    to_next.push_back(program.size());
    program.push_back(jump_if(comparison, reg, value));
  };
  if (rule.type == "b")
    next_if(BPF_JNE, kType, BPF_DEVCG_DEV_BLOCK);
  else if (rule.type == "c" || rule.type == "u")
    next_if(BPF_JNE, kType, BPF_DEVCG_DEV_CHAR);
  else if (!rule.type.empty() && rule.type != "a")
    throw_error("linux.resources.devices[{}].type: {} is not one of a, b, c", index, quoted(rule.type));
  // -1 stands for "all", as in runc.
  if (rule.major && *rule.major != -1) next_if(BPF_JNE, kMajor, number(*rule.major, index));
  if (rule.minor && *rule.minor != -1) next_if(BPF_JNE, kMinor, number(*rule.minor, index));
  program.push_back(copy(kMatched, kAccess));
  program.push_back(compute(BPF_AND, kMatched, bits));
  next_if(BPF_JEQ, kMatched, 0);
  if (rule.allow) {
    program.push_back(compute(BPF_AND, kAccess, kAllAccess & ~bits));
    next_if(BPF_JNE, kAccess, 0);
  }
  answer(program, rule.allow);
  for (const size_t from : to_next) program[from].off = static_cast<std::int16_t>(program.size() - from - 1);
}

std::vector<spec::DeviceRule> default_rules() {
  const auto node = [](std::int64_t major, std::optional<std::int64_t> minor) {
    return spec::DeviceRule{true, "c", major, minor, "rwm"};
  };
  std::vector<spec::DeviceRule> rules = {{true, "c", {}, {}, "m"}, {true, "b", {}, {}, "m"}};
  for (const std::int64_t minor : {3, 5, 7, 8, 9}) rules.push_back(node(1, minor));
  for (const std::int64_t minor : {0, 1, 2}) rules.push_back(node(5, minor));
  rules.push_back(node(136, {}));
  return rules;
}

long bpf(int command, bpf_attr& attributes) { return ::syscall(SYS_bpf, command, &attributes, sizeof attributes); }

Fd load_program(const std::vector<bpf_insn>& program) {
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attributes.insns = reinterpret_cast<std::uintptr_t>(program.data());
  attributes.insn_cnt = static_cast<std::uint32_t>(program.size());
  attributes.license = reinterpret_cast<std::uintptr_t>("");
  return Fd(static_cast<int>(bpf(BPF_PROG_LOAD, attributes)));
}

/// Programs that are on the group already.
std::vector<Fd> attached_programs(int group) {
  constexpr std::uint32_t kMostPrograms = 64;  // the kernel's own limit per group
  std::vector<std::uint32_t> ids(kMostPrograms);
  bpf_attr attributes{};
  attributes.query.target_fd = static_cast<std::uint32_t>(group);
  attributes.query.attach_type = BPF_CGROUP_DEVICE;
  attributes.query.prog_ids = reinterpret_cast<std::uintptr_t>(ids.data());
  attributes.query.prog_cnt = kMostPrograms;
  if (bpf(BPF_PROG_QUERY, attributes) < 0) throw_errno("ask for the device filters of a cgroup");
  std::vector<Fd> programs;
  for (std::uint32_t i = 0; i < attributes.query.prog_cnt; ++i) {
    bpf_attr by_id{};
    by_id.prog_id = ids[i];
    Fd program(static_cast<int>(bpf(BPF_PROG_GET_FD_BY_ID, by_id)));
    if (program) programs.push_back(std::move(program));
  }
  return programs;
}

bpf_attr attachment(int group, const Fd& program) {
  bpf_attr attributes{};
  attributes.target_fd = static_cast<std::uint32_t>(group);
  attributes.attach_bpf_fd = static_cast<std::uint32_t>(program.get());
  attributes.attach_type = BPF_CGROUP_DEVICE;
  return attributes;
}

bool is_host_root() {
  const auto map = sys::try_read_file("/proc/self/uid_map");
  return ::geteuid() == 0 && map && map->find("4294967295") != std::string::npos;
}

}  // namespace

std::vector<bpf_insn> compile_device_filter(const std::vector<spec::DeviceRule>& rules) {
  std::vector<bpf_insn> program = {
      load(kType, offsetof(bpf_cgroup_dev_ctx, access_type)),
      copy(kAccess, kType),
      compute(BPF_AND, kType, 0xffff),
      compute(BPF_RSH, kAccess, 16),
      load(kMajor, offsetof(bpf_cgroup_dev_ctx, major)),
      load(kMinor, offsetof(bpf_cgroup_dev_ctx, minor)),
  };
  const std::vector<spec::DeviceRule> defaults = default_rules();
  for (auto rule = defaults.rbegin(); rule != defaults.rend(); ++rule) add_rule(program, *rule, 0);
  // The last rule that matches decides: it is asked first.
  for (size_t i = rules.size(); i-- > 0;) add_rule(program, rules[i], i);
  answer(program, false);
  return program;
}

void restrict_devices(const std::string& path, const std::vector<spec::DeviceRule>& rules) {
  if (rules.empty()) return;
  const Fd program = load_program(compile_device_filter(rules));
  if (!program) {
    const int saved = errno;
    if (is_host_root()) throw SysError("linux.resources.devices: load the device filter", saved);
    log::debug("no device filter: {}", errno_text(saved));
    return;
  }
  const Fd group(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!group) throw_errno("open {}", path);
  const std::vector<Fd> before = attached_programs(group.get());
  bpf_attr attributes = attachment(group.get(), program);
  attributes.attach_flags = BPF_F_ALLOW_MULTI;
  if (bpf(BPF_PROG_ATTACH, attributes) < 0) throw_errno("linux.resources.devices: put the device filter on {}", path);
  // All that are on a group must agree, so the earlier ones go.
  for (const Fd& old : before) {
    attributes = attachment(group.get(), old);
    if (bpf(BPF_PROG_DETACH, attributes) < 0) throw_errno("take the earlier device filter from {}", path);
  }
}

}  // namespace kelp::cgroup
