#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/complete.h"
#include "cli/run_values.h"
#include "store/containers.h"
#include "store/images.h"
#include "store/volumes.h"
#include "sys/capability.h"
#include "sys/directory.h"
#include "sys/lock.h"
#include "sys/signals.h"

extern char** environ;

namespace kelp::cli {
namespace {

using Candidates = std::vector<Candidate>;
using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

Directory open_directory(const std::string& path) { return {::opendir(path.c_str()), ::closedir}; }

void add(Candidates& out, const std::string& begin, std::string text, std::string help = "") {
  if (starts_with(text, begin)) out.push_back({std::move(text), std::move(help)});
}

/// "~/x" is looked for at home and stays as typed: the shell expands it.
Candidates paths(const std::string& begin, bool directories_only) {
  Candidates found;
  const size_t slash = begin.rfind('/');
  const std::string typed = slash == std::string::npos ? "" : begin.substr(0, slash + 1);
  const std::string name = begin.substr(typed.size());
  const char* const home = std::getenv("HOME");
  const std::string where = starts_with(typed, "~/") && home != nullptr ? home + typed.substr(1) : typed;
  const Directory directory = open_directory(where.empty() ? "." : where);
  while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) {
    const std::string_view file = entry->d_name;
    if (file == "." || file == ".." || !starts_with(file, name) || (file[0] == '.' && name.empty())) continue;
    bool is_directory = entry->d_type == DT_DIR;
    if (entry->d_type == DT_LNK || entry->d_type == DT_UNKNOWN) {
      struct stat info {};
      is_directory = ::fstatat(::dirfd(directory.get()), entry->d_name, &info, 0) == 0 && S_ISDIR(info.st_mode);
    }
    if (directories_only && !is_directory) continue;
    found.push_back({typed + std::string(file) + (is_directory ? "/" : ""), ""});
  }
  return found;
}

/// Programs of PATH.
Candidates programs(const std::string& begin) {
  if (begin.find('/') != std::string::npos) return paths(begin, false);
  Candidates found;
  const char* const path = std::getenv("PATH");
  for (const auto& where : split(path == nullptr ? "" : path, ':')) {
    const Directory directory = open_directory(where);
    while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr)
      if (entry->d_name[0] != '.') add(found, begin, entry->d_name);
  }
  return found;
}

enum class State { any, running, stopped, paused };

bool is_paused(const store::Layout& layout, std::string_view id) {
  const auto state = store::read_run_state(layout, id);
  return state && store::is_paused(*state);
}

/// Ids of the containers that run, sorted: a state file in the run directory.
Strings running_ids(const store::Layout& layout) {
  Strings ids = store::run_directories(layout);
  std::erase_if(
      ids, [&](const std::string& id) { return ::access((layout.run_of(id) + "/state.json").c_str(), F_OK) != 0; });
  std::sort(ids.begin(), ids.end());
  return ids;
}

/// To read the record of a container costs as much as to read so many links.
constexpr size_t kLinksPerRecord = 20;

/// id of each of these containers by its name: from their records where they are few among many, else from all links.
std::map<std::string, std::string> names_of(const store::Layout& layout, const Strings& ids, const Strings& all) {
  std::map<std::string, std::string> found;
  if (ids.size() * kLinksPerRecord < all.size()) {
    for (const std::string& id : ids) {
      try {
        if (const auto record = store::find(layout, id)) found[record->name] = id;
      } catch (const Error&) {  // a damaged record does not keep the others from being offered
      }
    }
    return found;
  }
  for (const std::string& name : all) {
    const auto id = store::id_of_name(layout, name);
    if (id && std::binary_search(ids.begin(), ids.end(), *id)) found[name] = *id;
  }
  return found;
}

bool fits(const store::Layout& layout, State wanted, const std::string* running_id) {
  switch (wanted) {
    case State::running:
      return running_id != nullptr;
    case State::stopped:
      return running_id == nullptr;
    case State::paused:
      return running_id != nullptr && is_paused(layout, *running_id);
    default:
      return true;
  }
}

