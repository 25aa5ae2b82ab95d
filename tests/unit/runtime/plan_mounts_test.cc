#include "runtime/plan_mounts.h"

#include <doctest/doctest.h>
#include <sys/mount.h>

#include "base/error.h"

using namespace kelp;
using namespace kelp::runtime;

namespace {

MountOp plan_one(spec::Mount mount) {
  spec::RuntimeConfig config;
  config.mounts = {std::move(mount)};
  return plan_mounts(config, "/bundle").ops.at(0);
}

}  // namespace

TEST_CASE("options are sorted into attributes, propagation and file system data") {
  const MountOp op = plan_one({"/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "mode=1777", "size=64k", "rprivate"}});
  CHECK(op.kind == MountKind::fresh);
  CHECK(op.set == (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  CHECK(op.data == sys::FsOptions{{"mode", "1777"}, {"size", "64k"}});
  REQUIRE(op.propagation.size() == 1);
  CHECK(op.propagation[0].mode == MS_PRIVATE);
  CHECK(op.propagation[0].recursive);
}

TEST_CASE("of two words that contradict the later wins") {
  const MountOp op = plan_one({"/x", "bind", "/y", {"rbind", "ro", "rw", "nosuid"}});
  CHECK(op.set == MOUNT_ATTR_NOSUID);
  CHECK(op.clear == MOUNT_ATTR_RDONLY);
  const MountOp other = plan_one({"/x", "bind", "/y", {"rbind", "rw", "ro"}});
  CHECK(other.set == MOUNT_ATTR_RDONLY);
  CHECK(other.clear == 0);
}

TEST_CASE("an access time mode replaces all of its field") {
  const MountOp op = plan_one({"/x", "bind", "/y", {"bind", "noatime"}});
  CHECK(op.set == MOUNT_ATTR_NOATIME);
  CHECK(op.clear == MOUNT_ATTR__ATIME);
}

TEST_CASE("recursive attributes stand apart from those of the mount itself") {
  const MountOp op = plan_one({"/x", "none", "/y", {"rbind", "rro", "nodev"}});
  CHECK(op.kind == MountKind::bind);
  CHECK(op.recursive);
  CHECK(op.set == MOUNT_ATTR_NODEV);
  CHECK(op.set_recursive == MOUNT_ATTR_RDONLY);
}

TEST_CASE("relative sources lie in the bundle, destinations are cleaned") {
  const MountOp op = plan_one({"data/../x/", "bind", "files", {"bind"}});
  CHECK(op.source == "/bundle/files");
  CHECK(op.destination == "/x");
}

TEST_CASE("cgroup and cgroup2 mean the same; remount changes what is there") {
  CHECK(plan_one({"/sys/fs/cgroup", "cgroup", "cgroup", {"ro"}}).kind == MountKind::cgroup);
  CHECK(plan_one({"/sys/fs/cgroup", "cgroup2", "cgroup", {"ro"}}).kind == MountKind::cgroup);
  CHECK(plan_one({"/proc", "", "", {"remount", "ro"}}).kind == MountKind::remount);
}

TEST_CASE("what cannot be meant is refused with its place") {
  CHECK_THROWS_WITH_AS(plan_one({"/x", "", "", {}}), "mounts[0].type: needed for \"/x\" without bind among its options",
                       Error);
  CHECK_THROWS_WITH_AS(plan_one({"/x", "proc", "", {"tmpcopyup"}}), "mounts[0].options: tmpcopyup is for tmpfs only",
                       Error);
  CHECK_THROWS_WITH_AS(plan_one({"/x", "bind", "", {}}), "mounts[0].source: a bind mount needs one", Error);
}

TEST_CASE("/dev from the host gets no default devices; propagation of the tree follows rootfsPropagation") {
  spec::RuntimeConfig config;
  CHECK(plan_mounts(config, "/b").own_dev);
  CHECK(plan_mounts(config, "/b").initial_propagation == MS_SLAVE);
  config.mounts = {{"/dev/", "bind", "/dev", {"rbind"}}};
  CHECK(!plan_mounts(config, "/b").own_dev);
  config.linux_.rootfs_propagation = "rshared";
  CHECK(plan_mounts(config, "/b").initial_propagation == 0);
  config.linux_.rootfs_propagation = "private";
  CHECK(plan_mounts(config, "/b").initial_propagation == MS_PRIVATE);
  config.linux_.rootfs_propagation = "sideways";
  CHECK_THROWS_AS(plan_mounts(config, "/b"), Error);
}

TEST_CASE("a mount label is for new file systems without labels of their own") {
  for (const char* type : {"tmpfs", "mqueue", "devpts", "ramfs"}) CHECK(takes_label(plan_one({"/x", type, type, {}})));
  for (const char* type : {"proc", "sysfs", "cgroup", "cgroup2"})
    CHECK_FALSE(takes_label(plan_one({"/x", type, type, {}})));
  CHECK_FALSE(takes_label(plan_one({"/x", "bind", "/y", {"rbind"}})));
}
