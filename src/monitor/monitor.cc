#include "monitor/monitor.h"

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "monitor/cleanup.h"
#include "monitor/event_log.h"
#include "monitor/root_answer.h"
#include "sys/lock.h"
#include "sys/procfs.h"
#include "sys/safe_path.h"

namespace kelp::monitor {
namespace {

using std::chrono::milliseconds;

/// Restarts wait 100 ms, 200 ms, … up to a minute; a run of ten seconds starts the count again.
constexpr unsigned kFirstBackOff = 100, kLongestBackOff = 60000;
constexpr std::chrono::seconds kHealthyRun(10);
/// A container that --timeout has killed: podman's exit code for it.
constexpr int kTimedOut = 255;

LogFile open_log(const Plan& plan) {
  if (plan.log_driver == "journald") return LogFile(Journal(plan.log_path, plan.log_fields));
  LogFormat format = LogFormat::none;
  if (plan.log_driver == "k8s-file") format = LogFormat::k8s_file;
  if (plan.log_driver == "json-file") format = LogFormat::json_file;
  return {format, plan.log_path, plan.log_max_size, plan.log_max_files};
}

Fd open_dir(const std::string& path) {
  Fd dir(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir) throw_errno("open {}", path);
  return dir;
}

}  // namespace

Monitor::Monitor(Plan plan, Fd link, Fd root, Fd network)
    : plan_(std::move(plan)),
      reaper_(loop_),
      clients_(loop_, *this),
      streams_(loop_, log_, clients_),
      run_dir_(open_dir(plan_.run_dir)),
      root_(std::move(root)),
      network_(std::move(network)),
      slirp_(loop_, reaper_, plan_, run_dir_.get()),
      notify_(loop_) {
  starter_ = clients_.adopt(std::move(link));
  slirp_.on_death([this] { network_died(); });
}
Monitor::~Monitor() = default;

int Monitor::run() {
  sys::SignalMask mask({SIGTERM, SIGURG});
  sys::SignalFd asked({SIGTERM, SIGURG});
  loop_.watch(asked.fd(), POLLIN, [&](short) {
    while (const auto signal = asked.next()) {
      if (*signal == SIGTERM)
        stop(0, plan_.stop_timeout);
      else
        publish_again();
    }
  });
  watch_caller();
  loop_.run_once(milliseconds(0));  // 1. the starter's greeting, before there is anything to tell it
  try {
    starting_ = true;
    log_ = open_log(plan_);
    await_root();
    clients_.listen(run_dir_.get());  // 2. from here on the container can be asked for
    start();                          // 3. runtime, network, state file, gate
    starting_ = false;
  } catch (const Error& error) {
    give_up_start();
    report_failure(error);
    finish();
    forget_first_start(plan_);
    return error.exit_code();
  }
  for (;;) {
    ::malloc_trim(0);   // what the start needed and a wait of days does not
    watch_container();  // 4. streams and clients until the first process ends
    record_end();       // 5. on disk before anybody is told
    streams_.drain();
    if (!wants_restart() || !back_off()) break;
    try {
      delete_from_runtime();
      ++state_.restarts;
      emit("restart");
      start();
    } catch (const Error& error) {
      log::warn("restart: {}", error.message());
      give_up_start();
      code_ = error.exit_code();
      ended_ = true;
    }
  }
  finish();  // 6. --rm, tell the exit, then clean up
  return 0;
}

/// --die-with-parent: whoever it was tied to may have ended before we look.
void Monitor::watch_caller() {
  if (plan_.caller_pid == 0) return;
  const auto end = [this] {
    stopping_ = true;
    kill_container();
  };
  try {
    caller_ = sys::pidfd_open(plan_.caller_pid);
  } catch (const SysError&) {
    return end();
  }
  if (sys::start_time(plan_.caller_pid) != static_cast<std::uint64_t>(plan_.caller_start)) return end();
  caller_watch_ = loop_.watch(caller_.get(), POLLIN, [this, end](short) {
    loop_.forget(caller_watch_);
    end();
  });
}

/// SIGURG (which older monitors ignore): the run directory has been taken away, with all that tells of us.
void Monitor::publish_again() noexcept {
  if ((!started_ && !at_gate_) || ended_) return;
  try {
    sys::mkdirs(plan_.run_dir, 0700);
    const Fd made = open_dir(plan_.run_dir);
    if (::dup3(made.get(), run_dir_.get(), O_CLOEXEC) < 0) throw_errno("open {}", plan_.run_dir);
    clients_.stop_listening(run_dir_.get());
    clients_.listen(run_dir_.get());
    write_state(plan_, state_);
  } catch (const Error& error) {
    log::warn("publish the state again: {}", error.message());
  }
}

/// Nothing else can be done before: the volumes may take long, and nobody knows of us yet.
void Monitor::await_root() {
  const std::string answer = sys::read_rest(root_.get(), "the answer of the root file system's maker");
  root_.reset();
  read_answer(answer);
}

bool Monitor::wait_for(const std::function<bool()>& condition, int limit) {
  const auto until = sys::EventLoop::Clock::now() + milliseconds(limit);
  while (!condition()) {
    check_starter();
    const auto left = std::chrono::ceil<milliseconds>(until - sys::EventLoop::Clock::now());
    if (left.count() <= 0) return false;
    loop_.run_once(left);
  }
  return true;
}

void Monitor::check_starter() const {
  if (!starting_) return;
  if (!clients_.connected(starter_)) throw_error("kelp has gone before the container was started");
  if (stopping_) throw_error("stopped before the container was started");
}

void Monitor::watch_container() {
  if (ended_ && !started_) return;
  streams_.start();
  if (plan_.timeout != 0)
    life_timer_ = loop_.after(std::chrono::seconds(plan_.timeout), [this] {
      timed_out_ = true;
      kill_container();
    });
  start_health_checks();
  if (stopping_ && !ended_) kill_container();
  while (!ended_) loop_.run_once(milliseconds(-1));
  loop_.cancel(life_timer_);
  loop_.cancel(kill_timer_);
  stop_health_checks();
}

void Monitor::record_end() {
  if (timed_out_) code_ = kTimedOut;
  pidfd_.reset();
  pid_ = 0;
  slirp_.stop();
  // Every process of the container, not only those of its pid namespace (--pid=host, a shared one).
  kill_container();
  ExitRecord exit;
  exit.code = code_;
  exit.started = state_.started;
  exit.finished = std::chrono::system_clock::now();
  exit.oom_killed = oom_kills(plan_) > oom_before_;
  exit.stopped_by_user = stopped_by_user_;
  exit.restarts = state_.restarts;
  if (exit.finished - exit.started >= kHealthyRun) back_off_ms_ = 0;
  if (exit.oom_killed) emit("oom");
  if (started_ || at_gate_) emit("died", fmt::format(",\"ContainerExitCode\":{}", code_));
  // With --rm the record would go to the trash in the next moment; clients hear the code.
  if (plan_.remove && !wants_restart()) return;
  try {
    write_exit(plan_, exit);
  } catch (const Error& error) {  // a full disk: the exit is still told
    log::warn("{}", error.message());
  }
}

bool Monitor::wants_restart() const {
  if (restart_wanted_ && !stopping_) return true;
  if (stopping_ || stopped_by_user_ || plan_.restart == "no") return false;
  if (plan_.restart == "on-failure")
    return code_ != 0 && (plan_.restart_max == 0 || state_.restarts < plan_.restart_max);
  return true;
}

bool Monitor::back_off() {
  started_ = restart_wanted_ = false;
  state_.pid = 0;
  write_state(plan_, state_);
  clients_.tell_all({.type = Msg::ended, .flags = 1, .value = static_cast<std::uint32_t>(code_)});
  mounts_.reset();
  back_off_ms_ = back_off_ms_ == 0 ? kFirstBackOff : std::min(back_off_ms_ * 2, kLongestBackOff);
  wait_for([this] { return stopping_ || stopped_by_user_; }, static_cast<int>(back_off_ms_));
  return !stopping_ && !stopped_by_user_;
}

void Monitor::report_failure(const Error& error) {
  std::string text = error.message();
  text.resize(std::min(text.size(), kMaxPayload / 2));
  text += '\0';
  text += error.hint();
  clients_.close_pipes();
  clients_.tell_all({.type = Msg::failed, .value = static_cast<std::uint32_t>(error.exit_code())},
                    std::string_view(text).substr(0, kMaxPayload));
  code_ = error.exit_code();
}

void Monitor::finish() {
  if (plan_.remove) {
    // Hooks of the runtime's delete run in the bundle, which is about to go.
    if (plan_.state_dir.empty()) delete_from_runtime();
    move_to_trash(plan_);
    emit("remove");
  } else if (started_ || at_gate_) {
    // Told before the work is done, or whoever looks at the events after the end would not find it.
    emit("cleanup");
  }
  // Not before: without state and exit record it would look like one whose exit was lost.
  remove_state(plan_);
  clients_.stop_listening(run_dir_.get());
  loop_.run_once(milliseconds(0));  // greetings of those who came at the last moment
  clients_.close_pipes();
  clients_.tell_all({.type = Msg::ended, .value = static_cast<std::uint32_t>(code_)});
  // Clients first: what follows takes some milliseconds.
  for (int i = 0; i < 100 && !clients_.flushed(); ++i) loop_.run_once(milliseconds(100));
  mounts_.reset();
  delete_from_runtime();
  // exec's processes have died with the container; their runtimes are about to say so.
  for (int i = 0; i < 20 && !execs_.empty(); ++i) loop_.run_once(milliseconds(50));
  slirp_.stop();
  clean_up(plan_);
}

void Monitor::emit(std::string_view status, std::string_view extra) const {
  append_events(plan_.events, event_line(status, plan_.event_subject, extra));
}

void Monitor::kill_container() noexcept {
  if (pidfd_ && !ended_) {
    try {
      sys::pidfd_send_signal(pidfd_.get(), SIGKILL);
    } catch (const Error&) {  // gone meanwhile
    }
  }
  if (plan_.cgroup.empty()) return;
  // Takes frozen processes too. A group that is not there yet has nothing to kill.
  const Fd file(::open((plan_.cgroup + "/container/cgroup.kill").c_str(), O_WRONLY | O_CLOEXEC));
  if (file) [[maybe_unused]]
    const auto written = ::write(file.get(), "1", 1);
}

void Monitor::network_died() {
  if (!started_ || ended_ || network_restarts_ >= 5) return;
  log::warn("slirp4netns has died; it is started again");
  loop_.after(milliseconds(100u << network_restarts_++), [this] {
    if (!started_ || ended_) return;
    try {
      slirp_.start(pid_, [this](const auto& condition, int limit) { return wait_for(condition, limit); });
    } catch (const Error& error) {
      log::warn("restart the network: {}", error.message());
    }
  });
}

}  // namespace kelp::monitor
