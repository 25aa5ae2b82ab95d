#include "image/lone_trees.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "image/blob_sink.h"
#include "image/digest.h"
#include "image/pack.h"
#include "image/verbs.h"
#include "image/workers.h"
#include "store/blobs.h"
#include "store/image_index.h"
#include "store/prune.h"
#include "sys/lock.h"

namespace kelp::image {

namespace {

constexpr unsigned kMaxPackers = 4;

Fd open_tree(const store::Layout& layout, std::string_view chain, const store::IdMapping& map) {
  const std::string path = layout.layer(chain, map.key) + "/diff";
  Fd root(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) throw_errno("open {}", path);
  return root;
}

PackOptions tree_options(const store::Layout& layout, std::string_view chain, const store::IdMapping& map) {
  PackOptions options{.map = map, .overlay = true, .owners_files = {}};
  if (map.is_single()) options.owners_files = {store::owners_path(layout.layer(chain, map.key))};
  return options;
}

/// Written by a thread, read through a pipe.
class TreeSource : public Source {
 public:
  TreeSource(Fd root, PackOptions options, std::string what)
      : root_(std::move(root)), options_(std::move(options)), what_(std::move(what)) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
    read_ = Fd(ends[0]);
    write_ = Fd(ends[1]);
    ::fcntl(write_.get(), F_SETPIPE_SZ, 1 << 20);
    source_.emplace(read_.get(), what_);
    writer_ = std::thread([this] { pack(); });
  }
  TreeSource(const TreeSource&) = delete;
  TreeSource& operator=(const TreeSource&) = delete;
  ~TreeSource() override {
    read_.reset();  // a writer under way gets EPIPE
    if (writer_.joinable()) writer_.join();
  }

  size_t read(void* buffer, size_t size) override {
    const size_t got = source_->read(buffer, size);
    if (got > 0) return got;
    if (writer_.joinable()) writer_.join();
    if (failure_) std::rethrow_exception(failure_);
    return 0;
  }

 private:
  void pack() noexcept {
    try {
      FdSink sink(write_.get(), what_);
      pack_tree(root_.get(), sink, options_);
    } catch (...) {
      failure_ = std::current_exception();
    }
    write_.reset();
  }

  Fd root_;
  PackOptions options_;
  std::string what_;
  Fd read_, write_;
  std::optional<FdSource> source_;
  std::exception_ptr failure_;
  std::thread writer_;  // last: it uses the others
};

/// Layers by the blob that they were made of, as far as only images name it.
using Layers = std::map<std::string, std::set<std::string>>;  // blob → chains

Layers layers_of_images(const store::Layout& layout) {
  Layers layers;
  std::set<std::string> needed;
  for (const store::IndexEntry& entry : store::read_full_entries(layout)) {
    std::optional<store::ImageRecord> image;
    try {
      image = store::image_by_manifest(layout, entry.manifest);
    } catch (const Error& error) {
      log::debug("{}", error.message());
    }
    if (image) {
      for (const store::ImageLayer& layer : image->layers) layers[layer.blob].insert(layer.chain);
    } else {
      needed.merge(store::reached_blobs(layout, entry.manifest));
    }
  }
  std::erase_if(layers, [&](const auto& layer) {
    return needed.contains(layer.first) || !store::has_blob(layout, DigestName::require(layer.first));
  });
  return layers;
}

/// The usual map that the layer is durable under.
std::optional<store::IdMapping> durable_map(const store::Layout& layout, const std::string& chain) {
  for (const store::IdMapping& map : {store::IdMapping::full(), store::IdMapping::single()}) {
    if (store::layer_is_durable(layout, chain, map)) return map;
  }
  return std::nullopt;
}

/// false: one of them is not there to be relied on.
bool record_lone_trees(const store::Layout& layout, const std::set<std::string>& chains) {
  for (const std::string& chain : chains) {
    if (!durable_map(layout, chain)) return false;
  }
  for (const std::string& chain : chains) {
    if (store::read_lone_tree(layout, chain)) continue;
    const auto map = durable_map(layout, chain);
    if (!map) return false;
    store::write_lone_tree(layout, chain, {.map = *map, .digest = tree_digest(layout, chain, *map)});
  }
  return true;
}

struct Packed {
  DigestName digest, diff_id;
  std::uint64_t size = 0;
};

/// The tree as a gzip blob in the store.
Packed pack_lone_tree(const store::Layout& layout, const std::string& chain, const store::LoneTree& tree) {
  store::BlobWriter writer(layout);
  BlobSink sink(writer);
  HashingSink hashed(&sink);
  const auto packer = compress(hashed, Compression::gzip);
  HashingSink plain(packer.get());
  pack_tree(open_tree(layout, chain, tree.map).get(), plain, tree_options(layout, chain, tree.map));
  plain.finish();
  Packed packed{.digest = hashed.digest(), .diff_id = plain.digest(), .size = hashed.count()};
  writer.publish(packed.digest);
  return packed;
}

}  // namespace

