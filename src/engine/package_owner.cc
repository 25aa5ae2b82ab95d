#include "engine/package_owner.h"

#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "base/text.h"
#include "sys/spawn.h"

namespace kelp::engine {
namespace {

/// Standard output, whatever the exit status: both tools answer for the files they know and fail for the others.
std::string answer_of(const std::string& program, std::vector<std::string> words) {
  try {
    sys::SpawnRequest request;
    request.path = program;
    request.argv = std::move(words);
    request.argv.insert(request.argv.begin(), program);
    return sys::run_captured(request).out;
  } catch (const Error& error) {
    log::debug("{}", error.message());
    return "";
  }
}

void ask_rpm(const std::string& rpm, std::map<std::string, std::string>& owners) {
  for (auto& [path, owner] : owners) {
    const std::string text =
        answer_of(rpm, {"--query", "--queryformat", "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\n", "--file", path});
    const std::string line = text.substr(0, text.find('\n'));
    if (!line.empty() && line.find(' ') == std::string::npos) owner = line;
  }
}

/// "slirp4netns: /usr/bin/slirp4netns", then the versions of all packages at once.
void ask_dpkg(const std::string& dpkg, std::map<std::string, std::string>& owners) {
  std::vector<std::string> search{"--search"},
      show{"--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n"};
  for (const auto& [path, owner] : owners) search.push_back(path);
  std::map<std::string, std::string> packages;  // by path
  for (const auto& line : split(answer_of(dpkg, std::move(search)), '\n')) {
    const auto colon = line.find(": ");
    if (colon == std::string::npos || !owners.contains(line.substr(colon + 2))) continue;
    packages[line.substr(colon + 2)] = line.substr(0, line.find_first_of(":,"));
    show.push_back(line.substr(0, line.find_first_of(":,")));
  }
  if (packages.empty()) return;
  for (const auto& line : split(answer_of(dpkg, std::move(show)), '\n')) {
    const auto parts = split(line, '\t');
    if (parts.size() != 3) continue;
    for (const auto& [path, package] : packages)
      if (package == parts[0]) owners[path] = join(parts, "_");
  }
}

}  // namespace

std::map<std::string, std::string> package_owners(const std::vector<std::string>& paths) {
  std::map<std::string, std::string> owners;
  for (const auto& path : paths)
    if (!path.empty()) owners[path] = "Unknown";
  if (owners.empty()) return owners;
  if (const std::string rpm = find_in_path("rpm"); !rpm.empty() && ::access("/var/lib/rpm", F_OK) == 0)
    ask_rpm(rpm, owners);
  if (const std::string dpkg = find_in_path("dpkg-query"); !dpkg.empty()) ask_dpkg(dpkg, owners);
  return owners;
}

}  // namespace kelp::engine
