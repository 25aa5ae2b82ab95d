#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/owned.h"
#include "monitor/clients.h"
#include "monitor/log_file.h"
#include "monitor/notify.h"
#include "monitor/plan.h"
#include "monitor/reaper.h"
#include "monitor/records.h"
#include "monitor/runtime_log.h"
#include "monitor/slirp.h"
#include "monitor/streams.h"
#include "sys/event_loop.h"
#include "sys/spawn.h"

namespace kelp::monitor {

/// One container from its start to its removal; the story is run() (monitor.cc).
class Monitor final : private Control {
 public:
  /// link: connection of the kelp that started us; root: where the answer of the root file system's maker comes;
  /// network: what the first runtime gets as --network-fd, or nothing
  Monitor(Plan plan, Fd link, Fd root, Fd network);
  ~Monitor() override;
  /// Returns when nothing of the container is left but its record (with --rm not even that).
  int run();

 private:
  // start.cc: from the plan to a running container
  void start();
  sys::SpawnRequest runtime_request(std::vector<std::string> arguments, const RuntimeLog& log) const;
  void pass_preserved(sys::SpawnRequest& request) const;
  int run_runtime(const sys::SpawnRequest& request);
  pid_t create_with_own_runtime(const RuntimeLog& log);
  pid_t create_with_foreign_runtime(const RuntimeLog& log);
  bool wait_at_gate();
  void open_gate(const RuntimeLog& log);
  [[noreturn]] void runtime_failed(const RuntimeLog& log, const char* doing, int code);
  void give_up_start() noexcept;
  void delete_from_runtime() noexcept;

  // monitor.cc
  void await_root();
  bool wait_for(const std::function<bool()>& condition, int milliseconds);
  void check_starter() const;
  void watch_container();
  void record_end();
  [[nodiscard]] bool wants_restart() const;
  bool back_off();
  void report_failure(const Error& error);
  void finish();
  void kill_container() noexcept;
  void watch_caller();
  void publish_again() noexcept;
  void network_died();

  void emit(std::string_view status, std::string_view extra = {}) const;

  // health.cc
  void begin_health();         ///< "starting" on disk, before anybody can see the container running
  void start_health_checks();  ///< the first probe is due one interval from now
  void stop_health_checks();
  [[nodiscard]] const ProbePlan& probe() const;
  void schedule_probe();
  void run_probe();
  void read_probe();
  void probe_ended(int code);
  void judge_probe(bool good);
  void act_on_bad_health();
  void write_health() const;
  void health_check(int client) override;

  // Control: what clients ask for (requests.cc)
  void input(int client, std::string_view bytes) override { streams_.input(client, bytes); }
  void end_input() override { streams_.end_input(); }
  void resize(unsigned rows, unsigned columns) override { streams_.resize(rows, columns); }
  void signal(int client, int number) override;
  void stop(int number, unsigned seconds) override;
  void user_stop() override { stopped_by_user_ = true; }
  void exec(int client, Frame& frame) override;
  void update(int client, std::string_view change) override;
  void rename(int client, std::string_view name) override;
  void go() override { go_ = true; }
  void client_gone(int client) override;
  [[nodiscard]] int running_pid() const override { return started_ ? pid_ : 0; }

  Plan plan_;  ///< only update() and rename() change it
  sys::EventLoop loop_;
  Reaper reaper_;
  LogFile log_;
  Clients clients_;
  Streams streams_;
  Fd run_dir_, root_, network_;
  Fd caller_;  ///< pidfd, with --die-with-parent
  int caller_watch_ = 0;
  Slirp slirp_;
  int starter_ = 0;        ///< client id of the link
  bool starting_ = false;  ///< the first start: it is undone when kelp dies before the gate is open

  // the runtime while it starts a container
  Fd gate_;
  int runtime_pid_ = 0, runtime_code_ = -1;
  bool in_runtime_ = false;  ///< the runtime may know the container: delete is due

  // the container process
  pid_t pid_ = 0;
  Fd pidfd_;
  Fd mounts_;  ///< hold_mounts: the mount namespace
  bool started_ = false, ended_ = false, timed_out_ = false;
  bool at_gate_ = false, go_ = false;  ///< stay_at_gate: it waits there, or has ended so; somebody has asked to go on
  int code_ = 0;
  StateRecord state_;
  std::uint64_t oom_before_ = 0;

  bool stopped_by_user_ = false, stopping_ = false;
  int kill_timer_ = 0, life_timer_ = 0, network_restarts_ = 0;
  unsigned back_off_ms_ = 0;

  struct Exec {
    int client;
    pid_t pid;
  };
  std::vector<Exec> execs_;

  bool restart_wanted_ = false;  ///< health has asked for it, whatever the policy says

  struct Probe {
    std::chrono::system_clock::time_point begun, ended;
    int code = 0;
    std::string output;
  };
  struct Health {
    int timer = 0, kill_timer = 0, watch = 0, failures = 0;
    int startup_left = 0, startup_failures = 0;  ///< successes that the start-up check still needs
    pid_t pid = 0;
    bool timed_out = false;
    std::string status;
    Fd output;
    Probe now;
    std::deque<Probe> log;
    std::vector<int> askers;  ///< clients that wait for the result
  } health_;

  Notify notify_;
};

}  // namespace kelp::monitor
