// exec: the container's monitor starts the runtime's exec, because it sits in the delegated group and may put a process
// into the container's. The process gets our own descriptors, or a terminal that the runtime makes inside; nothing
// is recorded and nothing is left.
#include "engine/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/follow.h"
#include "engine/monitor_client.h"
#include "engine/runtime_client.h"
#include "engine/session.h"
#include "engine/users.h"
#include "monitor/protocol.h"
#include "monitor/runtime_log.h"
#include "spec/runtime_config.h"
#include "store/containers.h"
#include "sys/capability.h"
#include "sys/event_loop.h"
#include "sys/lock.h"
#include "sys/pty.h"
#include "sys/safe_path.h"
#include "sys/signals.h"

namespace kelp::engine {
namespace {

using monitor::Msg;

// ---- the process document

Fd memory_file(const char* name) {
  Fd file(::memfd_create(name, MFD_CLOEXEC));
  if (!file) throw_errno("make a memory file");
  return file;
}

std::string contents(const Fd& file, const char* name) {
  if (::lseek(file.get(), 0, SEEK_SET) < 0) throw_errno("read {}", name);
  return sys::read_rest(file.get(), name);
}

/// The container's own view of its users, bind mounts and later changes included.
ResolvedUser find_user(Context& context, const store::ContainerRecord& record, const std::string& user) {
  const Fd passwd = memory_file("passwd"), group = memory_file("group");
  in_container(context, record, [&](int root) {
    for (const auto& [path, into] : {std::pair{"etc/passwd", &passwd}, {"etc/group", &group}}) {
      const Fd from(sys::try_open_in_root(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
      if (from) sys::write_all(into->get(), sys::read_rest(from.get(), path), path);
    }
  });
  return resolve_user(user, {}, contents(passwd, "etc/passwd"), contents(group, "etc/group"));
}

void set_variable(store::Strings& env, const std::string& line) {
  const std::string name = line.substr(0, line.find('=')) + "=";
  std::erase_if(env, [&](const std::string& other) { return starts_with(other, name); });
  env.push_back(line);
}

store::Strings all_capabilities() {
  store::Strings names;
  for (int bit = 0; bit < 64; ++bit)
    if ((sys::known_caps() >> bit & 1) != 0) names.push_back(sys::capability_name(bit));
  return names;
}

void choose_capabilities(spec::Process& process, const ExecRequest& request) {
  if (request.user.empty() && !request.privileged) return;
  if (!process.capabilities) process.capabilities.emplace();
  auto& caps = *process.capabilities;
  if (request.privileged) caps.bounding = all_capabilities();
  const bool root = process.user.uid == 0;
  caps.effective = caps.permitted = root ? caps.bounding : store::Strings{};
  caps.inheritable.clear();
  caps.ambient.clear();
}

std::string make_process(Context& context, const store::ContainerRecord& record, const ExecRequest& request) {
  const std::string path = context.layout.container(record.id) + "/config.json";
  const auto text = sys::read_small_file(path, 64u << 20);
  if (!text) throw_error("{} is missing", path);
  spec::RuntimeConfig config = spec::parse_runtime_config(*text);
  if (!config.process) throw_error("{} has no process", path);
  spec::Process process = std::move(*config.process);
  process.args = request.command;
  process.terminal = request.tty;
  process.console_size.reset();
  if (request.tty) {
    if (const auto size = sys::window_size(0); size && size->rows != 0)
      process.console_size = spec::Box{size->rows, size->columns};
    if (std::none_of(process.env.begin(), process.env.end(), [](const auto& e) { return starts_with(e, "TERM="); }))
      process.env.push_back("TERM=xterm");
  }
  if (!request.user.empty()) {
    ResolvedUser user;
    try {
      user = find_user(context, record, request.user);
    } catch (const Error& error) {
      throw Error(error.message(), kExitNoExec).with_hint(error.hint());
    }
    if (record.map_key != "single") {  // where there is one id, it is that of the container
      process.user.uid = user.uid;
      process.user.gid = user.gid;
      process.user.additional_gids = user.groups;
    }
    set_variable(process.env, "HOME=" + user.home);
  }
  for (const auto& line : request.env) set_variable(process.env, line);
  if (!request.workdir.empty()) process.cwd = request.workdir;
  choose_capabilities(process, request);
  return spec::print_process(process);
}

// ---- copying between two descriptors, without waiting for either

/// From one descriptor to another through one buffer: reads only when everything has been written.
class Copier {
 public:
  Copier(sys::EventLoop& loop, int from, int to, std::function<void()> ended)
      : loop_(loop), from_(from), to_(to), ended_(std::move(ended)) {
    watch_ = loop_.watch(from_, POLLIN, [this](short) { read(); });
  }
  ~Copier() {
    loop_.forget(watch_);
    loop_.forget(write_watch_);
  }
  Copier(const Copier&) = delete;
  Copier& operator=(const Copier&) = delete;
  void filter(DetachKeys* keys, std::function<void()> detached) {
    keys_ = keys;
    detached_ = std::move(detached);
  }
  /// What is there now, without waiting for more.
  void drain() {
    pollfd ready{from_, POLLIN, 0};
    while (watch_ != 0 && ::poll(&ready, 1, 0) == 1) {
      read();
      while (!pending_.empty()) loop_.run_once(std::chrono::milliseconds(-1));
    }
  }

 private:
  void read() {
    if (!pending_.empty()) return;
    char buffer[16384];
    const ssize_t count = ::read(from_, buffer, sizeof buffer);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (count <= 0) {
      loop_.forget(std::exchange(watch_, 0));
      if (ended_) ended_();
      return;
    }
    const std::string_view bytes(buffer, static_cast<size_t>(count));
    const bool detach = keys_ != nullptr ? keys_->feed(bytes, pending_) : (pending_ = bytes, false);
    write();
    if (detach) detached_();
  }
  void write() {
    while (!pending_.empty()) {
      pollfd ready{to_, POLLOUT, 0};
      if (::poll(&ready, 1, 0) == 0) break;
      const ssize_t count = ::write(to_, pending_.data(), std::min<size_t>(pending_.size(), 4096));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN) break;
      if (count < 0) {
        pending_.clear();
        break;
      }
      pending_.erase(0, static_cast<size_t>(count));
    }
    if (pending_.empty()) {
      loop_.forget(std::exchange(write_watch_, 0));
      if (watch_ != 0) loop_.change(watch_, POLLIN);
    } else if (write_watch_ == 0) {
      write_watch_ = loop_.watch(to_, POLLOUT, [this](short) { write(); });
      loop_.change(watch_, -1);
    }
  }

  sys::EventLoop& loop_;
  int from_, to_, watch_ = 0, write_watch_ = 0;
  std::string pending_;
  std::function<void()> ended_, detached_;
  DetachKeys* keys_ = nullptr;
};

// ---- one exec

class Exec {
 public:
  Exec(MonitorLink link, const ExecRequest& request, const sys::SignalFd& signals)
      : link_(std::move(link)), request_(request), signals_(signals), keys_(parse_detach_keys(request.detach_keys)) {
    passed_ = request.preserve_fds;
    for (const int fd : request.preserved) passed_ = std::max(passed_, static_cast<unsigned>(fd - 2));
  }
  int run(Context& context, const store::ContainerRecord& record, const Fd& process);

 private:
  void add(int number, int fd);
  int stream(int number, bool reads);
  int add_next(int fd);
  void pass_streams(Context& context, const store::ContainerRecord& record);
  void pass_detached(Context& context);
  bool has_started();
  void send(const store::ContainerRecord& record);
  void read_link();
  void handle_signals();
  void attach_terminal(Fd master);

  MonitorLink link_;
  const ExecRequest& request_;
  const sys::SignalFd& signals_;
  DetachKeys keys_;
  sys::EventLoop loop_;
  monitor::Records records_;
  std::vector<int> fds_;
  std::vector<Fd> owned_;
  Fd master_, null_;
  sys::RawMode* raw_ = nullptr;
  std::vector<std::unique_ptr<Copier>> inputs_, outputs_;
  std::optional<int> code_;
  unsigned passed_ = 0;  ///< descriptors that the process gets, from 3 on
  int next_number_ = 0;  ///< of the runtime's descriptors: those behind the process'
  Fd dir_;               ///< where the console's socket stands
  std::optional<sys::ConsoleSocket> console_;
  store::Strings global_arguments_, arguments_;
  std::optional<monitor::RuntimeLog> log_;
  Fd started_;  ///< of a detached process with a terminal: gets a byte when its command runs
  int started_watch_ = 0;
  bool detached_ = false;
};

void Exec::add(int number, int fd) {
  records_.add("fd", std::to_string(number));
  fds_.push_back(fd);
}

/// Our own descriptor, but never our terminal: whoever holds that can set its modes and read what is typed. A pipe
/// stands between then.
int Exec::stream(int number, bool reads) {
  if (::isatty(number) != 1) return number;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  Fd ours(ends[reads ? 1 : 0]);
  owned_.emplace_back(ends[reads ? 0 : 1]);
  const int far = owned_.back().get();
  const int from = reads ? number : ours.get(), to = reads ? ours.get() : number;
  auto holder = std::make_shared<Fd>(std::move(ours));
  auto copier = std::make_unique<Copier>(loop_, from, to, [holder] { holder->reset(); });
  (reads ? inputs_ : outputs_).push_back(std::move(copier));
  return far;
}

bool Exec::has_started() {
  pollfd ready{started_.get(), POLLIN, 0};
  char byte = 0;
  return started_ && ::poll(&ready, 1, 0) == 1 && ::read(started_.get(), &byte, 1) == 1;
}

/// For the runtime alone. Returns its number there.
int Exec::add_next(int fd) {
  add(next_number_, fd);
  return next_number_++;
}

std::string fd_path(int number) { return fmt::format("/proc/self/fd/{}", number); }

void Exec::send(const store::ContainerRecord& record) {
  for (const auto& argument : global_arguments_) records_.add("arg", argument);
  records_.add("arg", "exec");
  records_.add("arg", "--process");
  records_.add("arg", fd_path(3 + static_cast<int>(passed_)));
  for (const auto& argument : arguments_) records_.add("arg", argument);
  if (passed_ != 0) {
    records_.add("arg", "--preserve-fds");
    records_.add("arg", std::to_string(passed_));
  }
  records_.add("arg", record.id);
  records_.add("id", request_.id);
  if (monitor::send_frame(link_.socket.get(), {.type = Msg::exec}, records_.text(), fds_, true) != monitor::Sent::yes)
    throw_error("container {} has ended meanwhile", record.name);
}

void Exec::read_link() {
  monitor::Frame frame;
  const auto received = monitor::receive_frame(link_.socket.get(), frame, false);
  if (received == monitor::Received::nothing) return;
  if (received == monitor::Received::gone) {
    if (!code_) code_ = 137;  // the monitor has gone, so the container was killed
  } else if (frame.header.type == Msg::exec_ended) {
    code_ = has_started() ? 0 : static_cast<int>(frame.header.value);
  } else if (frame.header.type == Msg::failed) {
    throw Error(std::string(frame.payload), static_cast<int>(frame.header.value));
  }
  if (code_) loop_.stop();
}

void Exec::handle_signals() {
  while (const auto signal = signals_.next()) {
    if (*signal == SIGWINCH) {
      if (const auto size = master_ ? sys::window_size(0) : std::nullopt) sys::set_window_size(master_.get(), *size);
      continue;
    }
    if (*signal == SIGTSTP) raw_->stop_process();
    if (*signal == SIGCONT) raw_->renew();
    if (*signal == SIGTSTP || *signal == SIGCONT) continue;
    monitor::send_frame(link_.socket.get(), {.type = Msg::signal, .value = static_cast<std::uint32_t>(*signal)}, {}, {},
                        true);
  }
}

void Exec::attach_terminal(Fd master) {
  master_ = std::move(master);
  if (const auto size = sys::window_size(0); size && size->rows != 0) sys::set_window_size(master_.get(), *size);
  outputs_.push_back(std::make_unique<Copier>(loop_, master_.get(), 1, nullptr));
  if (!request_.interactive) return;
  auto typed = std::make_unique<Copier>(loop_, 0, master_.get(), nullptr);
  if (::isatty(0) == 1)
    typed->filter(&keys_, [this] {
      detached_ = true;
      loop_.stop();
    });
  inputs_.push_back(std::move(typed));
}

/// Nobody looks at what it reads and writes, and its errors before the command runs come to us through a log. A
/// terminal is kept open by the runtime, which then stays, as the monitor's child, for as long as the process.
void Exec::pass_detached(Context& context) {
  log_.emplace();
  global_arguments_ = {"--log", fd_path(add_next(log_->fd())), "--log-format", "json"};
  for (const int fd : {1, 2}) add(fd, null_.get());
  if (!request_.tty) {
    add(0, null_.get());
    arguments_ = {"--detach"};
  } else if (!is_own_runtime(context)) {
    throw Error("a detached process with a terminal needs kelp-oci as the container's runtime")
        .with_hint("leave out --tty, or --detach");
  } else {
    owned_.emplace_back(::eventfd(0, EFD_CLOEXEC));  // an input in which nothing ever comes, nor an end
    add(0, owned_.back().get());
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
    started_ = Fd(ends[0]);
    owned_.emplace_back(ends[1]);
    arguments_ = {"--started-fd", std::to_string(add_next(ends[1]))};
    started_watch_ = loop_.watch(started_.get(), POLLIN, [this](short) {
      if (has_started()) {
        code_ = 0;
        loop_.stop();
      }
      loop_.forget(std::exchange(started_watch_, 0));
    });
  }
}

/// Our own descriptors, or a terminal.
void Exec::pass_streams(Context& context, const store::ContainerRecord& record) {
  if (!request_.tty) {
    add(0, request_.interactive ? stream(0, true) : null_.get());
    add(1, stream(1, false));
    add(2, stream(2, false));
  } else if (is_own_runtime(context)) {
    // kelp-oci sends the terminal to a socket while it waits; others do so only when they detach, and otherwise want a
    // terminal of ours to work on.
    dir_ = Fd(::open(context.layout.run_of(record.id).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!dir_) throw_errno("open {}", context.layout.run_of(record.id));
    const std::string name = fmt::format("exec-{}.sock", ::getpid());
    console_.emplace(dir_.get(), name);
    arguments_ = {"--tty", "--console-socket", fd_path(add_next(dir_.get())) + "/" + name};
    add(0, null_.get());
    add(1, null_.get());
    add(2, 2);  // for the runtime's own complaints
    loop_.watch(console_->fd(), POLLIN, [this](short) {
      if (!master_) attach_terminal(console_->receive(5000));
    });
  } else {
    sys::Pty pty = sys::open_pty();
    for (const int fd : {0, 1, 2}) add(fd, pty.slave.get());
    owned_.push_back(std::move(pty.slave));
    attach_terminal(std::move(pty.master));
  }
}

int Exec::run(Context& context, const store::ContainerRecord& record, const Fd& process) {
  next_number_ = 3 + static_cast<int>(passed_);
  null_ = Fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int fd = 3; fd < next_number_; ++fd) {
    const bool wanted = fd < 3 + static_cast<int>(request_.preserve_fds) ||
                        std::find(request_.preserved.begin(), request_.preserved.end(), fd) != request_.preserved.end();
    add(fd, wanted ? fd : null_.get());
  }
  add_next(process.get());
  if (request_.detach)
    pass_detached(context);
  else
    pass_streams(context, record);
  send(record);
  owned_.clear();
  loop_.watch(link_.socket.get(), POLLIN, [this](short) { read_link(); });
  loop_.watch(signals_.fd(), POLLIN, [this](short) { handle_signals(); });
  sys::RawMode raw(request_.tty && request_.interactive && !request_.detach ? 0 : -1);
  raw_ = &raw;
  loop_.run();
  if (detached_) return 0;
  inputs_.clear();
  for (const auto& output : outputs_) output->drain();
  if (request_.detach && *code_ != 0) {
    const monitor::RuntimeWords words = log_->read();
    throw Error(words.error.empty() ? fmt::format("the runtime ended with {}", *code_) : words.error,
                is_own_runtime(context) ? *code_ : monitor::exit_code_of_words(words.error))
        .with_hint(words.hint);
  }
  return *code_;
}

}  // namespace

int exec_in_container(Context& context, const store::ContainerRecord& record, const ExecRequest& request) {
  store::refuse_newer_state(context.layout, record.id);
  const auto status = store::status(context.layout, record);
  if (status.status == store::Status::paused) throw_usage("container {} is paused: unpause it first", record.name);
  if (status.status != store::Status::running)
    throw Error(fmt::format("can only create exec sessions on running containers: container state improper ({} is {})",
                            record.name, store::status_name(status.status)),
                kExitNoExec);
  const Fd process = memory_file("process");
  sys::write_all(process.get(), make_process(context, record, request), "the process document");
  if (::lseek(process.get(), 0, SEEK_SET) < 0) throw_errno("rewind the process document");

  const sys::SignalMask mask(followed_signals());
  const sys::SignalFd signals(followed_signals());
  auto link = connect_monitor(context, record.id);
  if (!link) throw_error("the monitor of container {} cannot be reached", record.name);
  // The monitor publishes its own state again (recover.h), but what the runtime knew is lost.
  if (::access(context.layout.runtime_root().c_str(), F_OK) < 0)
    throw Error(fmt::format("the run directory {} was deleted while container {} ran: nothing can be executed in it",
                            context.layout.run, record.name))
        .with_hint(fmt::format("kelp restart {}", record.name));
  return Exec(std::move(*link), request, signals).run(context, record, process);
}

}  // namespace kelp::engine
