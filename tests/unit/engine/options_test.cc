#include <cstdio>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include "base/error.h"
#include "engine/make_spec.h"
#include "engine/mounts.h"
#include "engine/network.h"
#include "engine/user_namespace.h"
#include "engine/users.h"

using namespace kelp;
using namespace kelp::engine;
using store::Strings;

TEST_CASE("ports") {
  const auto one = parse_publish("8080:80");
  REQUIRE(one.size() == 1);
  CHECK(one[0].host_port == 8080);
  CHECK(one[0].container_port == 80);
  CHECK(one[0].protocol == "tcp");
  const auto range = parse_publish("127.0.0.1:5000-5002:6000-6002/udp");
  REQUIRE(range.size() == 3);
  CHECK(range[2].host_ip == "127.0.0.1");
  CHECK(range[2].host_port == 5002);
  CHECK(range[2].container_port == 6002);
  CHECK(range[2].protocol == "udp");
  CHECK(parse_publish("80")[0].host_port == 0);
  CHECK(parse_publish("127.0.0.1::80")[0].host_port == 0);
  CHECK(parse_publish("[::1]:80:80")[0].host_ip == "::1");
  for (const char* bad : {"", "a", "0:80", "80:0", "65536:80", "1-2:3", "1.2.3:80:80", "80:80/sctp", "80:80/x",
                          "1:2:3:4", "[::1]:80", "-5", "80-70", "127.0.0.1:80:"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parse_publish(bad), UsageError);
  }
}

TEST_CASE("network modes") {
  CHECK(parse_network_mode({}).kind == NetworkMode::Kind::slirp4netns);
  CHECK(parse_network_mode({"none"}).kind == NetworkMode::Kind::none);
  CHECK(parse_network_mode({"host"}).kind == NetworkMode::Kind::host);
  CHECK(parse_network_mode({"container:web"}).argument == "web");
  CHECK(parse_network_mode({"ns:/proc/1/ns/net"}).argument == "/proc/1/ns/net");
  const NetworkMode slirp = parse_network_mode({"slirp4netns:allow_host_loopback=true,mtu=1500,cidr=10.5.0.0/24"});
  CHECK(slirp.allow_host_loopback);
  CHECK(slirp.mtu == 1500);
  CHECK(slirp.cidr == "10.5.0.0/24");
  for (const char* bad : {"bridge", "container:", "slirp4netns:x=1", "slirp4netns:mtu=1",
                          "slirp4netns:port_handler=rootlesskit", "slirp4netns:cidr=10.0.0.0/30"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parse_network_mode({bad}), UsageError);
  }
  CHECK_THROWS_AS(parse_network_mode({"none", "host"}), UsageError);
}

TEST_CASE("hosts and resolv.conf") {
  store::ContainerConfig config;
  config.add_host = {"db;cache:10.0.0.9", "me:host-gateway"};
  NetworkPlan plan;
  const std::string hosts =
      make_hosts(config, "0123456789ab", "web", plan, "127.0.0.1 localhost\n127.0.1.1 laptop\n10.1.1.1\tnas db # x\n");
  CHECK(hosts ==
        "10.0.0.9\tdb\n10.0.0.9\tcache\n10.0.2.2\tme\n10.1.1.1\tnas\n127.0.0.1\tlocalhost\n"
        "::1\tlocalhost\n10.0.2.2\thost.containers.internal host.docker.internal\n"
        "10.0.2.100\t0123456789ab web\n");
  const std::string host_file = "# x\nnameserver 127.0.0.53\nnameserver 192.168.1.1\nsearch lan\noptions edns0\n";
  CHECK(make_resolv_conf({}, plan, host_file) ==
        "search lan\nnameserver 10.0.2.3\nnameserver 192.168.1.1\noptions edns0\n");
  config.dns = {"1.1.1.1"};
  config.dns_search = {"."};
  config.dns_option = {"ndots:2"};
  CHECK(make_resolv_conf(config, plan, host_file) == "nameserver 1.1.1.1\noptions ndots:2\n");
  config.add_host.clear();
  CHECK_NOTHROW(check_network(config, parse_network_mode({"host"})));
  CHECK_THROWS_AS(check_network(config, parse_network_mode({"none"})), UsageError);
  CHECK_THROWS_AS(check_network(config, parse_network_mode({"container:x"})), UsageError);
  const auto refused = [](const store::ContainerConfig& bad, const char* mode = "host") {
    CHECK_THROWS_AS(check_network(bad, parse_network_mode({mode})), UsageError);
  };
  store::ContainerConfig bad;
  bad.add_host = {"a:1.2.3.4"};
  CHECK_NOTHROW(check_network(bad, parse_network_mode({"none"})));
  refused(bad, "container:x");
  bad.no_hosts = true;
  refused(bad);
  bad = {};
  bad.dns_search = {"x"};
  refused(bad, "none");
  bad.dns_search = {".", "x"};
  refused(bad);
  bad.dns_search = {"not a domain"};
  refused(bad);
  bad = {};
  bad.dns = {"none", "1.1.1.1"};
  refused(bad);
}

