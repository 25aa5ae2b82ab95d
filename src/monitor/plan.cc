#include "monitor/plan.h"

#include <limits>

#include "base/error.h"
#include "base/text.h"

namespace kelp::monitor {
namespace {

/// The part that apply_change takes.
template <typename PlanRef, typename Io>
void visit_changeable(PlanRef& plan, Io&& io) {
  io("restart", plan.restart);
  io("restart_max", plan.restart_max);
  io("health_exec", plan.health.exec);
  io("health_interval", plan.health.interval_ms);
  io("health_timeout", plan.health.timeout_ms);
  io("health_start_period", plan.health.start_period_ms);
  io("health_retries", plan.health.retries);
  io("startup_exec", plan.health.startup.exec);
  io("startup_interval", plan.health.startup.interval_ms);
  io("startup_timeout", plan.health.startup.timeout_ms);
  io("startup_success", plan.health.startup_success);
  io("startup_retries", plan.health.startup_retries);
  io("health_on_failure", plan.health.on_failure);
  io("health_file", plan.health.file);
  io("health_log_copy", plan.health.log_copy);
  io("health_log_count", plan.health.log_count);
  io("health_log_size", plan.health.log_size);
}

/// One visitor for both directions: `io` is called with key and field, in the order of the text.
template <typename PlanRef, typename Io>
void visit(PlanRef& plan, Io&& io) {
  io("id", plan.id);
  io("name", plan.name);
  io("bundle", plan.bundle);
  io("run_dir", plan.run_dir);
  io("exit_file", plan.exit_file);
  io("merged", plan.merged);
  io("mount", plan.mounts);
  io("hold_mounts", plan.hold_mounts);
  io("boot", plan.boot);
  io("cgroup", plan.cgroup);
  io("cgroup_leaf", plan.cgroup_leaf);
  io("pid_file", plan.pid_file);
  io("runtime", plan.runtime);
  io("create_arg", plan.create_args);
  io("own_runtime", plan.own_runtime);
  io("state_dir", plan.state_dir);
  io("slirp", plan.slirp);
  io("forward", plan.forwards);
  io("log_driver", plan.log_driver);
  io("log_path", plan.log_path);
  io("log_fields", plan.log_fields);
  io("log_max_size", plan.log_max_size);
  io("log_max_files", plan.log_max_files);
  io("tty", plan.tty);
  io("interactive", plan.interactive);
  io("preserve_fds", plan.preserve_fds);
  io("rows", plan.rows);
  io("columns", plan.columns);
  io("events", plan.events);
  io("event_subject", plan.event_subject);
  io("event_attach", plan.event_attach);
  io("stay_at_gate", plan.stay_at_gate);
  io("notify_socket", plan.notify_socket);
  io("notify", plan.notify);
  io("monitor_pid_file", plan.monitor_pid_file);
  visit_changeable(plan, io);
  io("stop_signal", plan.stop_signal);
  io("stop_timeout", plan.stop_timeout);
  io("timeout", plan.timeout);
  io("caller_pid", plan.caller_pid);
  io("caller_start", plan.caller_start);
  io("remove", plan.remove);
  io("names_dir", plan.names_dir);
  io("trash_dir", plan.trash_dir);
  io("containers_dir", plan.containers_dir);
  io("volumes_dir", plan.volumes_dir);
  io("lock_path", plan.lock_path);
  io("anonymous_volume", plan.anonymous_volumes);
}

struct Encoder {
  Records& out;
  void operator()(const char* key, const std::string& value) const {
    if (!value.empty()) out.add(key, value);
  }
  void operator()(const char* key, const std::vector<std::string>& values) const { out.add_all(key, values); }
  void operator()(const char* key, const std::vector<std::pair<std::string, std::string>>& values) const {
    for (const auto& [words, request] : values) out.add(key, words + "\t" + request);
  }
  void operator()(const char* key, bool value) const { out.add(key, value ? "1" : "0"); }
  void operator()(const char* key, int value) const { out.add(key, std::to_string(value)); }
  void operator()(const char* key, unsigned value) const { out.add(key, std::to_string(value)); }
  void operator()(const char* key, std::int64_t value) const { out.add(key, std::to_string(value)); }
};

struct Decoder {
  const std::string &key, &value;
  bool& known;

