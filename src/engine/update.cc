#include "engine/update.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "cgroup/limits.h"
#include "engine/context.h"
#include "engine/health.h"
#include "engine/make_spec.h"
#include "engine/monitor_client.h"
#include "engine/prepare.h"
#include "monitor/protocol.h"
#include "spec/runtime_config.h"
#include "store/containers.h"
#include "sys/lock.h"

namespace kelp::engine {
namespace {

constexpr std::uint32_t kVersionOfUpdate = 3;

bool lives(const store::ContainerStatus& status) {
  return status.run && status.run->pid != 0 && store::can_be_entered(status.status);
}

/// Groups of limits of which none was asked for are left out, so that only what changes is written.
spec::Resources changes_of(const store::ContainerConfig& merged, const store::Resources& asked) {
  spec::Resources all = make_resources(merged, true, false);
  if (!asked.memory && !asked.memory_swap && !asked.memory_reservation && !asked.memory_swappiness) all.memory.reset();
  if (!asked.cpus && !asked.cpu_shares && !asked.cpu_quota && !asked.cpu_period && !asked.cpu_rt_period &&
      !asked.cpu_rt_runtime && !asked.cpuset_cpus && !asked.cpuset_mems)
    all.cpu.reset();
  if (!asked.pids_limit) all.pids_limit.reset();
  if (!asked.blkio_weight && asked.blkio_weight_device.empty() && asked.device_read_bps.empty() &&
      asked.device_write_bps.empty() && asked.device_read_iops.empty() && asked.device_write_iops.empty())
    all.block_io.reset();
  // Zero is "no limit" for those who type it; to the runtime it would mean "leave it".
  if (all.memory && asked.memory == 0) all.memory->limit = all.memory->swap = -1;
  if (all.cpu && asked.cpus && *asked.cpus == 0) {
    all.cpu->quota = -1;
    all.cpu->period = 100'000;
  }
  all.unified.clear();
  return all;
}

void apply_limits(const store::ContainerRecord& record, const store::ContainerStatus& status,
                  const store::ContainerConfig& merged, const store::Resources& asked) {
  const spec::Resources changes = changes_of(merged, asked);
  if (cgroup::plan_limits(changes).empty()) return;
  if (status.run->cgroup.empty())
    throw Error(fmt::format("container {} has no cgroup, so its limits cannot be changed", record.name))
        .with_hint("`kelp info` says why: with cgroup v2 and delegation it gets one at its next start");
  const std::string leaf = cgroup::v2_mount() + status.run->cgroup;
  cgroup::apply_limits(leaf, changes);
  cgroup::share_weights(leaf.substr(0, leaf.rfind('/')), changes);
}

void merge_health(store::ContainerRecord& record, const UpdateRequest& request) {
  if (!request.changes_health()) return;
  if (!record.config.health) record.config.health.emplace();
  auto& check = *record.config.health;
  if (request.health_test) check.test = *request.health_test;
  if (request.health_interval) check.interval = *request.health_interval;
  if (request.health_timeout) check.timeout = *request.health_timeout;
  if (request.health_start_period) check.start_period = *request.health_start_period;
  if (request.health_retries) check.retries = *request.health_retries;
  if (request.health_startup_test) check.startup_test = *request.health_startup_test;
  if (request.health_startup_interval) check.startup_interval = *request.health_startup_interval;
  if (request.health_startup_timeout) check.startup_timeout = *request.health_startup_timeout;
  if (request.health_startup_success) check.startup_success = *request.health_startup_success;
  if (request.health_startup_retries) check.startup_retries = *request.health_startup_retries;
  if (request.health_on_failure) check.on_failure = *request.health_on_failure;
  if (request.health_log_destination) check.log_destination = *request.health_log_destination;
  if (request.health_log_count) check.max_log_count = *request.health_log_count;
  if (request.health_log_size) check.max_log_size = *request.health_log_size;
}

/// What exec and the health check take from config.json.
void rewrite_process(Context& context, const store::ContainerRecord& record, const UpdateRequest& request) {
  if (request.env.empty() && request.unset_env.empty() && request.ulimits.empty()) return;
  const std::string path = context.layout.container(record.id) + "/config.json";
  const auto text = sys::read_small_file(path, 64u << 20);
  if (!text) return;  // never started: the first start writes it
  spec::RuntimeConfig config = spec::parse_runtime_config(*text);
  if (!config.process) return;
  auto& env = config.process->env;
  const auto remove = [&](const std::string& name) {
    std::erase_if(env, [&](const std::string& line) { return starts_with(line, name + "="); });
  };
  for (const auto& name : request.unset_env) remove(name);
  for (const auto& [name, value] : request.env) {
    remove(name);
    env.push_back(name + "=" + value);
  }
  for (const auto& limit : request.ulimits) {
    std::string type = "RLIMIT_";
    for (const char letter : limit.name) type += static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
    auto& list = config.process->rlimits;
    std::erase_if(list, [&](const auto& other) { return other.type == type; });
    list.push_back(
        {type, static_cast<std::uint64_t>(limit.hard), static_cast<std::uint64_t>(limit.soft)});  // -1: all bits
  }
  sys::replace_file(path, spec::print_runtime_config(config));
}

void tell_monitor(Context& context, const store::ContainerRecord& record) {
  auto link = connect_monitor(context, record.id);
  if (!link) return;  // it has just ended: the record holds
  if (link->version < kVersionOfUpdate)
    throw Error(fmt::format("container {} was started by an older kelp, whose monitor takes no changes", record.name))
        .with_hint(fmt::format("the change holds from the next start on: `kelp restart {}`", record.name));
  monitor::Plan plan;
  plan.restart = record.config.restart_policy.empty() ? "no" : record.config.restart_policy;
  plan.restart_max = record.config.restart_max;
  plan.run_dir = context.layout.run_of(record.id);
  plan.id = record.id;
  const std::string bundle = context.layout.container(record.id);
  const auto config = sys::read_small_file(bundle + "/config.json", 64u << 20);
  if (!config) throw_error("{}/config.json is missing", bundle);
  plan_health_check(record, bundle, *config, plan);
  monitor::send_frame(link->socket.get(), {.type = monitor::Msg::update}, monitor::encode_change(plan), {}, true);
  monitor::Frame frame;
  if (monitor::receive_frame(link->socket.get(), frame, true) != monitor::Received::frame) return;
  if (frame.header.type == monitor::Msg::failed) throw_error("{}", std::string(frame.payload));
}

}  // namespace

store::Resources merge_limits(const store::Resources& old, const store::Resources& changed) {
  store::Resources merged = old;
  const auto take = [](auto& into, const auto& from) {
    if (from) into = from;
  };
  if (changed.cpus) {
    merged.cpu_quota.reset();
    merged.cpu_period.reset();
  }
  if ((changed.cpu_quota || changed.cpu_period) && merged.cpus && !changed.cpus) {
    merged.cpu_period = 100'000;
    merged.cpu_quota = std::llround(*merged.cpus * 100'000);
    merged.cpus.reset();
  }
  take(merged.memory, changed.memory);
  take(merged.memory_swap, changed.memory_swap);
  take(merged.memory_reservation, changed.memory_reservation);
  take(merged.memory_swappiness, changed.memory_swappiness);
  take(merged.cpus, changed.cpus);
  take(merged.cpu_shares, changed.cpu_shares);
  take(merged.cpu_quota, changed.cpu_quota);
  take(merged.cpu_period, changed.cpu_period);
  take(merged.cpu_rt_period, changed.cpu_rt_period);
  take(merged.cpu_rt_runtime, changed.cpu_rt_runtime);
  take(merged.cpuset_cpus, changed.cpuset_cpus);
  take(merged.cpuset_mems, changed.cpuset_mems);
  take(merged.pids_limit, changed.pids_limit);
  take(merged.blkio_weight, changed.blkio_weight);
  const auto take_list = [](store::Strings& into, const store::Strings& from) {
    if (!from.empty()) into = from;
  };
  take_list(merged.blkio_weight_device, changed.blkio_weight_device);
  take_list(merged.device_read_bps, changed.device_read_bps);
  take_list(merged.device_write_bps, changed.device_write_bps);
  take_list(merged.device_read_iops, changed.device_read_iops);
  take_list(merged.device_write_iops, changed.device_write_iops);
  return merged;
}

void update_container(Context& context, const store::ContainerRecord& old, const UpdateRequest& request) {
  store::refuse_newer_state(context.layout, old.id);
  store::ContainerRecord record = old;
  auto& config = record.config;
  config.resources = merge_limits(old.config.resources, request.limits);
  if (request.restart_policy) {
    if (config.remove && *request.restart_policy != "no")
      throw_usage("--restart: container {} is removed when it ends (--rm), so it cannot be started again", old.name);
    config.restart_policy = *request.restart_policy;
    config.restart_max = request.restart_max;
  }
  for (const auto& name : request.unset_env) {
    config.env.erase(name);
    config.unset_env.push_back(name);
  }
  for (const auto& [name, value] : request.env) config.env[name] = value;
  if (!request.ulimits.empty()) config.ulimits = request.ulimits;
  merge_health(record, request);
  make_resources(config, true, false);  // complains of values that cannot be
  const auto status = store::status(context.layout, record);
  if (lives(status))
    apply_limits(record, status, config, request.limits);
  else
    check_limits(context, config);
  rewrite_process(context, record, request);
  store::update(context.layout, record);
  if ((request.restart_policy || request.changes_health()) && status.run) tell_monitor(context, record);
}

}  // namespace kelp::engine
