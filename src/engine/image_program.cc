#include "engine/image_program.h"

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
#include "engine/settings.h"
#include "sys/spawn.h"

namespace kelp::engine {

namespace {

using Json = nlohmann::json;

constexpr int kProgressFd = 3;
constexpr size_t kMaxOutput = 16 << 20;
constexpr std::string_view kProgram = "kelp-image";

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

/// Starts kelp-image in S. A host without user namespaces still pulls, loads and saves: then the program runs as the
/// caller, and layers are kept packed.
sys::Child start_image_program(Context& context, sys::SpawnRequest& request, bool plain) {
  const auto packed = [&] { request.argv.insert(request.argv.begin() + 2, "--no-unpack"); };
  if (plain) {
    packed();
    return sys::spawn(request);
  }
  try {
    return spawn_in_userns(context, request);
  } catch (const Error& error) {
    const std::string& verb = request.argv[1];
    if (verb == "unpack") throw;
    log::debug("no user namespace, so layers stay packed: {}", error.message());
    if (verb == "pull" || verb == "load" || verb == "take-over") packed();
    return sys::spawn(request);
  }
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

}  // namespace

std::vector<std::string> map_arguments(const store::IdMapping& map) {
  std::vector<std::string> arguments{"--map-key", map.key};
  if (!map.uids.empty()) {
    arguments.insert(arguments.end(), {"--map-uids", sys::canonical(map.uids), "--map-gids", sys::canonical(map.gids)});
  }
  return arguments;
}

std::string run_image_program(Context& context, const ImageCall& call) {
  sys::SpawnRequest request;
  request.path = own_program(kProgram);
  request.argv = {std::string(kProgram)};
  request.argv.insert(request.argv.end(), call.arguments.begin(), call.arguments.end());
  // The options stand before the positional arguments, which may begin with anything after "--".
  request.argv.insert(request.argv.begin() + 2, {"--data", context.layout.data, "--cache", context.layout.cache});
  if (!load_settings(context.global.modules).keep_blobs) {
    request.argv.insert(request.argv.begin() + 2, "--give-up-blobs");
  }
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
  if (call.root_fd >= 0) request.fds.emplace_back(kImageRootFd, call.root_fd);
  log::debug("run {}", join(request.argv, " "));
  sys::Child child = start_image_program(context, request, call.plain);
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

nlohmann::json parse_result(const std::string& text) {
  Json document = Json::parse(text, nullptr, false);
  if (!document.is_object()) throw_error("{} gave no result", kProgram);
  if (const auto warnings = document.find("warnings"); warnings != document.end() && warnings->is_array()) {
    for (const Json& warning : *warnings) {
      if (warning.is_string()) log::warn("{}", warning.get<std::string>());
    }
  }
  return document;
}

store::IdMapping default_map(Context& context) {
  return userns_map_key(context) == "single" ? store::IdMapping::single() : store::IdMapping::full();
}

std::vector<std::string> default_map_arguments(Context& context) { return map_arguments(default_map(context)); }

}  // namespace kelp::engine