  template <typename Int>
  void number(const char* name, Int& field) const {
    if (key != name) return;
    known = true;
    const auto parsed = to_int(value, static_cast<std::int64_t>(std::numeric_limits<Int>::min()),
                               static_cast<std::int64_t>(std::numeric_limits<Int>::max()));
    if (!parsed) throw_error("plan: {} is no number: {}", key, quoted(value));
    field = static_cast<Int>(*parsed);
  }
  void operator()(const char* name, std::string& field) const {
    if (key == name) known = true, field = value;
  }
  void operator()(const char* name, std::vector<std::string>& field) const {
    if (key == name) known = true, field.push_back(value);
  }
  void operator()(const char* name, std::vector<std::pair<std::string, std::string>>& field) const {
    if (key != name) return;
    known = true;
    const auto tab = value.find('\t');
    if (tab == std::string::npos) throw_error("plan: {} has no tab: {}", key, quoted(value));
    field.emplace_back(value.substr(0, tab), value.substr(tab + 1));
  }
  void operator()(const char* name, bool& field) const {
    if (key == name) known = true, field = value == "1";
  }
  void operator()(const char* name, int& field) const { number(name, field); }
  void operator()(const char* name, unsigned& field) const { number(name, field); }
  void operator()(const char* name, std::int64_t& field) const { number(name, field); }
};

}  // namespace

void Records::add(std::string_view key, std::string_view value) {
  if (value.find('\0') != std::string_view::npos) throw_error("plan: the value of {} holds a NUL byte", key);
  text_.append(key).append(1, '=').append(value).append(1, '\0');
}

RecordList parse_records(std::string_view text) {
  RecordList list;
  while (!text.empty()) {
    const auto end = text.find('\0');
    const auto equals = text.find('=');
    if (end == std::string_view::npos) throw_error("plan: unfinished record {}", quoted(text));
    if (equals == std::string_view::npos || equals > end)
      throw_error("plan: no '=' in {}", quoted(text.substr(0, end)));
    list.emplace_back(text.substr(0, equals), text.substr(equals + 1, end - equals - 1));
    text.remove_prefix(end + 1);
  }
  return list;
}

std::string encode(const Plan& plan) {
  Records out;
  out.add("version", std::to_string(Plan::kVersion));
  visit(plan, Encoder{out});
  return out.text();
}

std::string encode_change(const Plan& plan) {
  Records out;
  visit_changeable(plan, Encoder{out});
  return out.text();
}

void apply_change(Plan& plan, std::string_view text) {
  Plan changed = plan;
  const Plan fresh;
  changed.restart = fresh.restart;
  changed.health = fresh.health;
  for (const auto& [key, value] : parse_records(text)) {
    bool known = false;
    visit_changeable(changed, Decoder{key, value, known});
    if (!known) throw_error("plan: {} cannot be changed", quoted(key));
  }
  plan = std::move(changed);
}

Plan decode(std::string_view text) {
  const RecordList list = parse_records(text);
  if (list.empty() || list.front().first != "version") throw_error("plan: the version is missing");
  const auto version = to_int(list.front().second, 1);
  if (!version || *version > Plan::kVersion)
    throw Error(fmt::format("plan: version {} is newer than this monitor ({})", list.front().second, Plan::kVersion))
        .with_hint("kelp and kelp-monitor come from different installations: install both again");
  Plan plan;
  for (size_t i = 1; i < list.size(); ++i) {
    bool known = false;
    visit(plan, Decoder{list[i].first, list[i].second, known});
    if (!known) throw_error("plan: unknown key {}", quoted(list[i].first));
  }
  for (const auto& [name, value] : {std::pair{"id", &plan.id}, {"bundle", &plan.bundle}, {"run_dir", &plan.run_dir}})
    if (value->empty()) throw_error("plan: {} is missing", name);
  if (plan.runtime.empty()) throw_error("plan: runtime is missing");
  return plan;
}

}  // namespace kelp::monitor
