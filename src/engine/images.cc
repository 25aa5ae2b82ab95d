#include "engine/images.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/events.h"
#include "engine/image_program.h"
#include "spec/image_docs.h"
#include "spec/image_name.h"
#include "store/images.h"
#include "store/layers.h"
#include "store/layout.h"

namespace kelp::engine {

namespace {

using Json = nlohmann::json;

constexpr int kRootFd = kImageRootFd;
/// The image that comes with kelp: the name it is loaded under, and its file.
constexpr std::string_view kBuiltinName = "localhost/hello:latest";
constexpr const char* kBuiltinFile = "hello.tar";

std::vector<std::string> pull_arguments(const std::string& name, const PullOptions& options, const char* policy) {
  std::vector<std::string> arguments{"pull", "--policy", policy};
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) arguments.insert(arguments.end(), {option, value});
  };
  add("--platform", options.platform);
  add("--authfile", options.authfile);
  add("--creds", options.creds);
  add("--cert-dir", options.cert_dir);
  if (options.tls_verify) arguments.push_back(*options.tls_verify ? "--tls-verify=true" : "--tls-verify=false");
  if (options.retry) add("--retry", std::to_string(*options.retry));
  add("--retry-delay", options.retry_delay);
  if (options.all_tags) arguments.emplace_back("--all-tags");
  if (options.artifacts) arguments.emplace_back("--artifacts");
  arguments.insert(arguments.end(), {"--", name});
  return arguments;
}

std::vector<store::ImageRecord> run_pull(Context& context, const std::string& name, const PullOptions& options,
                                         const char* policy, const ProgressFn& progress, bool plain = false) {
  store::prepare(context.layout);
  ImageCall call{.arguments = pull_arguments(name, options, policy), .progress = &progress, .plain = plain};
  const std::vector<std::string> extra = default_map_arguments(context);
  call.arguments.insert(call.arguments.begin() + 1, extra.begin(), extra.end());
  const Json document = parse_result(run_image_program(context, call));
  std::vector<store::ImageRecord> images;
  for (const Json& entry : document.at("images")) {
    const std::string digest = entry.at("digest").get<std::string>();
    auto image = store::image_by_manifest(context.layout, digest);
    if (!image && entry.value("id", "").empty()) {  // an artifact
      image.emplace();
      image->digest = digest;
    }
    if (!image) throw_error("{}: the image was taken away while it was pulled", name);
    emit_event(context, "image", "pull", image->id, entry.value("name", name));
    images.push_back(std::move(*image));
  }
  if (images.empty()) throw_error("{}: nothing was pulled", name);
  return images;
}

/// podman's store. Root's holds files of any id, which S cannot read; those of others hold ids of S.
constexpr std::string_view kStored = "containers-storage:";

store::ImageRecord pull_stored(Context& context, const std::string& name, const PullOptions& options,
                               const ProgressFn& progress) {
  const bool plain = ::geteuid() == 0;
  store::ImageRecord image = run_pull(context, name, options, "always", progress, plain).front();
  if (plain) ensure_layers(context, image, default_map(context), progress);
  return image;
}

void check_policy(const std::string& policy) {
  if (policy == "always" || policy == "missing" || policy == "never" || policy == "newer") return;
  throw UsageError(fmt::format("unknown pull policy {}", kelp::quoted(policy)))
      .with_hint("the policies are always, missing, never and newer");
}

bool means_builtin(const std::string& name) {
  for (const spec::ImageName& candidate : spec::local_candidates(name)) {
    if (candidate.full() == kBuiltinName) return true;
  }
  return false;
}

/// Loads the image that is installed with kelp; nullopt when it is not there.
std::optional<store::ImageRecord> load_builtin(Context& context, const ProgressFn& progress) {
  std::string file;
  try {
    file = own_data(kBuiltinFile);
  } catch (const Error& error) {
    log::debug("{}", error.message());
    return std::nullopt;
  }
  load_images(context, file, progress);
  return store::find_image(context.layout, kBuiltinName);
}

/// A name like "oci-archive:/tmp/image.tar:latest" taken apart; transport "" = it names no file.
struct FileImage {
  std::string transport, path, reference;
};

FileImage file_image(const std::string& name) {
  for (const std::string_view transport : {"docker-archive:", "oci-archive:", "oci:", "dir:"}) {
    if (!starts_with(name, transport)) continue;
    FileImage image{std::string(transport.substr(0, transport.size() - 1)), name.substr(transport.size()), ""};
    const size_t colon = image.transport == "dir" ? std::string::npos : image.path.find(':');
    if (colon != std::string::npos) {
      image.reference = image.path.substr(colon + 1);
      image.path.resize(colon);
    }
    if (image.path.empty()) throw_usage("{}: the path is missing", kelp::quoted(name));
    return image;
  }
  return {};
}

