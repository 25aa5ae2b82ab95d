// From the plan to a running container. The runtime makes the container and stops before the command is executed (the
// gate); between the two lie the network and the state file, so whoever sees the container sees all of it.

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "monitor/event_log.h"
#include "monitor/monitor.h"
#include "sys/lock.h"
#include "sys/pty.h"
#include "sys/xattr_tree.h"

namespace kelp::monitor {
namespace {

// Numbers of descriptors in the runtime, above those that the container gets.
constexpr int kDirFd = 7, kLogFd = 8, kGateFd = 9, kNetworkFd = 10;
int number(const Plan& plan, int base) { return base + static_cast<int>(plan.preserve_fds); }
constexpr int kCreateTimeout = 120000, kStartTimeout = 60000;
constexpr const char* kConsole = "console.sock";

/// From a line "WORD PID" among the lines that the runtime has written so far.
std::optional<pid_t> pid_after(std::string_view text, std::string_view word) {
  while (!text.empty()) {
    const auto newline = text.find('\n');
    if (newline == std::string_view::npos) return std::nullopt;  // unfinished
    const auto line = text.substr(0, newline);
    if (starts_with(line, word) && line.size() > word.size() && line[word.size()] == ' ')
      if (const auto pid = to_int(line.substr(word.size() + 1), 1)) return static_cast<pid_t>(*pid);
    text.remove_prefix(newline + 1);
  }
  return std::nullopt;
}

void write_pid_file(const std::string& path, pid_t pid) {
  if (path.empty()) return;
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file) throw_errno("write the pid file {}", path);
  sys::write_all(file.get(), std::to_string(pid), path);
}

std::string fd_path(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

}  // namespace

sys::SpawnRequest Monitor::runtime_request(std::vector<std::string> arguments, const RuntimeLog& log) const {
  sys::SpawnRequest request;
  request.path = plan_.runtime.front();
  request.argv = plan_.runtime;
  for (const char* option : {"--log", "", "--log-format", "json"})
    request.argv.push_back(*option == '\0' ? fd_path(number(plan_, kLogFd)) : option);
  for (auto& argument : arguments) request.argv.push_back(std::move(argument));
  request.fds = {{number(plan_, kLogFd), log.fd()}, {number(plan_, kDirFd), run_dir_.get()}};
  return request;
}

void Monitor::pass_preserved(sys::SpawnRequest& request) const {
  for (int fd = 3; fd < 3 + static_cast<int>(plan_.preserve_fds); ++fd) request.fds.emplace_back(fd, fd);
}

void Monitor::start() {
  started_ = ended_ = timed_out_ = false;
  runtime_pid_ = 0;
  runtime_code_ = -1;
  const RuntimeLog log;
  in_runtime_ = true;
  oom_before_ = oom_kills(plan_);
  if (starting_) write_pid_file(plan_.monitor_pid_file, ::getpid());
  if (starting_ && !plan_.notify.empty()) notify_.open(plan_.notify_socket, plan_.notify, plan_.run_dir);

  pid_ = plan_.own_runtime ? create_with_own_runtime(log) : create_with_foreign_runtime(log);
  pidfd_ = sys::pidfd_open(pid_);
  reaper_.expect(pid_, [this](int code) {
    ended_ = true;
    code_ = code;
  });
  // Below this line the container exists and waits at the gate.
  step("set up the network", [&] {
    slirp_.start(pid_, [this](const auto& condition, int milliseconds) { return wait_for(condition, milliseconds); });
  });
  state_.pid = pid_;
  std::string events;
  if (plan_.stay_at_gate && starting_) {
    if (!wait_at_gate()) return;
  } else {
    events = event_line("init", plan_.event_subject);
  }
  state_.started = std::chrono::system_clock::now();
  begin_health();
  write_state(plan_, state_);
  write_pid_file(plan_.pid_file, pid_);
  check_starter();
  open_gate(log);
  started_ = true;
  events += event_line("start", plan_.event_subject);
  if (plan_.event_attach && starting_) events += event_line("attach", plan_.event_subject);
  append_events(plan_.events, events);
  notify_.started(plan_.notify);
  // Ours would keep a reader at the other end waiting; a container that is started again needs them once more.
  if (plan_.restart == "no" && plan_.preserve_fds != 0) ::close_range(3, 2 + plan_.preserve_fds, 0);
  std::string warnings;
  for (const auto& warning : log.read().warnings) warnings += warning + "\n";
  clients_.tell_all({.type = Msg::started, .value = static_cast<std::uint32_t>(pid_)},
                    std::string_view(warnings).substr(0, kMaxPayload));
}

pid_t Monitor::create_with_own_runtime(const RuntimeLog& log) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) throw_errno("make a socket pair");
  gate_ = Fd(ends[0]);
  Fd far(ends[1]);
  std::vector<std::string> arguments{
      "run",      "--detach",  "--die-with-parent", "--hold-fd", std::to_string(number(plan_, kGateFd)),
      "--bundle", plan_.bundle};
  std::optional<sys::ConsoleSocket> console;
  if (plan_.tty && plan_.log_driver != "passthrough") {
    console.emplace(run_dir_.get(), kConsole);
    arguments.insert(arguments.end(), {"--console-socket", fd_path(number(plan_, kDirFd)) + "/" + kConsole});
  }
  if (network_) arguments.insert(arguments.end(), {"--network-fd", std::to_string(number(plan_, kNetworkFd))});
  arguments.insert(arguments.end(), plan_.create_args.begin(), plan_.create_args.end());
  if (plan_.preserve_fds != 0)
    arguments.insert(arguments.end(), {"--preserve-fds", std::to_string(plan_.preserve_fds)});
  arguments.push_back(plan_.id);

  auto request = runtime_request(std::move(arguments), log);
  for (const auto& fd : streams_.open(plan_)) request.fds.push_back(fd);
  request.fds.emplace_back(number(plan_, kGateFd), far.get());
  if (network_) request.fds.emplace_back(number(plan_, kNetworkFd), network_.get());
  pass_preserved(request);
  sys::Child child = sys::spawn(request);
  far.reset();
  network_.reset();  // good for one start: a restart makes its own
  streams_.close_far_ends();
  runtime_pid_ = child.pid;
  child.detach();
  reaper_.expect(runtime_pid_, [this](int code) { runtime_code_ = code; });

  std::string text;
  bool ended = false;
  const int watch = loop_.watch(gate_.get(), POLLIN, [&](short) {
    char bytes[64];
    const ssize_t count = ::read(gate_.get(), bytes, sizeof bytes);
    if (count > 0) text.append(bytes, static_cast<size_t>(count));
    ended = count <= 0;
  });
  const auto said = [&](std::string_view word) { return pid_after(text, word); };
  wait_for([&] { return ended || said("cloned"); }, kCreateTimeout);
  // The network namespace is there: slirp4netns starts beside the mounts (it takes about as long as they do).
  if (const auto cloned = said("cloned")) {
    slirp_.launch(*cloned);
    if (plan_.hold_mounts) mounts_ = Fd(::open(fmt::format("/proc/{}/ns/mnt", *cloned).c_str(), O_RDONLY | O_CLOEXEC));
  }
  wait_for([&] { return ended || said("created"); }, kCreateTimeout);
  loop_.forget(watch);
  const auto pid = said("created");
  if (!pid) {
    wait_for([&] { return runtime_code_ >= 0; }, 5000);
    runtime_failed(log, "create", runtime_code_);
  }
  if (console) streams_.set_terminal(console->receive(5000));
  return *pid;
}

