#include "engine/mounts.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/events.h"
#include "engine/host.h"
#include "engine/images.h"
#include "engine/user_namespace.h"
#include "store/containers.h"
#include "store/images.h"
#include "store/layers.h"
#include "sys/mount_api.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {

namespace {

using store::MountRequest;
using store::Strings;

std::string working_directory() {
  char* here = ::getcwd(nullptr, 0);
  if (here == nullptr) throw_errno("find the current directory");
  std::string path(here);
  std::free(here);
  return path;
}

/// The mount at that place, if there is one already.
const MountRequest* mount_at(const std::vector<MountRequest>& requests, const std::string& target) {
  const auto found = std::find_if(requests.begin(), requests.end(), [&](const MountRequest& other) {
    return sys::clean_path(other.target) == sys::clean_path(target);
  });
  return found == requests.end() ? nullptr : &*found;
}

bool is_named(const std::vector<MountRequest>& requests, const std::string& target) {
  return mount_at(requests, target) != nullptr;
}

void look_at_source(const MountRequest& request) {
  struct stat info {};
  if (::stat(request.source.c_str(), &info) < 0) {
    const int saved = errno;
    SysError error("statfs " + request.source, saved);
    if (saved == ENOENT) error.with_hint("a source without a slash is the name of a volume; make the directory first");
    throw error;
  }
}

/// Mounts of another container, as podman's --volumes-from: binds and volumes, no tmpfs.
void add_from(Context& context, const std::string& text, std::vector<MountRequest>& requests) {
  const size_t colon = text.find(':');
  const store::ContainerRecord other = store::get(context.layout, text.substr(0, colon));
  const Strings options = colon == std::string::npos ? Strings{} : split(text.substr(colon + 1), ',');
  for (const std::string& option : options)
    if (option != "ro" && option != "rw" && option != "z")
      throw_usage("--volumes-from {}: unknown option {}", kelp::quoted(text), kelp::quoted(option));
  for (MountRequest mount : other.config.mounts) {
    if ((mount.type != "bind" && mount.type != "volume") || is_named(requests, mount.target)) continue;
    for (const std::string& option : options) {
      std::erase_if(mount.options, [](const std::string& old) { return old == "ro" || old == "rw"; });
      mount.options.push_back(option);
    }
    requests.push_back(std::move(mount));
  }
}

/// type=glob: a bind for each match, by its last component below the target; without a target where it is on the host.
void add_matches(const MountRequest& request, std::vector<MountRequest>& requests) {
  glob_t found{};
  const int code = ::glob(request.source.c_str(), GLOB_ERR | GLOB_NOSORT, nullptr, &found);
  Rollback release;
  release.add([&] { ::globfree(&found); });
  if (code == GLOB_NOMATCH) throw_usage("--mount type=glob: nothing matches {}", kelp::quoted(request.source));
  if (code != 0) throw_usage("--mount type=glob: {} cannot be searched", kelp::quoted(request.source));
  for (size_t i = 0; i < found.gl_pathc; ++i) {
    const std::string path = found.gl_pathv[i];
    MountRequest bind{"bind", path, path, request.options};
    if (!request.target.empty()) bind.target = request.target + "/" + path.substr(path.rfind('/') + 1);
    if (is_named(requests, bind.target)) throw_usage("{}: duplicate mount destination", bind.target);
    requests.push_back(std::move(bind));
  }
}

store::ImageRecord image_of(Context& context, const MountRequest& request) {
  const auto image = store::find_image(context.layout, request.source);
  if (image) return *image;
  throw Error(fmt::format("mount {}: there is no image {}", request.target, kelp::quoted(request.source)))
      .with_hint("kelp pull " + request.source);
}

/// The bind of one overlay that the session is going to mount.
spec::Mount plan_overlay(Context& context, const store::ContainerRecord& record, const MountRequest& request,
                         const std::string& source, MountPlan& plan) {
  SessionOverlay overlay;
  overlay.directory = context.layout.container(record.id) + fmt::format("/overlay-{}", plan.overlays.size());
  MountRequest bind = request;
  bind.type = "bind";
  bind.source = overlay.directory + "/mnt";
  if (request.type == "image") {
    const store::IdMapping map = layers_map(record);
    const auto image = image_of(context, request);
    ensure_layers(context, image, map);
    overlay.lowers = store::overlay_lowers(context.layout, image.chains(), map);
    overlay.writable = has_option(request, "rw");
    std::erase(bind.options, "rw");
    if (!overlay.writable && !has_option(bind, "ro")) bind.options.emplace_back("ro");
  } else {
    overlay.lowers = {source};
    overlay.writable = true;
    for (const std::string& option : request.options) {
      if (starts_with(option, "upperdir=")) overlay.upper = option.substr(9);
      if (starts_with(option, "workdir=")) overlay.work = option.substr(8);
    }
  }
  plan.overlays.push_back(std::move(overlay));
  return to_spec_mount(bind, "");
}

/// With subpath=, what was just planned is bound from a place of the bundle.
void bind_part(Context& context, const store::ContainerRecord& record, const MountRequest& request, MountPlan& plan) {
  const std::string path = subpath_of(request);
  if (path.empty()) return;
  std::string& source = plan.mounts.back().source;
  const std::string place = context.layout.container(record.id) + fmt::format("/subpath-{}", plan.subpaths.size());
  plan.subpaths.push_back({std::exchange(source, place), path, place});
}

}  // namespace