TEST_CASE("-v, --mount and --tmpfs") {
  const auto bind = parse_volume_option("./src:/src:ro,z");
  CHECK(bind.type == "bind");
  CHECK(bind.options == Strings{"ro", "z"});
  CHECK(to_spec_mount({"bind", "/host", "/src/", {"ro", "z"}}, "").options == Strings{"ro", "rbind", "rprivate"});
  CHECK(parse_volume_option("data:/data").type == "volume");
  CHECK(parse_volume_option("/data").source.empty());
  const auto typed = parse_mount_option("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave");
  CHECK(typed.source == "/a");
  CHECK(typed.options == Strings{"ro", "rslave"});
  CHECK(parse_mount_option("source=data,target=/d").type == "volume");
  CHECK(parse_mount_option("type=bind,\"src=/a,b\",dst=/d").source == "/a,b");
  CHECK(parse_volume_option("/a:/b:cached,ro").options == Strings{"ro"});
  const auto kept = parse_volume_option("/a:/b:O,upperdir=/u,workdir=/w");
  CHECK(to_spec_mount(kept, "").options == Strings{"rbind", "rprivate"});
  CHECK(has_option(parse_mount_option("type=image,src=i,dst=/i,rw=true"), "rw"));
  const auto memory = parse_tmpfs_option("/t:size=10m,mode=1777,ro");
  CHECK(to_spec_mount(memory, "").options ==
        Strings{"size=10m", "mode=1777", "ro", "nosuid", "nodev", "rprivate", "tmpcopyup"});
  CHECK(to_spec_mount({"volume", "data", "/d", {}}, "/vol/_data").source == "/vol/_data");
  for (const char* bad : {"", ":/a", "/a:b", "a:/", "/a:/b:x", "/a:/b:ro,rw", "/a:/b:ro:z", "/a:/b:shared,slave",
                          "/a:/b:O,upperdir=/u", "/a:/b:O,upperdir=u,workdir=/w", "/a:/b:upperdir=/u,workdir=/w"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parse_volume_option(bad), UsageError);
  }
  for (const char* bad : {"type=x,dst=/a", "type=bind,dst=/a", "type=bind,src=/a", "type=tmpfs,dst=a",
                          "type=tmpfs,src=/x,dst=/a", "type=tmpfs,dst=/a,ro=maybe"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parse_mount_option(bad), UsageError);
  }
  CHECK_THROWS_AS(parse_tmpfs_option("/t:huge"), UsageError);
}

TEST_CASE("users and groups") {
  const char* passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/false\n";
  const char* group = "root:x:0:\nweb:x:33:\naudio:x:29:web,other\n";
  const ResolvedUser web = resolve_user("web", {}, passwd, group);
  CHECK(web.uid == 33);
  CHECK(web.home == "/var/www");
  CHECK(web.groups == std::vector<std::uint32_t>{29, 33});
  CHECK(resolve_user("33", {"audio", "7"}, passwd, group).groups == std::vector<std::uint32_t>{7, 29, 33});
  const ResolvedUser other = resolve_user("1000:audio", {}, passwd, group);
  CHECK(other.uid == 1000);
  CHECK(other.gid == 29);
  CHECK(other.home == "/");
  CHECK_FALSE(other.in_passwd);
  CHECK(resolve_user("", {}, "", "").home == "/root");
  for (const char* unknown : {"nobody-here", "0:nope"}) {
    try {
      resolve_user(unknown, {}, passwd, group);
      FAIL("found ", unknown);
    } catch (const Error& error) {
      CHECK(error.exit_code() == kExitCannotInvoke);  // as podman's `run -u` and `exec -u` end
    }
  }
}