pid_t Monitor::create_with_foreign_runtime(const RuntimeLog& log) {
  const std::string pid_path = plan_.run_dir + "/init.pid";
  std::vector<std::string> arguments{"create", "--bundle", plan_.bundle, "--pid-file", pid_path};
  std::optional<sys::ConsoleSocket> console;
  if (plan_.tty && plan_.log_driver != "passthrough") {
    console.emplace(run_dir_.get(), kConsole);
    arguments.insert(arguments.end(), {"--console-socket", fd_path(number(plan_, kDirFd)) + "/" + kConsole});
  }
  arguments.insert(arguments.end(), plan_.create_args.begin(), plan_.create_args.end());
  if (plan_.preserve_fds != 0)
    arguments.insert(arguments.end(), {"--preserve-fds", std::to_string(plan_.preserve_fds)});
  arguments.push_back(plan_.id);
  auto request = runtime_request(std::move(arguments), log);
  for (const auto& fd : streams_.open(plan_)) request.fds.push_back(fd);
  pass_preserved(request);
  const int code = run_runtime(request);
  streams_.close_far_ends();
  if (code != 0) runtime_failed(log, "create", code);
  if (console) streams_.set_terminal(console->receive(5000));
  const auto text = sys::read_small_file(pid_path);
  const auto pid = text ? to_int(trim(*text), 1) : std::nullopt;
  if (!pid) throw_error("{} wrote no pid file", plan_.runtime.front());
  ::unlink(pid_path.c_str());
  return static_cast<pid_t>(*pid);
}

