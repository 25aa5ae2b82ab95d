#include "engine/isolation.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "engine/context.h"
#include "engine/make_spec.h"
#include "engine/prepare.h"
#include "store/containers.h"
#include "sys/capability.h"
#include "sys/lock.h"
#include "sys/procfs.h"

namespace kelp::engine {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kKinds[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"};

/// "net:[4026531840]", "" where it cannot be seen.
std::string namespace_id(int pid, const std::string& kind) {
  char text[64];
  const ssize_t length = ::readlink(fmt::format("/proc/{}/ns/{}", pid, kind).c_str(), text, sizeof text);
  return length <= 0 ? "" : std::string(text, static_cast<size_t>(length));
}

/// Whose namespace it is: the host's, other containers', or nobody else's.
Json namespaces(Context& context, const store::ContainerRecord& record, int pid) {
  std::vector<std::pair<std::string, int>> others;
  for (const auto& other : store::list(context.layout)) {
    if (other.id == record.id) continue;
    const auto state = store::read_run_state(context.layout, other.id);
    if (state && state->pid != 0 && sys::start_time(state->pid) == state->pid_start)
      others.emplace_back(other.name, state->pid);
  }
  Json list = Json::array();
  for (const std::string kind : kKinds) {
    const std::string ours = namespace_id(pid, kind);
    if (ours.empty()) continue;
    Json shared = Json::array();
    if (ours == namespace_id(::getpid(), kind)) shared.push_back("host");
    for (const auto& [name, other] : others)
      if (namespace_id(other, kind) == ours) shared.push_back(name);
    list.push_back({{"Type", kind}, {"Own", shared.empty()}, {"SharedWith", shared}});
  }
  return list;
}

/// A file of the control group: a number, "max" as null.
Json group_value(const std::string& group, const char* file) {
  const auto text = sys::read_small_file(group + "/" + file);
  if (!text) return nullptr;
  if (const auto number = to_int(trim(*text), 0)) return *number;
  const std::string value(trim(*text));
  return value == "max" || starts_with(value, "max ") ? Json(nullptr) : Json(value);
}

void add_use(Json& out, const store::RunState& state) {
  if (state.cgroup.empty()) return;
  const std::string group = cgroup::v2_mount() + state.cgroup;
  out["Limits"] = {{"Memory", group_value(group, "memory.max")},
                   {"Pids", group_value(group, "pids.max")},
                   {"Cpu", group_value(group, "cpu.max")}};
  out["Usage"] = {{"Memory", group_value(group, "memory.current")}, {"Pids", group_value(group, "pids.current")}};
  for (const char* kind : {"cpu", "memory", "io"}) {
    const auto text = sys::read_small_file(group + "/" + kind + ".pressure");
    if (text) out["Pressure"][kind] = text->substr(0, text->find('\n'));
  }
}

std::string status_field(const std::string& status, std::string_view name) {
  const size_t at = status.find("\n" + std::string(name) + ":");
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 2;
  return std::string(trim(std::string_view(status).substr(begin, status.find('\n', begin) - begin)));
}

Json capabilities_of(std::uint64_t bits) {
  Json names = Json::array();
  const auto& all = sys::capability_names();
  for (size_t i = 0; i < all.size(); ++i)
    if ((bits >> i & 1) != 0) names.push_back(all[i]);
  return names;
}

/// What the runtime was told, and, where it runs, what became of it.
void add_touch(Json& out, const Json& config, const store::ContainerRecord& record, const std::string& status) {
  const Json process = config.value("process", Json::object()), linux = config.value("linux", Json::object());
  const Json user = process.value("user", Json::object());
  out["User"] = {{"Uid", user.value("uid", 0U)}, {"Gid", user.value("gid", 0U)}};
  if (!status.empty()) {
    out["User"]["HostUid"] = to_int(split(status_field(status, "Uid"), '\t')[0], 0).value_or(-1);
    out["Capabilities"] = capabilities_of(std::strtoull(status_field(status, "CapBnd").c_str(), nullptr, 16));
    out["NoNewPrivileges"] = status_field(status, "NoNewPrivs") == "1";
  } else {
    out["Capabilities"] = process.value("capabilities", Json::object()).value("bounding", Json::array());
    out["NoNewPrivileges"] = process.value("noNewPrivileges", false);
  }
  Json seccomp = {{"Filter", linux.contains("seccomp")}};
  if (linux.contains("seccomp")) {
    size_t allowed = 0;
    for (const auto& rule : linux["seccomp"].value("syscalls", Json::array()))
      if (rule.value("action", "") == "SCMP_ACT_ALLOW") allowed += rule.value("names", Json::array()).size();
    seccomp["Default"] = linux["seccomp"].value("defaultAction", "");
    seccomp["AllowedCalls"] = allowed;
  }
  if (!status.empty()) seccomp["Filter"] = status_field(status, "Seccomp") == "2";
  out["Seccomp"] = seccomp;
  out["MaskedPaths"] = linux.value("maskedPaths", Json::array());
  out["ReadonlyPaths"] = linux.value("readonlyPaths", Json::array());
  out["ReadonlyRootfs"] = config.value("root", Json::object()).value("readonly", false);
  out["WritableMounts"] = Json::array();
  for (const auto& mount : config.value("mounts", Json::array())) {
    const Json options = mount.value("options", Json::array());
    if (mount.value("type", "") != "bind" || std::find(options.begin(), options.end(), "ro") != options.end()) continue;
    out["WritableMounts"].push_back(
        {{"Source", mount.value("source", "")}, {"Destination", mount.value("destination", "")}});
  }
  out["Devices"] = record.config.devices;
  out["Ports"] = Json::array();
  for (const auto& port : record.ports)
    out["Ports"].push_back(fmt::format("{}:{}->{}/{}", port.host_ip.empty() ? "0.0.0.0" : port.host_ip, port.host_port,
                                       port.container_port, port.protocol));
}

Json deviations(const Json& report, const store::ContainerRecord& record) {
  Json found = Json::array();
  const auto add = [&](const char* part, const std::string& is, const char* hardened) {
    found.push_back({{"Part", part}, {"Is", is}, {"Hardened", hardened}});
  };
  const Json& touch = report["Touch"];
  if (touch["User"]["Uid"] == 0) add("user", "root", "another user");
  if (record.uid_map.empty()) add("ids", "shared with other containers", "a range of its own");
  if (!touch["Capabilities"].empty()) add("capabilities", fmt::format("{}", touch["Capabilities"].size()), "none");
  if (touch["NoNewPrivileges"] == false) add("new privileges", "possible", "not possible");
  const std::string filter = parse_security_options(record.config.security_opt).seccomp;
  if (touch["Seccomp"]["Filter"] == false)
    add("seccomp", "no filter", "the hardened filter");
  else if (filter != "hardened")
    add("seccomp", filter.empty() || filter == "default" ? "the default filter" : filter, "the hardened filter");
  if (touch["ReadonlyRootfs"] == false) add("root file system", "writable", "read-only");
  if (touch["MaskedPaths"].empty()) add("masked paths", "none", "those of the kernel's settings");
  const auto& networks = record.config.networks;
  if (networks.empty() || networks.front() != "none")
    add("network", networks.empty() ? "slirp4netns" : networks.front(), "none");
  for (const auto& space : report["See"].value("Namespaces", Json::array())) {
    const Json& shared = space["SharedWith"];
    if (space["Type"] == "user" || std::find(shared.begin(), shared.end(), "host") == shared.end()) continue;
    if (space["Type"] == "time") continue;  // --hardened has none either
    add("namespace", space["Type"].get<std::string>() + " of the host", "its own");
  }
  return found;
}

}  // namespace

Json isolation_of(Context& context, const store::ContainerRecord& record) {
  const auto text = sys::read_small_file(context.layout.container(record.id) + "/config.json", 64U << 20U);
  const Json config = text ? Json::parse(*text, nullptr, false) : Json();
  if (!config.is_object())
    throw Error(fmt::format("container {} has never been started: what will confine it is not settled", record.name))
        .with_hint("kelp start " + record.name);
  const auto status = store::status(context.layout, record);
  const bool runs = status.run && status.run->pid != 0 && status.status == store::Status::running;
  Json report = {{"Name", record.name}, {"Id", record.id}, {"Running", runs}};
  report["See"] = Json::object();
  report["Use"] = Json::object();
  report["Touch"] = Json::object();
  std::string process;
  if (runs) {
    report["See"]["Namespaces"] = namespaces(context, record, status.run->pid);
    add_use(report["Use"], *status.run);
    process = sys::try_read_file(fmt::format("/proc/{}/status", status.run->pid)).value_or("");
  }
  add_touch(report["Touch"], config, record, process);
  report["Deviations"] = deviations(report, record);
  return report;
}

}  // namespace kelp::engine
