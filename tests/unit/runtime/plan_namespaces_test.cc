#include "runtime/plan_namespaces.h"

#include <doctest/doctest.h>
#include <sched.h>

#include "base/error.h"

using namespace kelp;
using namespace kelp::runtime;

namespace {

spec::RuntimeConfig config_with(std::vector<spec::Namespace> namespaces) {
  spec::RuntimeConfig config;
  config.linux_.namespaces = std::move(namespaces);
  return config;
}

}  // namespace

TEST_CASE("new namespaces are one clone, but for the cgroup one, which waits for its group") {
  const NamespacePlan plan = plan_namespaces(config_with({{"mount", ""}, {"pid", ""}, {"cgroup", ""}}), {0, 0});
  CHECK(plan.clone_flags == (CLONE_NEWNS | CLONE_NEWPID));
  CHECK(plan.new_cgroup_ns);
  CHECK(!plan.staged);
  CHECK(!plan.new_user);
}

TEST_CASE("a given namespace or clock offsets need a helper process") {
  const NamespacePlan joined = plan_namespaces(config_with({{"mount", ""}, {"network", "/proc/7/ns/net"}}), {0, 0});
  CHECK(joined.staged);
  REQUIRE(joined.joins.size() == 1);
  CHECK(joined.joins[0].flag == CLONE_NEWNET);
  CHECK(!joined.has_new(CLONE_NEWNET));

  spec::RuntimeConfig config = config_with({{"mount", ""}, {"time", ""}, {"user", ""}});
  config.linux_.uid_mappings = config.linux_.gid_mappings = {{0, 1000, 1}};
  CHECK(!plan_namespaces(config, {1000, 1000}).staged);
  config.linux_.time_offsets["boottime"] = {100, 0};
  const NamespacePlan offsets = plan_namespaces(config, {1000, 1000});
  CHECK(offsets.staged);
  CHECK(offsets.user_before_offsets);
}

TEST_CASE("who is born into a pid namespace of others hides from them") {
  CHECK(plan_namespaces(config_with({{"mount", ""}, {"pid", "/proc/7/ns/pid"}}), {0, 0}).hidden);
  CHECK(!plan_namespaces(config_with({{"mount", ""}, {"pid", ""}}), {0, 0}).hidden);
  spec::RuntimeConfig config = config_with({{"mount", ""}, {"pid", "/proc/7/ns/pid"}, {"user", ""}});
  config.linux_.uid_mappings = config.linux_.gid_mappings = {{0, 1000, 1}};
  CHECK(!plan_namespaces(config, {1000, 1000}).hidden);
}

TEST_CASE("who writes the id maps") {
  spec::RuntimeConfig config = config_with({{"mount", ""}, {"user", ""}});
  CHECK_THROWS_WITH_AS(plan_namespaces(config, {0, 0}),
                       "linux.uidMappings, linux.gidMappings: a new user namespace needs both", Error);
  config.linux_.uid_mappings = config.linux_.gid_mappings = {{0, 1000, 1}, {1, 100000, 65536}};
  CHECK(plan_namespaces(config, {1000, 1000}).maps.helpers);
  CHECK(!plan_namespaces(config, {0, 0}).maps.helpers);
  config.linux_.uid_mappings = config.linux_.gid_mappings = {{0, 1000, 1}};
  CHECK(!plan_namespaces(config, {1000, 1000}).maps.helpers);
  CHECK(plan_namespaces(config, {1001, 1001}).maps.helpers);
}

TEST_CASE("without a mount namespace of its own, unknown types") {
  CHECK(!plan_namespaces(config_with({{"pid", ""}}), {0, 0}).own_mounts);
  CHECK(plan_namespaces(config_with({{"mount", "/proc/7/ns/mnt"}}), {0, 0}).own_mounts);
  CHECK(plan_namespaces(config_with({{"mount", ""}}), {0, 0}).own_mounts);
  CHECK_THROWS_WITH_AS(plan_namespaces(config_with({{"mnt0", ""}}), {0, 0}),
                       "linux.namespaces[0].type: \"mnt0\" is no namespace", Error);
}
