#include "image/unpack.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/lone_trees.h"
#include "image/read_ahead.h"
#include "image/tar_reader.h"
#include "image/tree_writer.h"
#include "image/workers.h"
#include "store/blobs.h"
#include "store/prune.h"

namespace kelp::image {

namespace {

/// Tells how much of the compressed blob was read.
class CountingSource : public Source {
 public:
  CountingSource(Source& inner, const BytesFn& progress) : inner_(inner), progress_(progress) {}
  size_t read(void* buffer, size_t size) override {
    const size_t got = inner_.read(buffer, size);
    count_ += got;
    if (progress_ && got > 0) progress_(count_);
    return got;
  }

 private:
  Source& inner_;
  const BytesFn& progress_;
  std::uint64_t count_ = 0;
};

}  // namespace

UnpackResult unpack_layer(Source& blob, const std::string& what, int root_fd, const UnpackOptions& options) {
  // blob → count → inflate (thread) → hash (thread) and tar → files
  CountingSource counted(blob, options.progress);
  const auto inflated = decompress(counted, what, InflateLimits::for_room_at(root_fd));
  TreeWriter writer(root_fd, {.map = &options.map, .whiteouts = options.whiteouts, .owners_file = options.owners_file});
  ReadAhead ahead(*inflated);
  TarReader reader(ahead, what);
  TarEntry entry;
  while (reader.next(entry)) {
    if (options.uid) entry.uid = *options.uid;
    if (options.gid) entry.gid = *options.gid;
    try {
      writer.add(entry, reader);
    } catch (Error& error) {
      if (error.message().find(what) != 0) error.add_context(fmt::format("{}: {}", what, quoted(entry.name)));
      throw;
    }
  }
  reader.drain();
  writer.finish();
  UnpackResult result;
  result.diff_id = ahead.digest().str();
  result.bytes = ahead.count();
  result.files = writer.files();
  result.warnings = writer.warnings();
  return result;
}

void ensure_layer(const store::Layout& layout, const store::ImageLayer& layer, const store::IdMapping& map,
                  const BytesFn& progress, std::vector<std::string>* warnings) {
  if (store::layer_ready(layout, layer.chain, map)) return;
  store::LayerBuilder builder(layout, layer.chain, map);
  if (builder.complete()) return;
  const std::string what = "layer " + layer.blob;
  const DigestName digest = DigestName::require(layer.blob);
  const auto lone = store::has_blob(layout, digest) ? std::nullopt : store::read_lone_tree(layout, layer.chain);
  Fd blob;
  std::unique_ptr<Source> source;
  if (lone) {
    source = open_lone_tree(layout, layer.chain, *lone);
  } else {
    blob = store::open_blob(layout, digest);
    source = std::make_unique<FdSource>(blob.get(), what);
  }
  UnpackOptions options{.map = map, .progress = progress};
  if (map.is_single()) options.owners_file = store::owners_path(builder.path());
  UnpackResult result = unpack_layer(*source, what, builder.diff_fd(), options);
  if (!lone && result.diff_id != layer.diff_id) {
    throw_error("{}: its content is {}, but the image config says {}", what, result.diff_id, layer.diff_id);
  }
  builder.publish({.diff_id = layer.diff_id, .blob = layer.blob, .bytes = result.bytes, .files = result.files});
  for (std::string& warning : result.warnings) {
    if (warnings != nullptr) {
      warnings->push_back(what + ": " + warning);
    } else {
      log::warn("{}: {}", what, warning);
    }
  }
}

void ensure_layers(const store::Layout& layout, const std::vector<store::ImageLayer>& layers,
                   const store::IdMapping& map,
                   const std::function<void(const store::ImageLayer&, std::uint64_t done)>& progress,
                   std::vector<std::string>* warnings, unsigned threads) {
  std::vector<const store::ImageLayer*> missing;
  for (const store::ImageLayer& layer : layers) {
    const bool twice =
        std::any_of(missing.begin(), missing.end(), [&](const auto* m) { return m->chain == layer.chain; });
    if (!twice && !store::layer_ready(layout, layer.chain, map)) missing.push_back(&layer);
  }
  if (missing.empty()) return;
  std::mutex mutex;
  run_parallel(missing.size(), threads, [&](size_t i, const std::stop_token&) {
    std::vector<std::string> mine;
    const BytesFn report = [&](std::uint64_t done) {
      const std::lock_guard lock(mutex);
      if (progress) progress(*missing[i], done);
    };
    ensure_layer(layout, *missing[i], map, report, &mine);
    const std::lock_guard lock(mutex);
    if (warnings != nullptr) warnings->insert(warnings->end(), mine.begin(), mine.end());
  });
}

void sync_layers_in_background(const store::Layout& layout, bool give_up) {
  // Two forks: the child that waits for the disk belongs to init, nobody has to reap it.
  const pid_t child = ::fork();
  if (child < 0) {
    log::debug("background sync: {}", errno_text(errno));
    return;
  }
  if (child > 0) {
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return;
  }
  if (::setsid() < 0 || ::fork() != 0) ::_exit(0);
  // Whoever waits for the end of our output must not wait for the disk.
  ::close_range(0, ~0U, 0);
  try {
    store::empty_trash(layout);  // what a killed unpack has left, too
    store::sync_layers(layout);
    if (give_up) {
      give_up_blobs(layout);
      store::sweep_if_idle(layout);  // what a push or save has packed anew
    }
    store::empty_trash(layout);
  } catch (...) {  // unmarked layers are unpacked again after a crash, that is all
  }
  ::_exit(0);
}

}  // namespace kelp::image
