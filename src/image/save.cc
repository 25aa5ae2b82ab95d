#include "image/save.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/lone_trees.h"
#include "image/tar_writer.h"
#include "image/verbs.h"
#include "spec/image_name.h"
#include "store/blobs.h"
#include "store/layers.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::image {

namespace {

using nlohmann::ordered_json;

constexpr size_t kBuffer = 256 * 1024;
constexpr const char* kRefName = "org.opencontainers.image.ref.name";
constexpr std::string_view kOciLayout = "{\"imageLayoutVersion\":\"1.0.0\"}";

std::string hex_of(std::string_view digest) { return std::string(digest.substr(digest.find(':') + 1)); }

void copy_all(Source& source, const std::function<void(const void*, size_t)>& give) {
  std::vector<char> buffer(kBuffer);
  while (const size_t got = source.read(buffer.data(), buffer.size())) give(buffer.data(), got);
}

/// Size of a layer's plain tar: recorded when it was unpacked, else found by inflating it once.
std::uint64_t plain_size(const store::Layout& layout, const store::ImageLayer& layer) {
  if (layer.blob == layer.diff_id) return layer.size;
  for (const store::IdMapping& map : {store::IdMapping::full(), store::IdMapping::single()}) {
    if (const auto info = store::read_layer(layout, layer.chain, map)) return info->bytes;
  }
  const Fd blob = store::open_blob(layout, DigestName::require(layer.blob));
  FdSource source(blob.get(), "layer " + layer.blob);
  const auto plain = decompress(source, "layer " + layer.blob, InflateLimits::none());
  std::uint64_t size = 0;
  copy_all(*plain, [&](const void*, size_t count) { size += count; });
  return size;
}

void add_plain_layer(const store::Layout& layout, const store::ImageLayer& layer, const std::string& name,
                     TarWriter& tar) {
  const std::string what = "layer " + layer.blob;
  const Fd blob = store::open_blob(layout, DigestName::require(layer.blob));
  FdSource source(blob.get(), what);
  const auto plain = decompress(source, what, InflateLimits::none());
  HashingSource hashed(*plain);
  tar.member({.name = name, .mode = 0644, .size = plain_size(layout, layer)});
  copy_all(hashed, [&](const void* data, size_t size) { tar.data(data, size); });
  if (const std::string digest = hashed.digest().str(); digest != layer.diff_id) {
    throw Error(fmt::format("{}: damaged: its content is {}, not {}", what, digest, layer.diff_id))
        .with_hint("pull the image again");
  }
}

/// The image as an OCI layout wants it.
struct OciImage {
  OutgoingImage out;
  spec::Descriptor descriptor;  ///< of the manifest
};

OciImage oci_image(const store::Layout& layout, const store::ImageRecord& image, OutgoingOptions packing,
                   Progress& progress) {
  packing.format = "oci";
  OciImage result{.out = prepare_outgoing(layout, image.digest, packing, progress), .descriptor = {}};
  result.descriptor = {.media_type = spec::media::kManifest,
                       .digest = result.out.digest.str(),
                       .size = result.out.manifest_text.size(),
                       .platform = image.platform};
  return result;
}

std::vector<spec::Descriptor> index_entries(const SavedImage& saved, const spec::Descriptor& manifest) {
  std::vector<spec::Descriptor> result;
  for (const std::string& name : saved.names) {
    result.push_back(manifest);
    result.back().annotations[kRefName] = name;
  }
  if (result.empty()) result.push_back(manifest);
  return result;
}

/// A directory that is filled under another name and renamed when complete.
class NewDirectory {
 public:
  explicit NewDirectory(std::string path) : path_(std::move(path)), temporary_(path_ + ".new") {
    if (::mkdir(temporary_.c_str(), 0755) < 0) throw_errno("make {}", temporary_);
  }
  NewDirectory(const NewDirectory&) = delete;
  NewDirectory& operator=(const NewDirectory&) = delete;
  ~NewDirectory() {
    if (done_) return;
    try {
      sys::remove_tree(temporary_);
    } catch (const Error& error) {
      log::warn("{}", error.message());
    }
  }
  [[nodiscard]] const std::string& path() const noexcept { return temporary_; }
  void publish() {
    ::rmdir(path_.c_str());  // an empty one may be there
    if (::rename(temporary_.c_str(), path_.c_str()) < 0) throw_errno("make {}", path_);
    done_ = true;
  }