TEST_CASE("user namespaces in ids of S") {
  const sys::IdMaps outer{{{0, 1000, 1}, {1, 100000, 65536}}, {{0, 1000, 1}, {1, 100000, 65536}}, true};
  store::ContainerConfig config;
  CHECK(plan_ids(config, outer, 1000, 1000, {}).uids.empty());
  CHECK(plan_ids(config, outer, 1000, 1000, {}).layers.key == "full");
  config.userns = "keep-id";
  const ContainerIds keep = plan_ids(config, outer, 1000, 1000, {});
  CHECK(keep.uids == sys::IdRanges{{0, 1, 1000}, {1000, 0, 1}, {1001, 1001, 64536}});
  CHECK(keep.user == "1000:1000");
  config.userns = "keep-id:uid=0,gid=5";
  CHECK(plan_ids(config, outer, 1000, 1000, {}).uids == sys::IdRanges{{0, 0, 1}, {1, 1, 65536}});
  config.userns = "nomap";
  CHECK(plan_ids(config, outer, 1000, 1000, {}).uids == sys::IdRanges{{0, 1, 65536}});
  config.userns = "auto:size=100";
  CHECK(plan_ids(config, outer, 1000, 1000, {{{0, 1, 100}}, {{0, 150, 100}}}).uids == sys::IdRanges{{0, 250, 100}});
  config.userns = "";
  config.uidmap = {"0:0:1", "1:@100009:2"};
  CHECK(plan_ids(config, outer, 1000, 1000, {}).uids == sys::IdRanges{{0, 0, 1}, {1, 10, 2}});
  config.uidmap = {"0:0:70000"};
  CHECK_THROWS_AS(plan_ids(config, outer, 1000, 1000, {}), UsageError);
  config.uidmap = {"0:0:5", "3:10:5"};
  CHECK_THROWS_AS(plan_ids(config, outer, 1000, 1000, {}), UsageError);
  config.uidmap = {};
  config.userns = "keep-id";
  const sys::IdMaps lone{{{0, 1000, 1}}, {{0, 1000, 1}}, false};
  CHECK(plan_ids(config, lone, 1000, 1000, {}).uids == sys::IdRanges{{1000, 0, 1}});
  CHECK(plan_ids(config, lone, 1000, 1000, {}).layers.key == "single");
}

TEST_CASE("labels for SELinux") {
  const SelinuxLabels usual = selinux_labels({}, "s0:c3,c4");
  CHECK(usual.process == "system_u:system_r:container_t:s0:c3,c4");
  CHECK(usual.file == "system_u:object_r:container_file_t:s0:c3,c4");
  CHECK(usual.shared_file == "system_u:object_r:container_file_t:s0");
  const SelinuxLabels own =
      selinux_labels({"type:spc_t", "level:s0:c1,c2", "filetype:other_t", "user:me_u", "role:r_r"}, "s0:c3,c4");
  CHECK(own.process == "me_u:r_r:spc_t:s0:c1,c2");
  CHECK(own.file == "me_u:object_r:other_t:s0:c1,c2");
  CHECK(own.shared_file == "me_u:object_r:other_t:s0");
  CHECK_THROWS_AS(selinux_labels({"nested"}, "s0"), kelp::Error);
  CHECK_THROWS_AS(parse_security_options({"label=colour:red"}), kelp::Error);
  CHECK(parse_security_options({"label=disable"}).label_disable);
}

TEST_CASE("each container has its two categories") {
  std::set<std::string> levels;
  for (unsigned i = 0; i < 500; ++i) {
    const std::string id = fmt::format("{:064x}", i);
    const std::string level = selinux_level(id);
    unsigned low = 0, high = 0;
    REQUIRE(std::sscanf(level.c_str(), "s0:c%u,c%u", &low, &high) == 2);
    CHECK(low < high);
    CHECK(high < 1024);
    CHECK(level == fmt::format("s0:c{},c{}", low, high));
    CHECK(selinux_level(id) == level);  // at each start
    levels.insert(level);
  }
  CHECK(levels.size() >= 498);
}
