#include "engine/import_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/session.h"
#include "engine/userns.h"
#include "store/volumes.h"
#include "sys/directory.h"
#include "sys/idmap.h"
#include "sys/safe_path.h"
#include "sys/spawn.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {
namespace {

using Json = nlohmann::json;

/// A volume of the other engine.
struct ForeignVolume {
  store::VolumeRequest request;
  std::string data;  ///< its directory
};

/// `podman volume ls` of an ordinary user within S, which podman then takes for the user namespace that it would make
/// and keep by a process of its own.
std::string list_volumes(Context& context, const std::string& program, const std::string& root) {
  const sys::SpawnRequest request{.path = program,
                                  .argv = {"podman", "--root", root, "volume", "ls", "--format", "json"}};
  const auto list = [&]() -> std::string {
    const sys::Captured answer = sys::run_captured(request);
    if (answer.status == 0) return answer.out;
    log::debug("podman volume ls: status {}: {}", answer.status, trim(answer.err));
    return "";
  };
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  if (uid == 0) return list();
  return ask_in_userns(context, [&] {
    ::setenv("_CONTAINERS_USERNS_CONFIGURED", "done", 1);
    ::setenv("_CONTAINERS_ROOTLESS_UID", std::to_string(uid).c_str(), 1);
    ::setenv("_CONTAINERS_ROOTLESS_GID", std::to_string(gid).c_str(), 1);
    return list();
  });
}

/// What podman itself says of its volumes: labels and options stand in its data base only. nullopt: it cannot be asked.
std::optional<std::vector<ForeignVolume>> ask_podman(Context& context, const std::string& root) {
  const std::string program = find_in_path("podman");
  if (program.empty()) return std::nullopt;
  std::vector<ForeignVolume> volumes;
  try {
    const Json list = Json::parse(list_volumes(context, program, root));
    if (!list.is_array() && !list.is_null()) return std::nullopt;
    for (const Json& item : list) {
      if (item.value("Anonymous", false)) continue;
      ForeignVolume volume;
      volume.request.name = item.at("Name").get<std::string>();
      volume.request.driver = item.value("Driver", "local");
      if (const auto& labels = item.value("Labels", Json()); labels.is_object())
        volume.request.labels = labels.get<store::StringMap>();
      if (const auto& options = item.value("Options", Json()); options.is_object())
        volume.request.options = options.get<store::StringMap>();
      if (const std::string created = item.value("CreatedAt", ""); !created.empty())
        volume.request.created = parse_rfc3339(created);
      volume.data = item.at("Mountpoint").get<std::string>();
      volumes.push_back(std::move(volume));
    }
  } catch (const std::exception& error) {  // what it says is of no shape that we know
    log::debug("podman volume ls: {}", error.what());
    return std::nullopt;
  }
  return volumes;
}

/// By the directories alone.
std::vector<ForeignVolume> look_for_volumes(const std::string& root) {
  std::vector<ForeignVolume> volumes;
  for (const std::string& name : sys::names_in(root + "/volumes")) {
    ForeignVolume volume;
    volume.request.name = name;
    volume.data = root + "/volumes/" + name + "/_data";
    struct stat info {};  // Docker keeps files of its own beside them; a link may lead anywhere
    if (::lstat((root + "/volumes/" + name).c_str(), &info) == 0 && S_ISDIR(info.st_mode))
      volumes.push_back(std::move(volume));
  }
  return volumes;
}

/// Ids of a store that a user filled are those of S, which we enter; root's are the host's.
void copy_contents(Context& context, const std::string& from, const std::string& to) {
  const auto copy = [&](const sys::CopyOptions& options) {
    const Fd source(::open(from.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!source) throw_errno("open {}", from);
    const Fd target(::open(to.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!target) throw_errno("open {}", to);
    sys::copy_tree(source.get(), target.get(), options);
    sys::copy_attributes(source.get(), target.get(), options);
    // The next import keeps the volume as it is: so it must not be seen before it is whole on the disk.
    if (::syncfs(target.get()) < 0) throw_errno("sync {}", to);
  };
  if (::geteuid() != 0) {
    in_userns(context, [&] { copy({}); });
    return;
  }
  const sys::IdMaps& maps = wanted_maps(context);
  const auto mapped = [](const sys::IdRanges& ranges, std::uint32_t id) {
    std::uint32_t outside = 0;
    if (!sys::map_out(ranges, id, outside))
      throw Error(fmt::format("id {} is not one of the {} that the user namespace has", id, sys::id_count(ranges)))
          .with_hint("a larger range for root in /etc/subuid and /etc/subgid");
    return outside;
  };
  sys::CopyOptions options;
  options.map_uid = [&](uid_t id) { return mapped(maps.uids, id); };
  options.map_gid = [&](gid_t id) { return mapped(maps.gids, id); };
  copy(options);
}

void import_volumes(Context& context, std::vector<ForeignVolume> volumes, ImportReport& report) {
  for (ForeignVolume& volume : volumes) {
    const std::string& name = volume.request.name;
    try {
      if (store::find_volume(context.layout, name)) {
        report.kept.push_back(name);
        continue;
      }
      // One that stands for a directory or a tmpfs has no contents of its own.
      const auto type = volume.request.options.find("type");
      const bool own =
          volume.request.options.count("device") == 0 && (type == volume.request.options.end() || type->second.empty());
      if (own) volume.request.fill = [&](const std::string& data) { copy_contents(context, volume.data, data); };
      store::create_volume(context.layout, volume.request);
      report.volumes.push_back(name);
    } catch (const Error& error) {
      report.failures.push_back(fmt::format("volume {}: {}", name, error.message()));
    }
  }
}

}  // namespace

ImportReport import_store(Context& context, const std::string& owner, const std::string& store,
                          const ProgressFn& progress) {
  ImportReport report;
  report.images = take_over_images(context, owner, store, progress);
  report.failures = std::move(report.images.failures);
  std::optional<std::vector<ForeignVolume>> volumes;
  if (owner == "podman") volumes = ask_podman(context, report.images.root);
  if (!volumes) {
    volumes = look_for_volumes(report.images.root);
    if (!volumes->empty())
      log::warn("{}'s data base cannot be read here: volumes come without their labels and options", owner);
  }
  std::sort(volumes->begin(), volumes->end(),
            [](const ForeignVolume& one, const ForeignVolume& other) { return one.request.name < other.request.name; });
  import_volumes(context, std::move(*volumes), report);
  return report;
}

}  // namespace kelp::engine
