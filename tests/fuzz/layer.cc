// A layer as a registry sends it, compressed or not: read as a tar, then unpacked below a directory of its own, beside
// which nothing may ever appear.
#include "image/unpack.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <memory>

#include "base/log.h"
#include "fuzz/finding.h"
#include "image/tar_reader.h"
#include "sys/xattr_tree.h"

using namespace kelp;

namespace {

class BytesSource : public image::Source {
 public:
  explicit BytesSource(std::string_view bytes) : bytes_(bytes) {}
  size_t read(void* buffer, size_t size) override {
    const size_t count = std::min(size, bytes_.size());
    std::memcpy(buffer, bytes_.data(), count);
    bytes_.remove_prefix(count);
    return count;
  }

 private:
  std::string_view bytes_;
};

/// One directory for the whole run, with a tree to be filled in it.
const std::string& place() {
  static const std::string path = [] {
    std::string name = "/tmp/kelp-fuzz-layer-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    const rlimit small{8 << 20, 8 << 20};  // a sparse file may say that it is large
    ::setrlimit(RLIMIT_FSIZE, &small);
    ::signal(SIGXFSZ, SIG_IGN);
    log::set_sink({.level = log::Level::error, .program = "fuzz"});
    return name;
  }();
  return path;
}

void read_as_tar(std::string_view bytes) {
  BytesSource raw(bytes);
  const auto plain = image::decompress(raw, "layer", {.max_bytes = 64 << 20});
  image::TarReader reader(*plain, "layer");
  image::TarEntry entry;
  while (reader.next(entry)) {
    if (entry.name.find('\0') != std::string::npos) fuzz::finding("a name with a zero byte", entry.name);
    std::uint64_t end = 0;
    for (const auto& [offset, length] : entry.extents) {
      if (offset < end || length > entry.size || offset > entry.size - length)
        fuzz::finding("a hole that is none", entry.name);
      end = offset + length;
    }
    std::uint64_t got = 0;
    for (std::string_view part = reader.data(); !part.empty(); part = reader.data()) got += part.size();
    if (got != entry.stored) fuzz::finding("other data than was announced", entry.name);
  }
}

void unpack(std::string_view bytes) {
  const std::string tree = place() + "/tree";
  if (::mkdir(tree.c_str(), 0755) < 0) std::abort();
  const Fd root(::open(tree.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  (void)fuzz::accepted([&] {
    BytesSource raw(bytes);
    image::UnpackOptions options;
    options.map = store::IdMapping::single();
    (void)image::unpack_layer(raw, "layer", root.get(), options);
  });
  const std::unique_ptr<DIR, int (*)(DIR*)> beside(::opendir(place().c_str()), ::closedir);
  while (const dirent* entry = beside ? ::readdir(beside.get()) : nullptr) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != ".." && name != "tree") fuzz::finding("a file outside of the layer", name);
  }
  sys::remove_tree(tree);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)place();
  (void)fuzz::accepted([&] { read_as_tar(bytes); });
  unpack(bytes);
  return 0;
}