 private:
  std::string path_, temporary_;
  bool done_ = false;
};

void copy_bytes(int blob, const std::string& digest, const std::string& path) {
  FdSource source(blob, "blob " + digest);
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file) throw_errno("make {}", path);
  FdSink sink(file.get(), path);
  copy_all(source, [&](const void* data, size_t size) { sink.write(data, size); });
}

void copy_blob(const store::Layout& layout, const std::string& digest, const std::string& path) {
  copy_bytes(store::open_blob(layout, DigestName::require(digest)).get(), digest, path);
}

}  // namespace

void save_docker_archive(const store::Layout& layout, const std::vector<SavedImage>& images, Sink& out,
                         Progress& progress) {
  TarWriter tar(out);
  ordered_json list = ordered_json::array();
  ordered_json repositories = ordered_json::object();
  std::set<std::string> written;
  for (const auto& [image, names] : images) {
    ordered_json layers = ordered_json::array();
    for (const store::ImageLayer& layer : image.layers) {
      const std::string name = hex_of(layer.diff_id) + ".tar";
      layers.push_back(name);
      if (!written.insert(name).second) continue;
      progress.layer(layer.blob, layer.size);
      add_plain_layer(layout, layer, name, tar);
      progress.done(layer.blob);
    }
    const std::string config = image.id + ".json";
    if (written.insert(config).second) tar.file(config, store::read_image_config_text(layout, image));
    std::vector<std::string> tags;
    for (const std::string& name : names) {
      const spec::ImageName parsed = spec::parse_image_name(name);
      tags.push_back(parsed.base() + ":" + parsed.tag);
      if (!image.layers.empty()) repositories[parsed.base()][parsed.tag] = hex_of(image.layers.back().diff_id);
    }
    list.push_back({{"Config", config}, {"RepoTags", tags}, {"Layers", std::move(layers)}});
  }
  tar.file("manifest.json", list.dump());
  tar.file("repositories", repositories.dump());
  tar.finish();
}

void save_oci_archive(const store::Layout& layout, const std::vector<SavedImage>& images, Sink& out,
                      const OutgoingOptions& packing, Progress& progress) {
  // Owned by the caller, with entries for the directories: skopeo and podman unpack the archive and give each member
  // to its owner, which an ordinary user may do for himself only.
  const std::uint64_t uid = ::geteuid(), gid = ::getegid();
  TarWriter tar(out, uid, gid);
  for (const char* name : {"blobs/", "blobs/sha256/"})
    tar.member({.type = TarEntry::Type::directory, .name = name, .mode = 0755, .uid = uid, .gid = gid});
  tar.file("oci-layout", kOciLayout);
  spec::ImageIndex index;
  std::set<std::string> written;
  for (const SavedImage& saved : images) {
    const OciImage image = oci_image(layout, saved.image, packing, progress);
    for (const OutgoingBlob& blob : image.out.blobs) {
      const std::string digest = blob.digest.str();
      if (!written.insert(digest).second) continue;
      progress.layer(digest, blob.size);
      FdSource source(blob.fd(), "blob " + digest);
      HashingSource hashed(source);
      tar.member({.name = "blobs/sha256/" + std::string(blob.digest.hex()),
                  .mode = 0644,
                  .uid = uid,
                  .gid = gid,
                  .size = blob.size});
      copy_all(hashed, [&](const void* data, size_t size) { tar.data(data, size); });
      if (hashed.digest() != blob.digest) {
        throw Error("blob " + digest + ": damaged").with_hint("pull the image again");
      }
      progress.done(digest);
    }
    if (written.insert(image.descriptor.digest).second) {
      tar.file("blobs/sha256/" + hex_of(image.descriptor.digest), image.out.manifest_text);
    }
    for (spec::Descriptor& entry : index_entries(saved, image.descriptor)) {
      index.manifests.push_back(std::move(entry));
    }
  }
  tar.file("index.json", spec::print_index(index));
  tar.finish();
}

