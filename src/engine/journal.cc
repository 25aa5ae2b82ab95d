#include "engine/journal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/owned.h"
#include "base/program_path.h"
#include "base/text.h"
#include "sys/namespaces.h"
#include "sys/spawn.h"

namespace kelp::engine {
namespace {

/// After the container's end: how long nothing must have come for all to have come. journald is another process.
constexpr int kQuiet = 500;

/// A field is a line: what would end it goes.
void add_field(std::string& fields, std::string_view name, std::string value) {
  std::erase_if(value, [](char c) { return c == '\n' || c == '\0'; });
  fields.append(name).append("=").append(value).append("\n");
}

sys::Child start_journalctl(const std::string& program, const store::ContainerRecord& record, const LogOptions& options,
                            int out) {
  sys::SpawnRequest request;
  request.path = program;
  request.argv = {"journalctl", "--quiet", "--no-pager", "--all", "--output", "json", "CONTAINER_ID_FULL=" + record.id};
  if (options.follow) request.argv.emplace_back("--follow");
  if (options.tail)
    request.argv.push_back("--lines=" + std::to_string(*options.tail));
  else if (options.follow)
    request.argv.emplace_back("--no-tail");
  request.fds = {{0, -1}, {1, out}};
  request.death_signal = SIGKILL;
  return sys::spawn(request);
}

/// false: the reader has had enough.
bool take_lines(std::string& text, const LogOptions& options, const std::function<bool(const LogEntry&)>& take) {
  size_t begin = 0;
  for (size_t end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const auto entry = parse_journal_line(std::string_view(text).substr(begin, end - begin));
    if (!entry || (options.since && entry->time < *options.since)) continue;
    if (options.until && entry->time > *options.until) return false;
    if (!take(*entry)) return false;
  }
  text.erase(0, begin);
  return true;
}

}  // namespace

void check_journal() {
  if (::access(kJournalSocket, W_OK) == 0) return;
  throw SysError(fmt::format("the log driver journald needs systemd's journal: {}", kJournalSocket), errno)
      .with_hint("--log-driver k8s-file keeps a file beside the container, for kelp logs");
}

std::string journal_fields(const store::ContainerRecord& record) {
  std::string fields;
  const auto tag = record.config.log_options.find("tag");
  add_field(fields, "SYSLOG_IDENTIFIER", record.name);
  add_field(fields, "CONTAINER_NAME", record.name);
  add_field(fields, "CONTAINER_ID", record.id.substr(0, 12));
  add_field(fields, "CONTAINER_ID_FULL", record.id);
  add_field(fields, "IMAGE_NAME", record.image_name);
  if (tag != record.config.log_options.end()) add_field(fields, "CONTAINER_TAG", tag->second);
  return fields;
}

std::optional<LogEntry> parse_journal_line(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const auto message = json.find("MESSAGE"), time = json.find("__REALTIME_TIMESTAMP");
  if (message == json.end() || time == json.end() || !time->is_string()) return std::nullopt;
  LogEntry entry;
  if (message->is_string()) {
    entry.text = message->get<std::string>();
  } else if (message->is_array()) {  // bytes that are no text, as numbers
    for (const auto& byte : *message) {
      if (!byte.is_number_unsigned()) return std::nullopt;
      entry.text += static_cast<char>(byte.get<unsigned>());
    }
  } else {
    return std::nullopt;
  }
  const auto micros = to_int(time->get_ref<const std::string&>(), 0);
  if (!micros) return std::nullopt;
  entry.time = std::chrono::system_clock::time_point(std::chrono::microseconds(*micros));
  entry.is_stderr = json.value("PRIORITY", "") == "3";
  entry.partial = json.value("CONTAINER_PARTIAL_MESSAGE", "") == "true";
  return entry;
}

void read_journal(const store::ContainerRecord& record, const LogOptions& options,
                  const std::function<bool()>& still_runs, const std::function<bool(const LogEntry&)>& take) {
  const std::string program = find_in_path("journalctl");
  if (program.empty())
    throw Error(fmt::format("the output of container {} is in the journal, and there is no journalctl", record.name))
        .with_hint("install systemd's journalctl, or read the journal by CONTAINER_ID_FULL=" + record.id);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  const Fd from(ends[0]);
  Fd to(ends[1]);
  sys::Child child = start_journalctl(program, record, options, to.get());
  to.reset();
  std::string text;
  const auto stop = [&child] {
    sys::pidfd_send_signal(child.pidfd.get(), SIGTERM);
    child.wait();
  };
  for (bool ended = false;;) {
    pollfd ready{from.get(), POLLIN, 0};
    const int found = ::poll(&ready, 1, options.follow ? kQuiet : -1);
    if (found < 0 && errno == EINTR) continue;
    if (found == 0) {
      const bool late = options.until && std::chrono::system_clock::now() > *options.until;
      if (ended || late) return stop();
      ended = !still_runs();
      continue;
    }
    char block[65536];
    const ssize_t got = ::read(from.get(), block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read from journalctl");
    if (got == 0) break;
    text.append(block, static_cast<size_t>(got));
    if (!take_lines(text, options, take)) return stop();
  }
  if (const int code = child.wait(); code != 0)
    throw Error(fmt::format("journalctl ended with status {}", code))
        .with_hint("members of the group systemd-journal may read the whole journal");
}

}  // namespace kelp::engine
