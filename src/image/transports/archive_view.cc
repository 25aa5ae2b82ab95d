#include "image/transports/archive_view.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "image/tar_reader.h"
#include "spec/image_docs.h"
#include "sys/lock.h"
#include "sys/safe_path.h"

namespace kelp::image {

namespace {

constexpr unsigned kMaxLinks = 8;
constexpr size_t kMaxMembers = 100'000;
constexpr size_t kBuffer = 256 * 1024;

/// "./a//b" → "a/b"; ".." is refused.
std::string clean_name(std::string_view name) {
  std::vector<std::string> parts;
  for (std::string& part : split(name, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") throw_error("the name holds \"..\"");
    parts.push_back(std::move(part));
  }
  return join(parts, "/");
}

/// Copies and hashes; the first bytes tell the compression.
class Stager {
 public:
  explicit Stager(const store::Layout& layout) : writer_(layout) {}
  void add(std::string_view bytes) {
    if (first_.size() < 6) first_ += bytes.substr(0, 6 - first_.size());
    writer_.write(bytes);
    hash_.update(bytes);
  }
  StagedBlob finish() {
    const std::uint64_t size = hash_.size();
    return {.digest = hash_.digest(),
            .size = size,
            .compression = detect_compression(first_),
            .writer = std::move(writer_)};
  }

 private:
  store::BlobWriter writer_;
  Sha256 hash_;
  std::string first_;
};

std::string read_staged(StagedBlob& blob, const std::string& path, size_t max) {
  if (blob.size > max) throw_error("{}: longer than {} bytes", path, max);
  std::string text(static_cast<size_t>(blob.size), '\0');
  size_t have = 0;
  while (have < text.size()) {
    const ssize_t got = ::pread(blob.writer.fd(), text.data() + have, text.size() - have, static_cast<off_t>(have));
    if (got <= 0) throw_errno("read {}", path);
    have += static_cast<size_t>(got);
  }
  return text;
}

class TarView : public ArchiveView {
 public:
  TarView(const store::Layout& layout, Source& source, const std::string& what) : ArchiveView(what) {
    const auto plain = decompress(source, what, InflateLimits::for_room_in(layout.data));
    TarReader reader(*plain, what);
    TarEntry entry;
    while (reader.next(entry)) {
      try {
        add(layout, entry, reader);
      } catch (Error& error) {
        if (error.message().find(what) != 0) error.add_context(fmt::format("{}: {}", what, quoted(entry.name)));
        throw;
      }
      if (files_.size() + texts_.size() > kMaxMembers) throw_error("{}: more than {} members", what, kMaxMembers);
    }
  }

  bool has(const std::string& path) override {
    const std::string real = resolve(path);
    return texts_.contains(real) || files_.contains(real);
  }

  std::optional<std::string> text(const std::string& path, size_t max) override {
    const std::string real = resolve(path);
    if (const auto found = texts_.find(real); found != texts_.end()) {
      if (found->second.size() > max) throw_error("{}: {}: longer than {} bytes", what(), path, max);
      return found->second;
    }
    if (const auto found = files_.find(real); found != files_.end()) return read_staged(found->second, path, max);
    return std::nullopt;
  }

  StagedBlob& blob(const std::string& path) override {
    const auto found = files_.find(resolve(path));
    if (found == files_.end()) throw_error("{}: the archive lacks {}", what(), quoted(path));
    return found->second;
  }

 private:
  void add(const store::Layout& layout, const TarEntry& entry, TarReader& reader) {
    const std::string name = clean_name(entry.name);
    if (name.empty() || entry.type == TarEntry::Type::directory) return;
    if (entry.type == TarEntry::Type::symlink || entry.type == TarEntry::Type::hard_link) {
      // docker writes a layer that it has already written as a link to it.
      std::string target = entry.link;
      if (entry.type == TarEntry::Type::symlink) {
        const size_t slash = name.rfind('/');
        target = sys::clean_path((slash == std::string::npos ? "" : name.substr(0, slash)) + "/" + target);
      }
      links_[name] = clean_name(target);
      return;
    }
    if (entry.type != TarEntry::Type::file || entry.sparse) throw_error("not a plain file");
    if (ends_with(name, ".json") && entry.size <= spec::kMaxImageConfigBytes) {
      std::string& text = texts_[name];
      text.clear();
      for (std::string_view part = reader.data(); !part.empty(); part = reader.data()) text += part;
      return;
    }
    Stager stager(layout);
    for (std::string_view part = reader.data(); !part.empty(); part = reader.data()) stager.add(part);
    files_.erase(name);  // a later member of the same name wins
    files_.emplace(name, stager.finish());
  }

  [[nodiscard]] std::string resolve(std::string path) const {
    path = clean_name(path);
    for (unsigned i = 0; i < kMaxLinks; ++i) {
      const auto link = links_.find(path);
      if (link == links_.end()) break;
      path = link->second;
    }
    return path;
  }

  std::map<std::string, StagedBlob> files_;
  std::map<std::string, std::string> texts_, links_;
};

class DirectoryView : public ArchiveView {
 public:
  DirectoryView(const store::Layout& layout, const std::string& path) : ArchiveView(path), layout_(layout) {
    directory_ = Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory_) throw_errno("open {}", path);
  }

  bool has(const std::string& path) override {
    return static_cast<bool>(sys::try_open_in_root(directory_.get(), path, O_PATH));
  }

  std::optional<std::string> text(const std::string& path, size_t max) override {
    const Fd file = sys::try_open_in_root(directory_.get(), path, O_RDONLY);
    if (!file) {
      if (errno == ENOENT) return std::nullopt;
      throw_errno("open {}/{}", what(), path);
    }
    return sys::read_rest(file.get(), what() + "/" + path, max);
  }

  StagedBlob& blob(const std::string& path) override {
    if (const auto found = files_.find(path); found != files_.end()) return found->second;
    const Fd file = sys::try_open_in_root(directory_.get(), path, O_RDONLY);
    if (!file) throw_errno("open {}/{}", what(), path);
    FdSource source(file.get(), what() + "/" + path);
    Stager stager(layout_);
    std::vector<char> buffer(kBuffer);
    while (const size_t got = source.read(buffer.data(), buffer.size())) stager.add({buffer.data(), got});
    return files_.emplace(path, stager.finish()).first->second;
  }

 private:
  const store::Layout layout_;
  Fd directory_;
  std::map<std::string, StagedBlob> files_;
};

}  // namespace

std::unique_ptr<ArchiveView> open_tar_view(const store::Layout& layout, Source& source, const std::string& what) {
  return std::make_unique<TarView>(layout, source, what);
}

std::unique_ptr<ArchiveView> open_directory_view(const store::Layout& layout, const std::string& path) {
  return std::make_unique<DirectoryView>(layout, path);
}

}  // namespace kelp::image