void save_oci_directory(const store::Layout& layout, const std::vector<SavedImage>& images, const std::string& path,
                        const OutgoingOptions& packing, Progress& progress) {
  const std::string blobs = path + "/blobs/sha256";
  spec::ImageIndex index;
  if (const auto text = sys::read_small_file(path + "/index.json", spec::kMaxDocumentBytes)) {
    index = spec::parse_index(*text, path + "/index.json");
  } else if (::access((path + "/.").c_str(), F_OK) == 0 && ::rmdir(path.c_str()) < 0) {
    throw_error("{}: there is something there, and it is not an OCI layout", path);
  }
  sys::mkdirs(blobs, 0755);
  const auto put = [&](const std::string& digest, const std::function<void(const std::string&)>& write) {
    const std::string target = blobs + "/" + hex_of(digest);
    if (::access(target.c_str(), F_OK) == 0) return;
    const std::string temporary = target + ".new";
    ::unlink(temporary.c_str());
    write(temporary);
    if (::rename(temporary.c_str(), target.c_str()) < 0) throw_errno("make {}", target);
  };
  for (const SavedImage& saved : images) {
    const OciImage image = oci_image(layout, saved.image, packing, progress);
    for (const OutgoingBlob& blob : image.out.blobs) {
      const std::string digest = blob.digest.str();
      progress.layer(digest, blob.size);
      put(digest, [&](const std::string& file) { copy_bytes(blob.fd(), digest, file); });
      progress.done(digest);
    }
    put(image.descriptor.digest,
        [&](const std::string& file) { sys::replace_file(file, image.out.manifest_text, 0644); });
    for (spec::Descriptor& entry : index_entries(saved, image.descriptor)) {
      const auto name = entry.annotations.find(kRefName);
      std::erase_if(index.manifests, [&](const spec::Descriptor& old) {
        const auto old_name = old.annotations.find(kRefName);
        return name == entry.annotations.end() ? old.digest == entry.digest && old_name == old.annotations.end()
                                               : old_name != old.annotations.end() && old_name->second == name->second;
      });
      index.manifests.push_back(std::move(entry));
    }
  }
  sys::replace_file(path + "/oci-layout", kOciLayout, 0644);
  sys::replace_file(path + "/index.json", spec::print_index(index), 0644);
}

void save_plain_directory(const store::Layout& layout, const store::ImageRecord& image, const std::string& path,
                          bool compress_layers, Progress& progress) {
  std::string text = store::read_blob(layout, DigestName::require(image.digest), spec::kMaxDocumentBytes);
  spec::ImageManifest manifest = spec::parse_manifest(text, "manifest " + image.digest);
  NewDirectory directory(path);
  const auto place = [&](const std::string& digest) { return directory.path() + "/" + hex_of(digest); };
  bool changed = false;
  std::set<std::string> written;
  for (spec::Descriptor& layer : manifest.layers) {
    progress.layer(layer.digest, layer.size);
    const std::string digest = layer.digest;
    const bool plain = ends_with(layer.media_type, ".tar");
    if (compress_layers && plain) {
      const Fd blob = store::open_blob(layout, DigestName::require(layer.digest));
      FdSource source(blob.get(), "blob " + layer.digest);
      const std::string temporary = directory.path() + "/layer";
      const Fd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
      if (!file) throw_errno("make {}", temporary);
      FdSink sink(file.get(), temporary);
      HashingSink hashed(&sink);
      const auto packed = image::compress(hashed, Compression::gzip);
      copy_all(source, [&](const void* data, size_t size) { packed->write(data, size); });
      packed->finish();
      const bool docker = layer.media_type == spec::media::kDockerLayerTar;
      layer.media_type = docker ? spec::media::kDockerLayerGzip : spec::media::kLayerGzip;
      layer.size = hashed.count();
      layer.digest = hashed.digest().str();
      if (::rename(temporary.c_str(), place(layer.digest).c_str()) < 0) throw_errno("make {}", place(layer.digest));
      changed = true;
    } else if (written.insert(layer.digest).second) {
      copy_blob(layout, layer.digest, place(layer.digest));
    }
    progress.done(digest);
  }
  copy_blob(layout, manifest.config.digest, place(manifest.config.digest));
  if (changed) text = spec::print_manifest(manifest);
  sys::replace_file(directory.path() + "/manifest.json", text, 0644);
  sys::replace_file(directory.path() + "/version", "Directory Transport Version: 1.1\n", 0644);
  directory.publish();
}