std::vector<std::string> run_load(Context& context, const FileImage& image, const ProgressFn& progress) {
  const std::string& file = image.path;
  store::prepare(context.layout);
  ImageCall call{.arguments = {"load"}, .progress = &progress};
  const std::vector<std::string> extra = default_map_arguments(context);
  call.arguments.insert(call.arguments.end(), extra.begin(), extra.end());
  if (file.empty() || file == "-") {
    call.stdin_fd = 0;
  } else {
    if (::access(file.c_str(), R_OK) < 0) throw_errno("load {}", kelp::quoted(file));
    call.arguments.insert(call.arguments.end(), {"-i", file});
  }
  if (!image.reference.empty()) call.arguments.insert(call.arguments.end(), {"--reference", image.reference});
  if (!image.transport.empty()) call.arguments.insert(call.arguments.end(), {"--transport", image.transport});
  const Json document = parse_result(run_image_program(context, call));
  std::vector<std::string> names;
  for (const Json& entry : document.at("images")) {
    const std::string name = entry.value("name", "");
    names.push_back(name.empty() ? "sha256:" + entry.value("id", "") : name);
    emit_event(context, "image", "loadfromarchive", entry.value("id", ""), names.back());
  }
  return names;
}

store::ImageRecord load_one(Context& context, const FileImage& file, const ProgressFn& progress) {
  const std::vector<std::string> names = run_load(context, file, progress);
  if (names.empty()) throw_error("{}: there is no image in it", kelp::quoted(file.path));
  auto image = store::find_image(context.layout, names.front());
  if (!image) throw_error("{}: the image was taken away while it was loaded", names.front());
  return std::move(*image);
}

/// What the caller asked for, as far as the platform goes.
bool fits_platform(const store::ImageRecord& image, const std::string& platform) {
  if (platform.empty()) return true;
  const spec::Platform wanted = spec::parse_platform(platform);
  return image.platform.os == wanted.os && image.platform.architecture == wanted.architecture &&
         (wanted.variant.empty() || image.platform.variant == wanted.variant);
}

std::optional<store::ImageRecord> find_local(const Context& context, const std::string& name,
                                             const PullOptions& options) {
  auto image = store::find_image(context.layout, name);
  if (image && !fits_platform(*image, options.platform)) return std::nullopt;
  return image;
}

}  // namespace

store::ImageRecord ensure_image(Context& context, const std::string& name, const PullOptions& options,
                                const ProgressFn& progress) {
  check_policy(options.policy);
  if (const FileImage file = file_image(name); !file.transport.empty()) return load_one(context, file, progress);
  if (starts_with(name, kStored)) return pull_stored(context, name, options, progress);
  auto local = find_local(context, name, options);
  if (local && (options.policy == "missing" || options.policy == "never")) return std::move(*local);
  if (means_builtin(name)) {
    if (local) return std::move(*local);
    if (auto image = load_builtin(context, progress)) return std::move(*image);
  }
  if (options.policy == "never") {
    throw UsageError(fmt::format("{}: image not known", name)).with_hint("kelp pull " + name);
  }
  try {
    const char* policy = options.policy == "newer" ? "newer" : "always";
    return run_pull(context, name, options, policy, progress).front();
  } catch (Error& error) {
    if (options.policy == "newer" && local) {
      log::debug("{}", error.message());
      return std::move(*local);
    }
    throw;
  }
}

void ensure_layers(Context& context, const store::ImageRecord& image, const store::IdMapping& map,
                   const ProgressFn& progress) {
  if (store::missing_layers(context.layout, image.chains(), map).empty()) return;
  store::prepare(context.layout);
  // Nothing is copied from anywhere: who does not watch a terminal is told nothing.
  const ProgressFn unpacking = [&progress](ProgressEvent event) {
    if (event.kind == "done") event.kind = "unpacked";
    progress(event);
  };
  ImageCall call{.arguments = {"unpack"}, .progress = progress ? &unpacking : nullptr};
  const std::vector<std::string> extra = map_arguments(map);
  call.arguments.insert(call.arguments.end(), extra.begin(), extra.end());
  call.arguments.insert(call.arguments.end(), {"--", image.id});
  parse_result(run_image_program(context, call));
}

TakenImages take_over_images(Context& context, const std::string& owner, const std::string& store,
                             const ProgressFn& progress) {
  store::prepare(context.layout);
  const bool plain = ::geteuid() == 0;
  ImageCall call{.arguments = {"take-over"}, .progress = &progress, .plain = plain};
  const std::vector<std::string> map = default_map_arguments(context);
  call.arguments.insert(call.arguments.end(), map.begin(), map.end());
  if (!store.empty()) call.arguments.insert(call.arguments.end(), {"--store", store});
  call.arguments.insert(call.arguments.end(), {"--", owner});
  const Json document = parse_result(run_image_program(context, call));
  TakenImages taken{.root = document.value("root", ""),
                    .failures = document.value("failures", std::vector<std::string>{}),
                    .nameless = document.value("nameless", size_t{0})};
  for (const Json& entry : document.at("images")) {
    taken.names.push_back(entry.value("name", ""));
    emit_event(context, "image", "pull", entry.value("id", ""), taken.names.back());
    const auto image = store::image_by_manifest(context.layout, entry.value("digest", ""));
    if (plain && image) ensure_layers(context, *image, default_map(context), progress);
  }
  return taken;
}

