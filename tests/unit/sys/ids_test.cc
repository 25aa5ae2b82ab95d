#include <doctest/doctest.h>
#include <unistd.h>

#include "base/error.h"
#include "sys/capability.h"
#include "sys/idmap.h"
#include "sys/procfs.h"
#include "sys/subid.h"

using namespace kelp;
using namespace kelp::sys;

TEST_CASE("subordinate ids are found by name and by number, in file order") {
  const char* text =
      "root:1:2\n"
      "alice:100000:65536\n"
      "# comment:1:1\n"
      "\n"
      "1000:300000:10\n"
      "alice:bad:65536\n"
      "alice:5:0\n"
      "alice:4294967290:100\n"
      "alice:7:7:7\n"
      "alicex:8:8\n";
  const IdRanges ranges = parse_subids(text, "alice", 1000);
  REQUIRE(ranges.size() == 3);
  CHECK(ranges[0] == IdRange{0, 100000, 65536});
  CHECK(ranges[1] == IdRange{0, 300000, 10});
  CHECK(ranges[2] == IdRange{0, 4294967290, 5});  // cut at the last id
  CHECK(parse_subids(text, "bob", 7).empty());
  CHECK(parse_subids("", "alice", 1000).empty());
  CHECK(parse_subids(":1:1\n", "", 7).empty());
}

TEST_CASE("a missing file gives a single id with the reason and the mend") {
  SingleIdReason reason;
  const IdMaps maps = default_maps(&reason, {"/nonexistent/subuid", "/nonexistent/subgid"});
  CHECK(!maps.helpers);
  CHECK(maps.uids == IdRanges{{0, ::geteuid(), 1}});
  CHECK(maps.gids == IdRanges{{0, ::getegid(), 1}});
  CHECK(reason.text.find("/nonexistent/subuid") != std::string::npos);
  CHECK(reason.hint.find("usermod") != std::string::npos);
}

TEST_CASE("canonical form joins touching ranges and sorts") {
  CHECK(canonical({{1, 100000, 10}, {0, 1000, 1}, {11, 100010, 5}}) == "0:1000:1,1:100000:15");
  CHECK(canonical({{1, 100000, 10}, {11, 200000, 5}}) == "1:100000:10,11:200000:5");
  CHECK(canonical({}).empty());
  CHECK(parse_id_ranges("0:1000:1,1:100000:15", "--uidmap") == IdRanges{{0, 1000, 1}, {1, 100000, 15}});
  CHECK_THROWS_AS(parse_id_ranges("0:1000", "--uidmap"), UsageError);
  CHECK_THROWS_AS(parse_id_ranges("0:1000:0", "--uidmap"), UsageError);
  CHECK_THROWS_AS(parse_id_ranges("4294967295:1000:2", "--uidmap"), UsageError);
}

TEST_CASE("ids go through a map in both directions") {
  const IdRanges map = {{0, 1000, 1}, {1, 100000, 10}};
  std::uint32_t id = 0;
  CHECK(map_out(map, 0, id));
  CHECK(id == 1000);
  CHECK(map_out(map, 10, id));
  CHECK(id == 100009);
  CHECK(!map_out(map, 11, id));
  CHECK(map_in(map, 100000, id));
  CHECK(id == 1);
  CHECK(!map_in(map, 1001, id));
  CHECK(id_count(map) == 11);
}

TEST_CASE("an empty map is refused before anything is written") {
  CHECK_THROWS_WITH_AS(write_id_maps(1, {{}, {{0, 0, 1}}, false}), "map ids: the uid map is empty", Error);
}

TEST_CASE("capability names") {
  CHECK(capability_from_name("CAP_CHOWN") == 0);
  CHECK(capability_from_name("net_admin") == 12);
  CHECK(capability_from_name("Cap_Checkpoint_Restore") == 40);
  CHECK(!capability_from_name("CAP_"));
  CHECK(!capability_from_name("ALL"));
  CHECK(capability_name(12) == "CAP_NET_ADMIN");
  CHECK(capability_name(63) == "CAP_63");
  CHECK((known_caps() & 1) == 1);
  const CapSets sets = all_current_caps();
  CHECK((sets.effective & ~sets.permitted) == 0);
}

TEST_CASE("stat of processes") {
  const auto self = read_stat(::getpid());
  REQUIRE(self);
  CHECK(self->ppid == ::getppid());
  CHECK(self->start_time > 0);
  CHECK(start_time(::getpid()) == self->start_time);
  CHECK(start_time(0x3fffffff) == 0);
  CHECK(!read_stat(0x3fffffff));
}

TEST_CASE("mountinfo") {
  const auto mounts = parse_mountinfo(
      "36 35 98:0 /mnt1 /a\\040b\\134c rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n"
      "37 35 0:5 / /x rw - tmpfs none rw\n"
      "broken line\n");
  REQUIRE(mounts.size() == 2);
  CHECK(mounts[0].mount_point == "/a b\\c");
  CHECK(mounts[0].root == "/mnt1");
  CHECK(mounts[0].major == 98);
  CHECK(mounts[0].propagation == std::vector<std::string>{"master:1", "shared:7"});
  CHECK(mounts[0].fs_type == "ext3");
  CHECK(mounts[0].super_options == "rw,errors=continue");
  CHECK(mounts[1].propagation.empty());
  CHECK(!read_mountinfo().empty());
}

TEST_CASE("files of /proc") {
  CHECK(!try_read_file("/proc/1073741823/stat"));
  CHECK_THROWS_AS(read_file("/nonexistent"), SysError);
  CHECK_THROWS_AS(read_file("/proc/self/status", 10), Error);
  CHECK(boot_id().size() == 36);
}
