#include "cli/image_tree.h"

#include <memory>

#include <fmt/format.h>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "store/images.h"
#include "store/layers.h"

namespace kelp::cli {
namespace {

std::string heading(const store::ImageRecord& image) {
  return fmt::format("Image ID: {}\nTags:     [{}]\nSize:     {}\n", image.id.substr(0, 12), join(image.names, " "),
                     human_size(image.size));
}

/// Images whose uppermost layer this is.
Strings names_on_top(const std::vector<store::ImageRecord>& images, const std::string& chain) {
  Strings names;
  for (const auto& image : images) {
    if (image.layers.empty() || image.layers.back().chain != chain) continue;
    if (image.names.empty()) names.push_back(image.id.substr(0, 12));
    names.insert(names.end(), image.names.begin(), image.names.end());
  }
  return names;
}

std::string layer_line(const store::Layout& layout, const std::vector<store::ImageRecord>& images,
                       const store::ImageLayer& layer) {
  std::string line = fmt::format("ID: {} Size: {}", layer.chain.substr(0, 12),
                                 human_size(store::layer_size(layout, layer.chain).value_or(layer.size)));
  if (const Strings names = names_on_top(images, layer.chain); !names.empty()) {
    line += fmt::format(" Top Layer of: [{}]", join(names, " "));
  }
  return line;
}

int tree(Invocation& invocation, bool what_requires) {
  const auto& layout = invocation.context.layout;
  const auto image = store::require_image(layout, invocation.arguments[0]);
  const auto images = store::list_images(layout);
  if (!what_requires) {
    print(image_tree(layout, images, image));
    return 0;
  }
  std::string out = heading(image);
  // What stands on this image's uppermost layer, the nearest first; equal beginnings are printed once.
  out += fmt::format("Image {} is required by\n", image.id.substr(0, 12));
  const size_t depth = image.layers.size();
  std::vector<const store::ImageRecord*> children;
  for (const auto& other : images) {
    if (other.id == image.id || other.layers.size() <= depth) continue;
    if (depth > 0 && other.layers[depth - 1].chain != image.layers.back().chain) continue;
    children.push_back(&other);
  }
  for (size_t i = 0; i < children.size(); ++i) {
    const bool last = i + 1 == children.size();
    const auto& child = *children[i];
    out += fmt::format("{}Image {} [{}]\n", last ? "└── " : "├── ", child.id.substr(0, 12), join(child.names, " "));
    for (size_t k = depth; k < child.layers.size(); ++k) {
      out += fmt::format("{}{}{}\n", last ? "    " : "│   ", k + 1 == child.layers.size() ? "└── " : "├── ",
                         layer_line(layout, images, child.layers[k]));
    }
  }
  print(out);
  return 0;
}

}  // namespace

std::string image_tree(const store::Layout& layout, const std::vector<store::ImageRecord>& images,
                       const store::ImageRecord& image) {
  std::string out = heading(image) + "Image Layers\n";
  for (size_t i = 0; i < image.layers.size(); ++i) {
    out += (i + 1 == image.layers.size() ? "└── " : "├── ") + layer_line(layout, images, image.layers[i]) + "\n";
  }
  return out;
}

Action define_image_signatures(OptionSet& options) {
  options.arguments("[ARGUMENT...]", 0, -1);
  options.stop_at_first_word();
  return [](Invocation&) -> int {
    throw UsageError("signatures of images are neither made nor checked")
        .with_hint(
            "registries can be refused or accepted as a whole in ~/.config/containers/policy.json (reject, "
            "insecureAcceptAnything)");
  };
}

Action define_image_tree(OptionSet& options) {
  auto what_requires = std::make_shared<bool>(false);
  options.arguments("IMAGE", 1, 1, Complete::image);
  options.flag("whatrequires", *what_requires, "the images that stand on it instead");
  return [what_requires](Invocation& invocation) { return tree(invocation, *what_requires); };
}

}  // namespace kelp::cli
