#include "spec/runtime_state.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "spec/json_doc.h"
#include "spec/json_writer.h"

namespace kelp::spec {
namespace {

void write_map(JsonWriter& out, std::string_view name, const StringMap& map) {
  if (map.empty()) return;
  out.key(name).begin_object();
  for (const auto& [key, value] : map) out.member(key, value);
  out.end_object();
}

void write_state(JsonWriter& out, const RuntimeState& state) {
  out.begin_object();
  out.member("ociVersion", state.oci_version).member("id", state.id).member("pid", state.pid);
  out.member("status", state.status).member("bundle", state.bundle);
  out.member_if("rootfs", state.rootfs).member_if("created", state.created);
  write_map(out, "annotations", state.annotations);
  out.member_if("owner", state.owner).end_object();
}

std::string indented(const std::string& text) { return nlohmann::ordered_json::parse(text).dump(2) + "\n"; }

}  // namespace

std::string print_state(const RuntimeState& state, bool pretty) {
  JsonWriter out(512);
  write_state(out, state);
  return pretty ? indented(out.take()) : out.take();
}

RuntimeState parse_state(std::string_view text) {
  const JsonDoc doc = JsonDoc::parse(text, 1 << 20);
  const JsonValue top = doc.root();
  RuntimeState state;
  const auto take = [&](const char* name, std::string& out) {
    if (const JsonValue value = top[name]) out = value.str();
  };
  state.oci_version = top.require("ociVersion").str();
  state.id = top.require("id").str();
  state.status = top.require("status").str();
  state.bundle = top.require("bundle").str();
  if (const JsonValue pid = top["pid"]) state.pid = pid.integer<pid_t>(0);
  take("rootfs", state.rootfs);
  take("created", state.created);
  take("owner", state.owner);
  const JsonValue annotations = top["annotations"];
  for (JsonValue member = annotations.first_member(); member.here(); member = member.next())
    state.annotations[member.key()] = member.str();
  return state;
}

std::string print_container_process_state(const RuntimeState& state, pid_t pid, std::string_view metadata) {
  JsonWriter out(512);
  out.begin_object().member("ociVersion", state.oci_version);
  out.key("fds").begin_array().value("seccompFd").end_array();
  out.member("pid", pid);
  if (!metadata.empty()) out.member("metadata", metadata);
  out.key("state");
  write_state(out, state);
  out.end_object();
  return out.take();
}

std::string print_features(const Features& features) {
  JsonWriter out;
  const auto enabled = [&](const char* name, bool on) {
    out.key(name).begin_object().member("enabled", on).end_object();
  };
  out.begin_object();
  out.member("ociVersionMin", features.oci_version_min).member("ociVersionMax", features.oci_version_max);
  out.member("hooks", features.hooks).member("mountOptions", features.mount_options);
  out.key("linux").begin_object();
  out.member("namespaces", features.namespaces).member("capabilities", features.capabilities);
  out.key("cgroup").begin_object().member("v1", features.cgroup_v1).member("v2", features.cgroup_v2);
  out.member("systemd", features.systemd).member("systemdUser", features.systemd_user);
  out.member("rdma", features.cgroup_rdma).end_object();
  out.key("seccomp").begin_object().member("enabled", features.seccomp).member("actions", features.seccomp_actions);
  out.member("operators", features.seccomp_operators).member("archs", features.seccomp_archs);
  out.member("knownFlags", features.seccomp_known_flags).member("supportedFlags", features.seccomp_supported_flags);
  out.end_object();
  enabled("apparmor", features.apparmor);
  enabled("selinux", features.selinux);
  enabled("intelRdt", features.intel_rdt);
  out.key("memoryPolicy").begin_object().member("modes", features.memory_modes);
  out.member("flags", features.memory_flags).end_object();
  enabled("netDevices", features.net_devices);
  out.key("mountExtensions").begin_object();
  enabled("idmap", features.idmapped_mounts);
  out.end_object().end_object();
  write_map(out, "annotations", features.annotations);
  out.member_if("potentiallyUnsafeConfigAnnotations", features.potentially_unsafe_annotations);
  out.end_object();
  return indented(out.take());
}

}  // namespace kelp::spec
