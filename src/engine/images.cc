// The only place that runs kelp-image. It does its work inside S, where the caller is root over his subordinate ids.
#include "engine/images.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/session.h"
#include "spec/image_docs.h"
#include "spec/image_name.h"
#include "store/images.h"
#include "store/layers.h"
#include "store/layout.h"
#include "sys/spawn.h"

namespace kelp::engine {

namespace {

using Json = nlohmann::json;

constexpr int kProgressFd = 3, kRootFd = 4;
constexpr size_t kMaxOutput = 16 << 20;
constexpr std::string_view kProgram = "kelp-image";
/// The image that comes with kelp: the name it is loaded under, and its file.
constexpr std::string_view kBuiltinName = "localhost/hello:latest";
constexpr const char* kBuiltinFile = "hello.tar";

struct Pipe {
  Fd read, write;
};

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  return {Fd(ends[0]), Fd(ends[1])};
}

/// Calls `take` for every whole line in `buffer` and leaves the rest there.
template <typename Fn>
void take_lines(std::string& buffer, Fn&& take) {
  size_t start = 0;
  for (size_t end; (end = buffer.find('\n', start)) != std::string::npos; start = end + 1) {
    take(std::string_view(buffer).substr(start, end - start));
  }
  buffer.erase(0, start);
}

void report_progress(std::string_view line, const ProgressFn& progress) {
  const Json event = Json::parse(line, nullptr, false);
  if (!event.is_object()) return;
  ProgressEvent result;
  result.kind = event.value("event", "");
  result.id = event.value("id", "");
  result.text = event.value("text", "");
  result.current = event.value("current", std::uint64_t{0});
  result.total = event.value("total", std::uint64_t{0});
  progress(result);
}

/// What kelp-image said on stderr, sorted into the error, its hint, and warnings, which are passed on at once.
struct Complaints {
  std::string error, hint;

  void add(std::string_view line) {
    const std::string prefix = std::string(kProgram) + ": ";
    if (starts_with(line, "hint: ")) {
      hint = line.substr(6);
    } else if (starts_with(line, prefix + "warning: ")) {
      log::warn("{}", line.substr(prefix.size() + 9));
    } else if (starts_with(line, prefix)) {
      error = line.substr(prefix.size());
    } else {
      log::debug("{}: {}", kProgram, line);
    }
  }
};

struct ImageCall {
  std::vector<std::string> arguments;  ///< verb and its own options
  int stdin_fd = -1;                   ///< -1 = /dev/null; borrowed
  int stdout_fd = -1;                  ///< -1 = collected and returned; borrowed
  const ProgressFn* progress = nullptr;
  int root_fd = -1;  ///< given to the program under the number kRootFd; borrowed
};

/// Starts kelp-image in S. A host without user namespaces still pulls, loads and saves: then the program runs as the
/// caller, and layers are kept packed.
sys::Child start_image_program(Context& context, sys::SpawnRequest& request) {
  try {
    return spawn_in_userns(context, request);
  } catch (const Error& error) {
    const std::string& verb = request.argv[1];
    if (verb == "unpack") throw;
    log::debug("no user namespace, so layers stay packed: {}", error.message());
    if (verb == "pull" || verb == "load") request.argv.insert(request.argv.begin() + 2, "--no-unpack");
    return sys::spawn(request);
  }
}

std::vector<std::string> map_arguments(const store::IdMapping& map) {
  std::vector<std::string> arguments{"--map-key", map.key};
  if (!map.uids.empty()) {
    arguments.insert(arguments.end(), {"--map-uids", sys::canonical(map.uids), "--map-gids", sys::canonical(map.gids)});
  }
  return arguments;
}

/// Reads the three pipes until their other ends are closed.
std::string collect(Fd out, Fd err, Fd events, const ImageCall& call, Complaints& complaints) {
  std::array<Fd, 3> sources{std::move(out), std::move(err), std::move(events)};
  std::array<std::string, 3> buffers;
  std::vector<char> chunk(64 << 10);
  while (sources[0] || sources[1] || sources[2]) {
    std::array<pollfd, 3> waits{};
    for (size_t i = 0; i < 3; ++i) waits[i] = {sources[i].get(), POLLIN, 0};
    if (::poll(waits.data(), waits.size(), -1) < 0) {
      if (errno == EINTR) continue;
      throw_errno("wait for {}", kProgram);
    }
    for (size_t i = 0; i < 3; ++i) {
      if (!sources[i] || waits[i].revents == 0) continue;
      const ssize_t got = ::read(sources[i].get(), chunk.data(), chunk.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        sources[i].reset();
        continue;
      }
      if (buffers[i].size() < kMaxOutput) buffers[i].append(chunk.data(), static_cast<size_t>(got));
      if (i == 1) take_lines(buffers[1], [&](std::string_view line) { complaints.add(line); });
      if (i == 2) take_lines(buffers[2], [&](std::string_view line) { report_progress(line, *call.progress); });
    }
  }
  if (!buffers[1].empty()) complaints.add(buffers[1]);
  return std::move(buffers[0]);
}

/// Runs kelp-image to its end. Returns its result document; its error is thrown as ours, with its hint.
std::string run_image_program(Context& context, const ImageCall& call) {
  sys::SpawnRequest request;
  request.path = own_program(kProgram);
  request.argv = {std::string(kProgram)};
  request.argv.insert(request.argv.end(), call.arguments.begin(), call.arguments.end());
  // The options stand before the positional arguments, which may begin with anything after "--".
  request.argv.insert(request.argv.begin() + 2, {"--data", context.layout.data, "--cache", context.layout.cache});
  Pipe out, events;
  Pipe err = make_pipe();
  int out_fd = call.stdout_fd;
  if (out_fd < 0) {
    out = make_pipe();
    out_fd = out.write.get();
  }
  request.death_signal = SIGKILL;  // what it has downloaded stays, and is where the next one goes on
  request.fds = {{0, call.stdin_fd}, {1, out_fd}, {2, err.write.get()}};
  if (call.progress != nullptr && *call.progress) {
    events = make_pipe();
    request.argv.insert(request.argv.begin() + 2, {"--progress-fd", std::to_string(kProgressFd)});
    request.fds.emplace_back(kProgressFd, events.write.get());
  }
  if (call.root_fd >= 0) request.fds.emplace_back(kRootFd, call.root_fd);
  log::debug("run {}", join(request.argv, " "));
  sys::Child child = start_image_program(context, request);
  out.write.reset();
  err.write.reset();
  events.write.reset();
  Complaints complaints;
  std::string result = collect(std::move(out.read), std::move(err.read), std::move(events.read), call, complaints);
  const int status = child.wait();
  if (status == 0) return result;
  if (complaints.error.empty()) complaints.error = fmt::format("{} ended with status {}", kProgram, status);
  throw Error(complaints.error, status > 128 ? kExitFailure : status).with_hint(complaints.hint);
}

Json parse_result(const std::string& text) {
  Json document = Json::parse(text, nullptr, false);
  if (!document.is_object()) throw_error("{} gave no result", kProgram);
  if (const auto warnings = document.find("warnings"); warnings != document.end() && warnings->is_array()) {
    for (const Json& warning : *warnings) {
      if (warning.is_string()) log::warn("{}", warning.get<std::string>());
    }
  }
  return document;
}

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
  arguments.insert(arguments.end(), {"--", name});
  return arguments;
}

