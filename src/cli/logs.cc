#include "engine/logs.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "store/containers.h"

namespace kelp::cli {
namespace {

struct LogsCommand {
  engine::LogOptions logs;
  bool latest = false, timestamps = false, names = false, color = false;
  std::string since, until;
  std::int64_t tail = -1;
};

/// A reader that has gone ends us by SIGPIPE, as it ends cat.
void write_block(int fd, std::string_view rest) {
  while (!rest.empty()) {
    const ssize_t written = ::write(fd, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_errno("write to {}", fd == STDOUT_FILENO ? "standard output" : "standard error");
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

/// Writes while the next block is being read and taken apart: the reader at the other end of a pipe has a core of its
/// own.
class BlockWriter {
 public:
  BlockWriter() = default;
  BlockWriter(const BlockWriter&) = delete;
  BlockWriter& operator=(const BlockWriter&) = delete;
  ~BlockWriter() {
    if (thread_.joinable()) end();
  }

  /// The first block is written here: a short log needs no thread.
  void add(bool is_stderr, std::string& block) {
    if (std::exchange(first_, false)) return write_block(fd_of(is_stderr), block);
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return failure_ || block_.empty(); });
    if (failure_) std::rethrow_exception(failure_);
    is_stderr_ = is_stderr;
    std::swap(block_, block);
    changed_.notify_all();
  }
  void finish() {
    if (thread_.joinable()) end();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  static int fd_of(bool is_stderr) { return is_stderr ? STDERR_FILENO : STDOUT_FILENO; }
  void end() {
    {
      const std::scoped_lock lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void run() noexcept {
    std::string block;
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return ended_ || !block_.empty(); });
      if (block_.empty()) return;
      std::swap(block, block_);
      const int fd = fd_of(is_stderr_);
      lock.unlock();
      changed_.notify_all();
      std::exception_ptr failure;
      try {
        write_block(fd, block);
      } catch (...) {
        failure = std::current_exception();
      }
      block.clear();
      lock.lock();
      if (!failure) continue;
      failure_ = failure;
      block_.clear();
      ended_ = true;
      changed_.notify_all();
      return;
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string block_;
  bool is_stderr_ = false, ended_ = false, first_ = true;
  std::exception_ptr failure_;  ///< of the thread; read under the mutex or after its end
  std::thread thread_;
};

/// source: https://no-color.org
bool colours_wanted() noexcept {
  const char* none = std::getenv("NO_COLOR");
  return none == nullptr || *none == '\0';
}

/// Lines of one stream are put together from their pieces, so that a name or a time stands once in each.
class Printer {
 public:
  Printer(const LogsCommand& values, std::string name, size_t colour)
      : values_(values), name_(std::move(name)), coloured_(values.color && colours_wanted()), colour_(colour) {}
  ~Printer() { flush(); }
  Printer(const Printer&) = delete;
  Printer& operator=(const Printer&) = delete;

  void take(const engine::LogEntry& entry) {
    std::string& buffer = entry.is_stderr ? errors_ : output_;
    bool& inside = entry.is_stderr ? inside_error_ : inside_output_;
    if (!inside) buffer += prefix(entry);
    buffer += entry.text;
    if (!entry.partial) buffer += (coloured_ ? "\x1b[0m\n" : "\n");
    inside = entry.partial;
    if (buffer.size() > 65536 || values_.logs.follow) flush();
  }
  void flush() {
    write(STDOUT_FILENO, output_);
    write(STDERR_FILENO, errors_);
  }

 private:
  static void write(int fd, std::string& buffer) {
    write_block(fd, buffer);
    buffer.clear();
  }
  std::string prefix(const engine::LogEntry& entry) const {
    std::string text;
    if (coloured_) text += fmt::format("\x1b[{}m", 31 + colour_ % 6);
    if (!name_.empty()) text += name_ + " ";
    if (values_.timestamps) text += format_rfc3339(entry.time) + " ";
    return text;
  }

  const LogsCommand& values_;
  std::string name_;
  bool coloured_;
  size_t colour_;
  std::string output_, errors_;
  bool inside_output_ = false, inside_error_ = false;
};

int logs(Invocation& invocation, LogsCommand& values) {
  std::vector<store::ContainerRecord> records;
  if (values.latest) {
    if (!invocation.arguments.empty()) throw_usage("--latest and names exclude each other");
    records.push_back(latest_container(invocation));
  }
  for (const auto& word : invocation.arguments) records.push_back(store::get(invocation.context.layout, word));
  if (records.empty()) {
    throw UsageError("kelp logs needs the name or ID of a container").with_hint("see 'kelp logs --help'");
  }
  if (!values.since.empty()) values.logs.since = parse_moment(values.since, "--since");
  if (!values.until.empty()) values.logs.until = parse_moment(values.until, "--until", Moment::ahead);
  if (values.tail >= 0) values.logs.tail = static_cast<std::uint64_t>(values.tail);
  const auto print_one = [&](size_t i) {
    const bool named = records.size() > 1;
    if (!named && !values.timestamps && !values.color) {
      BlockWriter writer;
      const bool copied = engine::copy_log(invocation.context, records[i], values.logs,
                                           [&](bool is_stderr, std::string& block) { writer.add(is_stderr, block); });
      writer.finish();
      if (copied) return;
    }
    Printer printer(values, named ? (values.names ? records[i].name : records[i].id.substr(0, 12)) : "", i);
    engine::read_logs(invocation.context, records[i], values.logs, [&printer](const engine::LogEntry& entry) {
      printer.take(entry);
      return true;
    });
  };
  if (values.logs.follow && records.size() > 1) {
    engine::in_children(records.size(), print_one);
    return 0;
  }
  for (size_t i = 0; i < records.size(); ++i) print_one(i);
  return 0;
}

}  // namespace

Action define_logs(OptionSet& options) {
  auto values = std::make_shared<LogsCommand>();
  options.arguments("CONTAINER...", 0, -1, Complete::container);
  options.flag("follow,f", values->logs.follow, "go on until the container ends");
  options
      .custom(
          "tail", Kind::number,
          [values = values.get()](const std::string& text) {
            const auto lines = to_int(text, -1);
            if (!lines && text != "all") throw_usage("--tail {}: must be a number or all", quoted(text));
            values->tail = lines.value_or(-1);
          },
          "LINES", "the last lines only")
      .shows("all");
  options.text("since", values->since, "TIME", "lines after a time, or within a duration like 10m");
  options.text("until", values->until, "TIME", "lines before a time");
  options.flag("timestamps,t", values->timestamps, "show the time of each line");
  options.flag("names,n", values->names, "show the name of the container in each line");
  options.flag("color", values->color, "a colour for each container");
  add_latest(options, values->latest);
  return [values](Invocation& invocation) { return logs(invocation, *values); };
}

}  // namespace kelp::cli
