#include "engine/events.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/context.h"
#include "monitor/event_log.h"
#include "sys/lock.h"

namespace kelp::engine {
namespace {

using Json = nlohmann::json;
using std::chrono::system_clock;

/// path: of the file, for the error about a newer line
std::optional<Event> parse_event(std::string_view line, const std::string& path) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return std::nullopt;  // the end of a full disk
  Event event;
  try {
    if (json.value("schema", 1) > 1) throw_error("{}: written by a newer kelp", path);
    event.time = system_clock::time_point(std::chrono::nanoseconds(json.at("time").get<std::int64_t>()));
    event.status = json.at("Status").get<std::string>();
    event.type = json.at("Type").get<std::string>();
    event.id = json.value("ID", "");
    event.name = json.value("Name", "");
    event.image = json.value("Image", "");
    event.attributes = json.value("Attributes", store::StringMap{});
    if (json.contains("ContainerExitCode")) event.exit_code = json["ContainerExitCode"].get<int>();
    if (json.contains("Signal")) event.attributes["signal"] = std::to_string(json["Signal"].get<int>());
    if (json.contains("ExecID")) event.attributes["execID"] = json["ExecID"].get<std::string>();
    event.health = json.value("HealthStatus", "");
  } catch (const Json::exception&) {
    return std::nullopt;
  }
  return event;
}

/// Whole lines of a file that others append to; false when `take` has had enough.
class Lines {
 public:
  explicit Lines(Fd file) : file_(std::move(file)) {}
  void skip_to_end() {
    if (file_) ::lseek(file_.get(), 0, SEEK_END);
  }
  bool read(const std::function<bool(std::string_view)>& take) {
    char buffer[65536];
    ssize_t count = 0;
    while (file_ && (count = ::read(file_.get(), buffer, sizeof buffer)) > 0) {
      rest_.append(buffer, static_cast<size_t>(count));
      size_t begin = 0;
      for (size_t end = 0; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1)
        if (!take(std::string_view(rest_).substr(begin, end - begin))) return false;
      rest_.erase(0, begin);
    }
    return true;
  }
  /// The name stands for another file now.
  [[nodiscard]] bool replaced(const std::string& path) const {
    struct stat ours {
    }, named{};
    if (::stat(path.c_str(), &named) < 0) return false;
    return !file_ || ::fstat(file_.get(), &ours) < 0 || ours.st_ino != named.st_ino;
  }

 private:
  Fd file_;
  std::string rest_;
};

Lines open_lines(const std::string& path) { return Lines(Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY))); }

}  // namespace

std::string event_subject(const store::ContainerRecord& record) {
  std::string text = fmt::format("\"Type\":\"container\",\"ID\":\"{}\",\"Name\":{},\"Image\":{},\"Attributes\":{{",
                                 record.id, log::json_quote(record.name), log::json_quote(record.image_name));
  store::StringMap labels = record.image.labels;
  for (const auto& [key, value] : record.config.labels) labels[key] = value;
  bool first = true;
  for (const auto& [key, value] : labels) {
    text += fmt::format("{}{}:{}", first ? "" : ",", log::json_quote(key), log::json_quote(value));
    first = false;
  }
  return text + "}";
}

void emit_event(const Context& context, const store::ContainerRecord& record, std::string_view status,
                std::string_view extra) {
  if (!context.global.keep_events) return;
  monitor::append_events(context.layout.events(), monitor::event_line(status, event_subject(record), extra));
}

void emit_event(const Context& context, std::string_view type, std::string_view status, std::string_view id,
                std::string_view name) {
  if (!context.global.keep_events) return;
  monitor::append_events(context.layout.events(),
                         monitor::event_line(status, fmt::format("\"Type\":\"{}\",\"ID\":{},\"Name\":{}", type,
                                                                 log::json_quote(id), log::json_quote(name))));
}

void read_events(Context& context, const EventOptions& options, const std::function<bool(const Event&)>& take) {
  const std::string path = context.layout.events();
  const auto take_line = [&](std::string_view line) {
    const auto event = parse_event(line, path);
    if (!event || (options.since && event->time < *options.since)) return true;
    if (options.until && event->time > *options.until) return false;
    return take(*event);
  };
  // Watched before the first look: nothing falls between the two.
  Fd notify;
  if (options.follow) {
    notify = Fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!notify) throw_errno("watch for events");
    if (::inotify_add_watch(notify.get(), context.layout.data.c_str(), IN_MODIFY | IN_CREATE | IN_MOVED_FROM) < 0)
      throw_errno("watch {}", context.layout.data);
  }
  Lines lines = open_lines(path);
  if (options.past) {
    // The older file first. When it is replaced meanwhile, `lines` still holds what was the current one.
    if (!open_lines(path + ".1").read(take_line)) return;
    if (!lines.read(take_line)) return;
  } else {
    lines.skip_to_end();
  }
  while (options.follow) {
    int wait = -1;
    if (options.until) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*options.until - system_clock::now()).count();
      if (left <= 0) return;
      wait = static_cast<int>(std::min<long long>(left, 3'600'000));
    }
    pollfd ready{notify.get(), POLLIN, 0};
    if (::poll(&ready, 1, wait) < 0 && errno != EINTR) throw_errno("wait for events");
    char drained[4096];
    while (::read(notify.get(), drained, sizeof drained) > 0) {
    }
    if (!lines.read(take_line)) return;
    if (!lines.replaced(path)) continue;
    if (!lines.read(take_line)) return;
    lines = open_lines(path);
    if (!lines.read(take_line)) return;
  }
}

}  // namespace kelp::engine
