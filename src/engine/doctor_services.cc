// What a container is given besides files: network, limits, a life after logout; and where images come from.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/program_path.h"
#include "base/text.h"
#include "cgroup/cgroupfs.h"
#include "engine/context.h"
#include "engine/doctor_checks.h"
#include "engine/host.h"
#include "engine/images.h"
#include "engine/login_session.h"
#include "sys/sd_bus.h"
#include "sys/spawn.h"

namespace kelp::engine {
namespace {

PackageNames slirp_package() { return {"slirp4netns", "slirp4netns", "slirp4netns", "slirp4netns"}; }

bool has_systemd() { return ::access("/run/systemd/system", F_OK) == 0; }

/// First line of `program --version`.
std::string version_line(const std::string& path) {
  sys::SpawnRequest request;
  request.path = path;
  request.argv = {path, "--version"};
  const auto result = sys::run_captured(request);
  const std::string& text = result.out.empty() ? result.err : result.out;
  return printable(text.substr(0, text.find('\n')));
}

cgroup::Place place_of(Context& context) {
  try {
    return context.host().cgroup.get().place;
  } catch (const Error& error) {  // a manager that was named and cannot be had
    cgroup::Place place;
    place.reason = error.message();
    place.hint = error.hint();
    return place;
  }
}

std::string linger_command(const Context& context) {
  return fmt::format("sudo loginctl enable-linger {}", context.host().user_name);
}

/// The command that gives this user a group.
std::string cgroup_fix(const Context& context) {
  const std::string& mount = cgroup::v2_mount();
  if (is_nested())
    return "start the outer container with a writable cgroup (podman: --cgroupns private --security-opt "
           "unmask=/sys/fs/cgroup)";
  if (has_systemd())
    return mount == "/sys/fs/cgroup" ? linger_command(context) + ", then log in again"
                                     : "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line";
  if (mount.empty())
    return "sudo mkdir -p /sys/fs/cgroup/unified && sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified";
  return fmt::format("sudo sh -c 'mkdir -p {0}/shell && chown -R {1} {0} && echo '$$' >{0}/shell/cgroup.procs'",
                     mount + "/" + context.host().user_name, context.host().user_name);
}

}  // namespace

Finding check_tun(Context& context) {
  if (context.host().tun.get()) return {"", Verdict::good, "can be opened", ""};
  const bool there = ::access("/dev/net/tun", F_OK) == 0;
  return {"", Verdict::less,
          fmt::format("{}: networks none and host only", there ? "cannot be opened" : "is not there"),
          is_nested() ? "start the outer container with --device /dev/net/tun"
          : there     ? "sudo chmod 0666 /dev/net/tun"
                      : "sudo modprobe tun"};
}

Finding check_slirp(Context& context) {
  const std::string& path = context.host().slirp4netns.get().path;
  if (path.empty())
    return {"", Verdict::less, "not installed: networks none and host only", install_command(slirp_package())};
  const std::string& version = context.host().slirp4netns_version.get();
  if (version.empty())
    return {"", Verdict::less, path + " does not answer --version", install_command(slirp_package())};
  return {"", Verdict::good, fmt::format("{} {}", path, version), ""};
}

Finding check_pasta(Context&) {
  const std::string path = find_in_path("pasta");
  if (path.empty()) return {"", Verdict::good, "not installed; not needed, slirp4netns is the default", ""};
  return {"", Verdict::good, fmt::format("{} ({})", path, version_line(path)), ""};
}

Finding check_cgroups(Context& context) {
  const std::string& mount = cgroup::v2_mount();
  const char* version = mount == "/sys/fs/cgroup" ? "v2" : mount.empty() ? "no v2" : "hybrid";
  const cgroup::Place place = place_of(context);
  if (place.manager != cgroup::Manager::none)
    return {"", Verdict::good, fmt::format("{}, {} at {}", version, cgroup::manager_name(place.manager), place.parent),
            ""};
  return {"", Verdict::less,
          fmt::format("{}, no group of our own ({}): containers run without limits", version, place.reason),
          cgroup_fix(context)};
}

Finding check_controllers(Context& context) {
  const cgroup::Place place = place_of(context);
  std::vector<std::string> missing, unknown, settings;
  for (const char* name : {"cpu", "cpuset", "io", "memory", "pids"}) {
    if (std::find(place.controllers.begin(), place.controllers.end(), name) != place.controllers.end()) continue;
    if (cgroup::lack_of(name) != cgroup::Lack::kernel) {
      missing.emplace_back(name);
      continue;
    }
    unknown.emplace_back(name);
    settings.push_back(cgroup::kernel_setting(name));
  }
  if (missing.empty() && unknown.empty()) return {"", Verdict::good, join(place.controllers, " "), ""};
  if (place.manager == cgroup::Manager::none)
    return {"", Verdict::less, "none is delegated: no option that limits can be used", "see cgroups above"};
  Finding finding{"", Verdict::less, "", ""};
  if (!missing.empty()) finding.text = fmt::format("not delegated: {}; ", join(missing, " "));
  if (!unknown.empty()) finding.text += fmt::format("not in this kernel: {}; ", join(unknown, " "));
  finding.text += "their limits cannot be used";
  if (missing.empty()) {
    finding.fix = "boot a kernel with " + join(settings, ", ");
    return finding;
  }
  finding.fix = has_systemd()
                    ? "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io "
                      "memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo "
                      "systemctl daemon-reload, then log in again"
                    : cgroup_fix(context);
  return finding;
}

Finding check_bus(Context& context) {
  if (!has_systemd()) return {"", Verdict::good, "not needed: systemd does not run here", ""};
  if (!sys::systemd_bus_present())
    return {"", Verdict::less, "there is no socket of a systemd user manager: no scope can be asked for",
            linger_command(context) + ", then log in again"};
  const std::string group = sys::Systemd::connect().control_group();
  return {"", Verdict::good, fmt::format("the manager answers, its group is {}", group.empty() ? "/" : group), ""};
}

Finding check_linger(Context& context) {
  const LoginSession session = login_session();
  if (!session.managed && !session.lingers)
    return {"", Verdict::good, "not needed: no login manager ends this user's processes", ""};
  if (session.lingers) return {"", Verdict::good, "containers outlive a logout", ""};
  return {"", Verdict::less, "off: containers end when the user logs out", linger_command(context)};
}

std::vector<Finding> check_registries(Context& context, const std::vector<std::string>& asked) {
  std::vector<Finding> findings;
  for (const RegistryAnswer& answer : ask_registries(context, asked)) {
    Finding finding{"registry " + answer.name, answer.problem.empty() ? Verdict::good : Verdict::less, "", ""};
    finding.text = answer.problem.empty() ? answer.text : answer.problem;
    if (!answer.problem.empty())
      finding.fix =
          answer.hint.empty() ? fmt::format("curl -v https://{}/v2/ shows where it fails", answer.name) : answer.hint;
    findings.push_back(std::move(finding));
  }
  return findings;
}

}  // namespace kelp::engine
