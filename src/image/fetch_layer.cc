// One layer on its way from the registry to the disk, in threads:
//
//     download ─ sha256 ─ partial file ─┬─ inflate ─┬─ sha256 (diff id)
//                                       │           └─ files
//                                       └─ sync
//
// The download goes on when unpacking fails, so that a damaged blob is reported as what it is: a wrong digest.
#include "image/fetch_layer.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "image/digest.h"
#include "image/growing_file.h"
#include "image/unpack.h"
#include "image/workers.h"
#include "store/blobs.h"

namespace kelp::image {

namespace {

constexpr unsigned kParallelLayers = 3;
constexpr size_t kChunkBytes = 256 << 10;

/// The other threads of one layer: they follow the download in its file.
class Unpacker {
 public:
  Unpacker(FetchContext& context, const store::ImageLayer& layer, int blob_fd)
      : context_(context), layer_(layer), blob_(blob_fd) {
    if (context.unpack) thread_ = std::thread([this] { run(); });
  }
  Unpacker(const Unpacker&) = delete;
  Unpacker& operator=(const Unpacker&) = delete;
  ~Unpacker() {
    if (!thread_.joinable()) return;
    blob_.fail();
    thread_.join();
  }

  void grow_to(std::uint64_t size) { blob_.grow_to(size); }
  /// The blob is complete.
  void end() { blob_.end(); }
  /// After end(), of a blob that is what it should be: waits for the files, throws what went wrong with them.
  void finish() {
    if (!thread_.joinable()) return;
    thread_.join();
    if (failure_) std::rethrow_exception(failure_);
    if (result_ && result_->diff_id != layer_.diff_id) {
      throw_error("layer {}: its content is {}, but the image configuration says {}", layer_.blob, result_->diff_id,
                  layer_.diff_id);
    }
  }
  /// After finish().
  void publish() {
    if (!result_) return;  // another process made it, or nothing is unpacked
    store::LayerInfo info;
    info.diff_id = layer_.diff_id;
    info.blob = layer_.blob;
    info.bytes = result_->bytes;
    info.files = result_->files;
    builder_->publish(info);
    const std::scoped_lock lock(context_.mutex);
    for (std::string& warning : result_->warnings) context_.warnings.push_back(std::move(warning));
  }