namespace {

OutgoingOptions packing_options(const Arguments& arguments, const std::string& format) {
  OutgoingOptions packing;
  if (const auto wanted = arguments.value("compression-format")) packing.compression = parse_compression(*wanted);
  const auto level = arguments.value("compression-level");
  if (!packing.compression && !level) return packing;
  if (format != "oci-archive" && format != "oci-dir") {
    throw UsageError(fmt::format("--format {}: its layers are plain tars", format))
        .with_hint("--format oci-archive or oci-dir with --compression-format");
  }
  packing.force = packing.again = true;
  if (!packing.compression) packing.compression = Compression::gzip;
  if (level) packing.level = parse_compression_level(*level, *packing.compression);
  return packing;
}

std::vector<SavedImage> choose_images(VerbRequest& request) {
  std::vector<SavedImage> images;
  const auto tag_of = [](const std::string& text, const store::ImageRecord& image) -> std::vector<std::string> {
    // Asked for by id: all its names are meant.
    for (const spec::ImageName& candidate : spec::local_candidates(text)) {
      const std::string full = candidate.full();
      if (std::find(image.names.begin(), image.names.end(), full) != image.names.end()) return {full};
    }
    return image.names;
  };
  const auto& words = request.arguments.positional;
  const bool many = request.arguments.flag("multi-image-archive");
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0 && !many) {  // further names are names of the first image, as in podman
      images[0].names.push_back(spec::parse_local_name(words[i]).tagged().full());
      continue;
    }
    store::ImageRecord image = store::require_image(request.layout, words[i]);
    std::vector<std::string> names = tag_of(words[i], image);
    image = with_blobs(request.layout, image, request.progress);
    const auto same =
        std::find_if(images.begin(), images.end(), [&](const SavedImage& each) { return each.image.id == image.id; });
    if (same == images.end()) {
      images.push_back({std::move(image), std::move(names)});
    } else {
      same->names.insert(same->names.end(), names.begin(), names.end());
    }
  }
  return images;
}

}  // namespace

void write_archive(const std::string& path, const std::function<void(Sink&)>& save) {
  struct stat info {};
  if (path.empty() || path == "-") {
    FdSink sink(1, "standard output");
    return save(sink);
  }
  const bool special = ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
  const std::string target = special ? path : path + ".new";
  const Fd file(::open(target.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | (special ? 0 : O_EXCL), 0644));
  if (!file) throw_errno("make {}", target);
  try {
    FdSink sink(file.get(), target);
    save(sink);
    if (!special && ::rename(target.c_str(), path.c_str()) < 0) throw_errno("make {}", path);
  } catch (...) {
    if (!special) ::unlink(target.c_str());
    throw;
  }
}

std::string verb_save(VerbRequest& request) {
  request.arguments.need_positional(1, 10'000);
  const std::string format = request.arguments.value("format").value_or("docker-archive");
  const std::string output = request.arguments.value("o").value_or("");
  const bool archive = format == "docker-archive" || format == "oci-archive";
  if (!archive && format != "oci-dir" && format != "docker-dir") {
    throw_usage("unknown format {} (docker-archive, oci-archive, oci-dir, docker-dir)", kelp::quoted(format));
  }
  if (request.arguments.flag("compress") && format != "docker-dir") {
    throw_usage("--compress can only be set when --format is docker-dir");
  }
  if (request.arguments.flag("multi-image-archive") && format != "docker-archive") {
    throw_usage("--multi-image-archive is for the format docker-archive");
  }
  const OutgoingOptions packing = packing_options(request.arguments, format);
  if (!archive && output.empty()) throw_usage("--format {}: --output must name a directory", format);
  const store::StoreUse use(request.layout);
  const std::vector<SavedImage> images = choose_images(request);
  if (format == "oci-dir") {
    save_oci_directory(request.layout, images, output, packing, request.progress);
  } else if (format == "docker-dir") {
    save_plain_directory(request.layout, images[0].image, output, request.arguments.flag("compress"), request.progress);
  } else {
    write_archive(output, [&](Sink& sink) {
      if (format == "docker-archive") return save_docker_archive(request.layout, images, sink, request.progress);
      save_oci_archive(request.layout, images, sink, packing, request.progress);
    });
  }
  return "";
}

}  // namespace kelp::image
