#include "engine/commit.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/events.h"
#include "engine/images.h"
#include "engine/session.h"
#include "engine/stop.h"
#include "engine/user_namespace.h"
#include "spec/config_changes.h"
#include "spec/image_docs.h"
#include "store/containers.h"
#include "store/images.h"
#include "store/layers.h"

namespace kelp::engine {
namespace {

void set_variable(store::Strings& env, const std::string& name, const std::string& value) {
  const std::string begin = name + "=";
  for (auto& entry : env)
    if (starts_with(entry, begin)) {
      entry = begin + value;
      return;
    }
  env.push_back(begin + value);
}

void add_sorted(store::Strings& list, const std::string& entry) {
  const auto place = std::lower_bound(list.begin(), list.end(), entry);
  if (place == list.end() || *place != entry) list.insert(place, entry);
}

/// What `with` says at all holds; variables and labels are added one by one.
void replace_members(spec::ImageRunConfig& run, const spec::ImageRunConfig& with) {
  const auto take = [](auto& into, const auto& from) {
    if (!from.empty()) into = from;
  };
  take(run.user, with.user);
  take(run.entrypoint, with.entrypoint);
  take(run.cmd, with.cmd);
  take(run.working_dir, with.working_dir);
  take(run.stop_signal, with.stop_signal);
  take(run.shell, with.shell);
  take(run.on_build, with.on_build);
  for (const auto& entry : with.env) {
    const size_t equals = entry.find('=');
    set_variable(run.env, entry.substr(0, equals), equals == std::string::npos ? "" : entry.substr(equals + 1));
  }
  for (const auto& [key, value] : with.labels) run.labels[key] = value;
  for (const auto& port : with.exposed_ports) add_sorted(run.exposed_ports, port);
  for (const auto& path : with.volumes) add_sorted(run.volumes, path);
  if (with.stop_timeout) run.stop_timeout = with.stop_timeout;
  if (with.healthcheck) run.healthcheck = with.healthcheck;
}

/// What the next container from this image does by default: what this one does.
spec::ImageRunConfig config_of(const store::ContainerRecord& record, const CommitOptions& options,
                               spec::ImageRunConfig run) {
  const auto& config = record.config;
  if (config.unset_env_all) run.env.clear();
  for (const auto& name : config.unset_env)
    std::erase_if(run.env, [&](const std::string& entry) { return starts_with(entry, name + "="); });
  for (const auto& [name, value] : config.env) set_variable(run.env, name, value);
  if (config.entrypoint) {
    run.entrypoint = *config.entrypoint;
    run.cmd.clear();
  }
  if (!config.command.empty()) run.cmd = config.command;
  if (!config.workdir.empty()) run.working_dir = config.workdir;
  if (!config.user.empty()) run.user = config.user;
  if (config.stop_signal && !config.stop_signal->empty()) run.stop_signal = *config.stop_signal;
  for (const auto& [key, value] : config.labels) run.labels[key] = value;
  for (const auto& port : config.expose) add_sorted(run.exposed_ports, port);
  for (const auto& port : record.ports)
    add_sorted(run.exposed_ports, fmt::format("{}/{}", port.container_port, port.protocol));
  if (options.volumes)
    for (const auto& mount : config.mounts)
      if (mount.type == "volume") add_sorted(run.volumes, mount.target);
  if (!options.config.empty()) replace_members(run, spec::parse_run_config(options.config, "--config"));
  for (const auto& change : options.changes) spec::apply_change(run, change);
  return run;
}

/// Frozen while this lives; a container that was paused before stays so.
class Frozen {
 public:
  Frozen(Context& context, const store::ContainerRecord& record, bool wanted) : context_(context), record_(record) {
    if (!wanted || store::status(context.layout, record).status != store::Status::running) return;
    pause_container(context, record);
    frozen_ = true;
  }
  ~Frozen() {
    try {
      if (frozen_) unpause_container(context_, record_);
    } catch (const Error&) {  // it was killed meanwhile
    }
  }
  Frozen(const Frozen&) = delete;
  Frozen& operator=(const Frozen&) = delete;

 private:
  Context& context_;
  const store::ContainerRecord& record_;
  bool frozen_ = false;
};

}  // namespace

std::string commit_container(Context& context, const store::ContainerRecord& record, const CommitOptions& options,
                             const ProgressFn& progress) {
  const auto image =
      record.image_digest.empty() ? std::nullopt : store::image_by_manifest(context.layout, record.image_digest);
  if (!image && record.config.rootfs.empty())
    throw Error(fmt::format("the image {} of container {} is gone", record.image_name, record.name))
        .with_hint("kelp pull " + record.image_name);
  const std::string directory = context.layout.container(record.id);
  const store::IdMapping map = layers_map(record);
  const spec::ImageRunConfig run = config_of(record, options, image ? image->config : spec::ImageRunConfig{});
  PackRequest pack{.map = map};
  pack.config = spec::print_run_config(run);
  pack.author = options.author;
  pack.message = options.message;
  pack.format = options.format;
  pack.name = options.name;
  pack.created = format_rfc3339(std::chrono::system_clock::now());
  pack.created_by = record.config.command.empty() ? "" : join(record.config.command, " ");
  if (image) pack.base = image->digest;
  // A host without overlayfs has copied the layers into the upper directory: it is everything by itself.
  const bool copied = ::access((directory + "/copied").c_str(), F_OK) == 0;
  pack.squash = options.squash || copied || !image;
  if (map.is_single())
    for (const auto& chain : record.layer_chain)
      if (const auto owners = store::owners_path(context.layout.layer(chain, map.key));
          ::access(owners.c_str(), F_OK) == 0)
        pack.owners_files.push_back(owners);
  // One that has never been started has no layer of its own yet.
  if (record.config.rootfs.empty() && ::access((directory + "/upper").c_str(), F_OK) < 0)
    in_container(context, record, [](int) {});
  const Frozen frozen(context, record, options.pause);
  std::string id;
  if (!record.config.rootfs.empty()) {
    pack.upper = record.config.rootfs;
    id = pack_image(context, pack, progress);
  } else if (!pack.squash || copied) {
    pack.upper = directory + "/upper";
    id = pack_image(context, pack, progress);
  } else {
    with_container_root(context, record, false, [&](int root) {
      pack.root_fd = root;
      id = pack_image(context, pack, progress);
    });
  }
  emit_event(context, record, "commit");
  return id;
}

}  // namespace kelp::engine
