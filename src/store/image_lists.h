#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spec/image_docs.h"
#include "store/layout.h"

/// Image indexes that have a name of their own (`kelp manifest create`): entries of index.json whose document is an
/// index. They are no images: nothing can be run from them, but they can be pushed, and what they name is kept.
namespace kelp::store {

struct ImageList {
  std::vector<std::string> names;  ///< full names
  std::string digest;              ///< of the document, a blob
  std::string media_type;
  std::string text;  ///< the document
};

/// By name (short or full) or digest. nullopt: there is no such index (there may be an image of that name).
std::optional<ImageList> find_list(const Layout& layout, std::string_view name);
/// As find_list; throws UsageError "NAME: image index not known".
ImageList require_list(const Layout& layout, std::string_view name);
/// Every index, in the order of index.json; `text` is left empty.
std::vector<ImageList> all_lists(const Layout& layout);

/// Makes `name` (full) stand for the document, a blob that is in the store. What it stood for before loses the name; an
/// index that has lost its last name goes.
void put_list(const Layout& layout, const std::string& name, const spec::Descriptor& document);
/// Takes an index away under all its names. throws as require_list
ImageList remove_list(const Layout& layout, std::string_view name);

}  // namespace kelp::store
