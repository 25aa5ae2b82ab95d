#include "engine/login_session.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include <fmt/core.h>

#include "base/text.h"
#include "sys/lock.h"
#include "sys/procfs.h"
#include "sys/subid.h"

namespace kelp::engine {
namespace {

/// The last KillUserProcesses= of logind.conf and its drop-ins. source: logind.conf(5)
bool kills_user_processes() {
  std::vector<std::string> files = {"/usr/lib/systemd/logind.conf", "/etc/systemd/logind.conf"};
  std::vector<std::string> drop_ins;
  for (const std::string directory :
       {"/usr/lib/systemd/logind.conf.d", "/etc/systemd/logind.conf.d", "/run/systemd/logind.conf.d"}) {
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(directory.c_str()), ::closedir);
    if (!dir) continue;
    while (const dirent* entry = ::readdir(dir.get()))
      if (ends_with(entry->d_name, ".conf")) drop_ins.push_back(directory + "/" + entry->d_name);
  }
  std::sort(drop_ins.begin(), drop_ins.end(),
            [](const std::string& a, const std::string& b) { return a.substr(a.rfind('/')) < b.substr(b.rfind('/')); });
  files.insert(files.end(), drop_ins.begin(), drop_ins.end());
  bool kills = false;
  for (const std::string& file : files)
    for (const std::string& line : split(sys::read_small_file(file).value_or(""), '\n')) {
      constexpr std::string_view kKey = "KillUserProcesses=";
      const std::string_view text = trim(line);
      if (!starts_with(text, kKey)) continue;
      const std::string value = to_lower(trim(text.substr(kKey.size())));
      kills = value == "yes" || value == "true" || value == "on" || value == "1";
    }
  return kills;
}

}  // namespace

LoginSession login_session() {
  LoginSession session;
  if (::access("/run/systemd/system", F_OK) != 0) return session;
  session.managed = ::access(fmt::format("/run/systemd/users/{}", ::geteuid()).c_str(), F_OK) == 0;
  session.lingers = ::access(("/var/lib/systemd/linger/" + sys::own_user_name()).c_str(), F_OK) == 0;
  session.kills_processes = kills_user_processes();
  return session;
}

bool ends_at_logout(const std::string& group) {
  const uid_t uid = ::geteuid();
  if (uid == 0) return false;
  const std::string place = group.empty() ? sys::try_read_file("/proc/self/cgroup").value_or("") : group;
  const bool in_manager = place.find(fmt::format("/user@{}.service", uid)) != std::string::npos;
  const bool in_session = place.find("/session-") != std::string::npos &&
                          place.find(fmt::format("/user-{}.slice/", uid)) != std::string::npos;
  if (!in_manager && !in_session) return false;
  const LoginSession session = login_session();
  return session.managed && !session.lingers && (in_manager || session.kills_processes);
}

}  // namespace kelp::engine