/// Those whose id begins so; the name explains it.
Candidates containers_by_id(const std::string& begin, State wanted, const store::Layout& layout, const Strings& all,
                            const Strings& running) {
  Strings ids = sys::names_in(layout.containers());
  std::erase_if(ids, [&](const std::string& id) { return !is_full_id(id) || !starts_with(id, begin); });
  std::sort(ids.begin(), ids.end());
  Candidates found;
  for (const auto& [name, id] : names_of(layout, ids, all)) {
    const bool runs = std::binary_search(running.begin(), running.end(), id);
    if (fits(layout, wanted, runs ? &id : nullptr)) found.push_back({begin.size() > 12 ? id : id.substr(0, 12), name});
  }
  return found;
}

/// By the index of names and the run directory: 500 records would take 20 ms to parse. The names come first; an id is
/// offered to whoever has begun to type one that is no name's beginning.
Candidates containers(const std::string& begin, State wanted, const store::Layout& layout) {
  Candidates found;
  const Strings all = store::names(layout), running = running_ids(layout);
  const auto running_names = names_of(layout, running, all);
  for (const std::string& name : all) {
    if (!starts_with(name, begin)) continue;
    const auto one = running_names.find(name);
    const bool runs = one != running_names.end();
    if (fits(layout, wanted, runs ? &one->second : nullptr)) found.push_back({name, runs ? "running" : "not running"});
  }
  const bool hex = begin.size() >= 2 && begin.find_first_not_of("0123456789abcdef") == std::string::npos;
  return found.empty() && hex ? containers_by_id(begin, wanted, layout, all, running) : found;
}

/// Short where the short name means the same.
Candidates images(const std::string& begin, const store::Layout& layout) {
  Candidates found;
  for (const auto& name : store::list_image_names(layout)) {
    std::string_view shorter = name;
    for (const char* prefix : {"docker.io/library/", "docker.io/", "localhost/"})
      if (starts_with(shorter, prefix)) {
        shorter.remove_prefix(std::string_view(prefix).size());
        break;
      }
    if (starts_with(shorter, begin))
      found.push_back({std::string(shorter), shorter == name ? "" : name});
    else
      add(found, begin, name);
  }
  return found;
}

Candidates signals(const std::string& begin) {
  Candidates found;
  const bool short_form = !begin.empty() && !starts_with("SIG", begin.substr(0, 3));
  for (int number = 1; number < 32; ++number) {
    const std::string name = sys::signal_name(number);
    add(found, begin, short_form && starts_with(name, "SIG") ? name.substr(3) : name);
  }
  return found;
}

Candidates capabilities(const std::string& begin) {
  Candidates found;
  add(found, begin, "ALL", "every one");
  for (const auto& name : sys::capability_names()) {
    add(found, begin, name.substr(4));
    if (starts_with(begin, "CAP_")) add(found, begin, name);
  }
  return found;
}

/// Users or groups of the host, which an image usually has as well.
Candidates accounts(const std::string& begin, const char* file) {
  Candidates found;
  for (const auto& line : split(sys::read_small_file(file, 4U << 20U).value_or(""), '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() >= 3 && !fields[0].empty()) add(found, begin, fields[0], fields[2]);
  }
  return found;
}

/// Registries that somebody has logged in to.
Candidates registries(const std::string& begin) {
  Candidates found;
  const auto value = [](const char* name) {
    const char* text = std::getenv(name);
    return std::string(text == nullptr ? "" : text);
  };
  for (const auto& path : {value("REGISTRY_AUTH_FILE"), value("XDG_RUNTIME_DIR") + "/containers/auth.json",
                           value("XDG_CONFIG_HOME") + "/containers/auth.json",
                           value("HOME") + "/.config/containers/auth.json", value("HOME") + "/.docker/config.json"}) {
    const auto text = sys::read_small_file(path, 1U << 20U);
    const auto json = text ? nlohmann::json::parse(*text, nullptr, false) : nlohmann::json();
    if (!json.is_object() || !json.contains("auths") || !json["auths"].is_object()) continue;
    for (const auto& [name, unused] : json["auths"].items()) add(found, begin, name);
  }
  return found;
}

Candidates networks(const std::string& begin, const store::Layout& layout) {
  Candidates found;
  add(found, begin, "slirp4netns", "a network of its own");
  add(found, begin, "host", "the host's");
  add(found, begin, "none", "no network");
  add(found, begin, "private", "a network of its own");
  add(found, begin, "ns:", "the network namespace at a path");
  if (starts_with(begin, "container:")) {
    for (auto& one : containers(begin.substr(10), State::running, layout))
      found.push_back({"container:" + one.text, std::move(one.help)});
  } else {
    add(found, begin, "container:", "that of another container");
  }
  return found;
}

/// Names of directories, which is what volumes and secrets are.
Candidates directory_names(const std::string& begin, const std::string& where) {
  Candidates found;
  const Directory directory = open_directory(where);
  while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr)
    if (entry->d_name[0] != '.') add(found, begin, entry->d_name);
  return found;
}

