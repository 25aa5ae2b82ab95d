#include <algorithm>
#include <memory>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/image_filter.h"
#include "cli/output.h"
#include "engine/store_care.h"
#include "spec/image_name.h"
#include "store/containers.h"
#include "store/images.h"
#include "store/volumes.h"

namespace kelp::cli {
namespace {

struct DfCommand {
  std::string format;
  bool verbose = false;
};

/// All that the tables need, looked up once.
struct Facts {
  std::vector<store::ImageRecord> images;
  std::vector<store::ContainerRecord> containers;
  std::vector<store::VolumeRecord> volumes;
  engine::DiskUse use;
  std::set<std::string> used_images;

  explicit Facts(Invocation& invocation)
      : images(store::list_images(invocation.context.layout)),
        containers(store::list(invocation.context.layout)),
        volumes(store::list_volumes(invocation.context.layout)),
        use(engine::disk_use(invocation.context)) {
    for (const auto& container : containers) used_images.insert(container.image_id);
  }
  [[nodiscard]] std::uint64_t container_size(const std::string& id) const { return size_in(use.containers, id); }
  [[nodiscard]] std::uint64_t volume_size(const std::string& name) const { return size_in(use.volumes, name); }
  /// Layers that several images have; each image's own part is what its removal would bring.
  [[nodiscard]] std::map<std::string, unsigned> layer_users() const {
    std::map<std::string, unsigned> users;
    for (const auto& image : images) {
      for (const auto& layer : image.layers) ++users[layer.blob];
    }
    return users;
  }

