#include <fcntl.h>
#include <stdlib.h>

#include <chrono>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/pack.h"
#include "image/unpack.h"
#include "image/verbs.h"
#include "spec/config_changes.h"
#include "spec/image_name.h"
#include "store/blobs.h"
#include "store/images.h"
#include "store/prune.h"
#include "sys/link.h"

namespace kelp::image {

namespace {

constexpr size_t kBuffer = 256 * 1024;

std::string now_or_source_date() {
  auto time = std::chrono::system_clock::now();
  if (const char* text = ::getenv("SOURCE_DATE_EPOCH")) {
    const auto seconds = to_int(text, 0);
    if (!seconds) throw_usage("SOURCE_DATE_EPOCH: {} is not a number of seconds", kelp::quoted(text));
    time = std::chrono::system_clock::time_point(std::chrono::seconds(*seconds));
  }
  return format_rfc3339(time);
}

/// A root filesystem's tar as the one layer of a new image. It is kept uncompressed: nothing but `push` and `save`
/// would gain, and they compress on the way.
store::ImageRecord import_tar(VerbRequest& request, Source& source, const std::string& what, const std::string& name,
                              spec::ImageConfig config, std::vector<std::string>& warnings) {
  const store::StoreUse use(request.layout);
  request.progress.status("Reading " + what);
  store::BlobWriter writer(request.layout);
  const auto plain = decompress(source, what, InflateLimits::for_room_in(request.layout.data));
  HashingSource hashed(*plain);
  std::vector<char> buffer(kBuffer);
  while (const size_t got = hashed.read(buffer.data(), buffer.size())) writer.write(buffer.data(), got);
  const std::uint64_t size = hashed.count();
  const DigestName layer = hashed.digest();
  config.diff_ids = {layer.str()};
  // The layer is unpacked from a blob of the store; should it be no tar, the sweep takes the blob away again.
  writer.publish(layer);
  const std::vector<std::string> chains = chain_ids(config.diff_ids);
  const store::ImageLayer description{.diff_id = layer.str(),
                                      .chain = chains[0],
                                      .blob = layer.str(),
                                      .size = size,
                                      .media_type = spec::media::kLayerTar};
  ensure_layer(request.layout, description, request.map, {}, &warnings);
  const std::string config_text = spec::print_image_config(config);
  spec::ImageManifest manifest;
  manifest.config = {
      .media_type = spec::media::kConfig, .digest = sha256_of(config_text).str(), .size = config_text.size()};
  manifest.layers = {{.media_type = spec::media::kLayerTar, .digest = layer.str(), .size = size}};
  const std::string manifest_text = spec::print_manifest(manifest);
  store::put_blob(request.layout, sha256_of(config_text), config_text);
  store::put_blob(request.layout, sha256_of(manifest_text), manifest_text);
  store::NewImage image;
  image.manifest = {
      .media_type = spec::media::kManifest, .digest = sha256_of(manifest_text).str(), .size = manifest_text.size()};
  image.chains = chains;
  image.unpacked_size = size;
  image.made_here = true;
  if (!name.empty()) image.names = {name};
  return store::add_image(request.layout, image);
}

}  // namespace

std::string verb_import(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  arguments.need_positional(1, 2);
  const std::string& path = arguments.positional[0];
  const bool standard_input = path == "-";
  const std::string what = standard_input ? "standard input" : path;
  const std::string name =
      arguments.positional.size() == 2 ? spec::parse_local_name(arguments.positional[1]).tagged().full() : "";
  spec::ImageConfig config;
  config.platform = spec::host_platform();
  if (const auto os = arguments.value("os")) config.platform.os = *os;
  if (const auto arch = arguments.value("arch"))
    config.platform = spec::parse_platform(config.platform.os + "/" + *arch);
  if (const auto variant = arguments.value("variant")) config.platform.variant = *variant;
  for (const std::string& change : arguments.values("change")) spec::apply_change(config.config, change);
  config.created = now_or_source_date();
  config.history = {{.created = config.created,
                     .created_by = "kelp import " + path,
                     .comment = arguments.value("message").value_or("Imported from " + what)}};
  Fd file;
  if (!standard_input) {
    file = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) throw_errno("open {}", path);
  }
  FdSource source(standard_input ? 0 : file.get(), what);
  std::vector<std::string> warnings;
  try {
    const store::ImageRecord image = import_tar(request, source, what, name, std::move(config), warnings);
    return nlohmann::ordered_json{{"images", {{{"id", image.id}, {"digest", image.digest}, {"name", name}}}},
                                  {"warnings", warnings}}
        .dump();
  } catch (...) {
    store::sweep_if_idle(request.layout);
    throw;
  }
}

/// Writes the directory whose descriptor comes over the link as a tar to standard output. The sender keeps what the
/// directory stands on (a mounted overlay) alive until our end of the link is closed.
std::string verb_pack(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  arguments.need_positional(0, 0);
  const auto number = to_int(arguments.value("root-link").value_or(""), 3, INT32_MAX);
  if (!number) throw_usage("pack: --root-link must be a descriptor");
  sys::Link link{Fd(static_cast<int>(*number))};
  auto frame = link.receive();
  if (!frame) throw_error("pack: the sender of the directory has gone");
  if (frame->fds.size() != 1) throw_error("pack: one directory was expected");
  PackOptions options{.map = request.map, .overlay = arguments.flag("overlay")};
  options.owners_files = arguments.values("owners");
  FdSink sink(1, "standard output");
  for (const std::string& warning : pack_tree(frame->fds[0].get(), sink, options).warnings) log::warn("{}", warning);
  return "";
}

}  // namespace kelp::image