/// -v: volumes and directories of the host; the second part is a path of the image, the third options.
Candidates mounts(const std::string& begin, const store::Layout& layout) {
  Candidates found;
  const size_t colon = begin.find(':');
  const size_t second = colon == std::string::npos ? colon : begin.find(':', colon + 1);
  if (second != std::string::npos) {
    const size_t last = begin.find_last_of(":,") + 1;
    for (const char* option :
         {"ro", "rw", "z", "Z", "U", "O", "nocopy", "noexec", "nosuid", "nodev", "rslave", "rshared"})
      if (starts_with(option, begin.substr(last))) found.push_back({begin.substr(0, last) + option, ""});
    return found;
  }
  if (colon != std::string::npos) return found;
  if (begin.find_first_of("/.~") != 0)
    for (auto& name : directory_names(begin, layout.volumes())) found.push_back({name.text + ":", "volume"});
  for (auto& path : paths(begin, false)) found.push_back(std::move(path));
  return found;
}

Candidates variables(const std::string& begin) {
  Candidates found;
  if (begin.find('=') != std::string::npos) return found;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    add(found, begin, std::string(text.substr(0, text.find('='))));
  }
  return found;
}

Candidates values(Complete kind, const std::string& begin, const store::Layout& layout) {
  switch (kind) {
    case Complete::none:
      return {};
    case Complete::file:
      return paths(begin, false);
    case Complete::directory:
      return paths(begin, true);
    case Complete::container:
      return containers(begin, State::any, layout);
    case Complete::running:
      return containers(begin, State::running, layout);
    case Complete::stopped:
      return containers(begin, State::stopped, layout);
    case Complete::paused:
      return containers(begin, State::paused, layout);
    case Complete::image:
      return images(begin, layout);
    case Complete::volume:
      return directory_names(begin, layout.volumes());
    case Complete::mount:
      return mounts(begin, layout);
    case Complete::network:
      return networks(begin, layout);
    case Complete::secret:
      return directory_names(begin, layout.secrets());
    case Complete::registry:
      return registries(begin);
    case Complete::capability:
      return capabilities(begin);
    case Complete::signal:
      return signals(begin);
    case Complete::user:
      return accounts(begin, "/etc/passwd");
    case Complete::group:
      return accounts(begin, "/etc/group");
    case Complete::command:
      return programs(begin);
    case Complete::environment:
      return variables(begin);
    case Complete::tree:
    case Complete::object: {
      Candidates found = containers(begin, State::any, layout);
      for (auto& one : images(begin, layout)) found.push_back(std::move(one));
      if (kind == Complete::tree) return found;
      for (auto& one : directory_names(begin, layout.volumes())) found.push_back(std::move(one));
      return found;
    }
  }
  return {};
}

}  // namespace

std::vector<Candidate> complete_value(Complete kind, const std::string& begin, const store::Layout& layout) {
  Candidates found = values(kind, begin, layout);
  std::stable_sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.text < b.text; });
  found.erase(
      std::unique(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.text == b.text; }),
      found.end());
  return found;
}

}  // namespace kelp::cli
