#include <fcntl.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>
#include <span>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/http.h"
#include "image/pack.h"
#include "image/unpack.h"
#include "image/url.h"
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

/// "scheme://…"; a file may be called like that, too.
bool is_url(const std::string& source) {
  const size_t colon = source.find("://");
  return colon != std::string::npos && colon != 0 && !url_origin(source).empty() && ::access(source.c_str(), F_OK) != 0;
}

/// What the archive is fetched as: the last part of its path.
std::string file_name(const UrlWithUser& address) {
  const std::string name = address.shown.substr(address.shown.rfind('/') + 1);
  return name.empty() ? "archive" : name;
}

/// The archive of a URL, in a file of the store's own that is gone with its writer.
void download(VerbRequest& request, const UrlWithUser& address, store::BlobWriter& archive) {
  const std::string name = file_name(address);
  std::uint64_t total = 0;
  HttpRequest get;
  get.url = address.url;
  if (!address.user.empty()) get.authorization = "Basic " + base64_encode(address.user);
  get.answered = [&](const HttpResponse& answer) {
    archive.restart();
    total = static_cast<std::uint64_t>(to_int(answer.header("content-length").value_or(""), 0).value_or(0));
    struct statvfs disk {};
    const bool known = ::statvfs(request.layout.data.c_str(), &disk) == 0;
    const std::uint64_t room = known ? std::uint64_t{disk.f_bavail} * disk.f_frsize : UINT64_MAX;
    if (total > room)
      throw Error(fmt::format("{}: {} to be written, but only {} are free in {}", address.shown, human_size(total),
                              human_size(room), request.layout.data))
          .with_hint("kelp rmi IMAGE makes room");
    request.progress.layer(name, total);
  };
  get.sink = [&](std::span<const std::byte> bytes) {
    archive.write(bytes.data(), bytes.size());
    request.progress.bytes(name, archive.offset(), total);
  };
  request.progress.status("Downloading from " + address.shown);
  Http http({});
  const HttpResponse answer = http.send(get);
  if (answer.status != 200 && answer.status != 206)
    throw_error("{}: the server answers with status {}{}", address.shown, answer.status,
                answer.status == 404 ? " (not found)" : "");
}

/// What is imported, opened.
struct Archive {
  std::optional<store::BlobWriter> fetched;
  Fd file;
  int fd = 0;
  std::string shown;  ///< in messages and in the image's history
};

void open_archive(VerbRequest& request, const std::string& source, Archive& archive) {
  archive.shown = source;
  if (source == "-") {
    archive.shown = "standard input";
  } else if (is_url(source)) {
    const std::string scheme = to_lower(source.substr(0, source.find("://")));
    if (scheme != "http" && scheme != "https")
      throw_usage("{}: archives are fetched by http and https only", kelp::quoted(source));
    const UrlWithUser address = split_user(source);
    archive.shown = address.shown;
    archive.fetched.emplace(request.layout);
    download(request, address, *archive.fetched);
    archive.fd = archive.fetched->fd();
  } else {
    archive.file = Fd(::open(source.c_str(), O_RDONLY | O_CLOEXEC));
    if (!archive.file) throw_errno("open {}", source);
    archive.fd = archive.file.get();
  }
}

}  // namespace

std::string verb_import(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  arguments.need_positional(1, 2);
  const std::string& source = arguments.positional[0];
  const std::string name =
      arguments.positional.size() == 2 ? spec::parse_local_name(arguments.positional[1]).tagged().full() : "";
  spec::ImageConfig config;
  config.platform = spec::host_platform();
  if (const auto os = arguments.value("os")) config.platform.os = *os;
  if (const auto arch = arguments.value("arch"))
    config.platform = spec::parse_platform(config.platform.os + "/" + *arch);
  if (const auto variant = arguments.value("variant")) config.platform.variant = *variant;
  for (const std::string& change : arguments.values("change")) spec::apply_change(config.config, change);
  Archive archive;
  open_archive(request, source, archive);
  config.created = now_or_source_date();
  config.history = {{.created = config.created,
                     .created_by = "kelp import " + (source == "-" ? source : archive.shown),
                     .comment = arguments.value("message").value_or("Imported from " + archive.shown)}};
  FdSource input(archive.fd, archive.shown);
  std::vector<std::string> warnings;
  try {
    const store::ImageRecord image = import_tar(request, input, archive.shown, name, std::move(config), warnings);
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