std::vector<store::ImageRecord> pull_image(Context& context, const std::string& name, const PullOptions& options,
                                           const ProgressFn& progress) {
  check_policy(options.policy);
  if (!options.all_tags) return {ensure_image(context, name, options, progress)};
  return run_pull(context, name, options, "always", progress);
}

std::vector<std::string> load_images(Context& context, const std::string& file, const ProgressFn& progress) {
  return run_load(context, {"", file, ""}, progress);
}

void save_images(Context& context, const std::vector<std::string>& names, const SaveOptions& options,
                 const ProgressFn& progress) {
  ImageCall call{.arguments = {"save", "--format", options.format}, .progress = &progress};
  if (options.output.empty()) {
    call.stdout_fd = 1;
  } else {
    call.arguments.insert(call.arguments.end(), {"-o", options.output});
  }
  if (options.compress) call.arguments.emplace_back("--compress");
  if (options.multi_image_archive) call.arguments.emplace_back("--multi-image-archive");
  if (!options.compression_format.empty()) {
    call.arguments.insert(call.arguments.end(), {"--compression-format", options.compression_format});
  }
  if (options.compression_level) {
    call.arguments.insert(call.arguments.end(), {"--compression-level", std::to_string(*options.compression_level)});
  }
  call.arguments.emplace_back("--");
  call.arguments.insert(call.arguments.end(), names.begin(), names.end());
  run_image_program(context, call);
  for (const std::string& name : names) {
    if (const auto image = store::find_image(context.layout, name)) {
      emit_event(context, "image", "save", image->id, options.output.empty() ? name : options.output);
    }
  }
}

std::string import_image(Context& context, const ImportOptions& options, const ProgressFn& progress) {
  store::prepare(context.layout);
  ImageCall call{.arguments = {"import"}, .progress = &progress};
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) call.arguments.insert(call.arguments.end(), {option, value});
  };
  for (const std::string& change : options.changes) add("--change", change);
  add("--message", options.message);
  add("--os", options.os);
  add("--arch", options.arch);
  add("--variant", options.variant);
  if (options.source == "-") call.stdin_fd = 0;
  call.arguments.insert(call.arguments.end(), {"--", options.source});
  if (!options.reference.empty()) call.arguments.push_back(options.reference);
  const Json document = parse_result(run_image_program(context, call));
  const std::string id = document.at("images").at(0).value("id", "");
  emit_event(context, "image", "import", id, options.reference);
  return id;
}

std::vector<RegistryAnswer> ask_registries(Context& context, const std::vector<std::string>& names) {
  ImageCall call;
  call.arguments = {"ping"};
  call.arguments.insert(call.arguments.end(), names.begin(), names.end());
  const Json result = Json::parse(run_image_program(context, call), nullptr, false);
  std::vector<RegistryAnswer> answers;
  if (!result.is_object() || !result.contains("registries")) throw_error("kelp-image gave no answer");
  for (const Json& entry : result["registries"])
    answers.push_back(
        {entry.value("name", ""), entry.value("text", ""), entry.value("problem", ""), entry.value("hint", "")});
  return answers;
}

void unpack_archive(Context& context, const UnpackTarget& target, int archive_fd) {
  ImageCall call{.arguments = {"untar", "--root-fd", std::to_string(kRootFd)}};
  const std::vector<std::string> map = map_arguments(target.map);
  call.arguments.insert(call.arguments.end(), map.begin(), map.end());
  if (target.uid) call.arguments.insert(call.arguments.end(), {"--uid", std::to_string(*target.uid)});
  if (target.gid) call.arguments.insert(call.arguments.end(), {"--gid", std::to_string(*target.gid)});
  call.stdin_fd = archive_fd;
  call.root_fd = target.directory_fd;
  parse_result(run_image_program(context, call));
}

std::string pack_image(Context& context, const PackRequest& pack, const ProgressFn& progress) {
  ImageCall call{.arguments = {"commit", "--format", pack.format, "--created", pack.created}, .progress = &progress};
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) call.arguments.insert(call.arguments.end(), {option, value});
  };
  const std::vector<std::string> map = map_arguments(pack.map);
  call.arguments.insert(call.arguments.end(), map.begin(), map.end());
  add("--upper", pack.upper);
  if (pack.upper.empty()) add("--root-fd", std::to_string(kRootFd));
  if (pack.squash) call.arguments.emplace_back("--squash");
  for (const auto& file : pack.owners_files) add("--owners", file);
  add("--base", pack.base);
  add("--config", pack.config);
  add("--author", pack.author);
  add("--message", pack.message);
  add("--created-by", pack.created_by);
  add("--name", pack.name);
  call.root_fd = pack.root_fd;
  return parse_result(run_image_program(context, call)).at("images").at(0).value("id", "");
}

std::vector<std::string> damaged_blobs(Context& context) {
  return parse_result(run_image_program(context, {.arguments = {"store-verify", "--blobs"}}))
      .value("damaged", std::vector<std::string>{});
}

}  // namespace kelp::engine