int Monitor::run_runtime(const sys::SpawnRequest& request) {
  sys::Child child = sys::spawn(request);
  runtime_code_ = -1;
  runtime_pid_ = child.pid;
  const Fd pidfd = std::move(child.pidfd);
  child.detach();
  reaper_.expect(runtime_pid_, [this](int code) { runtime_code_ = code; });
  if (!wait_for([&] { return runtime_code_ >= 0; }, kCreateTimeout)) {
    reaper_.forget(runtime_pid_);
    sys::pidfd_send_signal(pidfd.get(), SIGKILL);
    return kExitFailure;
  }
  return runtime_code_;
}

/// The first start of `init`: its starter may go, and it lasts until somebody wants the command executed, or the end of
/// the container. false: it has ended at the gate.
bool Monitor::wait_at_gate() {
  check_starter();
  starting_ = false;
  at_gate_ = state_.initialized = true;
  state_.started = std::chrono::system_clock::now();
  write_state(plan_, state_);
  write_pid_file(plan_.pid_file, pid_);
  emit("init");
  clients_.tell_all({.type = Msg::initialized, .value = static_cast<std::uint32_t>(pid_)});
  while (!go_ && !stopping_ && !ended_) loop_.run_once(std::chrono::milliseconds(-1));
  if (!stopping_ && !ended_) {
    at_gate_ = state_.initialized = false;
    return true;
  }
  gate_.reset();
  kill_container();
  wait_for([this] { return ended_ && runtime_code_ >= 0; }, 5000);
  return false;
}

void Monitor::open_gate(const RuntimeLog& log) {
  // From here on output may come at any time; it stays in the pipes until the runtime has said that all went well.
  if (plan_.own_runtime) {
    if (::write(gate_.get(), "g", 1) != 1) runtime_failed(log, "start", runtime_code_);
    wait_for([&] { return runtime_code_ >= 0; }, kStartTimeout);
    gate_.reset();
    if (runtime_code_ != 0) runtime_failed(log, "start", runtime_code_);
    return;
  }
  const int code = run_runtime(runtime_request({"start", plan_.id}, log));
  if (code != 0) runtime_failed(log, "start", code);
}

void Monitor::runtime_failed(const RuntimeLog& log, const char* doing, int code) {
  const RuntimeWords words = log.read();
  const auto slash = plan_.runtime.front().rfind('/');
  const std::string name = plan_.runtime.front().substr(slash == std::string::npos ? 0 : slash + 1);
  std::string text = words.error;
  if (text.empty()) text = fmt::format("{} ended with status {} and said nothing", name, code);
  int exit_code = code;
  if (code != kExitCannotInvoke && code != kExitNotFound) exit_code = exit_code_of_failed_start(text);
  Error error(plan_.own_runtime ? text : fmt::format("{} {}: {}", name, doing, text), exit_code);
  if (!words.hint.empty()) error.with_hint(words.hint);
  throw error;
}

/// Undoes a start that failed at any point.
void Monitor::give_up_start() noexcept {
  starting_ = false;
  gate_.reset();  // at the gate: end-of-file ends the runtime and its container
  slirp_.stop();
  kill_container();
  try {
    if (runtime_pid_ != 0 && plan_.own_runtime) wait_for([&] { return runtime_code_ >= 0; }, 2000);
    if (pid_ != 0) wait_for([&] { return ended_; }, 5000);
  } catch (const Error&) {  // the starter has gone as well: there is nobody to tell
  }
  streams_.discard();
  delete_from_runtime();
  pid_ = 0;
  pidfd_.reset();
  mounts_.reset();
}

void Monitor::delete_from_runtime() noexcept {
  if (!std::exchange(in_runtime_, false)) return;
  try {
    if (!plan_.state_dir.empty()) return sys::remove_tree(plan_.state_dir);
    const RuntimeLog log;
    auto request = runtime_request({"delete", "--force", plan_.id}, log);
    for (int fd : {0, 1, 2}) request.fds.emplace_back(fd, -1);
    sys::Child child = sys::spawn(request);
    if (!child.wait_for(10000)) log::warn("the runtime's delete did not end");
  } catch (const Error& error) {
    log::warn("{}", error.message());
  }
}

}  // namespace kelp::monitor
