#include <algorithm>
#include <iterator>
#include <memory>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/image_filter.h"
#include "cli/image_tree.h"
#include "cli/output.h"
#include "store/containers.h"
#include "store/image_lists.h"
#include "store/images.h"

namespace kelp::cli {
namespace {

struct ImagesCommand {
  bool all = false, digests = false, history = false, no_heading = false, no_trunc = false, quiet = false, tree = false;
  Strings filters;
  std::string format, sort = "created";
};

/// One line of the listing: an image under one of its names.
struct Line {
  const store::ImageRecord* image;
  std::string repository, tag;
  std::chrono::system_clock::time_point created;
};

std::string image_id(const store::ImageRecord& image, bool whole) {
  return whole ? "sha256:" + image.id : image.id.substr(0, 12);
}

/// The default table: hundreds of rows must not become JSON first.
std::string plain_table(const std::vector<Line>& lines, const ImagesCommand& values) {
  std::vector<Strings> rows;
  rows.reserve(lines.size() + 1);
  const auto add = [&](std::string repository, std::string tag, std::string digest, std::string id, std::string created,
                       std::string size, std::string history) {
    Strings& row = rows.emplace_back();
    row.reserve(7);
    row.push_back(std::move(repository));
    row.push_back(std::move(tag));
    if (values.digests) row.push_back(std::move(digest));
    row.push_back(std::move(id));
    row.push_back(std::move(created));
    row.push_back(std::move(size));
    if (values.history) row.push_back(std::move(history));
  };
  if (!values.no_heading) add("REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE", "HISTORY");
  for (const Line& line : lines) {
    const store::ImageRecord& image = *line.image;
    add(printable(line.repository), printable(line.tag), values.digests ? image.digest : "",
        image_id(image, values.no_trunc), age(line.created), human_size(image.size),
        values.history ? printable(join(store::name_history(image), ", ")) : "");
  }
  return render_table(rows);
}

Json template_row(const Line& line, const ImagesCommand& values) {
  const store::ImageRecord& image = *line.image;
  const auto created = line.created;
  Json json;
  json["Repository"] = line.repository;
  json["Tag"] = line.tag;
  json["ID"] = image_id(image, values.no_trunc);
  json["Created"] = age(created);
  json["Size"] = human_size(image.size);
  json["Digest"] = image.digest;
  json["History"] = join(store::name_history(image), ", ");
  json["Id"] = image.id;
  json["CreatedSince"] = age(created);
  json["CreatedAt"] = go_time(created);
  json["CreatedTime"] = go_time(created);
  json["VirtualSize"] = human_size(image.size);
  json["ParentId"] = "";
  json["Names"] = image.names;
  json["RepoTags"] = image.names;
  json["RepoDigests"] = image.repo_digests();
  json["Dangling"] = image.names.empty();
  json["Architecture"] = image.platform.architecture;
  json["Os"] = image.platform.os;
  json["Labels"] = Json::object();
  for (const auto& [key, value] : image.config.labels) json["Labels"][key] = value;
  return json;
}

Json json_row(const store::ImageRecord& image, const std::vector<store::ContainerRecord>& containers) {
  const auto created = image_created(image);
  Json json;
  json["Id"] = image.id;
  json["ParentId"] = "";
  json["RepoTags"] = Json();
  json["RepoDigests"] = image.repo_digests();
  json["Size"] = image.size;
  json["SharedSize"] = 0;
  json["VirtualSize"] = image.size;
  json["Labels"] = Json();
  for (const auto& [key, value] : image.config.labels) json["Labels"][key] = value;
  json["Containers"] = std::count_if(containers.begin(), containers.end(),
                                     [&](const auto& container) { return container.image_id == image.id; });
  if (image.names.empty()) json["Dangling"] = true;
  if (!image.names.empty()) json["Names"] = image.names;
  json["Digest"] = image.digest;
  if (const Strings history = store::name_history(image); !history.empty()) json["History"] = history;
  json["Created"] = std::chrono::duration_cast<std::chrono::seconds>(created.time_since_epoch()).count();
  json["CreatedAt"] = image.created;
  return json;
}

void split_name(const std::string& name, std::string& repository, std::string& tag) {
  const size_t colon = name.rfind(':');
  const bool has_tag = colon != std::string::npos && name.find('/', colon) == std::string::npos;
  repository = name.substr(0, has_tag ? colon : std::string::npos);
  tag = has_tag ? name.substr(colon + 1) : "<none>";
}

std::vector<Line> lines_of(const std::vector<store::ImageRecord>& images, const std::string& wanted_name) {
  std::vector<Line> lines;
  for (const auto& image : images) {
    const auto created = image_created(image);
    if (image.names.empty()) {
      std::string repository = "<none>";
      if (!image.repos.empty()) repository = image.repos.front();
      if (wanted_name.empty() || image_name_fits(image, wanted_name))
        lines.push_back({&image, repository, "<none>", created});
      continue;
    }
    for (const auto& name : image.names) {
      if (!wanted_name.empty() && !name_fits(name, wanted_name) && !starts_with(image.id, wanted_name)) continue;
      Line line{&image, "", "", created};
      split_name(name, line.repository, line.tag);
      lines.push_back(std::move(line));
    }
  }
  return lines;
}

void sort_lines(std::vector<Line>& lines, const std::string& by) {
  std::stable_sort(lines.begin(), lines.end(), [&](const Line& left, const Line& right) {
    if (by == "id") return left.image->id < right.image->id;
    if (by == "repository") return left.repository < right.repository;
    if (by == "tag") return left.tag < right.tag;
    if (by == "size") return left.image->size < right.image->size;
    return left.created > right.created;
  });
}

std::string quiet_list(const std::vector<Line>& lines, const ImagesCommand& values) {
  std::string out;
  std::set<std::string> seen;
  for (const Line& line : lines) {
    if (seen.insert(line.image->id).second) out += image_id(*line.image, values.no_trunc) + "\n";
  }
  return out;
}

/// Indexes, which podman lists beside images.
void add_lists(const store::Layout& layout, std::vector<store::ImageRecord>& images) {
  std::vector<store::ImageRecord> lists = store::lists_as_images(layout);
  if (lists.empty()) return;
  images.insert(images.end(), std::make_move_iterator(lists.begin()), std::make_move_iterator(lists.end()));
  std::stable_sort(images.begin(), images.end(),
                   [](const auto& left, const auto& right) { return image_created(left) > image_created(right); });
}

int list_images(Invocation& invocation, const ImagesCommand& values) {
  if (invocation.arguments.size() == 1 && !values.filters.empty()) {
    throw_usage("a name and --filter exclude each other");
  }
  if (values.tree && (values.quiet || !values.format.empty())) throw_usage("--tree is a format of its own");
  const ImageFilter filter(invocation, values.filters);
  const bool brief =
      values.format.empty() && !values.tree &&
      std::none_of(values.filters.begin(), values.filters.end(), [](const auto& f) { return starts_with(f, "label"); });
  std::vector<store::ImageRecord> images = store::list_images(invocation.context.layout, brief);
  if (!values.tree) add_lists(invocation.context.layout, images);
  std::erase_if(images, [&](const auto& image) { return !filter.matches(image); });
  const std::string wanted = invocation.arguments.empty() ? "" : invocation.arguments[0];
  if (values.format == "json") {
    const auto containers = store::list(invocation.context.layout);
    Json json = Json::array();
    for (const auto& image : images) {
      if (wanted.empty() || image_name_fits(image, wanted) || starts_with(image.id, wanted))
        json.push_back(json_row(image, containers));
    }
    print(pretty_json(json));
    return 0;
  }
  if (values.tree) {
    const auto all = store::list_images(invocation.context.layout);
    Strings trees;
    for (const auto& image : images) {
      if (wanted.empty() || image_name_fits(image, wanted) || starts_with(image.id, wanted))
        trees.push_back(image_tree(invocation.context.layout, all, image));
    }
    print(join(trees, "\n"));
    return 0;
  }
  std::vector<Line> lines = lines_of(images, wanted);
  sort_lines(lines, values.sort);
  if (values.quiet && values.format.empty()) {
    print(quiet_list(lines, values));
    return 0;
  }
  if (values.format.empty()) {
    print(plain_table(lines, values));
    return 0;
  }
  ListFormat how;
  how.format = values.format;
  how.no_heading = values.no_heading;
  how.columns = {{"Repository", "REPOSITORY"}, {"Tag", "TAG"}};
  if (values.digests) how.columns.push_back({"Digest", "DIGEST"});
  how.columns.insert(how.columns.end(), {{"ID", "IMAGE ID"}, {"Created", "CREATED"}, {"Size", "SIZE"}});
  if (values.history) how.columns.push_back({"History", "HISTORY"});
  how.headings = {{"CreatedSince", "CREATED"}, {"Id", "IMAGE ID"}};
  Json rows = Json::array();
  for (const Line& line : lines) rows.push_back(template_row(line, values));
  print(render_list(how, rows, nullptr));
  return 0;
}

}  // namespace

Action define_images(OptionSet& options) {
  auto values = std::make_shared<ImagesCommand>();
  options.arguments("[IMAGE]", 0, 1, Complete::image);
  options.flag("all,a", values->all, "all images: none is hidden here");
  options.flag("digests", values->digests, "show the digests of the manifests");
  options.list("filter,f", values->filters, "KEY=VALUE",
               "images that fit: dangling=true, reference=nginx*, label=key, ...");
  options.text("format", values->format, "FORMAT", "json, table, or a Go template for each image");
  options.flag("noheading,n", values->no_heading, "leave out the headings");
  options.flag("history", values->history, "show the names that an image has or has had");
  options.flag("no-trunc", values->no_trunc, "show IDs in full length");
  options.flag("quiet,q", values->quiet, "show IDs only");
  options.flag("tree", values->tree, "show each image with its layers");
  options.text("sort", values->sort, "COLUMN", "order of the rows")
      .one_of({"created", "id", "repository", "size", "tag"})
      .shows("created");
  return [values](Invocation& invocation) { return list_images(invocation, *values); };
}

}  // namespace kelp::cli