std::string tree_digest(const store::Layout& layout, std::string_view chain, const store::IdMapping& map) {
  HashingSink hash(nullptr);
  pack_tree(open_tree(layout, chain, map).get(), hash, tree_options(layout, chain, map));
  return hash.digest().str();
}

std::unique_ptr<Source> open_lone_tree(const store::Layout& layout, std::string_view chain,
                                       const store::LoneTree& tree) {
  return std::make_unique<TreeSource>(open_tree(layout, chain, tree.map), tree_options(layout, chain, tree.map),
                                      "layer " + std::string(chain));
}

GivenUp give_up_blobs(const store::Layout& layout) {
  {
    const store::StoreUse use(layout);
    const Layers layers = layers_of_images(layout);
    for (const auto& [blob, chains] : layers) record_lone_trees(layout, chains);
  }
  GivenUp result;
  // Whoever looks for a blob holds StoreUse until he has read it. What came since the trees were recorded stays.
  const auto alone = sys::FileLock::try_exclusive(layout.locks() + "/gc");
  if (!alone) return result;
  for (const auto& [blob, chains] : layers_of_images(layout)) {
    const bool stand = std::all_of(chains.begin(), chains.end(), [&](const std::string& chain) {
      return store::read_lone_tree(layout, chain).has_value();
    });
    if (!stand) continue;
    const DigestName digest = DigestName::require(blob);
    const std::uint64_t size = store::blob_size(layout, digest).value_or(0);
    if (!store::move_to_trash(layout, layout.blob(digest.hex()))) continue;
    ++result.blobs;
    result.bytes += size;
  }
  return result;
}

store::ImageRecord with_blobs(const store::Layout& layout, const store::ImageRecord& image, Progress& progress) {
  std::vector<size_t> missing;
  for (size_t i = 0; i < image.layers.size(); ++i) {
    if (!store::has_blob(layout, DigestName::require(image.layers[i].blob))) missing.push_back(i);
  }
  if (missing.empty()) return image;
  std::vector<std::optional<Packed>> packed(missing.size());
  run_parallel(missing.size(), kMaxPackers, [&](size_t i, const std::stop_token&) {
    const store::ImageLayer& layer = image.layers[missing[i]];
    const auto tree = store::read_lone_tree(layout, layer.chain);
    if (!tree) {
      throw Error(fmt::format("layer {}: neither its blob nor its tree is in the store", layer.blob))
          .with_hint("kelp pull the image again");
    }
    progress.status(fmt::format("Packing layer {}", layer.blob.substr(0, 19)));
    packed[i] = pack_lone_tree(layout, layer.chain, *tree);
  });

  const DigestName old = DigestName::require(image.digest);
  spec::ImageManifest manifest =
      spec::parse_manifest(store::read_blob(layout, old, spec::kMaxDocumentBytes), "manifest " + image.digest);
  auto config = nlohmann::ordered_json::parse(store::read_image_config_text(layout, image));
  auto& diff_ids = config.at("rootfs").at("diff_ids");
  const bool docker = manifest.media_type == spec::media::kDockerManifest;
  store::ImageRecord made = image;
  std::vector<std::string> plain;
  for (size_t i = 0; i < missing.size(); ++i) {
    spec::Descriptor& descriptor = manifest.layers.at(missing[i]);
    descriptor.digest = packed[i]->digest.str();
    descriptor.size = packed[i]->size;
    descriptor.media_type = docker ? spec::media::kDockerLayerGzip : spec::media::kLayerGzip;
    diff_ids.at(missing[i]) = packed[i]->diff_id.str();
    made.layers[missing[i]] = {.diff_id = packed[i]->diff_id.str(),
                               .chain = "",
                               .blob = descriptor.digest,
                               .size = descriptor.size,
                               .media_type = descriptor.media_type};
  }
  for (const store::ImageLayer& layer : made.layers) plain.push_back(layer.diff_id);
  const std::vector<std::string> chains = chain_ids(plain);
  for (size_t i = 0; i < chains.size(); ++i) made.layers[i].chain = chains[i];
  const std::string config_text = config.dump();
  const DigestName config_digest = sha256_of(config_text);
  manifest.config.digest = config_digest.str();
  manifest.config.size = config_text.size();
  const std::string manifest_text = spec::print_manifest(manifest);
  const DigestName manifest_digest = sha256_of(manifest_text);
  store::put_blob(layout, config_digest, config_text);
  store::put_blob(layout, manifest_digest, manifest_text);
  made.id = std::string(config_digest.hex());
  made.digest = manifest_digest.str();
  log::warn("{}: the blobs of {} of its layers were not kept (keep-blobs = false): what goes out has new digests",
            image.names.empty() ? image.id.substr(0, 12) : image.names.front(), missing.size());
  return made;
}

std::string verb_give_up_blobs(VerbRequest& request) {
  request.arguments.need_positional(0, 0);
  store::sync_layers(request.layout);
  const GivenUp given = give_up_blobs(request.layout);
  return nlohmann::ordered_json{{"v", 1}, {"blobs", given.blobs}, {"bytes", given.bytes}}.dump();
}

}  // namespace kelp::image