 private:
  static std::uint64_t size_in(const std::vector<std::pair<std::string, std::uint64_t>>& list, const std::string& key) {
    const auto found = std::find_if(list.begin(), list.end(), [&](const auto& item) { return item.first == key; });
    return found == list.end() ? 0 : found->second;
  }
};

bool is_running(const Invocation& invocation, const store::ContainerRecord& record) {
  const auto status = store::status(invocation.context.layout, record).status;
  return status != store::Status::created && status != store::Status::exited;
}

Json row(const char* type, size_t total, size_t active, std::uint64_t size, std::uint64_t reclaimable) {
  const std::uint64_t share = size == 0 ? 0 : reclaimable * 100 / size;
  return {{"Type", type},
          {"Total", total},
          {"TotalCount", total},
          {"Active", active},
          {"Size", human_size(size)},
          {"RawSize", size},
          {"Reclaimable", fmt::format("{} ({}%)", human_size(reclaimable), share)},
          {"RawReclaimable", reclaimable}};
}

Json summary(const Invocation& invocation, const Facts& facts) {
  // What the blobs and layers of images that no container uses take, and nothing else needs.
  std::map<std::string, bool> needed;
  std::uint64_t all = facts.use.blobs + facts.use.layers, unused = 0;
  for (const auto& image : facts.images) {
    for (const auto& layer : image.layers) needed[layer.blob] |= facts.used_images.contains(image.id);
  }
  std::set<std::string> counted;
  for (const auto& image : facts.images) {
    for (const auto& layer : image.layers) {
      if (!needed[layer.blob] && counted.insert(layer.blob).second) unused += layer.size;
    }
  }
  if (facts.used_images.empty() || counted.size() == needed.size()) unused = all;
  const size_t active_images =
      static_cast<size_t>(std::count_if(facts.images.begin(), facts.images.end(),
                                        [&](const auto& image) { return facts.used_images.contains(image.id); }));
  size_t running = 0;
  std::uint64_t container_bytes = 0, stopped_bytes = 0;
  for (const auto& container : facts.containers) {
    const std::uint64_t size = facts.container_size(container.id);
    container_bytes += size;
    if (is_running(invocation, container)) {
      ++running;
    } else {
      stopped_bytes += size;
    }
  }
  size_t used_volumes = 0;
  std::uint64_t volume_bytes = 0, free_volume_bytes = 0;
  for (const auto& volume : facts.volumes) {
    const std::uint64_t size = facts.volume_size(volume.name);
    volume_bytes += size;
    if (store::volume_users(facts.containers, volume.name).empty()) {
      free_volume_bytes += size;
    } else {
      ++used_volumes;
    }
  }
  Json rows = Json::array();
  rows.push_back(row("Images", facts.images.size(), active_images, all, std::min(unused, all)));
  rows.push_back(row("Containers", facts.containers.size(), running, container_bytes, stopped_bytes));
  rows.push_back(row("Local Volumes", facts.volumes.size(), used_volumes, volume_bytes, free_volume_bytes));
  return rows;
}

Json image_rows(const Facts& facts) {
  Json rows = Json::array();
  const auto users = facts.layer_users();
  for (const auto& image : facts.images) {
    std::uint64_t shared = 0, unique = 0;
    for (const auto& layer : image.layers) (users.at(layer.blob) > 1 ? shared : unique) += layer.size;
    const auto containers = std::count_if(facts.containers.begin(), facts.containers.end(),
                                          [&](const auto& container) { return container.image_id == image.id; });
    Strings names = image.names;
    if (names.empty()) names.emplace_back("<none>:<none>");
    for (const std::string& name : names) {
      const size_t colon = name.rfind(':');
      rows.push_back({{"Repository", name.substr(0, colon)},
                      {"Tag", name.substr(colon + 1)},
                      {"ImageID", image.id.substr(0, 12)},
                      {"Created", age(image_created(image))},
                      {"Size", human_size(image.size)},
                      {"SharedSize", human_size(shared)},
                      {"UniqueSize", human_size(unique)},
                      {"Containers", containers}});
    }
  }
  return rows;
}

Json container_rows(const Invocation& invocation, const Facts& facts) {
  Json rows = Json::array();
  for (const auto& container : facts.containers) {
    rows.push_back({{"ContainerID", container.id.substr(0, 12)},
                    {"Image", container.image_id.substr(0, 12)},
                    {"Size", human_size(facts.container_size(container.id))},
                    {"Created", age(container.created)},
                    {"Status", store::status_name(store::status(invocation.context.layout, container).status)},
                    {"Names", container.name}});
  }
  return rows;
}

Json volume_rows(const Facts& facts) {
  Json rows = Json::array();
  for (const auto& volume : facts.volumes) {
    rows.push_back({{"VolumeName", volume.name},
                    {"Links", store::volume_users(facts.containers, volume.name).size()},
                    {"Size", human_size(facts.volume_size(volume.name))}});
  }
  return rows;
}

std::string table(const Json& rows, std::vector<Column> columns) {
  ListFormat how;
  how.columns = std::move(columns);
  return render_list(how, rows, nullptr);
}

int disk_use(Invocation& invocation, const DfCommand& values) {
  const Facts facts(invocation);
  if (values.verbose) {
    if (!values.format.empty()) throw_usage("--verbose and --format exclude each other");
    std::string out = "Images space usage:\n\n";
    out += table(image_rows(facts), {{"Repository", "REPOSITORY"},
                                     {"Tag", "TAG"},
                                     {"ImageID", "IMAGE ID"},
                                     {"Created", "CREATED"},
                                     {"Size", "SIZE"},
                                     {"SharedSize", "SHARED SIZE"},
                                     {"UniqueSize", "UNIQUE SIZE"},
                                     {"Containers", "CONTAINERS"}});
    out += "\nContainers space usage:\n\n";
    out += table(container_rows(invocation, facts), {{"ContainerID", "CONTAINER ID"},
                                                     {"Image", "IMAGE"},
                                                     {"Size", "SIZE"},
                                                     {"Created", "CREATED"},
                                                     {"Status", "STATUS"},
                                                     {"Names", "NAMES"}});
    out += "\nLocal Volumes space usage:\n\n";
    out += table(volume_rows(facts), {{"VolumeName", "VOLUME NAME"}, {"Links", "LINKS"}, {"Size", "SIZE"}});
    out += fmt::format("\nBlobs: {} in {}. Unpacked layers: {} in {}.\n", human_size(facts.use.blobs),
                       facts.use.blob_count, human_size(facts.use.layers), facts.use.layer_count);
    print(out);
    return 0;
  }
  ListFormat how;
  how.format = values.format;
  how.columns = {
      {"Type", "TYPE"}, {"Total", "TOTAL"}, {"Active", "ACTIVE"}, {"Size", "SIZE"}, {"Reclaimable", "RECLAIMABLE"}};
  print(render_list(how, summary(invocation, facts), nullptr));
  return 0;
}

}  // namespace

Action define_system_df(OptionSet& options) {
  auto values = std::make_shared<DfCommand>();
  options.text("format", values->format, "FORMAT", "json, table, or a Go template for each row");
  options.flag("verbose,v", values->verbose, "each image, container and volume");
  return [values](Invocation& invocation) { return disk_use(invocation, *values); };
}

}  // namespace kelp::cli
