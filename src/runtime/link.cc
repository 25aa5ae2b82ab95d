#include "runtime/link.h"

#include <unistd.h>

#include "base/log.h"
#include "base/text.h"

namespace kelp::runtime {
namespace {

/// An Error that keeps the errno of the other process.
class RemoteError : public Error {
 public:
  RemoteError(std::string message, int exit_code, int errnum) : Error(std::move(message), exit_code), errno_(errnum) {}
  [[nodiscard]] int code() const noexcept override { return errno_; }

 private:
  int errno_;
};

/// "exit code NUL errno NUL message NUL hint"
[[noreturn]] void throw_remote(std::string_view text) {
  const std::vector<std::string> parts = split(text, '\0', 4);
  if (parts.size() != 4) throw_error("the container's first process failed without a reason");
  RemoteError error(parts[2], static_cast<int>(to_int(parts[0]).value_or(kExitFailure)),
                    static_cast<int>(to_int(parts[1]).value_or(0)));
  error.with_hint(parts[3]);
  throw error;
}

}  // namespace

std::optional<ParentLink::Event> ParentLink::next() {
  for (;;) {
    std::optional<sys::Link::Frame> frame = link_.receive();
    if (!frame) return std::nullopt;
    const Msg msg{frame->data[0]};
    std::string text = frame->data.substr(1);
    if (msg == Msg::failed) throw_remote(text);
    if (msg != Msg::log) return Event{msg, std::move(text), std::move(frame->fds)};
    if (text.empty()) continue;
    const auto level = static_cast<log::Level>(text[0] - '0');
    if (log::enabled(level)) log::write(level, std::string_view(text).substr(1));
  }
}

ParentLink::Event ParentLink::require(const char* doing) {
  std::optional<Event> event = next();
  if (!event) throw_error("{}: {}", doing, kFirstProcessDied);
  return std::move(*event);
}

void ParentLink::send(Msg msg) {
  const char letter = static_cast<char>(msg);
  try {
    link_.send(std::string_view(&letter, 1));
  } catch (const SysError& error) {
    // The child has gone: what it said before is worth more than our broken pipe.
    if (error.code() != EPIPE && error.code() != ECONNRESET) throw;
    while (next()) {
    }
    throw_error("{}", kFirstProcessDied);
  }
}

void ChildLink::tell(Msg msg, std::string_view text, int fd) {
  std::string frame(1, static_cast<char>(msg));
  frame += text;
  try {
    if (fd >= 0) {
      link_.send(frame, {fd});
    } else {
      link_.send(frame);
    }
  } catch (const SysError& error) {
    if (error.code() == EPIPE) ::_exit(kExitFailure);  // nobody is left to hear why
    throw;
  }
}

void ChildLink::tell_failed(const Error& error) noexcept {
  try {
    std::string text = fmt::format("{}", error.exit_code());
    text += '\0';
    text += fmt::format("{}", error.code());
    text += '\0';
    text += error.message();
    text += '\0';
    text += error.hint();
    tell(Msg::failed, text);
  } catch (...) {  // the parent sees end-of-file and says that we died
  }
}

void ChildLink::tell_log(int level, std::string_view text) noexcept {
  try {
    std::string frame(1, static_cast<char>(Msg::log));
    frame += static_cast<char>('0' + level);
    link_.send(frame.append(text));
  } catch (...) {  // a lost log record must not stop the work
  }
}

Msg ChildLink::ask(Msg msg, std::string_view text, int fd) {
  tell(msg, text, fd);
  const std::optional<sys::Link::Frame> frame = link_.receive();
  if (!frame) ::_exit(kExitFailure);
  return Msg{frame->data[0]};
}

}  // namespace kelp::runtime