 private:
  void run() noexcept {
    try {
      builder_.emplace(context_.layout, layer_.chain, context_.map);
      if (!builder_->complete()) {
        UnpackOptions options;
        options.map = context_.map;
        if (context_.map.is_single()) options.owners_file = store::owners_path(builder_->path());
        result_ = unpack_layer(blob_, "layer " + layer_.blob, builder_->diff_fd(), options);
      }
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  FetchContext& context_;
  const store::ImageLayer& layer_;
  GrowingFile blob_;
  std::optional<store::LayerBuilder> builder_;
  std::optional<UnpackResult> result_;
  std::exception_ptr failure_;
  std::thread thread_;  // last: it uses the others
};

/// What an earlier try has left.
void hash_partial(const store::BlobWriter& writer, Sha256& hash, const std::stop_token& stop) {
  std::vector<std::byte> chunk(kChunkBytes);
  std::uint64_t at = 0;
  while (at < writer.offset()) {
    if (stop.stop_requested()) throw Cancelled();
    const ssize_t got = ::pread(writer.fd(), chunk.data(), chunk.size(), static_cast<off_t>(at));
    if (got < 0) throw_errno("read a partial download");
    if (got == 0) throw_error("a partial download became shorter");
    hash.update(chunk.data(), static_cast<size_t>(got));
    at += static_cast<std::uint64_t>(got);
  }
}

/// What is not there yet. libcurl gives 16 KiB at a time: a write and a message for each would cost as much as the
/// download.
void download_rest(FetchContext& context, const store::ImageLayer& layer, const DigestName& digest,
                   store::BlobWriter& writer, Sha256& hash, Unpacker& unpacker, const std::stop_token& stop) {
  std::vector<std::byte> chunk(kChunkBytes);
  size_t gathered = 0;
  const auto pass_on = [&] {
    const size_t size = std::exchange(gathered, 0);
    writer.write(chunk.data(), size);
    unpacker.grow_to(writer.offset());
    hash.update(chunk.data(), size);
    context.progress.bytes(layer.blob, writer.offset(), layer.size);
  };
  try {
    context.supply(
        digest, writer.offset(), layer.size,
        [&](std::span<const std::byte> bytes) {
          while (!bytes.empty()) {
            const size_t count = std::min(bytes.size(), chunk.size() - gathered);
            std::memcpy(chunk.data() + gathered, bytes.data(), count);
            gathered += count;
            bytes = bytes.subspan(count);
            if (gathered == chunk.size()) pass_on();
          }
        },
        stop);
  } catch (...) {
    try {
      writer.write(chunk.data(), gathered);  // the next try goes on from here
    } catch (const Error& error) {
      log::debug("{}", error.message());
    }
    throw;
  }
  pass_on();
}

/// One pass. false: the bytes of an earlier try were bad; they are gone now, try again.
bool fetch_once(FetchContext& context, const store::ImageLayer& layer, const DigestName& digest,
                store::BlobWriter& writer, const std::stop_token& stop) {
  if (writer.offset() > layer.size) writer.restart();
  const std::uint64_t resumed_at = writer.offset();
  Sha256 hash;
  Unpacker unpacker(context, layer, writer.fd());
  if (resumed_at > 0) {
    log::debug("blob {}: resumed at {} of {}", layer.blob, resumed_at, layer.size);
    unpacker.grow_to(resumed_at);
    hash_partial(writer, hash, stop);
  }
  if (writer.offset() < layer.size) {
    download_rest(context, layer, digest, writer, hash, unpacker, stop);
  }
  if (writer.offset() != layer.size) {
    throw_error("blob {}: truncated: {} of {} bytes came", layer.blob, writer.offset(), layer.size);
  }
  if (const DigestName actual = hash.digest(); actual != digest) {
    writer.restart();
    if (resumed_at > 0) return false;
    throw_error("blob {}: wrong digest: what came is {}", layer.blob, actual.str());
  }
  unpacker.end();
  context.progress.unpack(layer.blob);
  writer.sync();  // while the last files are being made
  try {
    unpacker.finish();
  } catch (...) {
    writer.restart();  // bytes that no layer can be made of are not worth keeping
    throw;
  }
  writer.publish(digest);
  unpacker.publish();
  return true;
}

void run_layers(FetchContext& context, const std::vector<const store::ImageLayer*>& layers) {
  run_parallel(layers.size(), kParallelLayers,
               [&](size_t i, const std::stop_token& stop) { fetch_layer(context, *layers[i], stop); });
}

}  // namespace

BlobSupply supply_from(Registry& registry) {
  return [&registry](const DigestName& digest, std::uint64_t offset, std::uint64_t bound, const BodySink& sink,
                     const std::stop_token& stop) { registry.blob(digest, offset, bound, sink, stop); };
}

void fetch_layer(FetchContext& context, const store::ImageLayer& layer, const std::stop_token& stop) {
  const DigestName digest = DigestName::require(layer.blob);
  bool fetched = false;
  const bool here = store::has_blob(context.layout, digest);
  const bool lone = !here && store::read_lone_tree(context.layout, layer.chain).has_value();
  if (!here && (context.keep_blobs || !lone)) {
    context.progress.layer(layer.blob, layer.size);
    store::BlobWriter writer(context.layout, digest);
    while (!writer.complete() && !fetched) {
      if (stop.stop_requested()) throw Cancelled();
      fetched = fetch_once(context, layer, digest, writer, stop);
    }
    if (lone) store::forget_lone_tree(context.layout, layer.chain);
  } else {
    context.progress.layer(layer.blob, layer.size, "already exists");
  }
  if (!fetched && context.unpack && !store::layer_ready(context.layout, layer.chain, context.map)) {
    context.progress.unpack(layer.blob);
    std::vector<std::string> warnings;
    ensure_layer(context.layout, layer, context.map, {}, &warnings);
    const std::scoped_lock lock(context.mutex);
    context.warnings.insert(context.warnings.end(), warnings.begin(), warnings.end());
  }
  context.progress.done(layer.blob);
}

void fetch_layers(FetchContext& context, const std::vector<store::ImageLayer>& layers) {
  // A blob may stand twice in an image (an empty layer); it is fetched once, and made a second layer of afterwards.
  std::set<std::string> seen;
  std::vector<const store::ImageLayer*> first, again;
  for (const store::ImageLayer& layer : layers) (seen.insert(layer.blob).second ? first : again).push_back(&layer);
  run_layers(context, first);
  run_layers(context, again);
}

void check_free_space(const store::Layout& layout, const std::vector<store::ImageLayer>& layers, bool keep_blobs) {
  std::uint64_t wanted = 0;
  for (const store::ImageLayer& layer : layers) {
    if (store::has_blob(layout, DigestName::require(layer.blob))) continue;
    if (!keep_blobs && store::read_lone_tree(layout, layer.chain)) continue;
    if (__builtin_add_overflow(wanted, layer.size, &wanted)) throw_error("the sizes of its layers are nonsense");
  }
  struct statvfs disk {};
  if (wanted == 0 || ::statvfs(layout.data.c_str(), &disk) != 0) return;
  const std::uint64_t available = std::uint64_t{disk.f_bavail} * disk.f_frsize;
  if (wanted > available) {
    throw Error(fmt::format("{} to be written, but only {} are free in {}", human_size(wanted), human_size(available),
                            layout.data))
        .with_hint("kelp rmi IMAGE makes room");
  }
}

}  // namespace kelp::image
