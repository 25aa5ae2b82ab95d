// The verb manifest: indexes made by hand (`kelp manifest create`, add, annotate, remove, inspect). The documents are
// blobs of the store; what an index names is fetched with it, so that a push needs nobody else.
#include <algorithm>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/pull.h"
#include "image/push.h"
#include "image/transports/transport_name.h"
#include "image/verbs.h"
#include "store/blobs.h"
#include "store/image_lists.h"
#include "store/images.h"

namespace kelp::image {

namespace {

std::string list_name(const std::string& word) { return spec::parse_local_name(word).tagged().full(); }

spec::ImageIndex parse(const store::ImageList& list) {
  return spec::parse_index(list.text, list.names.empty() ? list.digest : list.names.front());
}

/// Puts the document into the store under the list's names.
std::string publish(const VerbRequest& request, const std::vector<std::string>& names, const spec::ImageIndex& index) {
  const std::string text = spec::print_index(index);
  const DigestName digest = sha256_of(text);
  store::put_blob(request.layout, digest, text);
  for (const std::string& name : names) {
    store::put_list(request.layout, name,
                    {.media_type = index.media_type, .digest = digest.str(), .size = text.size()});
  }
  return digest.str();
}

spec::StringMap annotations_of(const std::vector<std::string>& words) {
  spec::StringMap result;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0)
      throw_usage("--annotation {}: must be KEY=VALUE", kelp::quoted(word));
    result[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return result;
}

/// Applies --os --arch --variant --annotation to an entry.
void describe(const Arguments& arguments, spec::Descriptor& entry) {
  spec::Platform platform = entry.platform.value_or(spec::Platform{});
  if (const auto os = arguments.value("os")) platform.os = *os;
  if (const auto arch = arguments.value("arch")) {
    platform.architecture = spec::parse_platform("linux/" + *arch).architecture;
  }
  if (const auto variant = arguments.value("variant")) platform.variant = *variant;
  if (!platform.os.empty() || !platform.architecture.empty()) entry.platform = platform;
  for (const auto& [key, value] : annotations_of(arguments.values("annotation"))) entry.annotations[key] = value;
}

/// What a word names, as entries for an index: an index or image of the store, else one of a registry.
std::vector<spec::Descriptor> entries_for(VerbRequest& request, const std::string& word, bool all) {
  const bool remote = starts_with(word, "docker://");
  if (!remote) {
    if (const auto list = store::find_list(request.layout, word)) {
      std::vector<spec::Descriptor> entries = parse(*list).manifests;
      if (all || entries.size() <= 1) return entries;
      const spec::ImageIndex index = parse(*list);
      const spec::Descriptor* chosen = spec::choose_platform(index, spec::host_platform());
      if (chosen == nullptr) throw_error("{}: no image for {} in it", word, spec::host_platform().str());
      return {*chosen};
    }
    if (const auto image = store::find_image(request.layout, word)) {
      const DigestName digest = DigestName::require(image->digest);
      const std::string text = store::read_blob(request.layout, digest, spec::kMaxDocumentBytes);
      return {{.media_type = spec::parse_manifest(text, "manifest " + image->digest).media_type,
               .digest = image->digest,
               .size = text.size(),
               .platform = image->platform}};
    }
  }
  Http http(http_options(request.arguments));
  const RegistryPolicy policy = RegistryPolicy::load();
  PullRequest pull_request;
  pull_request.name = parse_transport(word).path;
  pull_request.platform = spec::host_platform();
  pull_request.unpack = false;
  pull_request.registry = registry_options(request.arguments);
  return fetch_for_index(request.layout, request.map, http, policy, pull_request, all, request.progress);
}

void add_entry(spec::ImageIndex& index, spec::Descriptor entry) {
  std::erase_if(index.manifests, [&](const spec::Descriptor& old) { return old.digest == entry.digest; });
  index.manifests.push_back(std::move(entry));
}

/// The entry that a word means: its digest, or an image of the store.
spec::Descriptor& entry_of(const VerbRequest& request, spec::ImageIndex& index, const std::string& word) {
  std::string digest = word;
  if (!DigestName::parse(word)) {
    if (const auto image = store::find_image(request.layout, word)) digest = image->digest;
  }
  for (spec::Descriptor& entry : index.manifests) {
    if (entry.digest == digest) return entry;
  }
  throw_usage("{}: not in the index", printable(word));
}

std::string create(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  const std::string name = list_name(arguments.positional[1]);
  spec::ImageIndex index;
  const auto old = store::find_list(request.layout, arguments.positional[1]);
  if (old && !arguments.flag("amend")) {
    throw UsageError(fmt::format("{}: there is such an index already", name)).with_hint("--amend changes it");
  }
  if (old) index = parse(*old);
  for (const auto& [key, value] : annotations_of(arguments.values("annotation"))) index.annotations[key] = value;
  for (size_t i = 2; i < arguments.positional.size(); ++i) {
    for (spec::Descriptor& entry : entries_for(request, arguments.positional[i], arguments.flag("all"))) {
      add_entry(index, std::move(entry));
    }
  }
  return publish(request, {name}, index);
}

std::string inspect(VerbRequest& request) {
  const std::string& word = request.arguments.positional[1];
  if (!starts_with(word, "docker://")) {
    if (const auto list = store::find_list(request.layout, word)) return list->text;
    if (const auto image = store::find_image(request.layout, word)) {
      return store::read_blob(request.layout, DigestName::require(image->digest), spec::kMaxDocumentBytes);
    }
  }
  Http http(http_options(request.arguments));
  const RegistryPolicy policy = RegistryPolicy::load();
  PullRequest pull_request;
  pull_request.name = parse_transport(word).path;
  pull_request.registry = registry_options(request.arguments);
  return fetch_document(request.layout, request.map, http, policy, pull_request, request.progress);
}

}  // namespace

std::string verb_manifest(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  arguments.need_positional(2, 10'000);
  const std::string& operation = arguments.positional[0];
  const store::StoreUse use(request.layout);
  std::string digest;
  if (operation == "create") {
    digest = create(request);
  } else if (operation == "inspect") {
    const auto document = nlohmann::ordered_json::parse(inspect(request), nullptr, false);
    return document.dump(4, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  } else {
    arguments.need_positional(3, operation == "add" ? 10'000 : 3);
    store::ImageList list = store::require_list(request.layout, arguments.positional[1]);
    spec::ImageIndex index = parse(list);
    if (operation == "add") {
      for (size_t i = 2; i < arguments.positional.size(); ++i) {
        auto entries = entries_for(request, arguments.positional[i], arguments.flag("all"));
        for (spec::Descriptor& entry : entries) {
          if (entries.size() == 1) describe(arguments, entry);
          add_entry(index, std::move(entry));
        }
      }
    } else if (operation == "annotate") {
      describe(arguments, entry_of(request, index, arguments.positional[2]));
    } else if (operation == "remove") {
      const std::string gone = entry_of(request, index, arguments.positional[2]).digest;
      std::erase_if(index.manifests, [&](const spec::Descriptor& entry) { return entry.digest == gone; });
    } else {
      throw_usage("manifest: unknown operation {}", kelp::quoted(operation));
    }
    digest = publish(request, list.names, index);
  }
  return nlohmann::ordered_json{{"v", 1}, {"digest", digest}}.dump();
}

}  // namespace kelp::image
