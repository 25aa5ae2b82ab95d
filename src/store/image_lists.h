#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spec/image_docs.h"
#include "store/images.h"
#include "store/layout.h"

/// What has a name in index.json and is no image: indexes (`kelp manifest create`) and artifacts (a manifest of
/// anything else: a chart, a model, a signature). Nothing can be run from them, but they can be pushed, and what they
/// name is kept.
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
/// A pulled artifact, in the same way: `text` is its manifest.
std::optional<ImageList> find_artifact(const Layout& layout, std::string_view name);
/// Every index, in the order of index.json; `text` is left empty.
std::vector<ImageList> all_lists(const Layout& layout);

/// Makes `name` (full) stand for the document, a blob that is in the store. What it stood for before loses the name; an
/// index that has lost its last name goes.
void put_list(const Layout& layout, const std::string& name, const spec::Descriptor& document);
/// Makes `name` stand for an artifact ("": none, it was pulled by digest from `repo`).
void put_artifact(const Layout& layout, const std::string& name, const std::string& repo,
                  const spec::Descriptor& manifest);
/// By name: the name goes, and the artifact with its last one. By digest: all of it. Returns the names taken away;
/// nullopt: there is no such artifact.
std::optional<std::vector<std::string>> remove_artifact(const Layout& layout, std::string_view name);
/// The same of an index, which may be named by a beginning of its id, too; `deleted` is that id.
std::optional<RemovedImage> remove_list_name(const Layout& layout, std::string_view name);
/// As rows of a listing of images: id and digest are the document's, so is the size; it was made when it was written.
std::vector<ImageRecord> lists_as_images(const Layout& layout);
/// Takes an index away under all its names. throws as require_list
ImageList remove_list(const Layout& layout, std::string_view name);

}  // namespace kelp::store