/// The map that layers are unpacked under as soon as they are here.
std::vector<std::string> default_map_arguments(Context& context) {
  return map_arguments(userns_map_key(context) == "single" ? store::IdMapping::single() : store::IdMapping::full());
}

std::vector<store::ImageRecord> run_pull(Context& context, const std::string& name, const PullOptions& options,
                                         const char* policy, const ProgressFn& progress) {
  store::prepare(context.layout);
  ImageCall call{.arguments = pull_arguments(name, options, policy), .progress = &progress};
  const std::vector<std::string> extra = default_map_arguments(context);
  call.arguments.insert(call.arguments.begin() + 1, extra.begin(), extra.end());
  const Json document = parse_result(run_image_program(context, call));
  std::vector<store::ImageRecord> images;
  for (const Json& entry : document.at("images")) {
    const std::string digest = entry.at("digest").get<std::string>();
    auto image = store::image_by_manifest(context.layout, digest);
    if (!image) throw_error("{}: the image was taken away while it was pulled", name);
    images.push_back(std::move(*image));
  }
  if (images.empty()) throw_error("{}: nothing was pulled", name);
  return images;
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

/// The file or directory of a name like "oci-archive:/tmp/image.tar"; "" when the name names no such transport.
std::string local_transport_path(const std::string& name) {
  for (const std::string_view transport : {"docker-archive:", "oci-archive:", "oci:", "dir:"}) {
    if (starts_with(name, transport)) return name.substr(transport.size());
  }
  return "";
}

store::ImageRecord load_one(Context& context, const std::string& file, const ProgressFn& progress) {
  const std::vector<std::string> names = load_images(context, file, progress);
  if (names.empty()) throw_error("{}: there is no image in it", kelp::quoted(file));
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
  if (const std::string path = local_transport_path(name); !path.empty()) return load_one(context, path, progress);
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
  ImageCall call{.arguments = {"unpack"}, .progress = &progress};
  const std::vector<std::string> extra = map_arguments(map);
  call.arguments.insert(call.arguments.end(), extra.begin(), extra.end());
  call.arguments.insert(call.arguments.end(), {"--", image.id});
  parse_result(run_image_program(context, call));
}

std::vector<store::ImageRecord> pull_image(Context& context, const std::string& name, const PullOptions& options,
                                           const ProgressFn& progress) {
  check_policy(options.policy);
  if (!options.all_tags) return {ensure_image(context, name, options, progress)};
  return run_pull(context, name, options, "always", progress);
}

std::vector<std::string> load_images(Context& context, const std::string& file, const ProgressFn& progress) {
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
  const Json document = parse_result(run_image_program(context, call));
  std::vector<std::string> names;
  for (const Json& entry : document.at("images")) {
    const std::string name = entry.value("name", "");
    names.push_back(name.empty() ? "sha256:" + entry.value("id", "") : name);
  }
  return names;
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
  call.arguments.emplace_back("--");
  call.arguments.insert(call.arguments.end(), names.begin(), names.end());
  run_image_program(context, call);
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
  return document.at("images").at(0).value("id", "");
}

std::vector<RegistryAnswer> ask_registries(Context& context, const std::vector<std::string>& names) {
  ImageCall call;
  call.arguments = {"ping"};
  call.arguments.insert(call.arguments.end(), names.begin(), names.end());
  const Json result = Json::parse(run_image_program(context, call), nullptr, false);
  std::vector<RegistryAnswer> answers;
  if (!result.is_object() || !result.contains("registries")) throw_error("{} gave no answer", kProgram);
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
  return parse_result(run_image_program(context, {.arguments = {"verify"}}))
      .value("damaged", std::vector<std::string>{});
}

}  // namespace kelp::engine
