#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "cli/options_run.h"

namespace kelp::cli {

void add_security_options(OptionSet& options, RunOptions& values) {
  auto& config = values.config;
  options.group("Security");
  options.flag("privileged", config.privileged, "take away most of what confines the container");
  options.flag("hardened", values.hardened,
               "no root, own ids, no capabilities, read-only, no new privileges, fewer system calls, no network; each "
               "part can be overridden");
  options.csv("cap-add", config.cap_add, "CAPABILITY", "give a capability; ALL: every one")
      .complete(Complete::capability);
  options.csv("cap-drop", config.cap_drop, "CAPABILITY", "take a capability; ALL: every one")
      .complete(Complete::capability);
  options.list("security-opt", config.security_opt, "OPTION",
               "no-new-privileges, seccomp=FILE|hardened|unconfined, label=..., apparmor=..., mask=..., unmask=...");
  options.custom(
      "sysctl", Kind::map, [&config](const std::string& text) { apply_key_values(config.sysctl, text, "--sysctl"); },
      "NAME=VALUE", "kernel parameter of the container's namespaces");
  options.text("userns", config.userns, "MODE",
               "user namespace: \"\", host, keep-id[:uid=N,gid=N], nomap, auto, container:NAME, ns:PATH");
  options.csv("uidmap", config.uidmap, "CONTAINER:HOST[:COUNT]", "map of user IDs, in a user namespace of its own");
  options.csv("gidmap", config.gidmap, "CONTAINER:HOST[:COUNT]", "map of group IDs");
  options.text("subuidname", values.subuid_name, "NAME", "own user IDs: all of this user's range in /etc/subuid")
      .complete(Complete::user);
  options.text("subgidname", values.subgid_name, "NAME", "own group IDs: all of this user's range in /etc/subgid")
      .complete(Complete::user);
  options.text("pid", config.pid, "MODE", "PID namespace: private, host, container:NAME, ns:PATH").shows("private");
  options.text("ipc", config.ipc, "MODE", "IPC namespace: private, shareable, none, host, container:NAME, ns:PATH")
      .shows("shareable");
  options.text("uts", config.uts, "MODE", "UTS namespace: private, host, container:NAME, ns:PATH").shows("private");
  options.text("cgroupns", config.cgroupns, "MODE", "cgroup namespace: private, host, container:NAME, ns:PATH")
      .shows("private");
}

void apply_hardened(RunOptions& values, const OptionSet& options) {
  if (!values.hardened) return;
  auto& config = values.config;
  if (config.privileged) throw_usage("--hardened and --privileged exclude each other");
  const auto given = [&options](const char* name) { return options.given(name); };
  if (!given("cap-drop")) config.cap_drop = {"ALL"};
  if (!given("read-only")) config.read_only = true;
  const auto speaks_of = [](const std::string& option) { return starts_with(option, "no-new-privileges"); };
  if (std::none_of(config.security_opt.begin(), config.security_opt.end(), speaks_of))
    config.security_opt.emplace_back("no-new-privileges");
  const auto names_filter = [](const std::string& option) { return starts_with(option, "seccomp"); };
  if (std::none_of(config.security_opt.begin(), config.security_opt.end(), names_filter))
    config.security_opt.emplace_back("seccomp=hardened");
  if (!given("userns") && !given("uidmap") && !given("gidmap") && !values.subuid_name && !values.subgid_name)
    config.userns = "auto";
  if (!given("network")) {
    if (!config.ports.empty() || config.publish_all)
      throw UsageError("--hardened has no network, so no port can be published")
          .with_hint("name one: --network slirp4netns");
    config.networks = {"none"};
  }
  if (!given("user")) config.user = "1000:1000";
}

std::string hardened_part(const store::ContainerConfig& config, std::string_view words) {
  struct Sign {
    bool in_force;
    std::initializer_list<const char*> texts;
    const char* advice;
  };
  const bool no_network = config.networks.size() == 1 && config.networks.front() == "none";
  const Sign signs[] = {
      {config.read_only,
       {"ead-only file system"},
       "its root file system is read-only: --tmpfs DIR or a volume gives it a place to write, --read-only=false all"},
      {no_network,
       {"etwork is unreachable", "ame or service not known", "ailure in name resolution", "bad address",
        "ould not resolve", "annot assign requested address"},
       "it has no network: --network slirp4netns"},
      {!config.cap_drop.empty(),
       {"peration not permitted", "EPERM"},
       "it has no capabilities and fewer system calls: --cap-add CAPABILITY, or --security-opt seccomp=default"},
      {!config.user.empty(),
       {"ermission denied", "EACCES"},
       "it is not root: --user 0, or --user and a volume with :U"}};
  // The last words are nearest to the cause.
  const char* advice = "";
  size_t latest = 0;
  for (const Sign& sign : signs)
    for (const char* text : sign.texts) {
      const size_t at = words.rfind(text);
      if (!sign.in_force || at == std::string_view::npos || (*advice != '\0' && at <= latest)) continue;
      latest = at;
      advice = sign.advice;
    }
  return advice;
}

}  // namespace kelp::cli