void mount_overlays(const std::vector<SessionOverlay>& overlays) {
  for (const auto& wanted : overlays) {
    sys::mkdirs(wanted.directory + "/mnt", 0700);
    const Fd target(::open((wanted.directory + "/mnt").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!target) throw_errno("open {}/mnt", wanted.directory);
    sys::OverlayPlan plan;
    plan.lowers = wanted.lowers;
    plan.upper = wanted.upper;
    plan.work = wanted.work;
    if (wanted.writable && plan.upper.empty()) {
      // What was written in an earlier run goes, as podman has it.
      for (const char* name : {"/upper", "/work"}) sys::remove_tree(wanted.directory + name);
      plan.upper = wanted.directory + "/upper";
      plan.work = wanted.directory + "/work";
      sys::mkdirs(plan.upper, 0755);
      sys::mkdirs(plan.work, 0700);
      const Fd from(::open(wanted.lowers.front().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      const Fd to(::open(plan.upper.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (!from) throw_errno("open {}", wanted.lowers.front());
      sys::copy_attributes(from.get(), to.get());
    } else if (!wanted.writable && plan.lowers.size() == 1) {
      sys::move_mount(sys::open_tree_clone(AT_FDCWD, plan.lowers.front().c_str(), false), target.get());
      continue;
    }
    sys::move_mount(sys::overlay(plan), target.get());
  }
}

bool has_option(const MountRequest& request, std::string_view option) {
  return std::find(request.options.begin(), request.options.end(), option) != request.options.end();
}

void bind_subpaths(const std::vector<Subpath>& subpaths) {
  for (const Subpath& wanted : subpaths) {
    const Fd root(::open(wanted.root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root) throw_errno("open {}", wanted.root);
    const Fd part = sys::try_open_in_root(root.get(), wanted.path, O_PATH);
    struct stat info {};
    if (!part || ::fstat(part.get(), &info) < 0)
      throw_errno("subpath {} of {}", kelp::quoted(wanted.path.substr(1)), wanted.root);
    ::unlink(wanted.place.c_str());  // of an earlier start, when it may have been of another kind
    ::rmdir(wanted.place.c_str());
    if (S_ISDIR(info.st_mode))
      sys::mkdirs(wanted.place, 0700);
    else if (!Fd(::open(wanted.place.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)))
      throw_errno("create {}", wanted.place);
    const Fd place(::open(wanted.place.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!place) throw_errno("open {}", wanted.place);
    sys::move_mount(sys::open_tree_clone(part.get(), "", true), place.get());
  }
}

std::vector<MountRequest> resolve_mount_requests(Context& context, const store::ContainerConfig& config,
                                                 const Strings& image_volumes) {
  std::vector<MountRequest> requests;
  for (MountRequest request : config.mounts) {
    if (request.type == "glob") {
      add_matches(request, requests);
      continue;
    }
    if (has_option(request, "idmap"))
      throw UsageError(fmt::format("mount {}: idmap: the kernel lets only root map the ids of a mount", request.target))
          .with_hint("U gives the files to the container's user; --userns keep-id makes that user you");
    if (request.type == "image") image_of(context, request);
    if (request.type == "bind") {
      if (request.source.front() == '~')
        throw_usage("mount {}: ~ is the shell's to expand", kelp::quoted(request.source));
      if (request.source.front() != '/') request.source = working_directory() + "/" + request.source;
      request.source = sys::clean_path(request.source);
      if (has_option(request, "create_host_path=1")) sys::mkdirs(request.source, 0755);
      look_at_source(request);
    } else if (request.type == "volume" && !request.source.empty()) {
      store::check_name(request.source, "volume");
    }
    if (const MountRequest* other = mount_at(requests, request.target)) {
      // Asked for twice in the same words, as scripts do that gather their options.
      if (std::tie(other->type, other->source, other->options) ==
          std::tie(request.type, request.source, request.options))
        continue;
      throw_usage("{}: duplicate mount destination", request.target);
    }
    requests.push_back(std::move(request));
  }
  for (const std::string& text : config.volumes_from) add_from(context, text, requests);
  if (config.image_volume != "ignore")
    for (const std::string& target : image_volumes) {
      if (is_named(requests, target) || target.empty() || target.front() != '/' || sys::clean_path(target) == "/")
        continue;
      if (config.image_volume == "tmpfs")
        requests.push_back({"tmpfs", "", target, {}});
      else
        requests.push_back({"volume", "", target, {}});
    }
  return requests;
}

Strings create_missing_volumes(Context& context, const store::ContainerRecord& record) {
  Strings made;
  for (const MountRequest& request : record.config.mounts) {
    if (request.type != "volume" || store::find_volume(context.layout, request.source)) continue;
    store::VolumeRequest wanted;
    wanted.name = request.source;
    wanted.anonymous = std::find(record.anonymous_volumes.begin(), record.anonymous_volumes.end(), request.source) !=
                       record.anonymous_volumes.end();
    wanted.ignore_if_exists = true;
    made.push_back(store::create_volume(context.layout, wanted).name);
    emit_event(context, "volume", "create", made.back(), made.back());
  }
  return made;
}

MountPlan plan_mounts(Context& context, const store::ContainerRecord& record) {
  MountPlan plan;
  for (const MountRequest& request : record.config.mounts) {
    std::string data;
    if (request.type == "bind") {
      look_at_source(request);
      data = request.source;
    } else if (request.type == "volume") {
      const auto volume = store::find_volume(context.layout, request.source);
      if (!volume) throw_error("volume {} of container {} is gone", request.source, record.name);
      const auto type = volume->options.find("type");
      if (type != volume->options.end() && type->second == "tmpfs") {
        MountRequest memory{"tmpfs", "", request.target, {}};
        const auto o = volume->options.find("o");
        if (o != volume->options.end()) memory.options = split(o->second, ',');
        plan.mounts.push_back(to_spec_mount(memory, ""));
        continue;
      }
      data = volume->mountpoint;
      if (volume->needs_copy_up && !has_option(request, "nocopy") && record.config.rootfs.empty())
        plan.copy_ups.push_back({volume->name, data, sys::clean_path(request.target)});
    }
    if (request.type == "image" || has_option(request, "O")) {
      plan.mounts.push_back(plan_overlay(context, record, request, data, plan));
      bind_part(context, record, request, plan);
      continue;
    }
    if (has_option(request, "U")) plan.chowns.push_back({data});
    if ((has_option(request, "z") || has_option(request, "Z")) && context.host().security.get().selinux)
      plan.relabels.push_back({data, has_option(request, "z")});
    plan.mounts.push_back(to_spec_mount(request, data));
    spec::Mount& made = plan.mounts.back();
    if (request.type == "volume") std::erase_if(made.options, [](const std::string& o) { return o == "rw"; });
    bind_part(context, record, request, plan);
  }
  return plan;
}

}  // namespace kelp::engine
