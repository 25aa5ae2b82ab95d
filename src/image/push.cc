#include "image/push.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/lone_trees.h"
#include "image/save.h"
#include "image/transports/transport_name.h"
#include "image/verbs.h"
#include "image/workers.h"
#include "store/blobs.h"
#include "store/image_lists.h"
#include "store/images.h"

namespace kelp::image {

namespace {

constexpr unsigned kParallelBlobs = 3;
/// More neighbours than this are not asked: each question is a round trip.
constexpr size_t kMaxNeighbours = 2;

/// Where to write: a registry's own place, never a mirror.
PullSource destination(const RegistryPolicy& policy, const spec::ImageName& target) {
  const RegistryRule* rule = policy.rule_for(target);
  if (rule != nullptr && rule->blocked) {
    throw Error(fmt::format("registry {} is blocked in registries.conf", rule->prefix))
        .with_hint("remove `blocked = true` from its [[registry]] table");
  }
  return {.name = target, .insecure = rule != nullptr && rule->insecure, .mirror = false};
}

/// Blobs that the store's images name, with the repositories of the same registry that these images are known in.
std::map<std::string, std::vector<std::string>> known_places(const store::Layout& layout,
                                                             const spec::ImageName& target) {
  std::map<std::string, std::vector<std::string>> result;
  for (const store::ImageRecord& image : store::list_images(layout)) {
    for (const std::string& repo : image.repos) {
      const spec::ImageName name = spec::parse_image_name(repo);
      if (name.registry != target.registry || name.repository == target.repository) continue;
      for (const store::ImageLayer& layer : image.layers) {
        std::vector<std::string>& places = result[layer.blob];
        if (places.size() < kMaxNeighbours &&
            std::find(places.begin(), places.end(), name.repository) == places.end()) {
          places.push_back(name.repository);
        }
      }
    }
  }
  return result;
}

RegistryOptions with_scopes(RegistryOptions options, const spec::ImageName& target,
                            const std::map<std::string, std::vector<std::string>>& known) {
  options.scopes = {fmt::format("repository:{}:pull,push", target.repository)};
  for (const auto& [blob, places] : known) {
    for (const std::string& place : places) {
      const std::string scope = fmt::format("repository:{}:pull", place);
      if (std::find(options.scopes.begin(), options.scopes.end(), scope) == options.scopes.end() &&
          options.scopes.size() < 10) {
        options.scopes.push_back(scope);
      }
    }
  }
  return options;
}

}  // namespace

RegistryOptions registry_options(const Arguments& arguments) {
  RegistryOptions options;
  options.auth.authfile = arguments.value("authfile").value_or("");
  options.auth.creds = arguments.value("creds").value_or("");
  options.cert_dir = arguments.value("cert-dir").value_or("");
  options.tls_verify = arguments.boolean("tls-verify");
  return options;
}

HttpOptions http_options(const Arguments& arguments) {
  HttpOptions options;
  if (const auto retry = arguments.value("retry")) {
    const auto count = to_int(*retry, 0, 1000);
    if (!count) throw_usage("--retry: {} is not a number of attempts", kelp::quoted(*retry));
    options.retries = static_cast<unsigned>(*count);
  }
  if (const auto delay = arguments.value("retry-delay")) {
    options.retry_delay = parse_duration(*delay, "--retry-delay", std::chrono::seconds(1));
  }
  return options;
}

Pusher::Pusher(const store::Layout& layout, Http& http, const RegistryPolicy& policy, const spec::ImageName& target,
               RegistryOptions options, Progress& progress)
    : layout_(layout),
      progress_(progress),
      target_(target),
      known_(known_places(layout, target)),
      registry_(http, destination(policy, target), with_scopes(std::move(options), target, known_)) {}

std::vector<std::string> Pusher::neighbours(const DigestName& blob) const {
  const auto found = known_.find(blob.str());
  return found == known_.end() ? std::vector<std::string>{} : found->second;
}

void Pusher::send_blobs(const OutgoingImage& image) {
  if (image.blobs.empty()) return;
  // The first question goes out alone: it settles how to talk and who we are (see Registry).
  const bool first_is_there = registry_.has_blob(image.blobs[0].digest);
  const auto send_one = [&](const OutgoingBlob& blob, const std::stop_token& stop) {
    const std::string id = blob.digest.str();
    progress_.layer(id, blob.size);
    const bool asked = &blob == &image.blobs[0];
    const UploadOutcome outcome =
        asked && first_is_there
            ? UploadOutcome::existed
            : registry_.put_blob({.digest = blob.digest,
                                  .asked = asked,
                                  .size = blob.size,
                                  .fd = blob.fd(),
                                  .elsewhere = neighbours(blob.digest),
                                  .progress = [&](std::uint64_t sent) { progress_.bytes(id, sent, blob.size); },
                                  .stop = stop});
    log::debug("blob {}: {}", id,
               outcome == UploadOutcome::existed   ? "is there already"
               : outcome == UploadOutcome::mounted ? "taken from another repository"
                                                   : "uploaded");
    progress_.done(id);
  };
  run_parallel(image.blobs.size(), kParallelBlobs,
               [&](size_t i, const std::stop_token& stop) { send_one(image.blobs[i], stop); });
}

void Pusher::send(OutgoingImage& image, const std::string& reference) {
  send_blobs(image);
  registry_.put_manifest(reference.empty() ? image.digest.str() : reference, image.manifest_text,
                         image.manifest.media_type);
}

std::string Pusher::push_image(const std::string& manifest_digest, const OutgoingOptions& options) {
  OutgoingImage image = prepare_outgoing(layout_, manifest_digest, options, progress_);
  progress_.status("Pushing to " + target_.full() + "...");
  send(image, target_.tag);
  return image.digest.str();
}

std::string Pusher::push_index(const std::string& index_text, const std::string& media_type, bool all,
                               const OutgoingOptions& options) {
  spec::ImageIndex index = spec::parse_index(index_text, "index");
  std::string text = index_text, type = media_type;
  progress_.status("Pushing to " + target_.full() + "...");
  if (all) {
    bool changed = false;
    for (spec::Descriptor& entry : index.manifests) {
      OutgoingImage image = prepare_outgoing(layout_, entry.digest, options, progress_);
      send(image, "");
      if (image.digest.str() == entry.digest) continue;
      entry.digest = image.digest.str();
      entry.size = image.manifest_text.size();
      entry.media_type = image.manifest.media_type;
      changed = true;
    }
    if (options.format == "v2s2" && index.media_type != spec::media::kDockerList) {
      index.media_type = spec::media::kDockerList;
      changed = true;
    } else if (options.format == "oci" && index.media_type != spec::media::kIndex) {
      index.media_type = spec::media::kIndex;
      changed = true;
    }
    if (changed) {
      text = spec::print_index(index);
      type = index.media_type;
    }
  }
  const DigestName digest = sha256_of(text);
  registry_.put_manifest(target_.tag.empty() ? digest.str() : target_.tag, text, type);
  return digest.str();
}

namespace {

OutgoingOptions outgoing_options(const Arguments& arguments) {
  OutgoingOptions options;
  options.format = arguments.value("format").value_or("");
  if (options.format == "v2s1") throw_usage("--format v2s1: schema 1 is not written any more (oci, v2s2)");
  if (!options.format.empty() && options.format != "oci" && options.format != "v2s2") {
    throw_usage("--format {}: unknown (oci, v2s2)", kelp::quoted(options.format));
  }
  if (const auto format = arguments.value("compression-format")) options.compression = parse_compression(*format);
  if (const auto level = arguments.value("compression-level")) {
    options.level = parse_compression_level(*level, options.compression.value_or(Compression::gzip));
    if (!options.compression) options.compression = Compression::gzip;
  }
  options.force = arguments.flag("force-compression");
  if (options.force && !options.compression) {
    throw UsageError("--force-compression needs a compression").with_hint("--compression-format gzip or zstd");
  }
  return options;
}

/// `oci:`, `oci-archive:`, `docker-archive:` and `dir:`; nothing is converted for those.
std::string push_to_files(VerbRequest& request, const store::ImageRecord& named, const TransportName& target) {
  if (request.arguments.value("compression-format") || request.arguments.value("format")) {
    throw_usage("--format and --compression-format are for registries; {} takes the image as it is", target.transport);
  }
  const store::ImageRecord image = with_blobs(request.layout, named, request.progress);
  SavedImage saved{image, {}};
  if (target.transport == "dir") {
    save_plain_directory(request.layout, image, target.path, false, request.progress);
    return image.digest;
  }
  if (target.transport == "docker-archive") {
    if (!target.reference.empty()) saved.names = {spec::parse_image_name(target.reference).tagged().full()};
    write_archive(target.path,
                  [&](Sink& sink) { save_docker_archive(request.layout, {saved}, sink, request.progress); });
    return image.digest;
  }
  if (!target.reference.empty()) saved.names = {target.reference};
  if (target.transport == "oci") {
    save_oci_directory(request.layout, {saved}, target.path, {}, request.progress);
  } else {
    write_archive(target.path,
                  [&](Sink& sink) { save_oci_archive(request.layout, {saved}, sink, {}, request.progress); });
  }
  return image.digest;
}

/// As far as a push needs it.
store::ImageRecord as_image(const store::ImageList& artifact) {
  store::ImageRecord record;
  record.digest = artifact.digest;
  record.names = artifact.names;
  return record;
}

spec::ImageName default_target(const store::ImageRecord& image, const std::string& word) {
  for (const spec::ImageName& candidate : spec::local_candidates(word)) {
    const std::string full = candidate.full();
    if (std::find(image.names.begin(), image.names.end(), full) != image.names.end()) return candidate;
  }
  throw UsageError(fmt::format("push {}: where to?", kelp::quoted(word)))
      .with_hint(fmt::format("kelp push {} REGISTRY/NAME:TAG", printable(word)));
}

}  // namespace

std::string verb_push(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  arguments.need_positional(1, 2);
  const store::StoreUse use(request.layout);
  const std::string& word = arguments.positional[0];
  const std::string target_word = arguments.positional.size() > 1 ? arguments.positional[1] : "";
  std::string digest, id;
  const auto list = store::find_list(request.layout, word);
  if (list) {
    const TransportName transport = parse_transport(target_word.empty() ? word : target_word);
    if (transport.transport != "docker") throw_usage("an index can be pushed to registries only");
    const spec::ImageName target = spec::parse_image_name(transport.path).tagged();
    Http http(http_options(arguments));
    const RegistryPolicy policy = RegistryPolicy::load();
    Pusher pusher(request.layout, http, policy, target, registry_options(arguments), request.progress);
    digest = pusher.push_index(list->text, list->media_type, arguments.boolean("all").value_or(true),
                               outgoing_options(arguments));
  } else {
    const auto artifact = store::find_artifact(request.layout, word);
    const store::ImageRecord image = artifact ? as_image(*artifact) : store::require_image(request.layout, word);
    id = image.id;
    const TransportName transport = target_word.empty() ? TransportName{} : parse_transport(target_word);
    if (transport.transport != "docker") {
      if (artifact) throw_usage("an artifact can be pushed to registries only");
      digest = push_to_files(request, image, transport);
    } else {
      const spec::ImageName target =
          target_word.empty() ? default_target(image, word) : spec::parse_image_name(transport.path).tagged();
      Http http(http_options(arguments));
      const RegistryPolicy policy = RegistryPolicy::load();
      OutgoingOptions options = outgoing_options(arguments);
      options.pack_plain = image.made_here;
      Pusher pusher(request.layout, http, policy, target, registry_options(arguments), request.progress);
      try {
        digest = pusher.push_image(image.digest, options);
      } catch (Error& error) {
        error.add_context(target.full());
        throw;
      }
    }
  }
  return nlohmann::ordered_json{
      {"v", 1}, {"images", {{{"id", id}, {"digest", digest}}}}, {"warnings", nlohmann::json::array()}}
      .dump();
}

}  // namespace kelp::image
