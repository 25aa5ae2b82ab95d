#include "engine/registries.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "engine/context.h"
#include "engine/events.h"
#include "engine/image_program.h"
#include "store/layout.h"
#include "sys/lock.h"

namespace kelp::engine {

namespace {

using Json = nlohmann::json;
using Words = std::vector<std::string>;

void add(Words& words, const char* option, const std::string& value) {
  if (!value.empty()) words.insert(words.end(), {option, value});
}

void add_access(Words& words, const RegistryAccess& access) {
  add(words, "--authfile", access.authfile);
  add(words, "--creds", access.creds);
  add(words, "--cert-dir", access.cert_dir);
  if (access.tls_verify) words.push_back(*access.tls_verify ? "--tls-verify=true" : "--tls-verify=false");
  if (access.retry) add(words, "--retry", std::to_string(*access.retry));
  add(words, "--retry-delay", access.retry_delay);
}

/// A secret on its way to the program's standard input.
Fd secret_file(const std::string& text) {
  Fd file(::memfd_create("secret", MFD_CLOEXEC));
  if (!file) throw_errno("make a memory file");
  sys::write_all(file.get(), text, "a memory file");
  if (::lseek(file.get(), 0, SEEK_SET) < 0) throw_errno("rewind a memory file");
  return file;
}

Words login_words(const char* verb, const LoginOptions& options) {
  Words words{verb};
  add_access(words, options.access);
  add(words, "--compat-auth-file", options.compat_auth_file);
  return words;
}

}  // namespace

std::string push_image(Context& context, const std::string& image, const std::string& destination,
                       const PushOptions& options, const ProgressFn& progress) {
  store::prepare(context.layout);
  ImageCall call{.arguments = {"push"}, .progress = &progress};
  add_access(call.arguments, options.access);
  add(call.arguments, "--format", options.format);
  add(call.arguments, "--compression-format", options.compression_format);
  if (options.compression_level) add(call.arguments, "--compression-level", std::to_string(*options.compression_level));
  if (options.force_compression) call.arguments.emplace_back("--force-compression");
  if (options.all) call.arguments.emplace_back(*options.all ? "--all=true" : "--all=false");
  call.arguments.insert(call.arguments.end(), {"--", image});
  if (!destination.empty()) call.arguments.push_back(destination);
  const Json result = parse_result(run_image_program(context, call));
  const Json& pushed = result.at("images").at(0);
  emit_event(context, "image", "push", pushed.value("id", ""), destination.empty() ? image : destination);
  return pushed.value("digest", "");
}

LoginResult login(Context& context, const std::string& registry, const LoginOptions& options) {
  store::prepare(context.layout);
  ImageCall call{.arguments = login_words("login", options)};
  add(call.arguments, "--username", options.user);
  const Fd secret = secret_file(options.password.value_or(""));
  call.stdin_fd = secret.get();
  call.arguments.insert(call.arguments.end(), {"--", registry});
  const Json result = parse_result(run_image_program(context, call));
  return {
      .user = result.value("user", ""), .needed = result.value("needed", false), .kept = result.value("kept", false)};
}

std::string logged_in_user(Context& context, const std::string& registry, const LoginOptions& options) {
  store::prepare(context.layout);
  ImageCall call{.arguments = login_words("login", options)};
  call.arguments.insert(call.arguments.end(), {"--get-login", "--", registry});
  return parse_result(run_image_program(context, call)).value("user", "");
}

void logout(Context& context, const std::string& registry, const LoginOptions& options) {
  store::prepare(context.layout);
  ImageCall call{.arguments = login_words("logout", options)};
  if (registry.empty()) {
    call.arguments.emplace_back("--all");
  } else {
    call.arguments.insert(call.arguments.end(), {"--", registry});
  }
  run_image_program(context, call);
}

std::vector<SearchHit> search_images(Context& context, const std::string& term, const RegistryAccess& access,
                                     unsigned limit) {
  store::prepare(context.layout);
  ImageCall call{.arguments = {"search", "--limit", std::to_string(limit)}};
  add_access(call.arguments, access);
  call.arguments.insert(call.arguments.end(), {"--", term});
  std::vector<SearchHit> hits;
  const Json document = parse_result(run_image_program(context, call));
  for (const Json& item : document.at("hits")) {
    hits.push_back({.registry = item.value("registry", ""),
                    .name = item.value("name", ""),
                    .description = item.value("description", ""),
                    .stars = item.value("stars", std::int64_t{0}),
                    .official = item.value("official", false),
                    .automated = item.value("automated", false)});
  }
  return hits;
}

std::vector<std::pair<std::string, std::string>> list_tags(Context& context, const std::string& repository,
                                                           const RegistryAccess& access, unsigned limit) {
  store::prepare(context.layout);
  ImageCall call{.arguments = {"search", "--list-tags", "--limit", std::to_string(limit)}};
  add_access(call.arguments, access);
  call.arguments.insert(call.arguments.end(), {"--", repository});
  std::vector<std::pair<std::string, std::string>> tags;
  const Json document = parse_result(run_image_program(context, call));
  for (const Json& item : document.at("tags")) {
    tags.emplace_back(item.value("name", ""), item.value("tag", ""));
  }
  return tags;
}

std::string edit_manifest_list(Context& context, const std::string& operation, const std::vector<std::string>& words,
                               const ManifestOptions& options, const ProgressFn& progress) {
  store::prepare(context.layout);
  ImageCall call{.arguments = {"manifest"}, .progress = &progress};
  add_access(call.arguments, options.access);
  for (const std::string& annotation : options.annotations) add(call.arguments, "--annotation", annotation);
  add(call.arguments, "--os", options.os);
  add(call.arguments, "--arch", options.arch);
  add(call.arguments, "--variant", options.variant);
  if (options.all) call.arguments.emplace_back("--all");
  if (options.amend) call.arguments.emplace_back("--amend");
  call.arguments.insert(call.arguments.end(), {"--", operation});
  call.arguments.insert(call.arguments.end(), words.begin(), words.end());
  const std::string result = run_image_program(context, call);
  return operation == "inspect" ? result : parse_result(result).value("digest", "");
}

}  // namespace kelp::engine
